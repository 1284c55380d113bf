//! Jobs: what became of a send.

use crate::auth::Caller;
use crate::body::JsonBody;
use crate::handle::Handle;
use crate::page;
use crate::problem::{Failure, codes};
use crate::tags::Tag;
use crate::wire::job::{Job, MoveJob};
use crate::wire::words::JobState;
use crate::wire::{Data, Page};
use kero_domain::{CorrelationId, Fault, FaultCode};
use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;

pub(crate) struct JobsApi {
    pub handle: Handle,
}

codes! {
    JobCodes = [JobNotFound];
    CancelCodes = [JobNotFound, JobNotCancellable];
    MoveCodes = [JobNotFound, JobNotMovable];
}

#[OpenApi(tag = "Tag::Jobs")]
impl JobsApi {
    /// List jobs
    ///
    /// Newest first.
    #[oai(path = "/instances/:instance_id/jobs", method = "get", operation_id = "job_list")]
    async fn list(
        &self,
        caller: Caller,
        instance_id: Path<String>,
        /// Only jobs in this state; give it several times for several states.
        state: Query<Vec<JobState>>,
        /// Rows in the answer.
        #[oai(default = "default_limit", validator(minimum(value = "1"), maximum(value = "1000")))]
        limit: Query<u64>,
        /// `next_cursor` of the part before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<Job>>, Failure> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        let before = page::decode(cursor.0.as_deref())?;
        let states: Vec<_> = state.0.into_iter().map(kero_domain::JobState::from).collect();
        let jobs = gateway.jobs(&id, &states, before, limit.0).await?;
        let next = page::next(&jobs, limit.0, |job| job.id);
        Ok(Json(Page::new(jobs.into_iter().map(Job::from).collect(), None, next)))
    }

    /// Get a job
    ///
    /// By its correlation id: the caller's own, or the one that the gateway gave. It never shows what was said.
    #[oai(path = "/instances/:instance_id/jobs/:correlation_id", method = "get", operation_id = "job_get")]
    async fn get(
        &self,
        caller: Caller,
        instance_id: Path<String>,
        /// The job's correlation id.
        correlation_id: Path<String>,
    ) -> Result<Json<Data<Job>>, Failure<JobCodes>> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        let job = gateway.job(&id, &correlation(&correlation_id)?).await?;
        Ok(Json(Data::new(job)))
    }

    /// Move a job to another time
    ///
    /// Only an asynchronous job that waits and was never tried: `queued`, or `held` because it is scheduled, its
    /// instance is offline, or a rate is used up. A time that is past means now. It keeps its message id, and takes the
    /// place in its chat that the new time gives it.
    #[oai(path = "/instances/:instance_id/jobs/:correlation_id", method = "patch", operation_id = "job_update")]
    async fn update(
        &self,
        caller: Caller,
        instance_id: Path<String>,
        /// The job's correlation id.
        correlation_id: Path<String>,
        body: JsonBody<MoveJob>,
    ) -> Result<Json<Data<Job>>, Failure<MoveCodes>> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        let job = gateway.move_job(&id, &correlation(&correlation_id)?, body.value.send_at.0).await?;
        Ok(Json(Data::new(job)))
    }

    /// Cancel a job
    ///
    /// Only a job that waits (`queued` or `held`) can be cancelled. Nothing is sent, and its `message_ack` says
    /// `cancelled`.
    #[oai(path = "/instances/:instance_id/jobs/:correlation_id/cancel", method = "post", operation_id = "job_cancel")]
    async fn cancel(
        &self,
        caller: Caller,
        instance_id: Path<String>,
        /// The job's correlation id.
        correlation_id: Path<String>,
    ) -> Result<Json<Data<Job>>, Failure<CancelCodes>> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        let job = gateway.cancel_job(&id, &correlation(&correlation_id)?).await?;
        Ok(Json(Data::new(job)))
    }
}

/// A text that cannot be a correlation id names no job.
pub(crate) fn correlation(text: &str) -> Result<CorrelationId, Fault> {
    text.parse().map_err(|_| FaultCode::JobNotFound.into())
}

fn default_limit() -> u64 {
    page::DEFAULT_LIMIT
}

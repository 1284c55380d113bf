//! Accept a send: check it, mint its ids, store the job. No WhatsApp I/O happens here.
//!
//! A synchronous send is the same job with the request waiting for its end.

mod wait;

pub(crate) use wait::{JobEnd, Waiters};

use crate::instances::Handle;
use crate::worker::LaneKey;
use crate::{Gateway, crash, errors::fault};
use kero_domain::{
    Address, ApiKeyId, Cause, Content, CorrelationId, Fault, FaultCode, HeldReason, InstanceId, InstanceStatus, JobId,
    JobState, MessageId, Priority, Timestamp,
};
use kero_store::{Accepted, Idempotency, Job, NewJob};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long an idempotency key is remembered.
const IDEMPOTENCY_TTL: Duration = Duration::from_secs(24 * 3600);
/// The furthest `send_at`.
const SEND_AT_HORIZON: Duration = Duration::from_secs(90 * 24 * 3600);

#[derive(Debug, Clone)]
pub struct SendRequest {
    pub recipient: Address,
    pub content: Content,
    pub asynchronous: bool,
    pub correlation_id: Option<CorrelationId>,
    /// API key, the caller's value, and a hash of the parsed body.
    pub idempotency: Option<(ApiKeyId, String, [u8; 32])>,
    pub priority: Priority,
    pub send_at: Option<Timestamp>,
    pub request_id: Option<String>,
    /// Cancelled when whoever asked may not hear the answer: the end of a synchronous send is told by an event then.
    pub hung_up: CancellationToken,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendReply {
    pub message_id: MessageId,
    pub correlation_id: CorrelationId,
    /// 202: accepted and not yet sent.
    pub queued: bool,
}

impl Gateway {
    /// Accepts a send and, unless it is asynchronous, waits for its end.
    pub async fn send(&self, id: &InstanceId, request: SendRequest) -> Result<SendReply, Fault> {
        if self.inner.stopping.is_cancelled() {
            return Err(FaultCode::ShuttingDown.into());
        }
        let handle = self.handle(id)?;
        let now = Timestamp::now();
        check(&request, now)?;
        let asynchronous = request.asynchronous || request.send_at.is_some_and(|at| at > now);
        let view = handle.view();
        if !view.paired {
            return Err(not_connected(view.cause.or(Some(Cause::NotPaired))));
        }
        let online = view.status == InstanceStatus::Connected;
        if !asynchronous && !online && view.status != InstanceStatus::Connecting {
            return Err(not_connected(view.cause));
        }
        self.check_room(handle.pk, &request, now).await?;
        let hung_up = request.hung_up;
        let (state, held) = match request.send_at {
            Some(at) if at > now => (JobState::Held, Some(HeldReason::Scheduled)),
            _ if asynchronous && !online => (JobState::Held, Some(HeldReason::Offline)),
            _ => (JobState::Queued, None),
        };
        let job = NewJob {
            id: JobId::new(),
            instance_pk: handle.pk,
            correlation_id: request.correlation_id.unwrap_or_else(CorrelationId::mint),
            message_id: MessageId::mint(),
            chat: request.recipient.jid(),
            priority: request.priority,
            content: request.content,
            asynchronous,
            send_at: request.send_at,
            state,
            held,
            request_id: request.request_id,
            created_at: now,
            idempotency: request.idempotency.map(|(api_key, key, body_hash)| Idempotency {
                api_key,
                key,
                body_hash,
                expires_at: now.after(IDEMPOTENCY_TTL),
            }),
        };
        let mut waiting = (!asynchronous).then(|| self.inner.waiters.register(job.id));
        crash::point("before_accept");
        let accepted = self.store().accept_job(job).await.map_err(fault)?;
        crash::point("after_accept");
        match accepted {
            Accepted::New(job) => {
                self.inner.load.accepted(handle.pk);
                handle.lane.accepted(&job);
                let Some(waiting) = waiting.as_mut() else {
                    self.place(&handle, &job);
                    crash::point("after_push");
                    return Ok(reply(&job, true));
                };
                // straight to its lane, never through Redis
                handle.lane.wake(LaneKey::of(&job));
                self.await_end(&handle, job, waiting, &hung_up).await
            }
            Accepted::Duplicate(job) => self.repeat(&handle, job).await,
            Accepted::IdempotencyMismatch => Err(FaultCode::IdempotencyMismatch.into()),
            Accepted::CorrelationTaken => Err(FaultCode::CorrelationIdTaken.into()),
            Accepted::InstanceGone => Err(FaultCode::InstanceNotFound.into()),
        }
    }

    /// Refuses a send when too many wait, unless it repeats one that was accepted.
    async fn check_room(&self, pk: i64, request: &SendRequest, now: Timestamp) -> Result<(), Fault> {
        if self.has_room(pk) {
            return Ok(());
        }
        if let Some((api_key, key, _)) = &request.idempotency
            && self.store().knows_key(*api_key, key, now).await.map_err(fault)?
        {
            return Ok(());
        }
        Err(Fault::new(FaultCode::QueueFull).retry_after(30))
    }

    /// Puts a job before a worker whose row changed in another way than by being accepted.
    pub(crate) fn enqueue(&self, handle: &Handle, job: &Job) {
        handle.lane.forget(&LaneKey::of(job));
        self.place(handle, job);
    }

    /// Whether an instance may have another job.
    pub(crate) fn has_room(&self, pk: i64) -> bool {
        let (own, all) = self.inner.load.open(pk);
        own < self.config().max_jobs && all < self.config().max_jobs_total
    }

    /// Takes up what was accepted in another commit: a hook's send.
    pub(crate) fn took(&self, handle: &Handle, job: &Job) {
        self.inner.load.accepted(handle.pk);
        self.enqueue(handle, job);
    }

    /// Puts an accepted asynchronous job before a worker. A failure is repaired from the rows.
    fn place(&self, handle: &Handle, job: &Job) {
        match (job.state, job.held) {
            (JobState::Queued, _) => self.inner.queue.push(job),
            (JobState::Held, Some(HeldReason::Scheduled)) => handle.lane.wake_at(LaneKey::of(job), job.due_at),
            // connected since the job was looked at: nobody else would wake it
            _ if handle.view().link.is_some() => handle.lane.wake(LaneKey::of(job)),
            _ => {}
        }
    }

    /// Gives a job that has not begun another time; one that is past means now.
    pub async fn move_job(
        &self,
        id: &InstanceId,
        correlation: &CorrelationId,
        send_at: Timestamp,
    ) -> Result<Job, Fault> {
        let now = Timestamp::now();
        check_time(send_at, now)?;
        let job = self.job(id, correlation).await?;
        let handle = self.handle(id)?;
        let held = (handle.view().status != InstanceStatus::Connected).then_some(HeldReason::Offline);
        if !self.store().move_job(job.instance_pk, job.id, send_at, held, now).await.map_err(fault)? {
            return Err(FaultCode::JobNotMovable.into());
        }
        let job = self.job(id, correlation).await?;
        self.enqueue(&handle, &job);
        Ok(job)
    }

    /// The answer to a repeated idempotency key.
    async fn repeat(&self, handle: &Handle, job: Job) -> Result<SendReply, Fault> {
        if job.asynchronous {
            return Ok(reply(&job, true));
        }
        if let Some(end) = JobEnd::of(&job) {
            return end.answer(&job);
        }
        let mut waiting = self.inner.waiters.register(job.id);
        let wait = self.config().sync_timeout;
        // it may have ended between the look-up and the registration
        if let Some(job) = self.store().job_by_id(job.id).await.map_err(fault)?
            && let Some(end) = JobEnd::of(&job)
        {
            return end.answer(&job);
        }
        handle.lane.wake(LaneKey::of(&job));
        match tokio::time::timeout(wait, waiting.end()).await {
            Ok(end) => end.answer(&job),
            Err(_) => Err(Fault::new(FaultCode::SendInProgress).retry_after(5)),
        }
    }

    async fn await_end(
        &self,
        handle: &Handle,
        job: Job,
        waiting: &mut wait::Waiting,
        hung_up: &CancellationToken,
    ) -> Result<SendReply, Fault> {
        let mut orphan = wait::Orphan::new(self, &job);
        let ended = tokio::time::timeout(self.config().sync_timeout, waiting.end());
        tokio::pin!(ended);
        let outcome = tokio::select! {
            ended = &mut ended => match ended {
                Ok(end) => end.answer(&job),
                Err(_) => self.give_up(handle, &job).await,
            },
            () = hung_up.cancelled() => {
                // a client that only closed its sending side still reads the answer
                self.store().mark_asynchronous(job.id).await.map_err(fault)?;
                match ended.await {
                    Ok(end) => end.answer(&job),
                    Err(_) => Err(Fault::new(FaultCode::SendInProgress).retry_after(5)),
                }
            }
        };
        orphan.settled();
        outcome
    }

    /// The time of a synchronous send is over: one conditional update decides.
    async fn give_up(&self, handle: &Handle, job: &Job) -> Result<SendReply, Fault> {
        let now = Timestamp::now();
        let (code, error) = ("send-not-started", "The request's time ended before the message was sent.");
        let current = self.store().job_by_id(job.id).await.map_err(fault)?;
        if self.store().cancel_job(job.id, code, error, None, now).await.map_err(fault)? {
            self.inner.load.cancelled(handle.pk);
            // it may have been what the chat's next one waited for
            handle.lane.forget(&LaneKey::of(job));
            handle.lane.wake(LaneKey::of(job));
            let held = current.and_then(|job| job.held).map(HeldReason::as_str);
            if handle.view().status != InstanceStatus::Connected {
                return Err(not_connected(handle.view().cause));
            }
            let mut fault = Fault::new(FaultCode::SendNotStarted).retry_after(5);
            if let Some(held) = held {
                fault = fault.with("held", held);
            }
            return Err(fault);
        }
        // an intent exists: the job goes on by itself and reports by message_ack
        self.store().mark_asynchronous(job.id).await.map_err(fault)?;
        let job = self.store().job_by_id(job.id).await.map_err(fault)?;
        match job.as_ref().map(|job| (JobEnd::of(job), job)) {
            Some((Some(end), job)) => end.answer(job),
            Some((None, job)) => Err(Fault::new(FaultCode::SendOutcomeUnknown)
                .with("message_id", job.message_id.as_str())
                .with("correlation_id", job.correlation_id.as_str())
                .with("job", format!("/instances/{}/jobs/{}", handle.id, job.correlation_id))),
            None => Err(FaultCode::InstanceNotFound.into()),
        }
    }
}

fn check(request: &SendRequest, now: Timestamp) -> Result<(), Fault> {
    if let Err(why) = request.content.validate() {
        return Err(Fault::new(FaultCode::ValidationFailed).at("/message", why.to_string()));
    }
    if matches!(request.recipient, Address::Broadcast(_)) {
        return Err(Fault::new(FaultCode::InvalidRecipient).at("/phone", "a broadcast list cannot be written to here"));
    }
    request.send_at.map_or(Ok(()), |at| check_time(at, now))
}

fn check_time(send_at: Timestamp, now: Timestamp) -> Result<(), Fault> {
    if send_at > now.after(SEND_AT_HORIZON) {
        return Err(Fault::new(FaultCode::ValidationFailed).at("/send_at", "must lie within the next 90 days"));
    }
    Ok(())
}

fn reply(job: &Job, queued: bool) -> SendReply {
    SendReply { message_id: job.message_id.clone(), correlation_id: job.correlation_id.clone(), queued }
}

pub(crate) fn not_connected(cause: Option<Cause>) -> Fault {
    let fault = Fault::new(FaultCode::InstanceNotConnected);
    match cause {
        Some(cause) => fault.with_detail(cause.sentence()).with("cause", cause.as_str()),
        None => fault,
    }
}

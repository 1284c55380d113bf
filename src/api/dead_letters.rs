//! Dead letters: asynchronous sends that failed.

use crate::auth::Caller;
use crate::body::JsonBody;
use crate::handle::Handle;
use crate::jobs::correlation;
use crate::page;
use crate::problem::{Failure, codes};
use crate::tags::Tag;
use crate::wire::job::{DeadLetter, Job, RetriedDeadLetters, RetryDeadLetters};
use crate::wire::time::Moment;
use crate::wire::{Data, Done, Page};
use kero_domain::{Address, Fault, FaultCode, InstanceId, Timestamp};
use kero_gateway::{Gateway, LetterFilter};
use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;

pub(crate) struct DeadLettersApi {
    pub handle: Handle,
}

codes! {
    LetterCodes = [DeadLetterNotFound];
    RetryCodes = [DeadLetterNotFound, InstanceNotConnected];
    RetryAllCodes = [InvalidRecipient, InstanceNotConnected];
}

#[OpenApi(tag = "Tag::DeadLetters")]
impl DeadLettersApi {
    /// List dead letters of every instance
    ///
    /// The last accepted first. Needs a key for the whole gateway.
    #[oai(path = "/dead-letters", method = "get", operation_id = "dead_letter_list_all")]
    #[allow(clippy::too_many_arguments, reason = "one parameter of the query each")]
    async fn list_all(
        &self,
        caller: Caller,
        /// Only those that failed with this code.
        code: Query<Option<String>>,
        /// Only those that failed at this moment (RFC 3339) or later.
        since: Query<Option<String>>,
        /// Only those that failed before this moment (RFC 3339).
        until: Query<Option<String>>,
        /// Rows in the answer.
        #[oai(default = "default_limit", validator(minimum(value = "1"), maximum(value = "1000")))]
        limit: Query<u64>,
        /// `next_cursor` of the part before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<DeadLetter>>, Failure> {
        let gateway = self.handle.admin(&caller)?;
        let filter = filter(code.0, since.0, until.0)?;
        Ok(list(gateway, None, &filter, limit.0, cursor.0.as_deref()).await?)
    }

    /// List dead letters
    ///
    /// Asynchronous sends that failed: in `kero_dead_letter_queue` too, when there is a Redis. The last accepted first.
    #[oai(path = "/instances/:instance_id/dead-letters", method = "get", operation_id = "dead_letter_list")]
    #[allow(clippy::too_many_arguments, reason = "one parameter of the query each")]
    async fn list(
        &self,
        caller: Caller,
        instance_id: Path<String>,
        /// Only those that failed with this code.
        code: Query<Option<String>>,
        /// Only those that failed at this moment (RFC 3339) or later.
        since: Query<Option<String>>,
        /// Only those that failed before this moment (RFC 3339).
        until: Query<Option<String>>,
        /// Rows in the answer.
        #[oai(default = "default_limit", validator(minimum(value = "1"), maximum(value = "1000")))]
        limit: Query<u64>,
        /// `next_cursor` of the part before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<DeadLetter>>, Failure> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        let filter = filter(code.0, since.0, until.0)?;
        Ok(list(gateway, Some(&id), &filter, limit.0, cursor.0.as_deref()).await?)
    }

    /// Retry dead letters
    ///
    /// Those that the body names; `{}` means all. Each becomes a job again, as retrying it alone does.
    #[oai(
        path = "/instances/:instance_id/dead-letters/retry",
        method = "post",
        operation_id = "dead_letter_retry_many"
    )]
    async fn retry_many(
        &self,
        caller: Caller,
        instance_id: Path<String>,
        body: JsonBody<RetryDeadLetters>,
    ) -> Result<Json<Data<RetriedDeadLetters>>, Failure<RetryAllCodes>> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        let pointer = body.pointer("phone");
        let asked = body.value;
        let chat = match &asked.phone {
            Some(phone) => Some(
                Address::parse(&phone.0)
                    .map_err(|why| Fault::new(FaultCode::InvalidRecipient).at(pointer, why.to_string()))?
                    .jid(),
            ),
            None => None,
        };
        let moment = |moment: Option<Moment>| moment.map(|moment| moment.0);
        let filter = LetterFilter { code: asked.code, chat, since: moment(asked.since), until: moment(asked.until) };
        let done = gateway.retry_dead_letters(&id, &filter, asked.limit).await?;
        Ok(Json(Data::new(done)))
    }

    /// Retry a dead letter
    ///
    /// It becomes a job again, behind the others of its chat, with the full number of attempts. It keeps its message id
    /// and its content whether or not WhatsApp may have got it (`in_doubt`), so that nobody sees it twice. The retry is
    /// a new promise: its end is told by one more `message_ack` under the same correlation id, in which `attempts`
    /// goes on counting.
    #[oai(
        path = "/instances/:instance_id/dead-letters/:correlation_id/retry",
        method = "post",
        operation_id = "dead_letter_retry"
    )]
    async fn retry(
        &self,
        caller: Caller,
        instance_id: Path<String>,
        /// The job's correlation id.
        correlation_id: Path<String>,
    ) -> Result<Json<Data<Job>>, Failure<RetryCodes>> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        let correlation = correlation(&correlation_id).map_err(|_| Fault::from(FaultCode::DeadLetterNotFound))?;
        Ok(Json(Data::new(gateway.retry_dead_letter(&id, &correlation).await?)))
    }

    /// Discard a dead letter
    ///
    /// It leaves the dead letters for good. The job stays `failed`, and nothing is sent.
    #[oai(
        path = "/instances/:instance_id/dead-letters/:correlation_id",
        method = "delete",
        operation_id = "dead_letter_discard"
    )]
    async fn discard(
        &self,
        caller: Caller,
        instance_id: Path<String>,
        /// The job's correlation id.
        correlation_id: Path<String>,
    ) -> Result<Json<Done>, Failure<LetterCodes>> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        let correlation = correlation(&correlation_id).map_err(|_| Fault::from(FaultCode::DeadLetterNotFound))?;
        gateway.discard_dead_letter(&id, &correlation).await?;
        Ok(Json(Done::saying("The dead letter was discarded.")))
    }
}

async fn list(
    gateway: &Gateway,
    id: Option<&InstanceId>,
    filter: &LetterFilter,
    limit: u64,
    cursor: Option<&str>,
) -> Result<Json<Page<DeadLetter>>, Fault> {
    let before = page::decode(cursor)?;
    let letters = gateway.dead_letters(id, filter, before, limit).await?;
    let next = page::next(&letters, limit, |letter| letter.id);
    Ok(Json(Page::new(letters.into_iter().map(DeadLetter::from).collect(), None, next)))
}

fn filter(code: Option<String>, since: Option<String>, until: Option<String>) -> Result<LetterFilter, Fault> {
    let moment = |name: &str, text: Option<String>| match text {
        Some(text) => Timestamp::parse_rfc3339(&text)
            .map(Some)
            .ok_or_else(|| page::parameter(name, "must be a time in RFC 3339, with a zone.")),
        None => Ok(None),
    };
    Ok(LetterFilter { code, chat: None, since: moment("since", since)?, until: moment("until", until)? })
}

fn default_limit() -> u64 {
    page::DEFAULT_LIMIT
}

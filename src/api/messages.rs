//! Sending. A synchronous send answers when WhatsApp has acknowledged the message, an asynchronous one when it is
//! stored; both take the same way.

use crate::auth::Caller;
use crate::body::JsonBody;
use crate::handle::Handle;
use crate::idempotency;
use crate::problem::{Failure, codes, raise};
use crate::request_id::RequestId;
use crate::serve::HungUp;
use crate::tags::Tag;
use crate::wire::message::{SendResult, SendText};
use kero_domain::{Address, Content, CorrelationId, Fault, FaultCode, InstanceId, Priority, Timestamp};
use kero_gateway::{Gateway, SendRequest};
use poem::http::HeaderMap;
use poem::{FromRequest, Request, RequestBody};
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, OpenApi};
use tokio_util::sync::CancellationToken;

pub(crate) struct MessagesApi {
    pub handle: Handle,
}

codes! {
    SendCodes = [
        InvalidRecipient, InvalidAsyncHeader, InvalidCorrelationId, InvalidIdempotencyKey, InstanceNotConnected,
        InstanceNotPaired, CorrelationIdTaken, SendInProgress, JobCancelled, RecipientNotOnWhatsApp,
        IdempotencyMismatch, TooManyRequests, SendRefused, SendNotStarted, QueueFull, SendOutcomeUnknown,
    ];
    ShortSendCodes = [
        InstanceAmbiguous, InvalidInstanceId, InstanceNotFound,
        InvalidRecipient, InvalidAsyncHeader, InvalidCorrelationId, InvalidIdempotencyKey, InstanceNotConnected,
        InstanceNotPaired, CorrelationIdTaken, SendInProgress, JobCancelled, RecipientNotOnWhatsApp,
        IdempotencyMismatch, TooManyRequests, SendRefused, SendNotStarted, QueueFull, SendOutcomeUnknown,
    ];
}

#[derive(ApiResponse)]
enum SendReply {
    /// WhatsApp's server acknowledged the message.
    #[oai(status = 200)]
    Sent(Json<SendResult>),
    /// The message is stored. It ends in exactly one of sent, failed or cancelled, and exactly one `message_ack` says
    /// which.
    #[oai(status = 202)]
    Queued(
        Json<SendResult>,
        /// The job's path.
        #[oai(header = "Location")]
        String,
    ),
}

#[OpenApi(
    tag = "Tag::Messages",
    request_header(
        name = "X-Async",
        ty = "Option<String>",
        description = "`true` or `1`: answer 202 as soon as the message is stored. `false`, `0` or absent: answer when WhatsApp has acknowledged it."
    ),
    request_header(
        name = "Idempotency-Key",
        ty = "Option<String>",
        description = "1 to 255 printable ASCII characters. For 24 hours, the same key with the same body gives the same answer and sends nothing; with another body it is refused."
    ),
    request_header(
        name = "X-Correlation-Id",
        ty = "Option<String>",
        description = "Your own handle on the job: 1 to 128 characters out of `A-Z a-z 0-9 . _ : ~ -`, unique per instance. Absent: the gateway makes one."
    )
)]
impl MessagesApi {
    /// Send a text
    ///
    /// Synchronous unless `X-Async` says otherwise. A synchronous send to an instance that is not connected is
    /// refused at once; an asynchronous one waits for the connection.
    #[oai(path = "/instances/:instance_id/messages/text", method = "post", operation_id = "message_send_text")]
    async fn text(
        &self,
        caller: Caller,
        instance_id: Path<String>,
        options: SendOptions,
        body: JsonBody<SendText>,
    ) -> Result<SendReply, Failure<SendCodes>> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        Ok(send_text(gateway, &caller, id, options, body).await?)
    }

    /// Send a text, short form
    ///
    /// Like `POST /instances/{instance_id}/messages/text`. The instance is the API key's own, else the one that
    /// `X-Instance-Id` names, else the only existing one.
    #[oai(
        path = "/messages/text",
        method = "post",
        operation_id = "message_send_text_short",
        request_header(name = "X-Instance-Id", ty = "Option<String>", description = "The instance to send from.")
    )]
    async fn text_short(
        &self,
        caller: Caller,
        headers: &HeaderMap,
        options: SendOptions,
        body: JsonBody<SendText>,
    ) -> Result<SendReply, Failure<ShortSendCodes>> {
        let gateway = self.handle.gateway()?;
        let id = implied_instance(gateway, &caller, headers)?;
        Ok(send_text(gateway, &caller, id, options, body).await?)
    }
}

async fn send_text(
    gateway: &Gateway,
    caller: &Caller,
    instance: InstanceId,
    options: SendOptions,
    body: JsonBody<SendText>,
) -> Result<SendReply, Fault> {
    let recipient = Address::parse(&body.value.phone.0)
        .map_err(|why| Fault::new(FaultCode::InvalidRecipient).at(body.pointer("phone"), why.to_string()))?;
    let fingerprint = idempotency::fingerprint("text", &instance, &body.json);
    let content = Content::text(body.value.message.0);
    content.validate().map_err(|why| Fault::new(FaultCode::ValidationFailed).at("/message", why.to_string()))?;
    let send_at = body.value.send_at.map(|at| at.0).filter(|at| *at > Timestamp::now());
    let named = options.correlation_id.is_some();
    let reply = gateway
        .send(
            &instance,
            SendRequest {
                recipient,
                content,
                asynchronous: options.asynchronous || send_at.is_some(),
                correlation_id: options.correlation_id,
                idempotency: options.idempotency_key.map(|key| (caller.key(), key, fingerprint)),
                priority: body.value.priority.map_or(Priority::Interactive, Priority::from),
                send_at,
                request_id: Some(options.request_id.0),
                hung_up: options.hung_up,
            },
        )
        .await?;
    if !reply.queued {
        return Ok(SendReply::Sent(Json(SendResult::new(reply, named))));
    }
    let job = format!("/instances/{instance}/jobs/{}", reply.correlation_id);
    Ok(SendReply::Queued(Json(SendResult::new(reply, named)), job))
}

/// The instance of a request whose path names none.
fn implied_instance(gateway: &Gateway, caller: &Caller, headers: &HeaderMap) -> Result<InstanceId, Fault> {
    let named = only(headers, "x-instance-id", FaultCode::InvalidInstanceId)?;
    if let Some(named) = named.filter(|text| !text.is_empty()) {
        return caller.instance(named);
    }
    match caller.own_instance() {
        Some(own) => Ok(own.clone()),
        None => gateway.only_instance(),
    }
}

/// What a send's headers say. Read by hand: a value that cannot be read must not count as absent.
struct SendOptions {
    asynchronous: bool,
    correlation_id: Option<CorrelationId>,
    idempotency_key: Option<String>,
    request_id: RequestId,
    hung_up: CancellationToken,
}

impl<'a> FromRequest<'a> for SendOptions {
    async fn from_request(request: &'a Request, _body: &mut RequestBody) -> poem::Result<Self> {
        let request_id = request.data::<RequestId>().cloned().ok_or_else(|| raise(FaultCode::Internal))?;
        let mut options = Self::of(request.headers(), request_id).map_err(raise)?;
        if let Some(HungUp(token)) = request.data::<HungUp>() {
            options.hung_up = token.clone();
        }
        Ok(options)
    }
}

impl SendOptions {
    fn of(headers: &HeaderMap, request_id: RequestId) -> Result<Self, Fault> {
        let asynchronous = match only(headers, "x-async", FaultCode::InvalidAsyncHeader)? {
            None | Some("false" | "0") => false,
            Some("true" | "1") => true,
            Some(_) => return Err(FaultCode::InvalidAsyncHeader.into()),
        };
        let correlation_id = only(headers, "x-correlation-id", FaultCode::InvalidCorrelationId)?
            .map(|text| text.parse().map_err(|_| FaultCode::InvalidCorrelationId))
            .transpose()?;
        let idempotency_key = idempotency::key(headers)?;
        Ok(Self { asynchronous, correlation_id, idempotency_key, request_id, hung_up: CancellationToken::new() })
    }
}

/// A header's single value; several, or one that is not text, is `wrong`.
fn only<'h>(headers: &'h HeaderMap, name: &str, wrong: FaultCode) -> Result<Option<&'h str>, Fault> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(|text| Some(text.trim())).map_err(|_| wrong.into()),
        _ => Err(wrong.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&'static str, &str)]) -> Result<SendOptions, FaultCode> {
        let headers = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        SendOptions::of(&headers, RequestId("r".into())).map_err(|fault| fault.code)
    }

    #[test]
    fn only_the_named_words_choose_the_way() {
        for (text, asynchronous) in [("true", true), ("1", true), ("false", false), ("0", false)] {
            assert_eq!(of(&[("x-async", text)]).ok().unwrap().asynchronous, asynchronous);
        }
        assert!(!of(&[]).ok().unwrap().asynchronous);
        for bad in ["", "yes", "TRUE", "2", "true, true"] {
            assert_eq!(of(&[("x-async", bad)]).err(), Some(FaultCode::InvalidAsyncHeader), "{bad}");
        }
        assert_eq!(of(&[("x-async", "true"), ("x-async", "false")]).err(), Some(FaultCode::InvalidAsyncHeader));
    }

    #[test]
    fn correlation_ids_are_checked() {
        assert!(of(&[("x-correlation-id", "order:1")]).ok().unwrap().correlation_id.is_some());
        for bad in ["", "a b", "a/b"] {
            assert_eq!(of(&[("x-correlation-id", bad)]).err(), Some(FaultCode::InvalidCorrelationId), "{bad}");
        }
    }
}

//! One HTTP exchange: sign, send, read the beginning of the answer, within one deadline.

use super::client::ClientError;
use super::prepare::Prepared;
use super::timing::{self, Timings};
use super::{DeliveryConfig, DeliveryHandle, guard, sign};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use kero_domain::{EventId, Timestamp};
use kero_store::Endpoint;
use std::time::Duration;

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// The beginning of the body, at most `delivery.max_response` bytes.
    pub head: Vec<u8>,
    pub timings: Timings,
}

/// Nothing came back, for this reason, in words that name no secret.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub error: String,
    pub timings: Timings,
}

/// What a request is about.
pub(crate) struct Subject<'a> {
    /// Goes out as `webhook-id`.
    pub event: EventId,
    pub request_id: Option<&'a str>,
}

/// An endpoint, and what all exchanges with it have in common.
pub(crate) struct Target<'a> {
    endpoint: &'a Endpoint,
    uri: Result<Uri, String>,
    /// The endpoint's own.
    headers: HeaderMap,
}

impl<'a> Target<'a> {
    pub(crate) fn new(config: &DeliveryConfig, endpoint: &'a Endpoint) -> Self {
        use secrecy::ExposeSecret;
        let mut headers = HeaderMap::with_capacity(16);
        for (name, value) in &endpoint.headers {
            put(&mut headers, name, value.expose_secret());
        }
        Self { endpoint, uri: uri(config, &endpoint.url), headers }
    }
}

/// Where a URL leads, if the guard lets it.
fn uri(config: &DeliveryConfig, url: &str) -> Result<Uri, String> {
    let url = guard::check_url(url, &config.allow_networks).map_err(|why| format!("the URL {why}"))?;
    url.as_str().parse().map_err(|_| "the URL is none that a request can be sent to".to_owned())
}

/// Sends `prepared` to the target. The deadline covers everything, from the name's look-up to the answer's body; of
/// that at most `max_response` bytes are read, then the connection is given up.
pub(crate) async fn exchange(
    delivery: &DeliveryHandle,
    target: &Target<'_>,
    prepared: &Prepared,
    subject: Subject<'_>,
    at: Timestamp,
) -> Result<Answer, Failure> {
    let limit = target.endpoint.timeout.unwrap_or(delivery.config.timeout);
    let (result, mut timings) = timing::measured(tokio::time::timeout(limit, async {
        let uri = match &prepared.url {
            Some(url) => uri(&delivery.config, url),
            None => target.uri.clone(),
        };
        let uri = uri.inspect_err(|_| {
            metrics::counter!("kero_delivery_blocked_total", "reason" => "literal").increment(1);
        })?;
        let mut request = Request::new(Full::new(prepared.body.clone()));
        *request.method_mut() = prepared.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = headers(target, prepared, &subject, at);
        send(delivery, request, limit).await
    }))
    .await;
    match result.unwrap_or_else(|_| Err(ClientError::Late.to_string())) {
        Ok((status, headers, head, first_byte)) => {
            timings.first_byte = Some(first_byte);
            Ok(Answer { status, headers, head, timings })
        }
        Err(error) => Err(Failure { error, timings }),
    }
}

type Read = (u16, HeaderMap, Vec<u8>, Duration);

async fn send(delivery: &DeliveryHandle, request: Request<Full<Bytes>>, limit: Duration) -> Result<Read, String> {
    let started = tokio::time::Instant::now();
    let response = delivery.http.send(request).await.map_err(|error| error.to_string())?;
    let first_byte = started.elapsed();
    let (answer, mut body) = response.into_parts();
    let most = delivery.config.max_response;
    let mut head = Vec::new();
    if !body.is_end_stream() {
        // the status is the answer: a body that does not come, or breaks off, changes nothing about it
        let rest = limit.saturating_sub(started.elapsed()).mul_f64(0.9);
        let _ = tokio::time::timeout(rest, async {
            while head.len() < most
                && let Some(Ok(frame)) = body.frame().await
            {
                let chunk = frame.into_data().unwrap_or_default();
                head.extend_from_slice(&chunk[..chunk.len().min(most - head.len())]);
            }
        })
        .await;
    }
    Ok((answer.status.as_u16(), answer.headers, head, first_byte))
}

/// The headers of an attempt: those of the target first, which cannot replace ours.
fn headers(target: &Target<'_>, prepared: &Prepared, subject: &Subject<'_>, at: Timestamp) -> HeaderMap {
    let endpoint = target.endpoint;
    let mut map = target.headers.clone();
    for (name, value) in &prepared.headers {
        put(&mut map, name, value);
    }
    let mut set = |name: &'static str, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            map.insert(HeaderName::from_static(name), value);
        }
    };
    let id = subject.event.to_string();
    if let Some(request_id) = subject.request_id {
        set("x-request-id", request_id.to_owned());
    }
    if let Some(secret) = endpoint.secret_text() {
        let legacy = sign::kero_signature(secret, &prepared.body);
        set("x-hub-signature-256", format!("sha256={legacy}"));
        set("x-webhook-signature", legacy);
    }
    let signatures = sign::standard_signatures(endpoint, &id, at, &prepared.body);
    if !signatures.is_empty() {
        set("webhook-signature", signatures);
    }
    set("webhook-timestamp", at.secs().to_string());
    set("webhook-id", id);
    map
}

fn put(map: &mut HeaderMap, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
        map.insert(name, value);
    }
}

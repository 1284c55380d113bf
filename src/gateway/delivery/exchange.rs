//! One HTTP exchange: sign, send, read the beginning of the answer, within one deadline.

use super::prepare::Prepared;
use super::timing::{self, Timings};
use super::{DeliveryHandle, guard, sign};
use bytes::BytesMut;
use http::HeaderMap;
use kero_domain::{EventId, Timestamp};
use kero_store::Endpoint;
use reqwest::Url;
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

/// Sends `prepared` to the endpoint. The deadline covers everything, from the name's look-up to the answer's body; of
/// that at most `max_response` bytes are read, then the connection is given up.
pub(crate) async fn exchange(
    delivery: &DeliveryHandle,
    endpoint: &Endpoint,
    prepared: &Prepared,
    subject: Subject<'_>,
    at: Timestamp,
) -> Result<Answer, Failure> {
    let limit = endpoint.timeout.unwrap_or(delivery.config.timeout);
    let (result, mut timings) = timing::measured(tokio::time::timeout(limit, async {
        let url = prepared.url.as_deref().unwrap_or(&endpoint.url);
        let url = guard::check_url(url, &delivery.config.allow_networks).map_err(|why| {
            metrics::counter!("kero_delivery_blocked_total", "reason" => "literal").increment(1);
            format!("the URL {why}")
        })?;
        let headers = headers(endpoint, prepared, &subject, at);
        send(delivery, url, prepared, headers, limit).await
    }))
    .await;
    match result.unwrap_or_else(|_| Err("the endpoint did not answer in time".to_owned())) {
        Ok((status, headers, head, first_byte)) => {
            timings.first_byte = Some(first_byte);
            Ok(Answer { status, headers, head, timings })
        }
        Err(error) => Err(Failure { error, timings }),
    }
}

type Read = (u16, HeaderMap, Vec<u8>, Duration);

async fn send(
    delivery: &DeliveryHandle,
    url: Url,
    prepared: &Prepared,
    headers: HeaderMap,
    limit: Duration,
) -> Result<Read, String> {
    let started = tokio::time::Instant::now();
    let request = delivery.http.request(prepared.method.clone(), url).headers(headers).body(prepared.body.clone());
    let mut response = request.send().await.map_err(describe)?;
    let first_byte = started.elapsed();
    let status = response.status().as_u16();
    let headers = std::mem::take(response.headers_mut());
    let most = delivery.config.max_response;
    let mut head = BytesMut::new();
    // the status is the answer: a body that does not come, or breaks off, changes nothing about it
    let rest = limit.saturating_sub(started.elapsed()).mul_f64(0.9);
    let _ = tokio::time::timeout(rest, async {
        while head.len() < most {
            match response.chunk().await {
                Ok(Some(chunk)) => head.extend_from_slice(&chunk[..chunk.len().min(most - head.len())]),
                Ok(None) | Err(_) => break,
            }
        }
    })
    .await;
    Ok((status, headers, head.to_vec(), first_byte))
}

/// The headers of an attempt: the endpoint's own first, which cannot replace ours.
fn headers(endpoint: &Endpoint, prepared: &Prepared, subject: &Subject<'_>, at: Timestamp) -> HeaderMap {
    use secrecy::ExposeSecret;
    let mut map = HeaderMap::new();
    let own = endpoint.headers.iter().map(|(name, value)| (name.as_str(), value.expose_secret()));
    let shaped = prepared.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in own.chain(shaped) {
        put(&mut map, name, value);
    }
    let id = subject.event.to_string();
    put(&mut map, "webhook-id", &id);
    put(&mut map, "webhook-timestamp", &at.secs().to_string());
    if let Some(request_id) = subject.request_id {
        put(&mut map, "x-request-id", request_id);
    }
    if let Some(secret) = endpoint.secret_text() {
        let legacy = sign::kero_signature(secret, &prepared.body);
        put(&mut map, "x-hub-signature-256", &format!("sha256={legacy}"));
        put(&mut map, "x-webhook-signature", &legacy);
    }
    let signatures = sign::standard_signatures(endpoint, &id, at, &prepared.body);
    if !signatures.is_empty() {
        put(&mut map, "webhook-signature", &signatures);
    }
    map
}

fn put(map: &mut HeaderMap, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (http::HeaderName::try_from(name), http::HeaderValue::try_from(value)) {
        map.insert(name, value);
    }
}

/// The failure in words that name no secret; the source error's chain may contain the URL's query.
fn describe(error: reqwest::Error) -> String {
    let mut source: &dyn std::error::Error = &error;
    while let Some(inner) = source.source() {
        source = inner;
    }
    if error.is_timeout() {
        return "the endpoint did not answer in time".to_owned();
    }
    if error.is_connect() {
        let text = source.to_string();
        // what rustls says of an answer in plain text
        if text.starts_with("received corrupt message") {
            return "no connection: the endpoint does not speak TLS; is it http:// or another port?".to_owned();
        }
        return format!("no connection: {text}");
    }
    format!("the exchange failed: {source}")
}

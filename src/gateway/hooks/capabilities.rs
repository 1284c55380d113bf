//! What hooks reach, once their grant allows it: their stored values, hosts on the internet, a share of the sends.

use crate::Gateway;
use crate::delivery::client::{Client, ClientError};
use crate::delivery::guard;
use async_trait::async_trait;
use http::Request;
use http_body_util::{BodyExt, Full};
use kero_domain::{Address, InstanceId, Timestamp};
use kero_hooks::capabilities::{HttpAnswer, HttpCall, HttpFailure, HttpFetch, KvRead, Scope, SendQuota};
use kero_hooks::fixture::sendable;
use std::time::Duration;

pub(super) struct Reach {
    pub(super) gateway: Gateway,
}

impl Reach {
    fn pk(&self, scope: &Scope) -> Result<i64, String> {
        let id: Option<InstanceId> = scope.instance.parse().ok();
        let handle = id.and_then(|id| self.gateway.inner.instances.get(&id));
        handle.map(|handle| handle.pk).ok_or_else(|| "the instance is gone".to_owned())
    }
}

/// What a guest is told of a database that does not answer.
fn unavailable(error: kero_store::StoreError) -> String {
    tracing::warn!(error = &error as &dyn std::error::Error, "a hook's storage could not be read");
    "the storage does not answer".to_owned()
}

#[async_trait]
impl KvRead for Reach {
    async fn get(&self, scope: &Scope, key: &str) -> Result<Option<Vec<u8>>, String> {
        let pk = self.pk(scope)?;
        self.gateway.store().kv_get(&scope.plugin, pk, key, Timestamp::now()).await.map_err(unavailable)
    }

    async fn used(&self, scope: &Scope) -> Result<u64, String> {
        let pk = self.pk(scope)?;
        self.gateway.store().kv_used(&scope.plugin, pk, Timestamp::now()).await.map_err(unavailable)
    }
}

#[async_trait]
impl HttpFetch for Reach {
    async fn fetch(&self, _: &Scope, call: HttpCall) -> Result<HttpAnswer, HttpFailure> {
        let networks = &self.gateway.config().delivery.allow_networks;
        guard::check_url(call.url.as_str(), networks).map_err(|why| HttpFailure::Denied(format!("the URL {why}")))?;
        let limit = call.timeout;
        tokio::time::timeout(limit, fetch(&self.gateway.inner.hooks.http, call))
            .await
            .unwrap_or(Err(HttpFailure::Timeout))
    }
}

async fn fetch(http: &Client, call: HttpCall) -> Result<HttpAnswer, HttpFailure> {
    let mut request = Request::builder().method(call.method.as_str()).uri(call.url.as_str());
    for (name, value) in call.headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::from(call.body));
    let request = request.map_err(|_| HttpFailure::Failed("the request is not valid".to_owned()))?;
    let response = http.send(request).await.map_err(|error| match error {
        ClientError::Closed(_) => HttpFailure::Denied(error.to_string()),
        ClientError::Late => HttpFailure::Timeout,
        ClientError::Connection(_) | ClientError::Exchange(_) => HttpFailure::Failed(error.to_string()),
    })?;
    let (answer, mut parts) = response.into_parts();
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = answer.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
    let mut body = Vec::new();
    while let Some(part) = parts.frame().await {
        let part = part.map_err(|error| HttpFailure::Failed(format!("the exchange failed: {error}")))?;
        let part = part.into_data().unwrap_or_default();
        if body.len() + part.len() > call.response_limit {
            return Err(HttpFailure::TooLarge);
        }
        body.extend_from_slice(&part);
    }
    Ok(HttpAnswer { status: answer.status.as_u16(), headers, body })
}

#[async_trait]
impl SendQuota for Reach {
    async fn left(&self, scope: &Scope, chat: &str, per_minute: u32) -> u32 {
        let (Ok(pk), Ok(address)) = (self.pk(scope), Address::parse(chat)) else { return 0 };
        let since = Timestamp::now().before(Duration::from_secs(60));
        // when the database does not answer, nothing is sent
        let sent = self.gateway.store().hook_sends_since(&scope.plugin, pk, &address.jid(), since).await;
        let sent = sent.map_err(unavailable).ok().and_then(|sent| u32::try_from(sent).ok());
        per_minute.saturating_sub(sent.unwrap_or(u32::MAX))
    }

    fn check(&self, chat: &str, text: &str) -> Result<(), String> {
        sendable(chat, text)
    }
}

//! HTTP to granted URLs, through the gateway's guard.

use super::{Refusal, Task, missing};
use crate::capabilities::{HttpAnswer, HttpCall, HttpFailure};
use std::time::Duration;
use url::Url;

/// As the guest asks for it.
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) timeout_ms: Option<u32>,
}

/// Headers that are the connection's or the gateway's. A `Host` header in particular must not choose the destination:
/// only the checked URL does.
const IGNORED: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "idempotency-key",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
const METHODS: &[&str] = &["DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"];

impl Refusal for HttpFailure {
    fn word(&self) -> &'static str {
        match self {
            Self::Denied(_) => "denied",
            Self::Timeout | Self::TooLarge | Self::Failed(_) => "failed",
        }
    }
}

impl Task {
    pub(crate) async fn http_fetch(&mut self, asked: Asked) -> wasmtime::Result<Result<HttpAnswer, HttpFailure>> {
        self.begin("http.fetch")?;
        let answer = self.fetch(asked).await;
        Ok(self.told(answer))
    }

    async fn fetch(&mut self, asked: Asked) -> Result<HttpAnswer, HttpFailure> {
        if self.hook.grants.http.is_empty() {
            self.denied.insert("http");
            return Err(HttpFailure::Denied(missing("http", "http = [\"https://host/path/*\"]")));
        }
        let url = Url::parse(&asked.url).map_err(|error| HttpFailure::Failed(format!("url: {error}")))?;
        if !self.hook.grants.allows(&url) {
            self.denied.insert("http");
            return Err(HttpFailure::Denied(format!(
                "the grant `http` does not name {}",
                url.origin().ascii_serialization()
            )));
        }
        let method = asked.method.to_ascii_uppercase();
        if !METHODS.contains(&method.as_str()) {
            return Err(HttpFailure::Failed(format!("method {method:?}: one of {}", METHODS.join(", "))));
        }
        let limits = *self.limits();
        self.http_calls += 1;
        if self.http_calls > limits.http_calls {
            return Err(HttpFailure::Denied(format!("at most {} requests per event", limits.http_calls)));
        }
        let mut headers: Vec<(String, String)> = asked
            .headers
            .into_iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value))
            .filter(|(name, _)| !IGNORED.contains(&name.as_str()) && !name.starts_with("proxy-"))
            .collect();
        // the same in every try of this call
        headers.push(("idempotency-key".to_owned(), self.scope().name('/', self.http_calls)));
        let timeout = asked
            .timeout_ms
            .map_or(limits.http_timeout, |ms| limits.http_timeout.min(Duration::from_millis(ms.into())));
        let call = HttpCall { method, url, headers, body: asked.body, timeout, response_limit: limits.http_response };
        let (http, scope) = (self.capabilities.http.clone(), self.scope());
        // the trait promises to keep the time; this is for implementations that do not
        let fetched = tokio::time::timeout(timeout, self.outside(async move { http.fetch(&scope, call).await })).await;
        let answer = fetched.map_err(|_| HttpFailure::Timeout)?.map_err(HttpFailure::Failed)??;
        if answer.body.len() > limits.http_response {
            return Err(HttpFailure::TooLarge);
        }
        Ok(answer)
    }
}

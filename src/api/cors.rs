//! Cross-origin requests from browsers, for configured origins only.
//!
//! poem's own middleware allows every origin when none is configured, and refuses plain requests of others, the
//! gateway's own Swagger UI among them. Here an origin that is not listed simply gets no headers, so the browser
//! keeps the answer from the page.

use poem::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use poem::{Request, Response};
use std::sync::Arc;

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE");
const HEADERS: HeaderValue = HeaderValue::from_static(
    "Accept, Authorization, Content-Type, Idempotency-Key, Last-Event-ID, X-API-Key, X-Async, X-Correlation-Id, X-Instance-Id, X-Request-Id",
);
const EXPOSED: HeaderValue = HeaderValue::from_static("ETag, Location, Retry-After, X-Request-Id");

/// The origins that may.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cors {
    any: bool,
    origins: Arc<[String]>,
}

impl Cors {
    pub fn new(origins: &[String]) -> Self {
        let any = origins.iter().any(|origin| origin == "*");
        let origins = origins.iter().map(|origin| origin.trim_end_matches('/').to_ascii_lowercase()).collect();
        Self { any, origins }
    }

    /// The request's origin, when it is one of ours.
    pub fn origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        let text = origin.to_str().ok()?.to_ascii_lowercase();
        (self.any || self.origins.contains(&text)).then(|| origin.clone())
    }

    /// The answer to a preflight of an allowed origin.
    pub fn preflight(&self, request: &Request) -> Option<Response> {
        let asks = *request.method() == Method::OPTIONS
            && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        let origin = self.origin(request.headers()).filter(|_| asks)?;
        let mut response = Response::builder().status(StatusCode::NO_CONTENT).finish();
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        Self::stamp(Some(origin), headers);
        Some(response)
    }

    /// Lets the page of an allowed origin read the answer.
    pub fn stamp(origin: Option<HeaderValue>, headers: &mut HeaderMap<HeaderValue>) {
        if let Some(origin) = origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
            headers.append(header::VARY, HeaderValue::from_static("origin"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_origins() {
        let of = |origins: &[&str], origin: &str| {
            let origins: Vec<String> = origins.iter().map(|text| (*text).to_owned()).collect();
            let headers = HeaderMap::from_iter([(header::ORIGIN, origin.parse().unwrap())]);
            Cors::new(&origins).origin(&headers).is_some()
        };
        assert!(of(&["https://console.example.org/"], "https://console.example.org"));
        assert!(!of(&["https://console.example.org"], "https://console.example.org.evil.test"));
        assert!(!of(&[], "https://console.example.org"));
        assert!(of(&["*"], "null"));
    }
}

//! What every request passes first and every answer last: request id, log span, limits, CORS, panics, problems.

use crate::auth::Keys;
use crate::cors::Cors;
use crate::limits::Limits;
use crate::plugin_form::MaxArtefact;
use crate::problem;
use crate::request_id::{HEADER, RequestId};
use crate::stream::Tickets;
use futures_util::FutureExt;
use kero_domain::{Fault, FaultCode};
use poem::endpoint::BoxEndpoint;
use poem::http::uri::PathAndQuery;
use poem::http::{HeaderValue, Uri, header};
use poem::{Endpoint, Request, Response};
use poem_openapi::OperationId;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// The outermost endpoint.
pub(crate) struct Frame {
    pub inner: BoxEndpoint<'static, Response>,
    pub keys: Keys,
    pub tickets: Tickets,
    pub limits: Limits,
    pub max_artefact: MaxArtefact,
    pub request_timeout: Duration,
    pub cors: Cors,
    pub shutting_down: CancellationToken,
    pub methods: crate::spec::Methods,
}

impl Endpoint for Frame {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let id = RequestId::of(request.headers());
        let span = tracing::info_span!("http", request_id = %id.0, method = %request.method());
        let started = Instant::now();
        let origin = self.cors.origin(request.headers());
        let path = request.uri().path().to_owned();
        trim_slash(&mut request);
        request.set_data(id.clone());
        request.set_data(self.keys.clone());
        request.set_data(self.tickets.clone());
        request.set_data(self.limits);
        request.set_data(self.max_artefact);

        let mut response = match self.cors.preflight(&request) {
            Some(response) => response,
            None => self.answer(request, &path, &id).instrument(span.clone()).await,
        };
        Cors::stamp(origin, response.headers_mut());
        let headers = response.headers_mut();
        if let Ok(value) = HeaderValue::from_str(&id.0) {
            headers.insert(HEADER, value);
        }
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        let operation = response.data::<OperationId>().map_or("-", |operation| operation.0);
        let status = response.status().as_u16();
        let took_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        // probes come every few seconds; the path may name a person, so the operation stands for it
        if is_probe(&path) {
            tracing::debug!(parent: &span, operation, status, took_us, "answered");
        } else {
            tracing::info!(parent: &span, operation, status, took_us, "answered");
        }
        Ok(response)
    }
}

impl Frame {
    async fn answer(&self, request: Request, path: &str, id: &RequestId) -> Response {
        if self.shutting_down.is_cancelled() && !is_probe(request.uri().path()) {
            return problem::respond(&Fault::new(FaultCode::ShuttingDown).retry_after(5), path, id);
        }
        let work = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        let fault = match tokio::time::timeout(self.request_timeout, work).await {
            Ok(Ok(Ok(response))) => return response,
            Ok(Ok(Err(error))) => problem::fault_of(error),
            // the panic hook has logged where
            Ok(Err(_)) => FaultCode::Internal.into(),
            Err(_) => FaultCode::Timeout.into(),
        };
        let mut response = problem::respond(&fault, path, id);
        if fault.code == FaultCode::MethodNotAllowed
            && let Ok(value) = HeaderValue::from_str(&self.methods.of(path).join(", "))
        {
            response.headers_mut().insert(header::ALLOW, value);
        }
        response
    }
}

/// Requests that are answered while the process stops.
fn is_probe(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz" | "/health" | "/metrics")
}

/// `/instances/` is `/instances`: Kero-Kero took both on some routes.
fn trim_slash(request: &mut Request) {
    let path = request.uri().path();
    let trimmed = path.trim_end_matches('/');
    if trimmed.len() == path.len() || trimmed.is_empty() {
        return;
    }
    let target = match request.uri().query() {
        Some(query) => format!("{trimmed}?{query}"),
        None => trimmed.to_owned(),
    };
    let mut parts = request.uri().clone().into_parts();
    if let Ok(target) = target.parse::<PathAndQuery>() {
        parts.path_and_query = Some(target);
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
}

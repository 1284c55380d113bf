//! The one HTTP client that may talk to other people's hosts: webhooks and hooks use it, and whatever else is to fetch by
//! a URL that somebody gave (media, previews) must; a test of the house sees to it. It connects where the guard lets it,
//! follows no redirect, takes no system proxy, which would connect elsewhere, and holds little of what it is answered.

use super::guard::{self, UrlError};
use super::resolve::{Lookup, Resolver, System};
use super::{DeliveryConfig, timing};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::uri::Scheme;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use ipnet::IpNet;
use rustls_platform_verifier::ConfigVerifierExt;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tower_service::Service;

const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("Kero/", env!("CARGO_PKG_VERSION")));
/// How long a connection may take to come about: name, TCP and TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an unused connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of an answer's headers. A buffer that grows to hold them may be twice as large, and no larger.
const MAX_HEADERS: u32 = 32 * 1024;
/// HTTP/2: bytes of an answer's body that may be on their way, and of all answers of a connection.
const STREAM_WINDOW: u32 = 32 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// HTTP/2: sendings of a request that the receiver says it has not begun.
const SENDINGS: usize = 3;

/// Why nothing came back. Its text names no secret; a source's own may have the URL with its query.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("the URL {0}")]
    Closed(UrlError),
    #[error("the endpoint did not answer in time")]
    Late,
    #[error("no connection: {0}")]
    Connection(String),
    #[error("the exchange failed: {0}")]
    Exchange(String),
}

/// Cheap to clone; clones share their connections.
#[derive(Clone)]
pub(crate) struct Client(legacy::Client<Connector, Full<Bytes>>);

impl Client {
    /// Fails when the system's certificates cannot be read.
    pub(crate) fn new(config: &DeliveryConfig) -> Result<Self, rustls::Error> {
        Self::over(System, config)
    }

    pub(super) fn over(lookup: impl Lookup, config: &DeliveryConfig) -> Result<Self, rustls::Error> {
        let mut http = HttpConnector::new_with_resolver(Resolver::new(lookup, config));
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(rustls::ClientConfig::with_platform_verifier()?)
            .https_or_http()
            .enable_http1()
            .enable_http2()
            .wrap_connector(http);
        let client = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .http1_max_buf_size(MAX_HEADERS as usize)
            .http2_max_header_list_size(MAX_HEADERS)
            .http2_initial_stream_window_size(STREAM_WINDOW)
            .http2_initial_connection_window_size(CONNECTION_WINDOW)
            .build(Connector { https, networks: config.allow_networks.clone().into() });
        Ok(Self(client))
    }

    /// Sends a request; returns with the answer's headers. The caller bounds the time.
    ///
    /// It is sent once: a connection that ends with a request on it fails the exchange, whether or not the receiver did
    /// its work. Only what was not begun is sent again: on a connection that was closed before anything was written, and
    /// where HTTP/2 says that a stream was refused.
    pub(crate) async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>, ClientError> {
        request.headers_mut().entry(header::USER_AGENT).or_insert(USER_AGENT);
        request.headers_mut().entry(header::ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        // without TLS there is no HTTP/2
        if request.uri().scheme() != Some(&Scheme::HTTPS) {
            return self.0.request(request).await.map_err(describe);
        }
        for _ in 1..SENDINGS {
            match self.0.request(request.clone()).await {
                Err(error) if was_not_begun(&error) => {}
                answer => return answer.map_err(describe),
            }
        }
        self.0.request(request).await.map_err(describe)
    }
}

/// The receiver closes its connection in good order, or refuses one more stream.
fn was_not_begun(error: &legacy::Error) -> bool {
    let cause = sources(error).find_map(|cause| cause.downcast_ref::<h2::Error>()).filter(|cause| cause.is_remote());
    cause.is_some_and(|cause| match cause.reason() {
        Some(h2::Reason::NO_ERROR) => cause.is_go_away(),
        Some(h2::Reason::REFUSED_STREAM) => cause.is_reset(),
        _ => false,
    })
}

fn sources<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

fn describe(error: legacy::Error) -> ClientError {
    let is_late = |cause: &(dyn Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|cause| cause.kind() == io::ErrorKind::TimedOut)
    };
    if let Some(why) = sources(&error).find_map(|cause| cause.downcast_ref::<UrlError>()) {
        return ClientError::Closed(why.clone());
    }
    if sources(&error).any(is_late) {
        return ClientError::Late;
    }
    let text = sources(&error).last().map(ToString::to_string).unwrap_or_default();
    if !error.is_connect() {
        return ClientError::Exchange(text);
    }
    // what rustls says of an answer in plain text
    if text.starts_with("received corrupt message") {
        return ClientError::Connection("the endpoint does not speak TLS; is it http:// or another port?".to_owned());
    }
    ClientError::Connection(text)
}

/// Judges literal addresses, and bounds and measures what it takes to connect.
#[derive(Clone)]
struct Connector {
    https: HttpsConnector<HttpConnector<Resolver>>,
    networks: Arc<[IpNet]>,
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.https.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        if let Err(why) = guard::check_host(uri.host().unwrap_or_default(), &self.networks) {
            return Box::pin(async move { Err(why.into()) });
        }
        let connecting = self.https.call(uri);
        Box::pin(async move {
            let started = tokio::time::Instant::now();
            let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
            timing::connected(started.elapsed());
            connected.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
        })
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;

//! What the API is told at boot.

use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Settings of the HTTP room.
#[derive(Clone)]
pub struct ApiConfig {
    /// SHA-256 of a fixed admin key ([`crate::hash_key`]); keys in the database work beside it.
    pub admin_key_hash: Option<[u8; 32]>,
    /// The largest JSON body in bytes.
    pub max_body: usize,
    /// The largest artefact of a plugin in bytes.
    pub max_artefact: usize,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// How long a request may take in all; longer than the gateway's synchronous send.
    pub request_timeout: Duration,
    /// How often a stream on which nothing happens shows that it lives.
    pub heartbeat: Duration,
    /// Streams (server-sent events, WebSockets) that may be open at once.
    pub max_streams: usize,
    /// Where clients reach this gateway (`https://wa.example.org`), for the documents; `None`: relative.
    pub public_url: Option<String>,
    /// Origins that browsers may call from; none by default, `*` for all.
    pub cors_origins: Vec<String>,
    /// Renders the metrics in Prometheus' text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// `/metrics` without a key.
    pub metrics_open: bool,
    /// Cancelled when the process begins to stop: new work is refused, `/readyz` fails.
    pub shutting_down: CancellationToken,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            admin_key_hash: None,
            max_body: 1024 * 1024,
            max_artefact: 4 * 1024 * 1024,
            body_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(90),
            heartbeat: Duration::from_secs(15),
            max_streams: 1000,
            public_url: None,
            cors_origins: Vec::new(),
            metrics: Arc::new(String::new),
            metrics_open: false,
            shutting_down: CancellationToken::new(),
        }
    }
}

impl std::fmt::Debug for ApiConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiConfig")
            .field("admin_key", &self.admin_key_hash.is_some())
            .field("max_body", &self.max_body)
            .field("public_url", &self.public_url)
            .field("cors_origins", &self.cors_origins)
            .field("metrics_open", &self.metrics_open)
            .finish_non_exhaustive()
    }
}

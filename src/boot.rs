//! Start and stop: the only file that knows every room.
//!
//! Start: lock → master key → database (migrated) → first key → gateway → HTTP.
//! Stop is the reverse, within `shutdown.timeout`; whatever is cut off lies in the database and goes on at the next
//! start.

use crate::config::{Config, Durability, LogFormat};
use crate::{VERSION, keys, lock, master_key};
use anyhow::Context;
use kero_api::ApiConfig;
use kero_gateway::queue::QueueKeys;
use kero_gateway::{BreakerConfig, DeliveryConfig, Gateway, GatewayConfig, HooksConfig, Retention};
use kero_store::{Store, StoreConfig, StoreError};
use kero_whatsapp::LinkConfig;
use secrecy::{ExposeSecret, SecretString};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// A started gateway.
pub struct Running {
    address: SocketAddr,
    first_key: Option<SecretString>,
    gateway: Gateway,
    store: Store,
    http: JoinHandle<std::io::Result<()>>,
    stopping: CancellationToken,
    timeout: Duration,
    _locks: Vec<lock::Lock>,
}

/// Makes TLS work; before any connection, once per process.
pub fn prepare_process() {
    // A second call finds the first one's provider, which is the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Sets up the log, once per process.
pub fn start_log(config: &Config) -> anyhow::Result<()> {
    let format = match config.log.format {
        LogFormat::Text => kero_telemetry::LogFormat::Text,
        LogFormat::Json => kero_telemetry::LogFormat::Json,
    };
    kero_telemetry::init(format, &config.log.filter).context("the log cannot be set up")
}

/// Starts everything; when this returns, the API answers.
pub async fn start(config: &Config) -> anyhow::Result<Running> {
    prepare_process();
    if let Err(error) = kero_whatsapp::check_url(config.whatsapp.url.as_deref()) {
        let hint = match config.whatsapp.url {
            None => "; add --simulate, or build without --features simulator",
            Some(_) => "; only loopback addresses may be given, for a simulated WhatsApp",
        };
        anyhow::bail!("{error}{hint}");
    }
    let metrics = kero_telemetry::metrics::install(VERSION)?;
    let locks = lock_data(config)?;
    let listener = listen(config.listen)?;
    let address = listener.local_addr().context("the listening address is not known")?;

    let store = open_store(config).await?;
    let first_key = keys::first(&store, config).await?;
    let gateway = Gateway::start(store.clone(), gateway_config(config)?).await.context("the gateway cannot start")?;
    let stopping = CancellationToken::new();
    let api = ApiConfig {
        admin_key_hash: config.api_key.as_ref().map(|key| kero_api::hash_key(key.expose_secret())),
        max_body: config.http.max_body,
        max_artefact: config.hooks.max_artefact,
        body_timeout: config.http.body_timeout,
        request_timeout: config.http.request_timeout,
        heartbeat: config.http.heartbeat,
        max_streams: config.http.max_streams,
        public_url: config.http.public_url.clone(),
        cors_origins: config.http.cors_origins.clone(),
        metrics: Arc::new(move || metrics.render()),
        metrics_open: config.metrics.open,
        shutting_down: stopping.clone(),
    };
    let app = kero_api::app(gateway.clone(), api);
    let serving = kero_api::Serving {
        write_timeout: config.http.write_timeout,
        shutdown: stopping.clone(),
        grace: http_grace(config.shutdown.timeout),
    };
    let http = tokio::spawn(kero_api::serve(listener, app, serving));
    tracing::info!(%address, database = ?store.backend(), version = VERSION, "started");
    Ok(Running { address, first_key, gateway, store, http, stopping, timeout: config.shutdown.timeout, _locks: locks })
}

impl Running {
    /// Where the API listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The admin key, when this was the first start.
    pub fn first_key(&self) -> Option<&SecretString> {
        self.first_key.as_ref()
    }

    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Waits for the HTTP server's end, which is a failure unless a stop was asked for.
    pub async fn http_ended(&mut self) -> anyhow::Result<()> {
        match (&mut self.http).await {
            Ok(Ok(())) => anyhow::bail!("the HTTP server stopped by itself"),
            Ok(Err(error)) => Err(error).context("the HTTP server stopped"),
            Err(error) => Err(error).context("the HTTP server's task ended"),
        }
    }

    /// Stops in order: no new requests, requests under way, links and lanes, last writes.
    pub async fn shutdown(mut self) -> anyhow::Result<()> {
        let end = Instant::now() + self.timeout;
        let left = |share: f64| end.saturating_duration_since(Instant::now()).mul_f64(share);
        self.stopping.cancel();
        if !self.http.is_finished() && timeout(left(0.6), &mut self.http).await.is_err() {
            self.http.abort();
            tracing::warn!("requests were still under way and were cut off");
        }
        let limit = left(0.8);
        if timeout(limit, self.gateway.shutdown(limit.mul_f64(0.9))).await.is_err() {
            tracing::warn!("the gateway was still busy; its work is taken up at the next start");
        }
        timeout(left(1.0), self.store.close()).await.context("the last writes took too long")?;
        tracing::info!("stopped");
        Ok(())
    }
}

/// Requests get about half of the time that a stop may take.
fn http_grace(total: Duration) -> Duration {
    total.mul_f64(0.5)
}

/// The data folder's lock, and the database's when it is a file elsewhere.
pub fn lock_data(config: &Config) -> anyhow::Result<Vec<lock::Lock>> {
    let mut locks = vec![lock::folder(&config.data_dir)?];
    if let Some(path) = sqlite_file(&config.database_url())
        && path.parent() != Some(config.data_dir.as_path())
    {
        locks.push(lock::database(&path)?);
    }
    Ok(locks)
}

/// Opens and migrates the database, and checks that the master key fits.
pub async fn open_store(config: &Config) -> anyhow::Result<Store> {
    let found = master_key::find(config)?;
    let opened = Store::open(StoreConfig {
        url: config.database_url(),
        durability: match config.durability {
            Durability::Power => kero_store::Durability::Power,
            Durability::Process => kero_store::Durability::Process,
        },
        master_key: found.key,
        readers: config.database.readers,
        writers: config.database.writers,
        max_size: config.database.max_size,
    })
    .await;
    match opened {
        Ok(store) => {
            if let Some(path) = found.made {
                tracing::info!(file = %path.display(), "made a master key; keep a copy of it apart from the database");
            }
            Ok(store)
        }
        Err(StoreError::WrongMasterKey) => {
            if let Some(made) = found.made {
                // It was made for a database that has another key; left there, it would hide what is missing.
                let _ = std::fs::remove_file(made);
            }
            anyhow::bail!(
                "the master key does not fit this database: restore the key it was made with, as KERO_MASTER_KEY or in \
                 {}",
                master_key::file(config).display()
            )
        }
        Err(error) => Err(error).context("the database cannot be opened; see database_url"),
    }
}

/// The file of an SQLite URL.
fn sqlite_file(url: &str) -> Option<PathBuf> {
    let rest = url.strip_prefix("sqlite:")?;
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let path = rest.split('?').next().unwrap_or(rest);
    (!path.is_empty() && path != ":memory:").then(|| Path::new(path).to_owned())
}

fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .with_context(|| format!("{address} cannot be listened on; set KERO_LISTEN to another address"))?;
    listener.set_nonblocking(true).context("the listening socket cannot be set up")?;
    Ok(listener)
}

/// Where the runner of `.js` hooks and the bundled plugins are: the configured folder, else one that was installed with
/// the binary.
pub fn dist_dir(config: &Config) -> PathBuf {
    let configured = config.hooks.dist_dir.clone();
    if configured.is_dir() {
        return configured;
    }
    let binary = std::env::current_exe().ok();
    let beside = binary.as_deref().and_then(Path::parent);
    let installed =
        beside.into_iter().flat_map(|folder| [folder.join("plugins"), folder.join("../share/kero/plugins")]);
    installed.into_iter().find(|folder| folder.is_dir()).unwrap_or(configured)
}

fn gateway_config(config: &Config) -> anyhow::Result<GatewayConfig> {
    let (whatsapp, sending, queue) = (&config.whatsapp, &config.sending, &config.queue);
    let redis_ca = match &config.redis_ca_file {
        Some(file) => Some(std::fs::read(file).with_context(|| format!("redis_ca_file: {file} cannot be read"))?),
        None => None,
    };
    Ok(GatewayConfig {
        link: LinkConfig {
            url: whatsapp.url.clone(),
            version: whatsapp.version,
            device_name: whatsapp.device_name.clone(),
            skip_history: whatsapp.skip_history,
            push_name: whatsapp.push_name.clone(),
        },
        sync_timeout: sending.sync_timeout,
        ack_timeout: sending.ack_timeout,
        doubt_wait: sending.doubt_wait,
        reach_out_limit: sending.reach_out_limit,
        retry: kero_domain::retry::Schedule {
            base: queue.retry_base,
            ceiling: queue.retry_ceiling,
            max_retries: queue.max_retries,
        },
        delivery: DeliveryConfig {
            allow_networks: config.delivery.allow_networks.clone(),
            allow_hosts: config.delivery.allow_hosts.clone(),
            timeout: config.delivery.timeout,
            schedule: config.delivery.schedule.clone(),
            concurrency: config.delivery.concurrency,
            per_endpoint: config.delivery.per_endpoint,
            max_response: config.delivery.max_response,
            max_payload: config.delivery.max_payload,
            public_url: config.http.public_url.clone(),
            breaker: BreakerConfig {
                percent: config.delivery.breaker_percent,
                least: config.delivery.breaker_least,
                open: config.delivery.breaker_open,
                ceiling: config.delivery.breaker_ceiling,
            },
            disable_after: config.delivery.disable_after,
            max_endpoints: config.delivery.max_endpoints,
        },
        hooks: HooksConfig {
            dist_dir: dist_dir(config),
            cache_dir: config.data_dir.join("compiled-hooks"),
            max_artefact: config.hooks.max_artefact,
            compile_timeout: config.hooks.compile_timeout,
            keep_calls: config.hooks.keep_calls,
            workers: config.hooks.workers,
        },
        keep_raw: config.events.keep_raw,
        redis_url: config.redis_url.clone(),
        redis_ca,
        queue_keys: QueueKeys::with_prefix(&queue.key_prefix),
        queue_paused: queue.paused,
        reconcile_every: queue.reconcile_every,
        max_jobs: queue.max_jobs,
        max_jobs_total: queue.max_jobs_total,
        retention: Retention {
            jobs: config.retention.jobs,
            max_jobs: config.retention.max_jobs,
            events: config.retention.events,
            max_events: config.retention.max_events,
            every: config.retention.every,
        },
        resume_pace: whatsapp.resume_pace,
        reconnect_base: whatsapp.reconnect_base,
        reconnect_ceiling: whatsapp.reconnect_ceiling,
        pairing_timeout: whatsapp.pairing_timeout,
        lane_concurrency: sending.lane_concurrency,
        rate_per_instance: sending.rate_per_instance,
        rate_per_recipient: sending.rate_per_recipient,
        rate_burst: sending.rate_burst,
        version: VERSION,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_file_of_an_sqlite_url() {
        assert_eq!(sqlite_file("sqlite://./data/kero.db?mode=rwc"), Some(PathBuf::from("./data/kero.db")));
        assert_eq!(sqlite_file("sqlite:/tmp/x.db"), Some(PathBuf::from("/tmp/x.db")));
        assert_eq!(sqlite_file("sqlite::memory:"), None);
        assert_eq!(sqlite_file("postgres://x/y"), None);
    }
}

//! Configuration: `default.toml` names every key with its reason; these structs read them.
//!
//! Later sources win: the embedded defaults, a file, the environment, flags. Unknown keys are errors. [`validate`]
//! collects everything that is wrong, so that one start tells all of it.

mod environment;
mod print;
mod read;
#[cfg(test)]
mod tests;
mod validate;

pub use environment::Environment;
pub use print::print;
pub use validate::validate;

use anyhow::Context;
use figment::Figment;
use figment::providers::{Format, Toml};
use ipnet::IpNet;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The documented defaults.
pub const DEFAULTS: &str = include_str!("default.toml");

/// Everything that can be set. The keys without a section are the ones that people change.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub listen: SocketAddr,
    pub data_dir: PathBuf,
    #[serde(with = "read::secret_url")]
    pub database_url: Option<SecretString>,
    #[serde(with = "read::secret_url")]
    pub redis_url: Option<SecretString>,
    #[serde(with = "read::text")]
    pub redis_ca_file: Option<String>,
    #[serde(with = "read::secret")]
    pub api_key: Option<SecretString>,
    #[serde(with = "read::secret")]
    pub master_key: Option<SecretString>,
    pub durability: Durability,
    pub http: Http,
    pub database: Database,
    pub whatsapp: WhatsApp,
    pub sending: Sending,
    pub queue: Queue,
    pub events: Events,
    pub retention: Retention,
    pub delivery: Delivery,
    pub hooks: Hooks,
    pub log: Log,
    pub metrics: Metrics,
    pub shutdown: Shutdown,
}

/// What an answer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    Power,
    Process,
}

/// The HTTP API.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    #[serde(with = "read::text")]
    pub public_url: Option<String>,
    pub max_body: usize,
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub write_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    pub max_streams: usize,
    pub cors_origins: Vec<String>,
}

/// Connections to the database.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    pub readers: u32,
    pub writers: u32,
    pub max_size: u64,
}

/// The links to WhatsApp.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WhatsApp {
    #[serde(with = "read::text")]
    pub url: Option<String>,
    #[serde(with = "read::version")]
    pub version: Option<(u32, u32, u32)>,
    pub device_name: String,
    #[serde(with = "read::text")]
    pub push_name: Option<String>,
    pub skip_history: bool,
    #[serde(with = "humantime_serde")]
    pub resume_pace: Duration,
    #[serde(with = "humantime_serde")]
    pub reconnect_base: Duration,
    #[serde(with = "humantime_serde")]
    pub reconnect_ceiling: Duration,
    #[serde(with = "humantime_serde")]
    pub pairing_timeout: Duration,
}

/// Sends: how long each wait lasts.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Sending {
    #[serde(with = "humantime_serde")]
    pub sync_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub ack_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub doubt_wait: Duration,
    #[serde(with = "humantime_serde")]
    pub reach_out_limit: Duration,
    pub lane_concurrency: usize,
    pub rate_per_instance: u32,
    pub rate_per_recipient: u32,
    pub rate_burst: u32,
}

/// The work queue and the retries of sends.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Queue {
    pub max_retries: u32,
    #[serde(with = "humantime_serde")]
    pub retry_base: Duration,
    #[serde(with = "humantime_serde")]
    pub retry_ceiling: Duration,
    pub key_prefix: String,
    pub paused: bool,
    #[serde(with = "humantime_serde")]
    pub reconcile_every: Duration,
    pub max_jobs: u64,
    pub max_jobs_total: u64,
}

/// How long things are kept.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    #[serde(with = "humantime_serde")]
    pub jobs: Duration,
    pub max_jobs: u64,
    #[serde(with = "humantime_serde")]
    pub events: Duration,
    pub max_events: u64,
    #[serde(with = "humantime_serde")]
    pub every: Duration,
}

/// The journal of events.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Events {
    pub keep_raw: bool,
}

/// Webhooks.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    pub allow_networks: Vec<IpNet>,
    pub allow_hosts: Vec<String>,
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    #[serde(with = "read::durations")]
    pub schedule: Vec<Duration>,
    pub concurrency: usize,
    pub per_endpoint: usize,
    pub max_response: usize,
    pub max_payload: usize,
    pub max_endpoints: u64,
    pub breaker_percent: u32,
    pub breaker_least: u32,
    #[serde(with = "humantime_serde")]
    pub breaker_open: Duration,
    #[serde(with = "humantime_serde")]
    pub breaker_ceiling: Duration,
    #[serde(with = "humantime_serde")]
    pub disable_after: Duration,
}

/// Plugins.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Hooks {
    pub dist_dir: PathBuf,
    pub max_artefact: usize,
    #[serde(with = "humantime_serde")]
    pub compile_timeout: Duration,
    pub workers: usize,
    #[serde(with = "humantime_serde")]
    pub keep_calls: Duration,
}

/// The log on standard error.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub format: LogFormat,
    pub filter: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    pub open: bool,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

/// What flags set; they win over every other source.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    pub listen: Option<SocketAddr>,
    pub data_dir: Option<PathBuf>,
    pub database_url: Option<String>,
    pub redis_url: Option<String>,
}

/// Reads all sources and checks the result.
pub fn load(file: Option<&Path>, environment: Environment, flags: &Overrides) -> anyhow::Result<Config> {
    let mut figment = Figment::from(Toml::string(DEFAULTS));
    if let Some(file) = file {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("the configuration file {} cannot be read", file.display()))?;
        figment = figment.merge(Toml::string(&text));
    }
    figment = figment.merge(environment);
    if let Some(listen) = flags.listen {
        figment = figment.merge(("listen", listen));
    }
    if let Some(data_dir) = &flags.data_dir {
        figment = figment.merge(("data_dir", data_dir));
    }
    if let Some(url) = &flags.database_url {
        figment = figment.merge(("database_url", url));
    }
    if let Some(url) = &flags.redis_url {
        figment = figment.merge(("redis_url", url));
    }
    let config = figment.extract::<Config>().map_err(|errors| {
        let lines: Vec<String> = errors.into_iter().map(|error| format!("  - {}", read::complaint(&error))).collect();
        anyhow::anyhow!("the configuration is not valid:\n{}", lines.join("\n"))
    })?;
    let complaints = validate(&config);
    if !complaints.is_empty() {
        anyhow::bail!("the configuration is not valid:\n  - {}", complaints.join("\n  - "));
    }
    Ok(config)
}

impl Config {
    /// The defaults alone, for tests and the demo.
    pub fn defaults() -> anyhow::Result<Self> {
        load(None, Environment::empty(), &Overrides::default())
    }

    /// The database's URL: the configured one, else the SQLite file in the data folder.
    pub fn database_url(&self) -> String {
        use secrecy::ExposeSecret;
        match &self.database_url {
            Some(url) => url.expose_secret().to_owned(),
            None => format!("sqlite://{}?mode=rwc", self.data_dir.join("kero.db").display()),
        }
    }
}

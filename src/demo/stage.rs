//! What the demo plays on: a simulated WhatsApp, a gateway, a webhook receiver, all on free loopback ports.

use super::sink::Sink;
use super::{CONTACT, OWN_PHONE};
use crate::boot::{self, Running};
use crate::config::Config;
use crate::keys;
use anyhow::Context;
use kero_simulator::{Person, Script, Simulator};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;
use tempfile::TempDir;

pub struct Stage {
    pub started: Instant,
    pub simulator: Simulator,
    pub running: Running,
    pub sink: Sink,
    pub key: SecretString,
    pub instance_id: String,
    /// Of the webhook; Standard Webhooks takes its bytes.
    pub secret: String,
    own_database: bool,
    _folder: TempDir,
}

/// Starts everything.
pub async fn build(mut config: Config) -> anyhow::Result<Stage> {
    let started = Instant::now();
    // The story is on standard output; the log tells only what is wrong.
    "warn".clone_into(&mut config.log.filter);
    boot::start_log(&config)?;
    boot::prepare_process();
    let folder = tempfile::Builder::new().prefix("kero-demo-").tempdir().context("no temporary folder can be made")?;
    let simulator = kero_simulator::start(kero_simulator::Config::default()).await?;
    simulator.add_person(Person { phone: OWN_PHONE.to_owned(), name: Some("Kero".to_owned()), script: Script::Silent });
    simulator.add_person(Person { phone: CONTACT.to_owned(), name: Some("Ada".to_owned()), script: Script::Echo });
    let sink = Sink::start().await?;

    let key = config.api_key.clone().unwrap_or_else(keys::generate);
    let given_database = config.database_url.is_some();
    if given_database && config.master_key.is_none() {
        config.master_key = Some(key_of(&config.database_url()));
    }
    let random: [u8; 4] = rand::random();
    let instance_id = match given_database {
        true => format!("demo-{:08x}", u32::from_be_bytes(random)),
        false => "demo".to_owned(),
    };
    let config = Config {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        data_dir: folder.path().join("data"),
        api_key: Some(key.clone()),
        whatsapp: crate::config::WhatsApp { url: Some(simulator.ws_url()), ..config.whatsapp },
        delivery: crate::config::Delivery { allow_networks: vec![loopback()?], ..config.delivery },
        ..config
    };
    let running = boot::start(&config).await.context("the gateway did not start")?;
    println!(
        "Kero {} on http://{}, a simulated WhatsApp on {}",
        crate::VERSION,
        running.address(),
        simulator.http_url()
    );
    let place = match given_database {
        true => "the database of KERO_DATABASE_URL, now under the demo's master key (give kero serve another one)",
        false => "SQLite in a temporary folder",
    };
    println!("Data: {place}. Webhooks arrive at {}", sink.url());
    let secret = keys::generate().expose_secret().replacen("kero_", "", 1);
    Ok(Stage {
        started,
        simulator,
        running,
        sink,
        key,
        instance_id,
        secret,
        own_database: !given_database,
        _folder: folder,
    })
}

impl Stage {
    /// Stops everything, and leaves no instance behind in a database that stays.
    pub async fn tear_down(self) -> anyhow::Result<()> {
        if !self.own_database {
            let id = self.instance_id.parse().context("the demo's instance id")?;
            if let Err(error) = self.running.gateway().delete_instance(&id).await {
                tracing::warn!(%error, "the demo's instance stays in the database");
            }
        }
        let stopped = self.running.shutdown().await.context("the gateway did not stop in order");
        self.simulator.shutdown().await;
        stopped
    }
}

/// A database that outlives the demo needs the same master key at the next one. Derived from its URL: the demo's data
/// is no secret, and a database that belongs to a real gateway, whose key this is not, is refused before anything in
/// it connects to the simulator.
fn key_of(database_url: &str) -> SecretString {
    let hash = Sha256::new().chain_update(b"kero demo master key\0").chain_update(database_url).finalize();
    SecretString::from(hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

fn loopback() -> anyhow::Result<ipnet::IpNet> {
    "127.0.0.0/8".parse().context("the loopback network")
}

//! The commands that need the simulated WhatsApp. Without the feature `simulator` they say how to get it.

use crate::cli;
use crate::config::Config;

/// What a default binary answers.
#[cfg(not(feature = "simulator"))]
const MISSING: &str = "this binary was built without the simulated WhatsApp, because with it the client's certificate \
                       check can be switched off; build it with: cargo build --features simulator \
                       (or run: cargo run --features simulator -- demo)";

#[cfg(not(feature = "simulator"))]
pub use absent::{alone, beside, demo};
#[cfg(feature = "simulator")]
pub use present::{alone, beside, demo};

#[cfg(feature = "simulator")]
mod present {
    use super::{Config, cli};
    use crate::shutdown::Signals;
    use anyhow::Context;
    use kero_simulator::Simulator;

    /// A simulator in the gateway's process.
    pub struct Beside(Simulator);

    impl Beside {
        pub async fn shutdown(self) {
            self.0.shutdown().await;
        }
    }

    /// `serve --simulate`: starts a simulator and points the gateway at it. Its keys are kept in the data folder, so
    /// that paired instances survive a restart.
    pub async fn beside(mut config: Config) -> anyhow::Result<(Config, Beside)> {
        crate::boot::prepare_process();
        // The same folder that the gateway locks a moment later; with the lock held by another process, this one ends here.
        drop(crate::lock::folder(&config.data_dir)?);
        let settings = kero_simulator::Config {
            state_file: Some(config.data_dir.join("simulator.json")),
            ..kero_simulator::Config::default()
        };
        let simulator = kero_simulator::start(settings).await.context("the simulated WhatsApp cannot start")?;
        tracing::warn!("simulated WhatsApp: nothing is sent to anybody; this binary talks to loopback addresses only");
        println!("Simulated WhatsApp: {} (scan a code: POST /admin/mock-phone/scan-qr)", simulator.http_url());
        config.whatsapp.url = Some(simulator.ws_url());
        Ok((config, Beside(simulator)))
    }

    /// `kero simulator`: until a signal comes.
    pub async fn alone(config: &Config, flags: &cli::Simulator) -> anyhow::Result<()> {
        let mut signals = Signals::catch()?;
        crate::boot::start_log(config)?;
        crate::boot::prepare_process();
        let settings = kero_simulator::Config {
            listen: flags.listen,
            state_file: flags.state.clone(),
            ..kero_simulator::Config::default()
        };
        let simulator = kero_simulator::start(settings).await.context("the simulated WhatsApp cannot start")?;
        println!(
            "Simulated WhatsApp: {} (also {}), control API: {}/admin",
            simulator.ws_url(),
            simulator.wss_url(),
            simulator.http_url()
        );
        signals.next().await;
        simulator.shutdown().await;
        Ok(())
    }

    pub use crate::demo::run as demo;
}

#[cfg(not(feature = "simulator"))]
mod absent {
    use super::{Config, MISSING, cli};
    use std::convert::Infallible;

    /// Cannot exist in this binary.
    pub struct Beside(Infallible);

    impl Beside {
        pub async fn shutdown(self) {
            match self.0 {}
        }
    }

    pub async fn beside(_config: Config) -> anyhow::Result<(Config, Beside)> {
        anyhow::bail!(MISSING)
    }

    pub async fn alone(_config: &Config, _flags: &cli::Simulator) -> anyhow::Result<()> {
        anyhow::bail!(MISSING)
    }

    pub async fn demo(_config: Config, _flags: &cli::Demo) -> anyhow::Result<()> {
        anyhow::bail!(MISSING)
    }
}

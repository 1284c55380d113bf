//! What each command does.

use crate::cli::{Cli, Command, Serve, SpecVersion};
use crate::config::{self, Config, Environment, Overrides};
use crate::{boot, keys, plugin, shutdown, simulation};
use anyhow::Context;
use secrecy::ExposeSecret;
use std::io::Write;

/// Runs a command to its end.
pub async fn run(cli: Cli) -> anyhow::Result<()> {
    let load = |flags: &Overrides| config::load(cli.config.as_deref(), Environment::of_process(), flags);
    match &cli.command {
        Command::Serve(serve) => {
            let config = load(&serve.overrides())?;
            if serve.print_config {
                return print(&config::print(&config)?);
            }
            self::serve(config, serve).await
        }
        Command::Spec { version } => print(&kero_api::spec(match version {
            SpecVersion::V3_1 => kero_api::SpecVersion::V3_1,
            SpecVersion::V3_0 => kero_api::SpecVersion::V3_0,
        })),
        Command::Migrate(place) => migrate(&load(&place.overrides())?).await,
        Command::Plugin { command } => plugin::run(&load(&Overrides::default())?, command).await,
        Command::Key { command, place } => keys::run(&quiet(load(&place.overrides())?)?, command).await,
        Command::Demo(demo) => simulation::demo(load(&Overrides::default())?, demo).await,
        Command::Simulator(simulator) => simulation::alone(&load(&Overrides::default())?, simulator).await,
    }
}

async fn serve(config: Config, flags: &Serve) -> anyhow::Result<()> {
    let mut signals = shutdown::Signals::catch()?;
    boot::start_log(&config)?;
    for name in Environment::of_process().unknown() {
        tracing::warn!(name, "this variable names no setting and is ignored");
    }
    let (config, simulator) = match flags.simulate {
        true => simulation::beside(config).await.map(|(config, simulator)| (config, Some(simulator)))?,
        false => (config, None),
    };
    let mut running = boot::start(&config).await?;
    announce(&running)?;
    let failed = tokio::select! {
        name = signals.next() => {
            tracing::info!(signal = name, "stopping");
            Ok(())
        }
        ended = running.http_ended() => ended,
    };
    let stopped = shutdown::orderly(signals, running.shutdown()).await;
    if let Some(simulator) = simulator {
        simulator.shutdown().await;
    }
    failed.and(stopped)
}

/// Tells the first key and where to go; on standard output, apart from the log.
fn announce(running: &boot::Running) -> anyhow::Result<()> {
    let mut text = String::new();
    if let Some(key) = running.first_key() {
        text.push_str("The admin API key. It is shown this once; only its hash is stored.\n\n    ");
        text.push_str(key.expose_secret());
        text.push_str("\n\n");
    }
    text.push_str(&format!("Swagger UI: http://{}/docs\n", running.address()));
    print(&text)
}

async fn migrate(config: &Config) -> anyhow::Result<()> {
    boot::prepare_process();
    let _locks = boot::lock_data(config)?;
    let applied =
        kero_store::Store::migrate(&config.database_url()).await.context("the database cannot be migrated")?;
    if applied.is_empty() {
        return print("the database was up to date\n");
    }
    print(&applied.into_iter().map(|name| format!("applied {name}\n")).collect::<String>())
}

/// Short commands log warnings only.
fn quiet(mut config: Config) -> anyhow::Result<Config> {
    config.log.filter = "warn".to_owned();
    boot::start_log(&config)?;
    boot::prepare_process();
    Ok(config)
}

/// Writes to standard output; a reader that went away, as in `kero spec | head`, is no error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("standard output"),
        _ => Ok(()),
    }
}

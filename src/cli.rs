//! The command line.

use crate::config::Overrides;
use clap::{Args, Parser, Subcommand, ValueEnum};
use kero_domain::{ApiKeyId, InstanceId};
use std::net::SocketAddr;
use std::path::PathBuf;

/// A self-hosted WhatsApp gateway: REST in, signed webhooks out.
#[derive(Debug, Parser)]
#[command(
    name = "kero",
    version,
    arg_required_else_help = true,
    after_help = "First steps:\n  \
        kero serve                       start; the admin key is printed once, Swagger UI is at http://127.0.0.1:8080/docs\n  \
        kero serve --print-config        every setting with its effective value\n  \
        cargo run --features simulator -- demo\n                                   \
        the whole main job without a phone, step by step\n\n\
        Every setting is documented in src/config/default.toml; its variable is KERO_KEY or KERO_SECTION__KEY."
)]
pub struct Cli {
    /// A TOML file with settings
    #[arg(long, global = true, env = "KERO_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the gateway (migrates the database first)
    Serve(Serve),
    /// Show the main job from end to end on this machine, with a simulated WhatsApp and no phone
    Demo(Demo),
    /// Run the simulated WhatsApp alone, for tests of other clients
    Simulator(Simulator),
    /// Print the OpenAPI document
    Spec {
        /// 3.0 is for generators that do not read 3.1
        #[arg(long, value_enum, default_value = "3.1")]
        version: SpecVersion,
    },
    /// Bring the database to this version's schema, without starting
    Migrate(Place),
    /// Write, test and upload plugins
    Plugin {
        #[command(subcommand)]
        command: Plugin,
    },
    /// Make, list and revoke API keys
    Key {
        #[command(subcommand)]
        command: Key,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Args)]
pub struct Serve {
    /// The address of the HTTP API [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    #[command(flatten)]
    pub place: Place,
    /// redis://… for the work queue [default: none]
    #[arg(long, value_name = "URL")]
    pub redis_url: Option<String>,
    /// Connect to a simulated WhatsApp inside of this process (needs a build with --features simulator)
    #[arg(long)]
    pub simulate: bool,
    /// Print the effective settings, secrets masked, and end
    #[arg(long)]
    pub print_config: bool,
}

/// Where the data is.
#[derive(Debug, Clone, Default, Args)]
pub struct Place {
    /// The data folder [default: ./data]
    #[arg(long, global = true, value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// sqlite://… or postgres://… [default: kero.db in the data folder]
    #[arg(long, global = true, value_name = "URL")]
    pub database_url: Option<String>,
}

#[derive(Debug, Args)]
pub struct Demo {
    /// Leave it running afterwards, with the Swagger UI's address and the key
    #[arg(long)]
    pub keep: bool,
}

#[derive(Debug, Args)]
pub struct Simulator {
    /// A loopback address; WebSocket, TLS, media and the control API share the port
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9090")]
    pub listen: SocketAddr,
    /// Keep the simulated accounts in this file
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SpecVersion {
    #[value(name = "3.1")]
    V3_1,
    #[value(name = "3.0")]
    V3_0,
}

#[derive(Debug, Subcommand)]
pub enum Key {
    /// Make a key and print it once; without --instance it may do everything
    New {
        /// Only for this instance
        #[arg(long, value_name = "ID")]
        instance: Option<InstanceId>,
        /// A label for the list
        #[arg(long)]
        name: Option<String>,
    },
    /// All keys, without their secrets
    List,
    /// Take a key's rights away, at once
    Revoke {
        /// The id in the list
        id: ApiKeyId,
    },
}

#[derive(Debug, Subcommand)]
pub enum Plugin {
    /// Write a plugin that works, with a test case, into a new folder of its name
    New {
        /// a-z, 0-9 and -
        name: String,
        /// js needs no toolchain; rust needs the target wasm32-unknown-unknown
        #[arg(long, value_name = "js|rust", default_value = "js")]
        lang: String,
        /// Once per event, or once per delivery
        #[arg(long, value_enum, default_value = "transform")]
        kind: PluginKind,
    },
    /// Compile a plugin's artefact (a script needs none)
    Build {
        /// The plugin's folder
        #[arg(default_value = ".")]
        folder: PathBuf,
    },
    /// Run a plugin's test cases in the real host, with nothing behind it
    Test {
        /// The plugin's folder
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// Again whenever a file changes
        #[arg(long)]
        watch: bool,
        /// Write what came out as the expectation
        #[arg(long)]
        update: bool,
    },
    /// Upload a plugin to a running gateway
    Push(Push),
}

#[derive(Debug, Args)]
pub struct Push {
    /// The plugin's folder
    #[arg(default_value = ".")]
    pub folder: PathBuf,
    /// Instead of a folder: a plugin that comes with the gateway (evolution, keyword-reply, redact)
    #[arg(long, value_name = "NAME")]
    pub bundled: Option<String>,
    /// Have it called from now on
    #[arg(long)]
    pub activate: bool,
    /// Give it the grants that it asks for
    #[arg(long, requires = "activate")]
    pub grant: bool,
    /// Where the gateway is
    #[arg(long, env = "KERO_URL", value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// A key for the whole gateway
    #[arg(long, env = "KERO_API_KEY", value_name = "KEY", hide_env_values = true)]
    pub key: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PluginKind {
    Transform,
    Delivery,
}

impl Serve {
    pub fn overrides(&self) -> Overrides {
        Overrides { listen: self.listen, redis_url: self.redis_url.clone(), ..self.place.overrides() }
    }
}

impl Place {
    pub fn overrides(&self) -> Overrides {
        Overrides { data_dir: self.data_dir.clone(), database_url: self.database_url.clone(), ..Overrides::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn reads_the_documented_commands() {
        for line in [
            "serve --listen 127.0.0.1:0 --data-dir /x --simulate",
            "demo --keep",
            "simulator --listen 127.0.0.1:9000",
            "spec --version 3.0",
            "migrate --database-url postgres://x/y",
            "key new --instance shop --name till",
            "key list",
            "plugin new order-number --lang js",
            "plugin new my-filter --lang rust --kind delivery",
            "plugin build my-filter",
            "plugin test --watch --update",
            "plugin push order-number --activate --grant --url http://127.0.0.1:1 --key 0123456789abcdef",
            "plugin push --bundled redact --key 0123456789abcdef",
            "key revoke 01890a5d-ac96-774b-bcce-b302099a8057",
        ] {
            let words = std::iter::once("kero").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
    }
}

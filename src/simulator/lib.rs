//! A simulated WhatsApp: a server on loopback that speaks the real protocol (WebSocket, Noise, binary stanzas,
//! Signal encryption) to unmodified clients, and the phones of the people they talk to.
//!
//! It serves development, tests, demos and integrators' CI: pair a client by handing its QR text to
//! [`Simulator::scan_qr`], write to it as somebody with [`Simulator::send_text`], and read in
//! [`Simulator::ledger`] and [`Simulator::received_texts`] what it sent. The same can be done over HTTP.
//!
//! It does not simulate bans, rate limits, spam scoring or media expiry: what passes here says that the protocol
//! code works, not that WhatsApp tolerates the behaviour. All state but the server's own keys is in memory, and
//! ledger and received texts grow as long as it runs.
//!
//! ```text
//! server → session → noise, then login or pairing, then   iq/      queries, one file per namespace
//!    └→ control, media                                    relay    messages to devices and phones
//!                                                         receipts, presence
//! phone/   simulated phones: Signal state, inbox, scripts
//! world/   accounts, devices and their queues, groups, newsletters: data behind short locks
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod actions;
mod control;
mod faults;
mod iq;
mod ledger;
mod login;
mod media;
mod node;
mod noise;
mod paircode;
mod pairing;
mod phone;
mod presence;
mod receipts;
mod relay;
mod salvage;
mod server;
mod session;
mod socket;
mod stats;
mod tls;
mod world;

#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

pub use faults::{Fault, FaultRule};
pub use ledger::{LedgerLine, Sealed};
pub use pairing::Paired;
pub use phone::script::{Person, PersonInfo, Script};
pub use stats::Stats;
pub use world::account::ReceivedText;

use noise::ServerKeys;
use world::World;

/// How a simulator runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// A loopback address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where the server's keys are kept, so that clients can resume their sessions after a restart.
    pub state_file: Option<PathBuf>,
    /// How long a chat state waits for an offline device.
    pub chat_state_ttl: Duration,
    /// Added before the server's first answer: a login on loopback can be too fast to be seen as one.
    pub hello_delay: Duration,
    /// Between a finished pairing and the request to reconnect (515); at once, it would overtake the pairing.
    pub restart_delay: Duration,
    /// Whether a changed about text is announced to all connected accounts. WhatsApp does not; test suites want it.
    pub announce_about: bool,
    /// Whether clients with the same push name become devices of one phone, when the scan names none.
    pub push_name_selects_phone: bool,
}

impl Default for Config {
    fn default() -> Self {
        let ttl = std::env::var("CHATSTATE_TTL_SECS").ok().and_then(|s| s.parse().ok()).unwrap_or(10);
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            state_file: None,
            chat_state_ttl: Duration::from_secs(ttl),
            hello_delay: Duration::from_millis(20),
            restart_delay: Duration::from_millis(300),
            announce_about: true,
            push_name_selects_phone: true,
        }
    }
}

/// Why a simulator does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the simulator listens on loopback only, not on {0}: it lets anybody in")]
    NotLoopback(SocketAddr),
    #[error("cannot listen on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
    #[error("cannot prepare the server's keys: {0}")]
    Keys(String),
}

/// Why a request to the simulated world is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("this is no WhatsApp QR text: send the raw text of the code, reference,key,key,secret")]
    BadQr,
    #[error("no client shows this code now: codes are good for one scan, while the client shows them")]
    UnknownCode,
    #[error("no client asks for a code for {0}: start pairing by code first")]
    NoPairing(String),
    #[error("the code does not fit: send the eight characters that the client shows")]
    WrongCode,
    #[error("{0:?} is no phone number: send digits with the country code")]
    BadPhone(String),
    #[error("{0} is not on WhatsApp: numbers that end in 0000 never are")]
    NotOnWhatsApp(String),
    #[error("there is no account {0}: add it with POST /admin/people, or pair a client with it")]
    NoSuchAccount(String),
    #[error("{phone} has no linked device {device}")]
    NoSuchDevice { phone: String, device: u16 },
    #[error("there is no group {0}: make it with POST /admin/groups")]
    NoSuchGroup(String),
    #[error("{phone} is not a member of {group}")]
    NotAMember { phone: String, group: String },
    #[error("a group needs members: the first is its creator")]
    EmptyGroup,
    #[error("failed: {0}")]
    Failed(String),
}

/// Starts a simulator on the runtime of the caller.
pub async fn start(config: Config) -> Result<Simulator, StartError> {
    let listen = config.listen;
    if !listen.ip().is_loopback() {
        return Err(StartError::NotLoopback(listen));
    }
    let keys = match &config.state_file {
        Some(file) => ServerKeys::load_or_create(file),
        None => ServerKeys::generate(),
    };
    let keys = keys.map_err(|e| StartError::Keys(format!("{e:#}")))?;
    let tls = tls::acceptor(listen.ip()).map_err(|e| StartError::Keys(format!("{e:#}")))?;
    let listener = TcpListener::bind(listen).await.map_err(|e| StartError::Listen(listen, e))?;
    let addr = listener.local_addr().map_err(|e| StartError::Listen(listen, e))?;
    let world = World::new(config, addr, keys, tokio::runtime::Handle::current());
    world.spawn(server::accept(world.clone(), listener, tls));
    tracing::info!("simulated WhatsApp on {addr}");
    Ok(Simulator { world })
}

/// A running simulator. Clones are handles to the same one; it runs until [`Simulator::shutdown`].
#[derive(Clone)]
pub struct Simulator {
    world: Arc<World>,
}

impl std::fmt::Debug for Simulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Simulator").field("addr", &self.world.addr).finish()
    }
}

impl Simulator {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.world.addr
    }

    /// Where clients connect.
    pub fn ws_url(&self) -> String {
        format!("ws://{}/ws/chat", self.world.addr)
    }

    /// The same over TLS, with a certificate that nobody knows.
    pub fn wss_url(&self) -> String {
        format!("wss://{}/ws/chat", self.world.addr)
    }

    /// Where the control API lies.
    pub fn http_url(&self) -> String {
        format!("http://{}", self.world.addr)
    }

    /// The key that the certificate chain is signed with, for clients whose root key can be set.
    pub fn root_key(&self) -> [u8; 32] {
        self.world.keys.root
    }

    /// Scans the code that a client shows, with the phone of this number. Without one, the client's push name
    /// chooses the phone.
    pub async fn scan_qr(&self, qr: &str, phone: Option<&str>) -> Result<Paired, Refused> {
        pairing::scan(&self.world, qr, phone)
    }

    /// Types the code that a client shows into the phone.
    pub async fn enter_code(&self, phone: &str, code: &str) -> Result<(), Refused> {
        paircode::enter(&self.world, phone, code)
    }

    /// Adds a person, or changes a known one. A number that cannot be on WhatsApp is not added; its answer has an
    /// empty hidden id.
    pub fn add_person(&self, person: Person) -> PersonInfo {
        let phone = person.phone.clone();
        actions::add_person(&self.world, person).unwrap_or_else(|e| {
            tracing::error!("{e}");
            PersonInfo { phone, lid: String::new() }
        })
    }

    /// Sends a text as the person's phone, to a number, a person's JID or a group's. The message's id.
    pub async fn send_text(&self, from_phone: &str, to: &str, text: &str) -> Result<String, Refused> {
        phone::send::send_text(&self.world, from_phone, to, text).await
    }

    /// Makes a group; the first member is its creator. The group's JID.
    pub async fn create_group(&self, subject: &str, members: &[&str]) -> Result<String, Refused> {
        actions::create_group(&self.world, subject, members)
    }

    /// The phone logs a companion out, or all of them.
    pub async fn unlink(&self, phone: &str, device: Option<u16>) -> Result<(), Refused> {
        actions::unlink(&self.world, phone, device)
    }

    /// Puts a fault in force.
    pub fn inject(&self, fault: FaultRule) {
        actions::inject(&self.world, fault);
    }

    /// Ends all faults that were not used up.
    pub fn clear_faults(&self) {
        self.world.faults.clear();
    }

    /// The accepted message stanzas, oldest first.
    pub fn ledger(&self) -> Vec<LedgerLine> {
        self.world.ledger.all()
    }

    /// The counters of now.
    pub fn stats(&self) -> Stats {
        self.world.stats()
    }

    /// The first ledger line, old or new, that `what` accepts; `None` when the time is over. Lines are seen again
    /// when their plaintext becomes known.
    pub async fn wait_for(&self, what: impl Fn(&LedgerLine) -> bool, timeout: Duration) -> Option<LedgerLine> {
        self.world.ledger.wait_for(what, timeout).await
    }

    /// What the phone of this number decrypted, or was told by another simulated phone, oldest first: all of it that
    /// the server acknowledged before this call.
    pub async fn received_texts(&self, phone: &str) -> Vec<ReceivedText> {
        actions::received_texts(&self.world, phone).await
    }

    /// Ids of the messages for this number that a linked device of it has not acknowledged: they are sent again. All
    /// others never are.
    pub fn unacknowledged(&self, phone: &str) -> std::collections::HashSet<String> {
        actions::unacknowledged(&self.world, phone)
    }

    /// Stops listening and closes all connections. When it returns, another simulator can take the port.
    pub async fn shutdown(&self) {
        self.world.stop.cancel();
        self.world.tasks.close();
        self.world.tasks.wait().await;
    }
}

//! An account: a phone, which is simulated, and the companion devices that are linked to it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, OnceLock};

use serde::Serialize;
use tokio::sync::mpsc::UnboundedSender;
use wacore::libsignal::protocol::IdentityKeyPair;
use wacore_binary::{Jid, Node};

use super::device::Device;
use super::lock;
use super::scenario::Scenario;
use crate::iq::app_state::AppState;
use crate::phone::script::Script;
use crate::phone::store::{SignalState, rng};
use crate::phone::{Inbound, Sent};

/// Identity and addresses, which never change, and the rest behind its own lock.
pub(crate) struct Account {
    /// Digits only.
    pub phone: String,
    /// User part of the hidden id.
    pub lid: String,
    pub raw_id: u32,
    /// Proof for messages to restricted accounts; given to companions as the scenario says.
    pub nct_salt: [u8; 32],
    identity: OnceLock<IdentityKeyPair>,
    signal: OnceLock<tokio::sync::Mutex<SignalState>>,
    /// The phone's inbox, made with its first message; one task empties it in order.
    pub inbox: OnceLock<UnboundedSender<Inbound>>,
    pub state: Mutex<AccountState>,
}

/// A text that a simulated phone received and decrypted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReceivedText {
    /// Unix milliseconds.
    pub at: u64,
    /// The sender's phone number.
    pub from: String,
    pub id: String,
    pub text: String,
    /// The group's JID for a group message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat: Option<String>,
}

pub(crate) struct AccountState {
    pub name: String,
    pub script: Script,
    pub scenario: Scenario,
    pub devices: BTreeMap<u16, Device>,
    pub next_device: u16,
    pub next_key_index: u32,
    /// Collections and their key; made when the first companion is linked.
    pub app_state: Option<AppState>,
    pub available: bool,
    /// Unix seconds; when the account was last available.
    pub last_seen: u64,
    /// Devices that asked for this account's presence: (phone, device).
    pub presence_watchers: Vec<(String, u16)>,
    /// Accounts that asked for this account's device list; they are told when it changes.
    pub list_watchers: HashSet<String>,
    pub about: String,
    /// Id of the profile picture; its bytes are in the media store under `pic<id>`.
    pub picture: Option<String>,
    pub blocked: BTreeSet<String>,
    /// Privacy settings that differ from `all`.
    pub privacy: BTreeMap<String, String>,
    pub texts: Vec<ReceivedText>,
    /// Ids the phone has handled, by (sender, id): a real phone shows a repeated message once.
    pub handled: HashSet<(String, String)>,
    /// What the phone sent, to repeat it on request.
    pub sent: Sent,
}

impl Account {
    pub fn new(phone: &str, lid: &str) -> Self {
        Self {
            phone: phone.to_owned(),
            lid: lid.to_owned(),
            raw_id: rand::random::<u32>() >> 1,
            nct_salt: crate::node::random(),
            identity: OnceLock::new(),
            signal: OnceLock::new(),
            inbox: OnceLock::new(),
            state: Mutex::new(AccountState {
                name: format!("Contact {phone}"),
                script: Script::Silent,
                scenario: Scenario::default(),
                devices: BTreeMap::new(),
                next_device: 1,
                next_key_index: 1,
                app_state: None,
                available: false,
                last_seen: crate::node::now().saturating_sub(60),
                presence_watchers: Vec::new(),
                list_watchers: HashSet::new(),
                about: String::new(),
                picture: None,
                blocked: BTreeSet::new(),
                privacy: BTreeMap::new(),
                texts: Vec::new(),
                handled: HashSet::new(),
                sent: Sent::default(),
            }),
        }
    }

    /// The phone's identity key, made on first use so that a large phone book costs little.
    pub fn identity(&self) -> &IdentityKeyPair {
        self.identity.get_or_init(|| IdentityKeyPair::generate(&mut rng()))
    }

    pub fn identity_public(&self) -> Vec<u8> {
        self.identity().public_key().public_key_bytes().to_vec()
    }

    /// The phone's Signal sessions and keys.
    pub fn signal(&self) -> &tokio::sync::Mutex<SignalState> {
        self.signal.get_or_init(|| tokio::sync::Mutex::new(SignalState::new(self.identity().clone())))
    }

    pub fn pn_jid(&self, device: u16) -> Jid {
        Jid::pn_device(self.phone.as_str(), device)
    }

    pub fn lid_jid(&self, device: u16) -> Jid {
        Jid::lid_device(self.lid.as_str(), device)
    }

    /// The device's address in the same address space as `like`.
    pub fn jid_like(&self, like: &Jid, device: u16) -> Jid {
        if like.is_lid() { self.lid_jid(device) } else { self.pn_jid(device) }
    }

    pub fn name(&self) -> String {
        lock(&self.state).name.clone()
    }

    pub fn scenario(&self) -> Scenario {
        lock(&self.state).scenario.clone()
    }

    /// Ids of the companions; the phone itself, device 0, is not among them.
    pub fn companions(&self) -> Vec<u16> {
        lock(&self.state).devices.keys().copied().collect()
    }

    /// Delivers a stanza to a device now, or keeps it for its next login.
    pub fn deliver(&self, device: u16, stanza: Node) {
        if let Some(d) = lock(&self.state).devices.get_mut(&device) {
            d.deliver(stanza);
        }
    }

    /// Delivers to all companions but one.
    pub fn deliver_to_all(&self, stanza: &Node, except: Option<u16>) {
        for (id, d) in &mut lock(&self.state).devices {
            if Some(*id) != except {
                d.deliver(stanza.clone());
            }
        }
    }

    /// Sends to a device if it is connected; nothing is kept.
    pub fn send_if_connected(&self, device: u16, stanza: Node) {
        if let Some(d) = lock(&self.state).devices.get(&device) {
            d.send(stanza);
        }
    }

    /// Sends to all connected devices; nothing is kept.
    pub fn send_to_connected(&self, stanza: &Node) {
        for d in lock(&self.state).devices.values().filter(|d| d.is_connected()) {
            d.send(stanza.clone());
        }
    }
}

/// Whether these are the same account.
pub(crate) fn same(a: &Arc<Account>, b: &Arc<Account>) -> bool {
    Arc::ptr_eq(a, b)
}

//! `encrypt`: prekeys of devices, uploaded by their owner and fetched by those who write to them.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use buffa::Message as _;
use wacore_binary::{Jid, Node};

use super::{Answer, Query};
use crate::node::{big_endian, bytes, child_bytes, children, holding, holding_bytes, id24, jid, key32, node, server};
use crate::session::Caller;
use crate::world::device::SignedPrekey;
use crate::world::{World, lock};

/// A stock that falls to this is reported to its owner.
const LOW_STOCK: usize = 10;

/// Device identity keys are Curve25519.
const KEY_TYPE: u8 = 5;

pub(crate) async fn answer(caller: &Caller, query: &Query<'_>) -> Result<Answer> {
    match (query.kind, query.first) {
        ("get", "count") => {
            let stock = lock(&caller.account.state).devices.get(&caller.device).map_or(0, |d| d.prekeys.len());
            Ok(Answer::one(node("count").attr("value", stock).build()))
        }
        ("get", "digest") => Ok(digest(caller)),
        ("get", "key" | "identity") => {
            let wanted = query.child.map(children).unwrap_or(&[]);
            let mut users = Vec::with_capacity(wanted.len());
            for user in wanted {
                if let Some(jid) = jid(user, "jid") {
                    users.push(bundle(&caller.world, &jid).await);
                }
            }
            Ok(Answer::one(holding("list", users)))
        }
        ("set", _) => upload(caller, query.stanza),
        _ => Ok(Answer::empty()),
    }
}

/// What we hold for the asking device, with a hash over it; 404 makes the client upload all keys anew.
fn digest(caller: &Caller) -> Answer {
    let state = lock(&caller.account.state);
    let Some(d) = state.devices.get(&caller.device).filter(|d| !d.prekeys.is_empty()) else {
        return Answer::not_found();
    };
    let keys: Vec<&[u8]> = d.prekeys.iter().map(|(_, key)| &key[..]).collect();
    let hash = wacore::prekeys::compute_key_bundle_digest(
        &d.identity,
        &d.signed_prekey.key,
        &d.signed_prekey.signature,
        &keys,
    );
    let ids = d.prekeys.iter().map(|(id, _)| holding_bytes("id", id24(*id)));
    Answer::one(holding(
        "digest",
        [
            holding_bytes("registration", d.registration.to_be_bytes()),
            holding_bytes("type", [KEY_TYPE]),
            holding_bytes("identity", d.identity),
            signed_prekey_node(&d.signed_prekey),
            holding("list", ids),
            holding_bytes("hash", hash),
        ],
    ))
}

/// Stores what the client uploads: a registration id, a (rotated) signed prekey, one-time prekeys.
fn upload(caller: &Caller, stanza: &Node) -> Result<Answer> {
    let mut state = lock(&caller.account.state);
    let d = state.devices.get_mut(&caller.device).context("the device was removed")?;
    if let Some(registration) = stanza.get_optional_child("registration") {
        d.registration = big_endian(&bytes(registration));
    }
    let rotated = || stanza.get_optional_child("rotate").and_then(|r| r.get_optional_child("skey"));
    if let Some(key) = stanza.get_optional_child("skey").or_else(rotated) {
        d.signed_prekey = SignedPrekey {
            id: big_endian(&child_bytes(key, "id")),
            key: key32(&child_bytes(key, "value"))?,
            signature: child_bytes(key, "signature"),
        };
    }
    let uploaded = stanza.get_optional_child("list").map(children).unwrap_or(&[]);
    let mut new = BTreeMap::new();
    for key in uploaded {
        new.insert(big_endian(&child_bytes(key, "id")), key32(&child_bytes(key, "value"))?);
    }
    d.prekeys.retain(|(id, _)| !new.contains_key(id));
    d.prekeys.extend(new);
    Ok(Answer::empty())
}

/// A device's keys for a new session; a one-time prekey is handed out once.
async fn bundle(world: &World, of: &Jid) -> Node {
    let user = node("user").attr("jid", of.clone());
    let unknown = || vec![node("error").attr("code", 406).attr("text", "not-acceptable").build()];
    let Some(account) = world.directory.by_jid_or_new(of) else { return user.children(unknown()).build() };
    if of.device == 0 {
        let mut signal = account.signal().lock().await;
        let (id, key) = signal.new_prekey();
        let keys = common(signal.registration(), &account.identity_public());
        let rest = [prekey_node(id, &key), signed_prekey_node(&signal.signed_prekey())];
        return user.children(keys.into_iter().chain(rest)).build();
    }
    let mut state = lock(&account.state);
    let Some(d) = state.devices.get_mut(&of.device) else { return user.children(unknown()).build() };
    let mut keys = common(d.registration, &d.identity);
    if let Some((id, key)) = d.prekeys.pop_front() {
        keys.push(prekey_node(id, &key));
        if d.prekeys.len() == LOW_STOCK {
            let count = node("count").attr("value", LOW_STOCK).build();
            d.deliver(world.notification("encrypt", server()).children([count]).build());
        }
    }
    keys.push(signed_prekey_node(&d.signed_prekey));
    keys.push(holding_bytes("device-identity", d.signed_identity.encode_to_vec()));
    user.children(keys).build()
}

fn common(registration: u32, identity: &[u8]) -> Vec<Node> {
    vec![
        holding_bytes("registration", registration.to_be_bytes()),
        holding_bytes("type", [KEY_TYPE]),
        holding_bytes("identity", identity),
    ]
}

/// The keys that go with a retry receipt of a simulated phone.
pub(crate) fn retry_keys(identity: &[u8], prekey: (u32, [u8; 32]), signed: &SignedPrekey) -> Node {
    holding(
        "keys",
        [
            holding_bytes("type", [KEY_TYPE]),
            holding_bytes("identity", identity),
            prekey_node(prekey.0, &prekey.1),
            signed_prekey_node(signed),
        ],
    )
}

fn prekey_node(id: u32, key: &[u8; 32]) -> Node {
    holding("key", [holding_bytes("id", id24(id)), holding_bytes("value", *key)])
}

pub(crate) fn signed_prekey_node(key: &SignedPrekey) -> Node {
    holding(
        "skey",
        [
            holding_bytes("id", id24(key.id)),
            holding_bytes("value", key.key),
            holding_bytes("signature", key.signature.clone()),
        ],
    )
}

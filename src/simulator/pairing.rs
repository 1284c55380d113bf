//! Pairing: a new client shows a QR code, a phone scans it and signs the client's identity.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, anyhow};
use base64::prelude::*;
use buffa::Message as _;
use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use wacore_binary::Node;
use waproto::whatsapp as wa;

use crate::Refused;
use crate::iq::app_state::AppState;
use crate::node::{attr_is, big_endian, bytes, holding_bytes, key32, node, now, random, server};
use crate::paircode::{self, CodeRequest};
use crate::phone::store::rng;
use crate::world::account::Account;
use crate::world::device::{Device, Outbox, Outgoing, SignedPrekey};
use crate::world::scenario::Scenario;
use crate::world::{World, lock};

/// Clients show the first code for a minute, each further one for 20 s.
const REFS: usize = 6;

/// The link that a QR text may be wrapped in.
const QR_LINK: &str = "https://wa.me/settings/linked_devices#";

/// What a scan made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Paired {
    /// The account's phone number.
    pub phone: String,
    /// User part of the account's hidden id.
    pub lid: String,
    /// The new device's id.
    pub device: u16,
}

/// A connection that waits to be paired.
pub(crate) struct Unpaired {
    pub connection: u64,
    pub outbox: Outbox,
    noise: [u8; 32],
    payload: wa::ClientPayload,
}

#[derive(Default)]
struct Waiting {
    by_ref: HashMap<String, Arc<Unpaired>>,
    by_connection: HashMap<u64, Arc<Unpaired>>,
    /// Code pairings in progress, by phone number.
    codes: HashMap<String, CodeRequest>,
    /// Connections whose device was made, until it signed: (account, device).
    signing: HashMap<u64, (Arc<Account>, u16)>,
}

/// All pairings in progress.
#[derive(Default)]
pub(crate) struct Pairings {
    waiting: Mutex<Waiting>,
}

impl Pairings {
    pub fn of_connection(&self, connection: u64) -> Option<Arc<Unpaired>> {
        lock(&self.waiting).by_connection.get(&connection).cloned()
    }

    pub fn put_code(&self, phone: String, request: CodeRequest) {
        lock(&self.waiting).codes.insert(phone, request);
    }

    pub fn take_code(&self, phone: &str) -> Option<CodeRequest> {
        lock(&self.waiting).codes.remove(phone)
    }

    /// Takes the connection that shows this code; a code is good for one scan.
    fn take_ref(&self, reference: &str) -> Option<Arc<Unpaired>> {
        let mut waiting = lock(&self.waiting);
        let unpaired = waiting.by_ref.get(reference).cloned()?;
        waiting.by_ref.retain(|_, u| !Arc::ptr_eq(u, &unpaired));
        Some(unpaired)
    }

    /// The connection ended.
    pub fn forget(&self, connection: u64) {
        let mut waiting = lock(&self.waiting);
        waiting.by_connection.remove(&connection);
        waiting.signing.remove(&connection);
        waiting.by_ref.retain(|_, u| u.connection != connection);
        waiting.codes.retain(|_, c| c.unpaired.connection != connection);
    }
}

/// Offers QR references to a client that is not paired yet.
pub(crate) fn offer(world: &World, connection: u64, outbox: &Outbox, noise: [u8; 32], payload: wa::ClientPayload) {
    let unpaired = Arc::new(Unpaired { connection, outbox: outbox.clone(), noise, payload });
    let refs: Vec<String> = (0..REFS).map(|_| format!("2@{}", BASE64_STANDARD.encode(random::<48>()))).collect();
    {
        let mut waiting = lock(&world.pairings.waiting);
        for r in &refs {
            waiting.by_ref.insert(r.clone(), unpaired.clone());
        }
        waiting.by_connection.insert(connection, unpaired);
    }
    let offer = node("pair-device").children(refs.iter().map(|r| holding_bytes("ref", r.as_bytes()))).build();
    let _ = outbox.send(Outgoing::Stanza(request(format!("pd{connection}"), offer)));
}

/// The parts of a QR text that a phone needs.
#[derive(Debug, PartialEq, Eq)]
struct Qr<'a> {
    reference: &'a str,
    identity: [u8; 32],
    adv_secret: Vec<u8>,
}

/// `ref,noise key,identity key,secret[,client type]`, keys in base64.
fn parse_qr(text: &str) -> Option<Qr<'_>> {
    let text = text.trim();
    let mut fields = text.strip_prefix(QR_LINK).unwrap_or(text).split(',');
    let reference = fields.next().filter(|r| !r.is_empty())?;
    let _noise = fields.next()?;
    let identity = key32(&BASE64_STANDARD.decode(fields.next()?).ok()?).ok()?;
    let adv_secret = BASE64_STANDARD.decode(fields.next()?).ok()?;
    Some(Qr { reference, identity, adv_secret })
}

/// The phone scans a code. Without a number, the client's push name chooses the phone.
pub(crate) fn scan(world: &Arc<World>, text: &str, phone: Option<&str>) -> Result<Paired, Refused> {
    let qr = parse_qr(text).ok_or(Refused::BadQr)?;
    // The number is looked at first: a refused one must not use up the code.
    let wanted = phone.map(|p| world.directory.ensure(p)).transpose()?;
    let unpaired = world.pairings.take_ref(qr.reference).ok_or(Refused::UnknownCode)?;
    let account = match wanted {
        Some(account) => account,
        None => {
            let name = unpaired.payload.push_name.as_deref().filter(|_| world.config.push_name_selects_phone);
            world.directory.ensure(&world.directory.phone_for_name(name))?
        }
    };
    complete(world, &unpaired, &account, qr.identity, &qr.adv_secret).map_err(|e| Refused::Failed(format!("{e:#}")))
}

/// Makes the device and sends the client its identity, signed by the phone.
pub(crate) fn complete(
    world: &Arc<World>,
    unpaired: &Unpaired,
    account: &Arc<Account>,
    identity: [u8; 32],
    adv_secret: &[u8],
) -> Result<Paired> {
    let registration = unpaired.payload.device_pairing_data.as_option().context("no registration data")?;
    let part = |v: &Option<Vec<u8>>| v.clone().unwrap_or_default();
    let signed_prekey = SignedPrekey {
        id: big_endian(&part(&registration.e_skey_id)),
        key: key32(&part(&registration.e_skey_val))?,
        signature: part(&registration.e_skey_sig),
    };

    let (device, key_index) = {
        let mut state = lock(&account.state);
        // The first companion of a phone gives it its name.
        if let Some(name) = unpaired.payload.push_name.clone().filter(|_| state.app_state.is_none()) {
            state.scenario = Scenario::of_name(&name);
            state.name = name;
        }
        let (name, scenario) = (state.name.clone(), state.scenario.clone());
        if state.app_state.is_none() {
            state.app_state = Some(AppState::new(&name, &scenario, &account.nct_salt));
        }
        let numbers = (state.next_device, state.next_key_index);
        state.next_device += 1;
        state.next_key_index += 1;
        numbers
    };

    let details = wa::ADVDeviceIdentity {
        raw_id: Some(account.raw_id),
        timestamp: Some(now()),
        key_index: Some(key_index),
        ..Default::default()
    }
    .encode_to_vec();
    let signature = account
        .identity()
        .private_key()
        .calculate_signature(&[&[6, 0][..], &details, &identity].concat(), &mut rng())
        .map_err(|e| anyhow!("{e}"))?;
    let signed = wa::ADVSignedDeviceIdentity {
        details: Some(details),
        account_signature_key: Some(account.identity_public()),
        account_signature: Some(signature.to_vec()),
        device_signature: None,
    };
    let signed_bytes = signed.encode_to_vec();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(adv_secret).map_err(|_| anyhow!("bad secret"))?;
    mac.update(&signed_bytes);
    let container = wa::ADVSignedDeviceIdentityHMAC {
        details: Some(signed_bytes),
        hmac: Some(mac.finalize().into_bytes().to_vec()),
        ..Default::default()
    };

    let number = big_endian(&part(&registration.e_regid));
    let new = Device::new(device, key_index, identity, unpaired.noise, number, signed_prekey, signed);
    lock(&account.state).devices.insert(device, new);
    world.directory.note_linked(account);
    lock(&world.pairings.waiting).signing.insert(unpaired.connection, (account.clone(), device));

    let success = node("pair-success")
        .children([
            holding_bytes("device-identity", container.encode_to_vec()),
            node("platform").attr("name", "android").build(),
            node("device").attr("jid", account.pn_jid(device)).attr("lid", account.lid_jid(device)).build(),
            holding_bytes(
                "client-props",
                wa::ClientPairingProps { is_chat_db_lid_migrated: Some(true), ..Default::default() }.encode_to_vec(),
            ),
        ])
        .build();
    let _ = unpaired.outbox.send(Outgoing::Stanza(request(format!("ps{}", world.next()), success)));
    Ok(Paired { phone: account.phone.clone(), lid: account.lid.clone(), device })
}

/// Stanzas of a client that is not logged in.
pub(crate) async fn handle(world: &Arc<World>, connection: u64, outbox: &Outbox, stanza: &Node) -> Result<()> {
    if stanza.tag != "iq" {
        return Ok(());
    }
    if attr_is(stanza, "type", "result") {
        return match stanza.get_optional_child("pair-device-sign") {
            Some(sign) => signed(world, connection, outbox, sign),
            None => Ok(()),
        };
    }
    if let Some(link) = stanza.get_optional_child("link_code_companion_reg") {
        return paircode::handle(world, connection, outbox, stanza, link);
    }
    // Keepalive pings come before login too, and an unanswered query would hold the client up.
    let _ = outbox.send(Outgoing::Stanza(crate::iq::result(stanza, Vec::new())));
    Ok(())
}

/// The client signed its identity: keep it for other clients' key bundles, and tell it to reconnect.
fn signed(world: &Arc<World>, connection: u64, outbox: &Outbox, sign: &Node) -> Result<()> {
    let identity = sign.get_optional_child("device-identity").context("no device identity")?;
    let signed = wa::ADVSignedDeviceIdentity::decode_from_slice(&bytes(identity))?;
    let (account, device) =
        lock(&world.pairings.waiting).signing.remove(&connection).context("nothing is being paired here")?;
    if let Some(d) = lock(&account.state).devices.get_mut(&device) {
        d.signed_identity = signed;
    }
    crate::iq::devices::announce_added(world, &account, device);
    // An instant 515 overtakes the client's own handling of the pairing, and it hangs.
    let (outbox, delay) = (outbox.clone(), world.config.restart_delay);
    world.spawn(async move {
        tokio::time::sleep(delay).await;
        let _ = outbox.send(Outgoing::Stanza(node("stream:error").attr("code", "515").build()));
        tokio::time::sleep(crate::login::RESTART_GRACE).await;
        let _ = outbox.send(Outgoing::Close);
    });
    Ok(())
}

fn request(id: String, child: Node) -> Node {
    node("iq")
        .attr("from", server())
        .attr("type", "set")
        .attr("id", id)
        .attr("xmlns", "md")
        .attr("t", now())
        .children([child])
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn qr(prefix: &str, suffix: &str) -> String {
        let key = BASE64_STANDARD.encode([7; 32]);
        format!("{prefix}2@abc,{key},{key},{key}{suffix}")
    }

    #[test]
    fn qr_texts_are_read_in_all_their_forms() {
        for text in [qr("", ""), qr("", ",1"), qr(QR_LINK, ",1"), qr(" ", "\n")] {
            let parsed = parse_qr(&text).unwrap();
            assert_eq!((parsed.reference, parsed.identity), ("2@abc", [7; 32]));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "hello", "a,b,c,d", "2@abc,AA==,AA==,AA=="] {
            assert_eq!(parse_qr(text), None, "{text}");
        }
    }
}

//! Pairing by the eight characters that a client shows and a person types into the phone.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use wacore::crypto::hkdf_sha256_into;
use wacore::libsignal::crypto::aes_256_gcm_decrypt;
use wacore::libsignal::protocol::{KeyPair, PublicKey};
use wacore::pair_code::PairCodeUtils;
use wacore_binary::Node;

use crate::Refused;
use crate::iq::result;
use crate::node::{attr, child_bytes, holding_bytes, key32, message_id, node, now, random, required_jid, server};
use crate::pairing::{Unpaired, complete};
use crate::phone::store::rng;
use crate::world::World;
use crate::world::device::{Outbox, Outgoing};
use crate::world::directory::normal_phone;

/// A client that shows a code and waits for the phone.
pub(crate) struct CodeRequest {
    pub unpaired: Arc<Unpaired>,
    /// The client's ephemeral key, sealed with the code.
    sealed_ephemeral: Vec<u8>,
    reference: Vec<u8>,
    /// Known once the code was typed in: our ephemeral key and the client's.
    entered: Option<(KeyPair, [u8; 32])>,
}

/// The two stages that the client sends.
pub(crate) fn handle(world: &Arc<World>, connection: u64, outbox: &Outbox, iq: &Node, link: &Node) -> Result<()> {
    let phone = normal_phone(&required_jid(link, "jid")?.user).map_err(|e| anyhow!("{e}"))?;
    match attr(link, "stage").as_deref() {
        Some("companion_hello") => {
            let reference = random::<16>().to_vec();
            let request = CodeRequest {
                unpaired: world.pairings.of_connection(connection).context("unknown connection")?,
                sealed_ephemeral: child_bytes(link, "link_code_pairing_wrapped_companion_ephemeral_pub"),
                reference: reference.clone(),
                entered: None,
            };
            world.pairings.put_code(phone, request);
            let answer = node("link_code_companion_reg")
                .attr("stage", "companion_hello")
                .children([holding_bytes("link_code_pairing_ref", reference)])
                .build();
            let _ = outbox.send(Outgoing::Stanza(result(iq, vec![answer])));
            Ok(())
        }
        Some("companion_finish") => {
            let request = world.pairings.take_code(&phone).context("no code was asked for")?;
            let (ephemeral, client_ephemeral) = request.entered.context("the code was not entered")?;
            let bundle = child_bytes(link, "link_code_pairing_wrapped_key_bundle");
            let identity = key32(&child_bytes(link, "companion_identity_public"))?;
            let account = world.directory.ensure(&phone).map_err(|e| anyhow!("{e}"))?;

            let shared = agreement(&ephemeral.private_key, &client_ephemeral)?;
            let identities = agreement(account.identity().private_key(), &identity)?;
            let random = open_bundle(&shared, &bundle)?;
            let mut adv_secret = [0; 32];
            hkdf_sha256_into(&[&shared[..], &identities, &random].concat(), None, b"adv_secret", &mut adv_secret)
                .map_err(|_| anyhow!("key derivation failed"))?;

            let _ = outbox.send(Outgoing::Stanza(result(iq, Vec::new())));
            complete(world, &request.unpaired, &account, identity, &adv_secret)?;
            Ok(())
        }
        other => bail!("unknown stage {other:?}"),
    }
}

/// The person types the code into the phone.
pub(crate) fn enter(world: &Arc<World>, phone: &str, code: &str) -> Result<(), Refused> {
    let account = world.directory.ensure(phone)?;
    let code: String = code.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    if code.len() != 8 {
        return Err(Refused::WrongCode);
    }
    let mut request =
        world.pairings.take_code(&account.phone).ok_or_else(|| Refused::NoPairing(account.phone.clone()))?;
    // A wrong code goes unnoticed here and fails at the client, whose key cannot be read with it.
    let entered = seal_our_key(&request.sealed_ephemeral, &code);
    let (ephemeral, client_ephemeral, sealed) = match entered {
        Ok(entered) => entered,
        Err(_) => {
            world.pairings.put_code(account.phone.clone(), request);
            return Err(Refused::WrongCode);
        }
    };
    let hello = node("link_code_companion_reg")
        .attr("stage", "primary_hello")
        .children([
            holding_bytes("link_code_pairing_wrapped_primary_ephemeral_pub", sealed),
            holding_bytes("primary_identity_pub", account.identity_public()),
            holding_bytes("link_code_pairing_ref", request.reference.clone()),
        ])
        .build();
    let notification = node("notification")
        .attr("from", server())
        .attr("type", "link_code_companion_reg")
        .attr("id", message_id())
        .attr("t", now())
        .children([hello])
        .build();
    request.entered = Some((ephemeral, client_ephemeral));
    let outbox = request.unpaired.outbox.clone();
    world.pairings.put_code(account.phone.clone(), request);
    let _ = outbox.send(Outgoing::Stanza(notification));
    Ok(())
}

/// Reads the client's ephemeral key with the code, and seals one of ours with it.
fn seal_our_key(sealed_ephemeral: &[u8], code: &str) -> Result<(KeyPair, [u8; 32], Vec<u8>)> {
    let client = PairCodeUtils::decrypt_primary_ephemeral_pub(sealed_ephemeral, code).map_err(|e| anyhow!("{e}"))?;
    let ephemeral = KeyPair::generate(&mut rng());
    let sealed = PairCodeUtils::encrypt_ephemeral_pub(&key32(ephemeral.public_key.public_key_bytes())?, code);
    Ok((ephemeral, client, sealed.to_vec()))
}

/// salt (32) | iv (12) | AES-GCM of companion identity (32) | phone identity (32) | random (32); the random is ours.
fn open_bundle(shared: &[u8], bundle: &[u8]) -> Result<[u8; 32]> {
    let (salt, rest) = bundle.split_at_checked(32).context("short key bundle")?;
    let (iv, sealed) = rest.split_at_checked(12).context("short key bundle")?;
    let mut key = [0; 32];
    hkdf_sha256_into(shared, Some(salt), b"link_code_pairing_key_bundle_encryption_key", &mut key)
        .map_err(|_| anyhow!("key derivation failed"))?;
    let mut plain = Vec::new();
    aes_256_gcm_decrypt(&key, iv.try_into()?, b"", sealed, &mut plain).map_err(|e| anyhow!("key bundle: {e:?}"))?;
    key32(plain.get(64..96).context("short key bundle")?)
}

fn agreement(private: &wacore::libsignal::protocol::PrivateKey, public: &[u8; 32]) -> Result<[u8; 32]> {
    let public = PublicKey::from_djb_public_key_bytes(public).map_err(|e| anyhow!("{e}"))?;
    key32(&private.calculate_agreement(&public).map_err(|e| anyhow!("{e}"))?)
}

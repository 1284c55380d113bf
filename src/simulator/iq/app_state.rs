//! `w:sync:app:state`: versioned collections of encrypted settings. The server keeps patches in order and refuses
//! one that was made from an older version; it never needs to read them.

use std::collections::HashMap;

use anyhow::Result;
use buffa::{Message as _, MessageField};
use wacore::appstate::encode::encode_record;
use wacore::appstate::hash::{HashState, generate_patch_mac};
use wacore::appstate::keys::expand_app_state_keys;
use wacore_binary::Node;
use waproto::whatsapp as wa;

use super::{Answer, Query};
use crate::node::{bytes, children, holding, holding_bytes, node, now_ms, number, random, required};
use crate::session::Caller;
use crate::world::lock;
use crate::world::scenario::Scenario;

/// An account's collections, and the key that its phone shares with companions.
pub(crate) struct AppState {
    pub key_id: Vec<u8>,
    pub key: Vec<u8>,
    collections: HashMap<String, Collection>,
}

#[derive(Default)]
struct Collection {
    version: u64,
    /// Patches by the version they make.
    patches: Vec<(u64, Vec<u8>)>,
}

impl AppState {
    /// The phone's first settings: its push name, and the salt when the scenario sends it this way.
    pub fn new(name: &str, scenario: &Scenario, nct_salt: &[u8]) -> Self {
        let key_id = [&[0, 0][..], &random::<4>()].concat();
        let mut state = Self { key_id, key: random::<32>().to_vec(), collections: HashMap::new() };
        let push_name = wa::SyncActionValue {
            timestamp: Some(now_ms() as i64),
            push_name_setting: MessageField::some(wa::sync_action_value::PushNameSetting {
                name: Some(name.to_owned()),
            }),
            ..Default::default()
        };
        state.found("critical_block", br#"["setting_pushName"]"#, &push_name);
        if scenario.nct_by_app_state {
            let salt = wa::SyncActionValue {
                timestamp: Some(now_ms() as i64),
                nct_salt_sync_action: MessageField::some(wa::sync_action_value::NctSaltSyncAction {
                    salt: Some(nct_salt.to_vec()),
                }),
                ..Default::default()
            };
            state.found("regular_high", br#"["nct_salt_sync"]"#, &salt);
        }
        state
    }

    /// Starts a collection with one record: a patch of version 1, which clients accept without a snapshot.
    fn found(&mut self, collection: &str, index: &[u8], value: &wa::SyncActionValue) {
        const SET: wa::syncd_mutation::SyncdOperation = wa::syncd_mutation::SyncdOperation::SET;
        let keys = expand_app_state_keys(&self.key);
        let (mutation, _) = encode_record(SET, index, value, &keys, &self.key_id, &random::<16>(), 1);
        let mut hash = HashState::default();
        let _ = hash.update_hash(std::slice::from_ref(&mutation), |_, _| Ok(None));
        hash.version = 1;
        let mut patch = wa::SyncdPatch {
            version: MessageField::some(wa::SyncdVersion { version: Some(1) }),
            mutations: vec![mutation],
            snapshot_mac: Some(hash.generate_snapshot_mac(collection, &keys.snapshot_mac)),
            key_id: MessageField::some(wa::KeyId { id: Some(self.key_id.clone()) }),
            ..Default::default()
        };
        patch.patch_mac = Some(generate_patch_mac(&patch, collection, &keys.patch_mac, 1));
        let started = Collection { version: 1, patches: vec![(1, patch.encode_to_vec())] };
        self.collections.insert(collection.to_owned(), started);
    }
}

pub(crate) fn answer(caller: &Caller, query: &Query<'_>) -> Result<Answer> {
    let wanted = query.stanza.get_optional_child("sync").map(children).unwrap_or(&[]);
    let mut changed: Vec<(String, u64)> = Vec::new();
    let mut answers = Vec::with_capacity(wanted.len());
    {
        let mut state = lock(&caller.account.state);
        let Some(app_state) = state.app_state.as_mut() else { return Ok(Answer::not_found()) };
        for collection in wanted {
            let name = required(collection, "name")?;
            let (answer, new) = sync(app_state.collections.entry(name.clone()).or_default(), &name, collection)?;
            answers.push(answer);
            changed.extend(new.map(|version| (name, version)));
        }
    }
    if !changed.is_empty() {
        let collections = changed
            .into_iter()
            .map(|(name, version)| node("collection").attr("name", name).attr("version", version).build());
        let notification =
            caller.world.notification("server_sync", caller.account.pn_jid(0)).children(collections).build();
        caller.account.deliver_to_all(&notification, Some(caller.device));
    }
    Ok(Answer::one(holding("sync", answers)))
}

/// Answers for one collection, and its new version when the client's patches were taken.
fn sync(collection: &mut Collection, name: &str, request: &Node) -> Result<(Node, Option<u64>)> {
    let known: u64 = number(request, "version").unwrap_or(0);
    let uploaded: Vec<Vec<u8>> = request.get_children_by_tag("patch").map(bytes).collect();
    let answer = node("collection").attr("name", name.to_owned());
    if !uploaded.is_empty() && known != collection.version {
        let conflict = node("error").attr("code", 409).attr("text", "conflict").build();
        let newer = (collection.version > known).then(|| patches(collection, known));
        let children = std::iter::once(conflict).chain(newer).collect::<Vec<_>>();
        return Ok((answer.attr("type", "error").children(children).build(), None));
    }
    let took = !uploaded.is_empty();
    for patch in uploaded {
        let mut patch = wa::SyncdPatch::decode_from_slice(&patch)?;
        collection.version += 1;
        patch.version = MessageField::some(wa::SyncdVersion { version: Some(collection.version) });
        collection.patches.push((collection.version, patch.encode_to_vec()));
    }
    let mut answer = answer.attr("version", collection.version);
    if !took && collection.version > known {
        answer = answer.children([patches(collection, known)]);
    }
    Ok((answer.build(), took.then_some(collection.version)))
}

fn patches(collection: &Collection, after: u64) -> Node {
    let newer = collection.patches.iter().filter(|(version, _)| *version > after);
    holding("patches", newer.map(|(_, patch)| holding_bytes("patch", patch.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(version: u64, patch: bool) -> Node {
        let request = node("collection").attr("name", "regular").attr("version", version);
        let patches = patch.then(|| holding_bytes("patch", wa::SyncdPatch::default().encode_to_vec()));
        request.children(patches).build()
    }

    #[test]
    fn a_patch_from_an_old_version_is_a_conflict() {
        let mut collection = Collection::default();
        let (_, version) = sync(&mut collection, "regular", &request(0, true)).unwrap();
        assert_eq!(version, Some(1));
        let (answer, version) = sync(&mut collection, "regular", &request(0, true)).unwrap();
        assert_eq!(version, None);
        assert!(answer.get_optional_child("error").is_some());
        let (answer, _) = sync(&mut collection, "regular", &request(0, false)).unwrap();
        assert_eq!(children(answer.get_optional_child("patches").unwrap()).len(), 1);
        let (answer, _) = sync(&mut collection, "regular", &request(1, false)).unwrap();
        assert!(answer.get_optional_child("patches").is_none());
    }

    #[test]
    fn a_new_account_has_its_name() {
        let scenario = Scenario { nct_by_app_state: true, ..Scenario::default() };
        let state = AppState::new("A", &scenario, &[1; 32]);
        assert_eq!(state.collections["critical_block"].version, 1);
        assert_eq!(state.collections["regular_high"].version, 1);
    }
}

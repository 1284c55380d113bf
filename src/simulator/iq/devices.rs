//! Device lists: what usync says about an account's companions, and the notice when one is linked or removed.

use std::sync::Arc;

use buffa::Message as _;
use wacore_binary::Node;
use waproto::whatsapp as wa;

use crate::node::{holding, node, now};
use crate::phone::store::rng;
use crate::world::account::Account;
use crate::world::{World, lock};

/// `<devices>` of usync. With companions it carries the phone's signed list of valid key indexes, without which
/// clients leave the companions out.
pub(crate) fn list(account: &Account) -> Node {
    let (companions, current) = companions(account);
    let phone = node("device").attr("id", 0).build();
    let others = companions.iter().map(|(id, index)| node("device").attr("id", *id).attr("key-index", *index).build());
    let devices = std::iter::once(phone).chain(others);
    let mut children = vec![node("device-list").attr("hash", "2:sim").children(devices).build()];
    if !companions.is_empty() {
        children.extend(key_index_list(account, &companions, current));
    }
    holding("devices", children)
}

/// Ids and key indexes, and the newest key index ever given.
fn companions(account: &Account) -> (Vec<(u16, u32)>, u32) {
    let state = lock(&account.state);
    (state.devices.values().map(|d| (d.id, d.key_index)).collect(), state.next_key_index - 1)
}

fn key_index_list(account: &Account, companions: &[(u16, u32)], current: u32) -> Option<Node> {
    let list = wa::ADVKeyIndexList {
        raw_id: Some(account.raw_id),
        timestamp: Some(now()),
        current_index: Some(current),
        valid_indexes: companions.iter().map(|(_, index)| *index).chain([0]).collect(),
        ..Default::default()
    }
    .encode_to_vec();
    let signed = [&[6, 2][..], &list].concat();
    let signature = account.identity().private_key().calculate_signature(&signed, &mut rng()).ok()?;
    let signed = wa::ADVSignedKeyIndexList {
        details: Some(list),
        account_signature: Some(signature.to_vec()),
        ..Default::default()
    };
    Some(node("key-index-list").attr("ts", now()).bytes(signed.encode_to_vec()).build())
}

/// Tells those who know the account's devices, and its other companions, of a new one.
pub(crate) fn announce_added(world: &World, account: &Arc<Account>, device: u16) {
    let (companions, current) = companions(account);
    let Some((_, index)) = companions.iter().find(|(id, _)| *id == device) else { return };
    let list = key_index_list(account, &companions, current);
    announce(world, account, Some(device), "add", device, *index, list);
}

/// Tells them of a removed one.
pub(crate) fn announce_removed(world: &World, account: &Arc<Account>, device: u16, index: u32) {
    let list = node("key-index-list").attr("ts", now()).build();
    announce(world, account, None, "remove", device, index, Some(list));
}

fn announce(
    world: &World,
    account: &Arc<Account>,
    except: Option<u16>,
    tag: &'static str,
    device: u16,
    index: u32,
    list: Option<Node>,
) {
    let entry = node("device")
        .attr("jid", account.pn_jid(device))
        .attr("key-index", index)
        .attr("lid", account.lid_jid(device))
        .build();
    let change = node(tag).attr("device_hash", "2:sim").children(std::iter::once(entry).chain(list)).build();
    let notification =
        world.notification("devices", account.pn_jid(0)).attr("lid", account.lid_jid(0)).children([change]).build();
    let watchers: Vec<String> = lock(&account.state).list_watchers.iter().cloned().collect();
    for phone in watchers.iter().filter(|p| **p != account.phone) {
        if let Some(watcher) = world.directory.by_phone(phone) {
            watcher.deliver_to_all(&notification, None);
        }
    }
    account.deliver_to_all(&notification, except);
}

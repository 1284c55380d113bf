//! What the Rust API and the control API do alike.

use std::sync::Arc;

use crate::Refused;
use crate::faults::{Fault, FaultRule};
use crate::login;
use crate::node::node;
use crate::phone::script::{Person, PersonInfo};
use crate::world::account::ReceivedText;
use crate::world::group::{self, Group};
use crate::world::{World, lock};

/// Adds a person, or changes the name and script of a known one.
pub(crate) fn add_person(world: &World, person: Person) -> Result<PersonInfo, Refused> {
    let account = world.directory.ensure(&person.phone)?;
    let mut state = lock(&account.state);
    state.script = person.script;
    if let Some(name) = person.name {
        state.name = name;
    }
    Ok(PersonInfo { phone: account.phone.clone(), lid: account.lid.clone() })
}

/// Makes a group of phone numbers; the first is its creator. Members with companions are told.
pub(crate) fn create_group(world: &Arc<World>, subject: &str, members: &[&str]) -> Result<String, Refused> {
    let mut phones: Vec<String> = Vec::with_capacity(members.len());
    for member in members {
        let account = world.directory.ensure(member)?;
        if !phones.contains(&account.phone) {
            phones.push(account.phone.clone());
        }
    }
    let creator = phones.first().cloned().ok_or(Refused::EmptyGroup)?;
    let group = Group { subject: subject.to_owned(), creator: creator.clone(), members: phones, ..Group::default() };
    let id = group::add(world, group);
    let (Some(made), Some(creator)) = (group::get(world, &id), world.directory.by_phone(&creator)) else {
        return Err(Refused::NoSuchGroup(id));
    };
    let news = node("create").attr("type", "new").attr("key", id.clone()).children([made.to_node(&world.directory)]);
    group::announce(world, &id, &creator, None, &[], news.build());
    Ok(made.jid().to_string())
}

/// The phone removes one of its companions, or all.
pub(crate) fn unlink(world: &Arc<World>, phone: &str, device: Option<u16>) -> Result<(), Refused> {
    let account = crate::world::directory::normal_phone(phone)
        .ok()
        .and_then(|p| world.directory.by_phone(&p))
        .ok_or_else(|| Refused::NoSuchAccount(phone.to_owned()))?;
    let devices = match device {
        Some(device) => vec![device],
        None => account.companions(),
    };
    if devices.is_empty() {
        return Err(Refused::NoSuchDevice { phone: account.phone.clone(), device: 0 });
    }
    for device in devices {
        if !login::remove_device(world, &account, device) {
            return Err(Refused::NoSuchDevice { phone: account.phone.clone(), device });
        }
    }
    Ok(())
}

/// Puts a fault in force. Connection faults hit at once whoever is connected, and later logins as often as is left.
pub(crate) fn inject(world: &Arc<World>, mut rule: FaultRule) {
    if !matches!(rule.fault, Fault::DropSocket | Fault::StreamError) {
        world.faults.add(rule);
        return;
    }
    let mut hit = false;
    for account in world.directory.linked().into_iter().filter(|a| rule.hits(&a.phone)) {
        let connected: Vec<u16> =
            lock(&account.state).devices.values().filter(|d| d.is_connected()).map(|d| d.id).collect();
        for device in connected {
            login::interrupt(world, &account, device, &rule);
            hit = true;
        }
    }
    if hit {
        rule.count = rule.count.saturating_sub(1);
    }
    world.faults.add(rule);
}

/// Messages that the phone's linked devices have not acknowledged.
pub(crate) fn unacknowledged(world: &World, phone: &str) -> std::collections::HashSet<String> {
    crate::world::directory::normal_phone(phone)
        .ok()
        .and_then(|p| world.directory.by_phone(&p))
        .map(|account| lock(&account.state).devices.values().flat_map(|it| it.unacknowledged_messages()).collect())
        .unwrap_or_default()
}

/// What the phone decrypted, or was told by another phone.
pub(crate) async fn received_texts(world: &World, phone: &str) -> Vec<ReceivedText> {
    let account = crate::world::directory::normal_phone(phone).ok().and_then(|p| world.directory.by_phone(&p));
    let Some(account) = account else { return Vec::new() };
    crate::phone::caught_up(&account).await;
    lock(&account.state).texts.clone()
}

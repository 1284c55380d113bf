//! Login, the offline backlog, and the end of connections.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use wacore_binary::Node;

use crate::faults::{Fault, FaultRule};
use crate::iq::{Answer, result};
use crate::node::{node, now, number, server};
use crate::phone;
use crate::session::Caller;
use crate::stats::Counters;
use crate::world::account::Account;
use crate::world::device::{Link, Outbox, Outgoing, conflict};
use crate::world::{World, lock};

/// How long a client has to close by itself after a stream error. Some clients read the error in a loop that ends
/// with the socket, so it must not close together with the error; others wait for the server to close.
const CLOSE_GRACE: Duration = Duration::from_millis(250);

/// The same after 515, on which every client reconnects by itself.
pub(crate) const RESTART_GRACE: Duration = Duration::from_secs(3);

/// How long a client may take to ask for its backlog before it is sent unasked.
const PULL_GRACE: Duration = Duration::from_millis(250);

/// The same between two batches: some clients ask for the first one only.
const NEXT_PULL_GRACE: Duration = Duration::from_secs(1);

/// Accepts a login when account, device and static key are those of a pairing; else says so and closes.
pub(crate) fn accept(
    world: &Arc<World>,
    connection: u64,
    outbox: &Outbox,
    user: &str,
    device: u16,
    client_static: &[u8; 32],
) -> Option<Arc<Account>> {
    let account = world
        .directory
        .by_phone(user)
        .filter(|account| lock(&account.state).devices.get(&device).is_some_and(|d| d.noise == *client_static));
    let Some(account) = account else {
        tracing::debug!("login refused for {user}:{device}");
        let refusal = node("failure").attr("reason", "401").attr("location", "sim").build();
        let _ = outbox.send(Outgoing::Stanza(refusal));
        let _ = outbox.send(Outgoing::Close);
        return None;
    };

    let success = node("success")
        .attr("t", now())
        .attr("props", "27")
        .attr("location", "sim")
        .attr("lid", account.lid_jid(device))
        .attr("display_name", account.name())
        .attr("creation", now())
        .build();
    let _ = outbox.send(Outgoing::Stanza(success));
    let old = lock(&account.state)
        .devices
        .get_mut(&device)
        .and_then(|d| d.connected(Link { connection, outbox: outbox.clone() }));
    if let Some(old) = old {
        close_with(world, &old.outbox, conflict(None, "replaced"), CLOSE_GRACE);
    }
    Counters::add(&world.counters.logins);
    tracing::debug!("login {user}:{device}");
    for fault in [Fault::StreamError, Fault::DropSocket] {
        if let Some(rule) = world.faults.take(fault, &account.phone) {
            interrupt(world, &account, device, &rule);
        }
    }
    Some(account)
}

/// The connection ended; a newer one of the same device is left alone.
pub(crate) fn ended(account: &Account, device: u16, connection: u64) {
    let mut state = lock(&account.state);
    let mut left = false;
    if let Some(d) = state.devices.get_mut(&device)
        && d.link.as_ref().is_some_and(|l| l.connection == connection)
    {
        d.disconnected();
        left = true;
    }
    if left && state.available && !state.devices.values().any(|d| d.is_connected()) {
        state.available = false;
        state.last_seen = now();
    }
}

/// Sends a last stanza and closes, leaving the client time to do it first.
fn close_with(world: &World, outbox: &Outbox, last: Node, grace: Duration) {
    let _ = outbox.send(Outgoing::Stanza(last));
    let outbox = outbox.clone();
    world.spawn(async move {
        tokio::time::sleep(grace).await;
        let _ = outbox.send(Outgoing::Close);
    });
}

/// Ends a device's connection as the fault says, at once or after its delay.
pub(crate) fn interrupt(world: &Arc<World>, account: &Arc<Account>, device: u16, rule: &FaultRule) {
    let (w, account, rule) = (world.clone(), account.clone(), rule.clone());
    match rule.delay.filter(|d| !d.is_zero()) {
        None => interrupt_now(&w, &account, device, &rule),
        Some(delay) => world.spawn(async move {
            tokio::time::sleep(delay).await;
            interrupt_now(&w, &account, device, &rule);
        }),
    }
}

fn interrupt_now(world: &World, account: &Account, device: u16, rule: &FaultRule) {
    let link = lock(&account.state).devices.get_mut(&device).and_then(|d| {
        let link = d.link.take();
        d.disconnected();
        link
    });
    let Some(link) = link else { return };
    if rule.fault == Fault::DropSocket {
        let _ = link.outbox.send(Outgoing::Drop);
        return;
    }
    let code = rule.code.unwrap_or(503);
    let last = match code {
        // These exist only as a refusal at login.
        code @ (402 | 403 | 405 | 406) => node("failure").attr("reason", code).attr("location", "sim").build(),
        code @ 401 => conflict(Some(code), "device_removed"),
        code @ 409 => conflict(Some(code), "replaced"),
        code => node("stream:error").attr("code", code).build(),
    };
    close_with(world, &link.outbox, last, if code == 515 { RESTART_GRACE } else { CLOSE_GRACE });
}

/// Removes a device: it is logged out now, or at its next login.
pub(crate) fn remove_device(world: &Arc<World>, account: &Arc<Account>, device: u16) -> bool {
    let removed = lock(&account.state).devices.remove(&device);
    let Some(removed) = removed else { return false };
    if let Some(link) = removed.link {
        close_with(world, &link.outbox, conflict(Some(401), "device_removed"), CLOSE_GRACE);
    }
    crate::iq::devices::announce_removed(world, account, removed.id, removed.key_index);
    true
}

/// `<iq xmlns="passive"><active/>`: the client is ready for its backlog. At its first login the phone first shares
/// the app-state key, without which the client would wait for it.
pub(crate) async fn activate(caller: &Caller, iq: &Node) -> Result<Answer> {
    let (share, waiting) = {
        let mut state = lock(&caller.account.state);
        let d = state.devices.get_mut(&caller.device).context("the device was removed")?;
        (!std::mem::replace(&mut d.key_shared, true), d.waiting().len())
    };
    caller.send(result(iq, Vec::new()));
    if waiting > 0 {
        caller.send(preview(caller));
    }
    if share {
        phone::share_keys(&caller.world, &caller.account, caller.device).await?;
    }
    let mut state = lock(&caller.account.state);
    let Some(d) = state.devices.get_mut(&caller.device) else { return Ok(Answer::Sent) };
    if waiting == 0 {
        d.send_waiting();
        d.flush(0);
        return Ok(Answer::Sent);
    }
    drop(state);
    push_unless_pulled(caller, 0, PULL_GRACE);
    Ok(Answer::Sent)
}

/// Sends the whole backlog if the client has not asked for the next batch by then.
fn push_unless_pulled(caller: &Caller, pulls: u64, grace: Duration) {
    let caller = caller.clone();
    caller.world.clone().spawn(async move {
        tokio::time::sleep(grace).await;
        let mut state = lock(&caller.account.state);
        if let Some(d) = state.devices.get_mut(&caller.device)
            && d.link.as_ref().is_some_and(|l| l.outbox.same_channel(&caller.outbox))
            && d.pulls == pulls
        {
            d.flush(usize::MAX);
        }
    });
}

/// `<ib><offline_batch count>`: the client asks for the next part of its backlog.
pub(crate) fn in_band(caller: &Caller, ib: &Node) {
    if let Some(batch) = ib.get_optional_child("offline_batch") {
        let mut state = lock(&caller.account.state);
        let Some(d) = state.devices.get_mut(&caller.device) else { return };
        d.pulls += 1;
        d.flush(number(batch, "count").unwrap_or(100));
        if !d.active {
            push_unless_pulled(caller, d.pulls, NEXT_PULL_GRACE);
        }
    }
}

/// What waits for the device, counted by kind.
fn preview(caller: &Caller) -> Node {
    let state = lock(&caller.account.state);
    let (mut total, mut messages, mut notifications, mut receipts) = (0usize, 0usize, 0usize, 0usize);
    for stanza in state.devices.get(&caller.device).into_iter().flat_map(|d| d.waiting()) {
        total += 1;
        match stanza.tag.as_ref() {
            "message" => messages += 1,
            "notification" => notifications += 1,
            "receipt" => receipts += 1,
            _ => {}
        }
    }
    let preview = node("offline_preview")
        .attr("count", total)
        .attr("message", messages)
        .attr("notification", notifications)
        .attr("receipt", receipts)
        .attr("appdata", 0)
        .build();
    node("ib").attr("from", server()).children([preview]).build()
}

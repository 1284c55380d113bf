//! Groups: members, names, settings.

use crate::inbound::{Data, Known, millis};
use kero_domain::{EventKind, NewEvent};
use serde_json::Value;
use wacore::stanza::groups::{GroupNotificationAction as Action, GroupParticipantInfo};
use wacore::types::events::Event;

pub(super) fn read(event: &Event, known: &Known) -> Option<NewEvent> {
    let Event::GroupUpdate(update) = event else { return None };
    let group = update.group_jid.to_string();
    let at = millis(&update.timestamp);
    let mut data = Data::default();
    data.put("group", group.as_str());
    data.put("action", update.action.wire_tag());
    data.put("timestamp", at.secs());
    if let Some(actor) = &update.participant {
        data.put("actor", &known.identity(actor));
    }
    details(&update.action, known, &mut data);
    let mut event = NewEvent::new(EventKind::Group, group, at, data.into_value());
    event.dedupe_key = update.notification_id.as_ref().map(|id| format!("g|{id}|{}", update.action_index));
    Some(event)
}

fn details(action: &Action, known: &Known, data: &mut Data) {
    match action {
        Action::Add { participants, reason } | Action::Remove { participants, reason } => {
            data.put("participants", members(participants, known));
            data.put_text("reason", reason.as_deref());
        }
        Action::Promote { participants }
        | Action::Demote { participants }
        | Action::Modify { participants }
        | Action::LinkedGroupPromote { participants }
        | Action::LinkedGroupDemote { participants } => data.put("participants", members(participants, known)),
        Action::CreatedMembershipRequests { requests, .. } => data.put("participants", members(requests, known)),
        Action::RevokedMembershipRequests { participants } => {
            let people: Vec<Value> = participants.iter().map(|jid| member(&known.identity(jid), None)).collect();
            data.put("participants", people);
        }
        Action::Subject { subject, .. } => data.put("subject", subject.as_str()),
        Action::Description { description, .. } => data.put_some("description", description.as_deref()),
        Action::Ephemeral { expiration, .. } => data.put("expiration", *expiration),
        Action::MembershipApprovalMode { enabled } => data.put("enabled", *enabled),
        Action::MemberAddMode { mode } => data.put("mode", mode.as_str()),
        Action::Invite { code } => data.put("invite_code", code.as_str()),
        Action::Delete { reason } => data.put_text("reason", reason.as_deref()),
        Action::Link { link_type, .. } => data.put("link_type", link_type.as_str()),
        Action::Unlink { unlink_type, unlink_reason, .. } => {
            data.put("unlink_type", unlink_type.as_str());
            data.put_text("reason", unlink_reason.as_deref());
        }
        _ => {}
    }
}

fn members(participants: &[GroupParticipantInfo], known: &Known) -> Vec<Value> {
    participants
        .iter()
        .map(|info| {
            let mut known = known.clone();
            for alt in [&info.phone_number, &info.lid].into_iter().flatten() {
                known.learn(&info.jid, alt);
            }
            member(&known.identity(&info.jid), info.display_name.as_deref())
        })
        .collect()
}

fn member(identity: &kero_domain::address::Identity, name: Option<&str>) -> Value {
    let mut data = Data::default();
    data.put_some("phone", identity.phone.as_deref());
    data.put_some("lid", identity.lid.as_deref());
    data.put_some("jid", identity.jid.as_deref());
    data.put_text("display_name", name);
    data.into_value()
}

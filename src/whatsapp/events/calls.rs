//! Calls: only that they ring and how they end; Kero takes none.

use crate::inbound::{Data, Known, millis};
use kero_domain::{EventKind, NewEvent, Timestamp};
use wacore::types::call::{CallAction, ElsewhereOutcome, MissedReason};
use wacore::types::events::Event;
use wacore_binary::Jid;

struct Call<'a> {
    from: &'a Jid,
    id: &'a str,
    at: Timestamp,
    status: &'static str,
    extra: Data,
}

pub(super) fn read(event: &Event, known: &Known) -> Option<NewEvent> {
    let call = match event {
        Event::IncomingCall(call) => {
            let mut extra = Data::default();
            let status = match &call.action {
                CallAction::Offer { is_video, group_jid, .. } => {
                    extra.put("is_video", *is_video);
                    extra.put_some("group", group_jid.as_ref().map(ToString::to_string));
                    "incoming"
                }
                CallAction::OfferNotice { is_video, is_group, .. } => {
                    extra.put("is_video", *is_video);
                    extra.put("is_group", *is_group);
                    "incoming"
                }
                CallAction::Accept { .. } => "accepted",
                CallAction::Reject { reason, .. } => {
                    extra.put_text("reason", reason.as_deref());
                    "rejected"
                }
                CallAction::Terminate { reason, duration, .. } => {
                    extra.put_text("reason", reason.as_deref());
                    extra.put_some("duration", *duration);
                    "ended"
                }
                // negotiation between the devices
                _ => return None,
            };
            Call {
                from: call.action.call_creator(),
                id: call.action.call_id(),
                at: millis(&call.timestamp),
                status,
                extra,
            }
        }
        Event::MissedCall(call) => {
            let mut extra = Data::default();
            extra.put("reason", if matches!(call.reason, MissedReason::Offline) { "offline" } else { "unanswered" });
            Call { from: &call.from, id: &call.call_id, at: millis(&call.timestamp), status: "missed", extra }
        }
        Event::CallEndedElsewhere(call) => {
            let status =
                if call.outcome == ElsewhereOutcome::Accepted { "accepted_elsewhere" } else { "rejected_elsewhere" };
            Call { from: &call.from, id: &call.call_id, at: millis(&call.timestamp), status, extra: Data::default() }
        }
        _ => return None,
    };
    let chat = known.canonical(call.from);
    let mut data = Data::default();
    data.put("from", chat.as_str());
    data.put("timestamp", call.at.secs());
    data.put("status", call.status);
    data.put("call_id", call.id);
    data.put("sender", &known.identity(call.from));
    data.append(call.extra);
    let mut event = NewEvent::new(EventKind::Call, chat, call.at, data.into_value());
    event.dedupe_key = Some(format!("c|{}|{}", call.id, call.status));
    Some(event)
}

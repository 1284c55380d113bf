//! The rule `drop-ack`: without that grant no hook takes a `message_ack` from the client that waits for it.
//!
//! A filter written for messages must not swallow the results of sends. So for a `message_ack` without the grant a
//! drop is refused, a route is widened again, and the members that tell the send's end keep their values.

use crate::event::Event;
use crate::policy::Policy;
use crate::verdict::Verdict;
use kero_domain::EventKind;
use serde_json::{Map, Value};

/// The members of a `message_ack` that no hook changes.
pub const FIXED: [&str; 4] = ["status", "correlation_id", "message_id", "error"];

/// The verdict that holds, and what was refused of the one that was answered. `seen` is the `data` that the hook got:
/// what one before it was allowed to change stays changed.
pub fn guard(event: &Event, seen: &str, verdict: Verdict, granted: bool) -> (Verdict, Option<&'static str>) {
    if event.kind != EventKind::MessageAck || granted {
        return (verdict, None);
    }
    match verdict {
        Verdict::Pass => (Verdict::Pass, None),
        Verdict::Drop { .. } => (Verdict::Pass, Some("drop refused: the grant `drop-ack` is missing")),
        Verdict::Replace { data } => restore(seen, data),
        Verdict::Route { data, .. } => {
            const REFUSED: &str = "route refused: the grant `drop-ack` is missing";
            match data {
                Some(data) => (restore(seen, data).0, Some(REFUSED)),
                None => (Verdict::Pass, Some(REFUSED)),
            }
        }
    }
}

/// The policy that holds: `drop` would take the result away just as a verdict would.
pub fn policy(event: &Event, policy: Policy, granted: bool) -> Policy {
    if event.kind == EventKind::MessageAck && policy == Policy::Drop && !granted { Policy::Raw } else { policy }
}

/// Puts the fixed members back as they were, absent ones included.
fn restore(seen: &str, data: String) -> (Verdict, Option<&'static str>) {
    let original: Map<String, Value> = serde_json::from_str(seen).unwrap_or_default();
    let mut changed: Map<String, Value> = serde_json::from_str(&data).unwrap_or_default();
    let mut touched = false;
    for name in FIXED {
        if changed.get(name) == original.get(name) {
            continue;
        }
        touched = true;
        match original.get(name) {
            Some(value) => changed.insert(name.to_owned(), value.clone()),
            None => changed.shift_remove(name),
        };
    }
    if !touched {
        return (Verdict::Replace { data }, None);
    }
    let refused = "change of status, correlation_id, message_id or error refused: the grant `drop-ack` is missing";
    (Verdict::Replace { data: Value::Object(changed).to_string() }, Some(refused))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ack() -> Event {
        let data = json!({"status": "failed", "correlation_id": "c1", "error": "not on WhatsApp"});
        Event::new("e", EventKind::MessageAck, "i", 0, &data)
    }

    #[test]
    fn an_ack_is_not_dropped_routed_away_or_falsified() {
        let (verdict, refused) = guard(&ack(), &ack().data, Verdict::Drop { reason: "noise".into() }, false);
        assert_eq!(verdict, Verdict::Pass);
        assert!(refused.is_some());

        let (verdict, refused) = guard(&ack(), &ack().data, Verdict::Route { endpoints: vec![], data: None }, false);
        assert_eq!((verdict, refused.is_some()), (Verdict::Pass, true));

        let lie = json!({"status": "sent", "correlation_id": "c1", "message_id": "3EB0", "note": "kept"}).to_string();
        for verdict in [
            Verdict::Replace { data: lie.clone() },
            Verdict::Route { endpoints: vec!["x".into()], data: Some(lie.clone()) },
        ] {
            let (verdict, refused) = guard(&ack(), &ack().data, verdict, false);
            assert!(refused.is_some());
            let data: Value = serde_json::from_str(verdict.data().unwrap()).unwrap();
            assert_eq!(
                data,
                json!({"status": "failed", "correlation_id": "c1", "error": "not on WhatsApp", "note": "kept"})
            );
            assert_eq!(verdict.word(), "replace");
        }
        assert_eq!(policy(&ack(), Policy::Drop, false), Policy::Raw);
        assert_eq!(policy(&ack(), Policy::Dead, false), Policy::Dead);
    }

    #[test]
    fn additions_and_the_grant_are_let_through() {
        let more =
            json!({"status": "failed", "correlation_id": "c1", "error": "not on WhatsApp", "team": "ops"}).to_string();
        let verdict = Verdict::Replace { data: more };
        assert_eq!(guard(&ack(), &ack().data, verdict.clone(), false), (verdict, None));
        let drop = Verdict::Drop { reason: "known".into() };
        assert_eq!(guard(&ack(), &ack().data, drop.clone(), true), (drop.clone(), None));
        let message = Event::new("e", EventKind::Message, "i", 0, &json!({}));
        assert_eq!(guard(&message, &message.data, drop.clone(), false), (drop, None));
        assert_eq!(policy(&ack(), Policy::Drop, true), Policy::Drop);
        assert_eq!(policy(&message, Policy::Drop, false), Policy::Drop);
    }
}

//! What must be true after the kills: every send has its end, once, and the recipients have what was said to be sent.

use super::client::{CHATS, CLASSES, Expected, INSTANCES, Send, chat};
use super::counters_are_unique;
use crate::support::Sink;
use kero_simulator::{LedgerLine, Simulator};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};

/// How it went, beside that it went well.
#[derive(Debug, Default)]
pub struct Counted {
    /// Stanzas that repeated an id that WhatsApp had seen.
    pub resends: usize,
    pub hopeless: usize,
    pub cancelled: usize,
    pub scheduled: usize,
    /// Ended by a refusal that is final.
    pub refused: usize,
    pub most_attempts: u64,
}

/// The limits of what the faults may do.
pub struct Limits {
    /// Refusals that were final, at most.
    pub refusals: usize,
    pub retries: u64,
    pub seed: u64,
}

pub async fn check(accepted: &BTreeMap<String, Send>, sink: &Sink, simulator: &Simulator, limits: &Limits) -> Counted {
    let seed = limits.seed;
    let mut counted = Counted::default();
    let ledger = simulator.ledger();
    let mut lines: HashMap<&str, Vec<&LedgerLine>> = HashMap::new();
    for line in &ledger {
        lines.entry(&line.id).or_default().push(line);
    }
    let ends = ends(sink);
    let mut sent = HashSet::new();
    for (correlation, send) in accepted {
        let found: Vec<&Value> = ends[correlation].values().collect();
        assert_eq!(found.len(), 1, "seed {seed}: {correlation} has {found:?}");
        let data = &found[0]["data"];
        let attempts = data["attempts"].as_u64().unwrap();
        assert!(attempts <= limits.retries + 1, "seed {seed}: {data}");
        counted.most_attempts = counted.most_attempts.max(attempts);
        let mine = lines.get(send.id.as_str());
        match (send.expected, data["status"].as_str().unwrap(), data["code"].as_str()) {
            (Expected::Sent, "sent", None) => {
                let mine = mine.unwrap_or_else(|| panic!("seed {seed}: {data} is not in the ledger"));
                let early = send.due.is_some_and(|due| mine.iter().any(|line| (line.at as i64) < due.0));
                assert!(!early, "seed {seed}: {send:?} before its time: {mine:?}");
                counted.scheduled += usize::from(send.due.is_some());
                sent.insert(send.id.as_str());
            }
            // whom it hits depends on the moment
            (Expected::Sent, "failed", Some("479")) => counted.refused += 1,
            (Expected::Hopeless, "failed", Some("recipient-not-on-whatsapp")) => counted.hopeless += 1,
            (Expected::Cancelled, "cancelled", Some("cancelled")) => counted.cancelled += 1,
            _ => panic!("seed {seed}: {send:?} ended otherwise: {data}"),
        }
        let nothing = send.expected == Expected::Sent || mine.is_none();
        assert!(nothing, "seed {seed}: {send:?} is on the wire: {mine:?}");
    }
    assert!(counted.refused <= limits.refusals, "seed {seed}: {counted:?}");
    one_content_each(&ledger, seed);
    for instance in 0..INSTANCES.len() {
        for n in 0..=CHATS {
            in_order(accepted, &sent, simulator, &chat(instance, n), n < CHATS, seed).await;
        }
    }
    counters_are_unique(&ledger, seed);
    counted.resends = ledger.len() - lines.len();
    counted
}

/// The distinct events of each correlation id.
fn ends(sink: &Sink) -> HashMap<String, HashMap<String, Value>> {
    let mut ends: HashMap<String, HashMap<String, Value>> = HashMap::new();
    for event in sink.events("message_ack") {
        let correlation = event["data"]["correlation_id"].as_str().unwrap().to_owned();
        ends.entry(correlation).or_default().insert(event["id"].to_string(), event);
    }
    ends
}

/// One plaintext for one id.
fn one_content_each(ledger: &[LedgerLine], seed: u64) {
    let mut plaintexts: HashMap<&str, HashSet<&str>> = HashMap::new();
    for line in ledger {
        plaintexts.entry(&line.id).or_default().extend(line.plaintext_sha256.as_deref());
    }
    for (id, hashes) in &plaintexts {
        assert!(hashes.len() <= 1, "seed {seed}: {id} was sent with {} contents", hashes.len());
    }
}

/// What a chat shows is what was sent to it; in the order in which it was accepted for each class, unless each send had
/// its own time.
async fn in_order(
    accepted: &BTreeMap<String, Send>,
    sent: &HashSet<&str>,
    simulator: &Simulator,
    phone: &str,
    ordered: bool,
    seed: u64,
) {
    // the phone shows one message per id: the first arrival counts. What was refused may have come before that
    let mut seen = HashSet::new();
    let texts = simulator.received_texts(phone).await;
    let shown: Vec<(&str, &str)> = texts
        .iter()
        .filter(|text| sent.contains(text.id.as_str()) && seen.insert(text.id.as_str()))
        .map(|text| (text.id.as_str(), text.text.as_str()))
        .collect();
    let ours: HashMap<&str, &Send> =
        accepted.values().filter(|send| send.phone == phone).map(|send| (send.id.as_str(), send)).collect();
    let foreign: Vec<_> = texts.iter().filter(|text| !ours.contains_key(text.id.as_str())).collect();
    assert!(foreign.is_empty(), "seed {seed}: {phone} shows what nobody was told of: {foreign:?}");
    for class in CLASSES {
        let mut expected: Vec<&&Send> =
            ours.values().filter(|send| send.class == class && sent.contains(send.id.as_str())).collect();
        expected.sort_by_key(|send| send.number);
        let mut expected: Vec<(&str, &str)> =
            expected.into_iter().map(|send| (send.id.as_str(), send.text.as_str())).collect();
        let mut shown: Vec<(&str, &str)> = shown.iter().copied().filter(|(id, _)| ours[id].class == class).collect();
        if !ordered {
            expected.sort_unstable();
            shown.sort_unstable();
        }
        assert_eq!(shown, expected, "seed {seed}: {phone} lost, doubled or disordered {class} messages");
    }
}

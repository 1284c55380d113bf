//! Faults on demand: rules that the next stanzas, or the connections, run into.

use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::world::lock;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The connection ends without a word.
    DropSocket,
    /// The connection ends with a stream error, or a `failure` for the codes that exist only as such (402, 403, 405).
    StreamError,
    /// The next messages of the phone's devices are refused with an error in the ack, and not delivered.
    Nack,
    /// The next acks come late; the messages are delivered at once.
    AckLate,
    /// The next acks come twice.
    AckDouble,
    /// The next acks do not come; the messages are delivered.
    AckMissing,
    /// The next messages to the phone's devices arrive twice.
    DuplicateInbound,
    /// The next messages to the phone's companions, or to the phone when it has none, arrive with damaged ciphertext.
    Undecryptable,
    /// The phone's devices' next questions whether numbers are on WhatsApp are answered with an error.
    LookupError,
}

/// A fault, whom it hits, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultRule {
    pub fault: Fault,
    /// The account it applies to: the sender's for nacks and acks, the recipient's for inbound faults, who asks for
    /// look-ups.
    /// `None`: everybody.
    pub phone: Option<String>,
    /// The code of a stream error (default 503), a nack (default 479) or a look-up's error (default 500).
    pub code: Option<u16>,
    /// How many stanzas are hit. For connection faults: the connections of now, and the next `count - 1` logins
    /// of the phone; when nobody is connected, the next `count` logins.
    pub count: u32,
    /// How late a late ack is (default 3 s), or how long a connection fault waits (default not at all).
    pub delay: Option<Duration>,
}

impl FaultRule {
    /// Hits everybody once.
    pub fn new(fault: Fault) -> Self {
        Self { fault, phone: None, code: None, count: 1, delay: None }
    }

    pub fn phone(mut self, phone: impl Into<String>) -> Self {
        self.phone = Some(phone.into());
        self
    }

    pub fn code(mut self, code: u16) -> Self {
        self.code = Some(code);
        self
    }

    pub fn count(mut self, count: u32) -> Self {
        self.count = count;
        self
    }

    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = Some(delay);
        self
    }

    pub(crate) fn hits(&self, phone: &str) -> bool {
        self.phone.as_deref().is_none_or(|p| p == phone)
    }
}

/// The rules in force.
#[derive(Default)]
pub(crate) struct Faults {
    rules: Mutex<Vec<FaultRule>>,
}

impl Faults {
    pub fn add(&self, rule: FaultRule) {
        if rule.count > 0 {
            lock(&self.rules).push(rule);
        }
    }

    pub fn clear(&self) {
        lock(&self.rules).clear();
    }

    /// Uses up one hit of the oldest rule of this fault that applies to the phone.
    pub fn take(&self, fault: Fault, phone: &str) -> Option<FaultRule> {
        let mut rules = lock(&self.rules);
        if rules.is_empty() {
            return None;
        }
        let index = rules.iter().position(|r| r.fault == fault && r.hits(phone))?;
        let hit = rules[index].clone();
        rules[index].count -= 1;
        if rules[index].count == 0 {
            rules.remove(index);
        }
        Some(hit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_used_up() {
        let faults = Faults::default();
        faults.add(FaultRule::new(Fault::Nack).phone("1").code(463).count(2));
        assert_eq!(faults.take(Fault::Nack, "2"), None);
        assert_eq!(faults.take(Fault::AckLate, "1"), None);
        assert_eq!(faults.take(Fault::Nack, "1").and_then(|r| r.code), Some(463));
        assert!(faults.take(Fault::Nack, "1").is_some());
        assert_eq!(faults.take(Fault::Nack, "1"), None);
    }

    #[test]
    fn a_rule_without_a_phone_hits_everybody_and_clearing_ends_it() {
        let faults = Faults::default();
        faults.add(FaultRule::new(Fault::AckDouble).count(5));
        assert!(faults.take(Fault::AckDouble, "1").is_some());
        assert!(faults.take(Fault::AckDouble, "2").is_some());
        faults.clear();
        assert_eq!(faults.take(Fault::AckDouble, "1"), None);
        faults.add(FaultRule::new(Fault::AckDouble).count(0));
        assert_eq!(faults.take(Fault::AckDouble, "1"), None);
    }
}

//! Who is who: phone number ↔ LID, from what a stanza says and what the client has learnt. Never a guess.

use kero_domain::address::Identity;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use wacore_binary::{Jid, JidExt as _};
use whatsapp_rust::Client;

/// Pairs that are known for one conversion.
#[derive(Debug, Clone, Default)]
pub struct Known {
    by_lid: HashMap<String, String>,
    by_phone: HashMap<String, String>,
}

impl Known {
    /// Notes that two addresses name one person; anything but a number and a LID is ignored.
    pub fn learn(&mut self, one: &Jid, other: &Jid) {
        let (phone, lid) = match (is_phone(one), is_lid(one), is_phone(other), is_lid(other)) {
            (true, _, _, true) => (one, other),
            (_, true, true, _) => (other, one),
            _ => return,
        };
        self.by_lid.insert(lid.user_base().to_owned(), phone.user_base().to_owned());
        self.by_phone.insert(phone.user_base().to_owned(), lid.user_base().to_owned());
    }

    /// Everything known of the person behind an address.
    pub fn identity(&self, jid: &Jid) -> Identity {
        let user = jid.user_base();
        let (phone, lid) = if is_phone(jid) {
            (Some(user.to_owned()), self.by_phone.get(user).cloned())
        } else if is_lid(jid) {
            (self.by_lid.get(user).cloned(), Some(user.to_owned()))
        } else {
            (None, None)
        };
        Identity { phone, lid: lid.map(|lid| format!("{lid}@lid")), jid: Some(jid.to_string()) }
    }

    /// The address to show and to order by: the phone's when known, without device.
    pub fn canonical(&self, jid: &Jid) -> String {
        if is_lid(jid)
            && let Some(phone) = self.by_lid.get(jid.user_base())
        {
            return format!("{phone}@s.whatsapp.net");
        }
        bare(jid)
    }

    /// [`Self::canonical`] for an address that came as text inside a message.
    pub fn canonical_text(&self, jid: &str) -> String {
        jid.parse::<Jid>().map_or_else(|_| jid.to_owned(), |jid| self.canonical(&jid))
    }

    fn lacks(&self, jid: &Jid) -> bool {
        (is_phone(jid) && !self.by_phone.contains_key(jid.user_base()))
            || (is_lid(jid) && !self.by_lid.contains_key(jid.user_base()))
    }
}

/// An address without its device.
pub(crate) fn bare(jid: &Jid) -> String {
    jid.to_non_ad_string()
}

pub(crate) fn is_phone(jid: &Jid) -> bool {
    jid.server.is_pn_family() && !jid.is_psa()
}

pub(crate) fn is_lid(jid: &Jid) -> bool {
    jid.server.is_lid_family()
}

/// Looks pairs up in the client's memory and the device store. Misses are remembered for ten seconds.
#[derive(Default)]
pub(crate) struct Directory {
    misses: Mutex<HashMap<String, Instant>>,
}

const MISS: Duration = Duration::from_secs(10);
const MISSES: usize = 4096;

impl Directory {
    /// Completes `known` for these addresses.
    pub(crate) async fn complete(&self, client: &Client, known: &mut Known, jids: &[&Jid]) {
        for jid in jids {
            if !known.lacks(jid) {
                continue;
            }
            let key = bare(jid);
            if self
                .misses
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get(&key)
                .is_some_and(|at| at.elapsed() < MISS)
            {
                continue;
            }
            match client.get_lid_pn_entry(&jid.to_non_ad()).await {
                Ok(Some(entry)) => known.learn(&Jid::pn(&*entry.phone_number), &Jid::lid(&*entry.lid)),
                Ok(None) => {
                    let mut misses = self.misses.lock().unwrap_or_else(PoisonError::into_inner);
                    if misses.len() >= MISSES {
                        misses.clear();
                    }
                    misses.insert(key, Instant::now());
                }
                Err(error) => tracing::debug!(%error, "a contact's addresses could not be looked up"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(text: &str) -> Jid {
        text.parse().unwrap()
    }

    #[test]
    fn a_lid_never_stands_in_for_a_number() {
        let known = Known::default();
        let identity = known.identity(&jid("100000011111111:3@lid"));
        assert_eq!(identity.phone, None);
        assert_eq!(identity.lid.as_deref(), Some("100000011111111@lid"));
        assert_eq!(identity.jid.as_deref(), Some("100000011111111:3@lid"));
        assert_eq!(known.canonical(&jid("100000011111111:3@lid")), "100000011111111@lid");
    }

    #[test]
    fn what_was_learnt_completes_both_directions() {
        let mut known = Known::default();
        known.learn(&jid("100000011111111:3@lid"), &jid("491701234567:9@s.whatsapp.net"));
        assert_eq!(known.canonical(&jid("100000011111111@lid")), "491701234567@s.whatsapp.net");
        assert_eq!(known.identity(&jid("491701234567@s.whatsapp.net")).lid.as_deref(), Some("100000011111111@lid"));
        known.learn(&jid("1@g.us"), &jid("491701234567@s.whatsapp.net"));
        assert_eq!(known.canonical(&jid("1@g.us")), "1@g.us");
    }
}

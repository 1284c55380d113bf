//! Who exists: accounts by phone number, hidden id and push name. Numbers that end in 0000 are not on WhatsApp.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use wacore_binary::{Jid, Server};

use super::account::Account;
use super::lock;
use crate::Refused;

#[derive(Default)]
struct Entries {
    by_phone: HashMap<String, Arc<Account>>,
    phone_of_lid: HashMap<String, String>,
    phone_of_name: HashMap<String, String>,
    /// Accounts that ever had a companion; the others need not be looked at by broadcasts and counts.
    linked: Vec<Arc<Account>>,
    fresh: u64,
}

#[derive(Default)]
pub(crate) struct Directory {
    entries: Mutex<Entries>,
}

impl Directory {
    pub fn len(&self) -> usize {
        lock(&self.entries).by_phone.len()
    }

    /// The account with this phone number, if anybody has seen it yet.
    pub fn by_phone(&self, phone: &str) -> Option<Arc<Account>> {
        lock(&self.entries).by_phone.get(phone).cloned()
    }

    /// The account behind a phone number or hidden-id JID, whatever its device.
    pub fn by_jid(&self, jid: &Jid) -> Option<Arc<Account>> {
        let entries = lock(&self.entries);
        match jid.server {
            Server::Pn | Server::Legacy => entries.by_phone.get(jid.user.as_str()).cloned(),
            Server::Lid => {
                let phone = entries.phone_of_lid.get(jid.user.as_str())?;
                entries.by_phone.get(phone).cloned()
            }
            _ => None,
        }
    }

    /// As [`Self::by_jid`], but a number that is on WhatsApp and was not seen yet becomes a silent person.
    pub fn by_jid_or_new(&self, jid: &Jid) -> Option<Arc<Account>> {
        self.by_jid(jid).or_else(|| match jid.server {
            Server::Pn | Server::Legacy => self.ensure(jid.user.as_str()).ok(),
            _ => None,
        })
    }

    /// The account of a phone number, made when there is none.
    pub fn ensure(&self, phone: &str) -> Result<Arc<Account>, Refused> {
        let phone = normal_phone(phone)?;
        let mut entries = lock(&self.entries);
        if let Some(account) = entries.by_phone.get(&phone) {
            return Ok(account.clone());
        }
        let mut lid = lid_of(&phone, 0);
        let mut salt = 1;
        while entries.phone_of_lid.contains_key(&lid) {
            lid = lid_of(&phone, salt);
            salt += 1;
        }
        let account = Arc::new(Account::new(&phone, &lid));
        entries.phone_of_lid.insert(lid, phone.clone());
        entries.by_phone.insert(phone, account.clone());
        Ok(account)
    }

    /// The phone that a scan without a number belongs to: one per push name, or a fresh one.
    pub fn phone_for_name(&self, name: Option<&str>) -> String {
        let mut entries = lock(&self.entries);
        if let Some(phone) = name.and_then(|n| entries.phone_of_name.get(n)) {
            return phone.clone();
        }
        let phone = loop {
            entries.fresh += 1;
            let phone = format!("1555{:07}", 1000 + entries.fresh);
            if !phone.ends_with("0000") && !entries.by_phone.contains_key(&phone) {
                break phone;
            }
        };
        if let Some(name) = name {
            entries.phone_of_name.insert(name.to_owned(), phone.clone());
        }
        phone
    }

    /// Remembers that the account has, or had, companions.
    pub fn note_linked(&self, account: &Arc<Account>) {
        let mut entries = lock(&self.entries);
        if !entries.linked.iter().any(|a| Arc::ptr_eq(a, account)) {
            entries.linked.push(account.clone());
        }
    }

    pub fn linked(&self) -> Vec<Arc<Account>> {
        lock(&self.entries).linked.clone()
    }
}

/// The digits of a phone number as people write it; refuses what is none and what is not on WhatsApp.
pub(crate) fn normal_phone(phone: &str) -> Result<String, Refused> {
    let user = phone.split_once('@').map_or(phone, |(user, _)| user);
    let digits: String = user.chars().filter(|c| !matches!(c, '+' | ' ' | '-' | '(' | ')')).collect();
    if !(5..=20).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Refused::BadPhone(phone.to_owned()));
    }
    if digits.ends_with("0000") {
        return Err(Refused::NotOnWhatsApp(digits));
    }
    Ok(digits)
}

/// A hidden id that is the same in every run.
fn lid_of(phone: &str, salt: u64) -> String {
    let hash = phone.bytes().fold(7 + salt, |n, b| n.wrapping_mul(131).wrapping_add(u64::from(b)));
    format!("1{:014}", hash % 100_000_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phones_are_normalised_or_refused() {
        assert_eq!(normal_phone("+1 (555) 123-4567").unwrap(), "15551234567");
        assert_eq!(normal_phone("15551234567@s.whatsapp.net").unwrap(), "15551234567");
        assert!(matches!(normal_phone("120363@g.us!"), Ok(_) | Err(_)));
        assert!(matches!(normal_phone("abc"), Err(Refused::BadPhone(_))));
        assert!(matches!(normal_phone("15551230000"), Err(Refused::NotOnWhatsApp(_))));
    }

    #[test]
    fn an_account_is_found_by_number_and_hidden_id() {
        let directory = Directory::default();
        let account = directory.ensure("15551234567").unwrap();
        let again = directory.ensure("+15551234567").unwrap();
        assert!(Arc::ptr_eq(&account, &again));
        assert!(Arc::ptr_eq(&directory.by_jid(&Jid::lid(account.lid.as_str())).unwrap(), &account));
        assert!(directory.by_jid(&Jid::pn("1")).is_none());
        assert_eq!(directory.len(), 1);
    }

    #[test]
    fn one_name_is_one_phone() {
        let directory = Directory::default();
        let first = directory.phone_for_name(Some("A"));
        assert_eq!(directory.phone_for_name(Some("A")), first);
        assert_ne!(directory.phone_for_name(Some("B")), first);
        assert_ne!(directory.phone_for_name(None), directory.phone_for_name(None));
    }
}

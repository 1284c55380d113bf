//! Is a number on WhatsApp, and what is its LID? One query for a number that is met for the first time, none after.
//!
//! The client asks the server for a number's LID before every send to a number whose LID it does not have in memory.
//! [`Recipients::resolve`] therefore makes sure, before each send, that the mapping is in the client's memory when the
//! device store has it; the wire address (number or LID) is the client's decision, because WhatsApp refuses LIDs from
//! accounts that are not migrated.

use crate::error::SendError;
use kero_domain::Address;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use wacore_binary::Jid;
use whatsapp_rust::Client;
use whatsapp_rust::ContactError;

/// A number that signs up is found within this time.
const ABSENT: Duration = Duration::from_secs(60);
const REMEMBERED: usize = 20_000;

#[derive(Debug, Clone)]
enum Answer {
    Present(Address),
    Absent(Instant),
}

/// Answers of this connection's life.
#[derive(Default)]
pub(crate) struct Recipients {
    answers: Mutex<HashMap<String, Answer>>,
}

impl Recipients {
    /// The client's address of a recipient. `check` asks whether an unknown number is on WhatsApp.
    pub(crate) async fn resolve(&self, client: &Client, chat: &Address, check: bool) -> Result<Jid, SendError> {
        match chat {
            Address::Phone(phone) => {
                if check && self.lookup(client, phone).await?.is_none() {
                    return Err(SendError::NotOnWhatsApp);
                }
                Ok(Jid::pn(phone.as_str()))
            }
            Address::Lid(user) => Ok(Jid::lid(user.as_str())),
            Address::Group(user) => Ok(Jid::group(user.as_str())),
            Address::Newsletter(user) => Ok(Jid::newsletter(user.as_str())),
            Address::Broadcast(_) => {
                Err(SendError::Invalid("broadcast lists and statuses take no plain messages".to_owned()))
            }
        }
    }

    /// The address of a number that is on WhatsApp: its LID when known, else the number.
    pub(crate) async fn lookup(&self, client: &Client, phone: &str) -> Result<Option<Address>, SendError> {
        let jid = Jid::pn(phone);
        // memory first, then the device store; a hit is in the client's memory afterwards
        match client.get_lid_pn_entry(&jid).await {
            Ok(Some(entry)) => return Ok(Some(Address::Lid(entry.lid.to_string()))),
            Ok(None) => {}
            Err(error) => return Err(SendError::Transient(format!("the device store failed: {error}"))),
        }
        match self.answers.lock().unwrap_or_else(PoisonError::into_inner).get(phone) {
            Some(Answer::Present(address)) => return Ok(Some(address.clone())),
            Some(Answer::Absent(at)) if at.elapsed() < ABSENT => return Ok(None),
            _ => {}
        }
        let results = client.contacts().is_on_whatsapp(&[jid]).await.map_err(|error| match error {
            ContactError::Iq(error) => error.into(),
            other => SendError::Transient(other.to_string()),
        })?;
        let found = results.first().filter(|result| result.is_registered);
        let address = found.map(|result| match &result.lid {
            Some(lid) => Address::Lid(lid.user_base().to_owned()),
            None => Address::Phone(phone.to_owned()),
        });
        // an answer without this number, or with an error in its place, is no answer
        if address.is_none() && results.first().is_none_or(|result| result.contact_error.is_some()) {
            return Err(SendError::Transient("WhatsApp did not say whether the number exists".to_owned()));
        }
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= REMEMBERED {
            answers.clear();
        }
        answers
            .insert(phone.to_owned(), address.clone().map_or_else(|| Answer::Absent(Instant::now()), Answer::Present));
        Ok(address)
    }
}

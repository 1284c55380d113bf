//! Encryption at rest: XChaCha20-Poly1305 under the master key, bound to the place where the bytes lie.

use crate::StoreError;
use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use std::fmt::{self, Display};
use std::sync::Arc;
use zeroize::Zeroizing;

/// The first byte of sealed bytes: which key sealed them. Room for rotation; there is one key so far.
const KEY_ID: u8 = 1;
const NONCE: usize = 24;

/// The 256-bit key under which secrets and content are stored. Wiped from memory when dropped.
#[derive(Clone)]
pub struct MasterKey(Zeroizing<[u8; 32]>);

impl MasterKey {
    /// A random key.
    pub fn generate() -> Self {
        Self(Zeroizing::new(rand::random()))
    }

    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Reads 64 hex digits, surrounding white space allowed; `None` for anything else.
    pub fn from_hex(text: &str) -> Option<Self> {
        let text = text.trim().as_bytes();
        if text.len() != 64 {
            return None;
        }
        let mut bytes = Zeroizing::new([0; 32]);
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            let digit = |character: u8| char::from(character).to_digit(16).and_then(|value| u8::try_from(value).ok());
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(bytes))
    }

    /// Reads standard or URL-safe base64 of 32 bytes, padded or not; `None` for anything else.
    pub fn from_base64(text: &str) -> Option<Self> {
        let text = text.trim().trim_end_matches('=');
        if text.len() != 43 {
            return None;
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(33));
        let (mut buffer, mut bits) = (0u32, 0u32);
        for character in text.bytes() {
            let value = match character {
                b'A'..=b'Z' => character - b'A',
                b'a'..=b'z' => character - b'a' + 26,
                b'0'..=b'9' => character - b'0' + 52,
                b'+' | b'-' => 62,
                b'/' | b'_' => 63,
                _ => return None,
            };
            buffer = (buffer << 6 | u32::from(value)) & 0xffff;
            bits += 6;
            if bits >= 8 {
                bits -= 8;
                bytes.push(u8::try_from(buffer >> bits & 0xff).ok()?);
            }
        }
        Some(Self::from_bytes(bytes.as_slice().try_into().ok()?))
    }

    /// A key that tells nothing of this one.
    pub(crate) fn derived(&self, purpose: &str) -> [u8; 32] {
        use sha2::{Digest, Sha256};
        let mut hasher = Sha256::new();
        hasher.update(b"kero derived key\0");
        hasher.update(purpose.as_bytes());
        hasher.update([0]);
        hasher.update(*self.0);
        hasher.finalize().into()
    }

    /// The form in which a key file holds it.
    pub fn to_hex(&self) -> Zeroizing<String> {
        let mut text = String::with_capacity(64);
        for byte in self.0.iter() {
            text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
            text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
        }
        Zeroizing::new(text)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

/// Seals and opens. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sealer(Arc<XChaCha20Poly1305>);

/// Where sealed bytes lie: bytes copied to another table, instance or row do not open there.
pub(crate) fn place(table: &str, instance_pk: i64, row: impl Display) -> String {
    format!("{table}|{instance_pk}|{row}")
}

impl Sealer {
    pub(crate) fn new(key: &MasterKey) -> Self {
        Self(Arc::new(XChaCha20Poly1305::new(&(*key.0).into())))
    }

    pub(crate) fn seal(&self, place: &str, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        let nonce: [u8; NONCE] = rand::random();
        let payload = Payload { msg: plain, aad: place.as_bytes() };
        let sealed = self.0.encrypt(&nonce.into(), payload).map_err(|_| StoreError::bug("sealing failed"))?;
        let mut bytes = Vec::with_capacity(1 + NONCE + sealed.len());
        bytes.push(KEY_ID);
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(&sealed);
        Ok(bytes)
    }

    /// `what` names the thing in the error.
    pub(crate) fn open(&self, what: &'static str, place: &str, bytes: &[u8]) -> Result<Vec<u8>, StoreError> {
        let corrupt = StoreError::Corrupt(what);
        let Some((&KEY_ID, rest)) = bytes.split_first() else { return Err(corrupt) };
        let Some((nonce, sealed)) = rest.split_first_chunk::<NONCE>() else { return Err(corrupt) };
        self.0.decrypt(&(*nonce).into(), Payload { msg: sealed, aad: place.as_bytes() }).map_err(|_| corrupt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_in_its_place_and_under_its_key() {
        let sealer = Sealer::new(&MasterKey::generate());
        let sealed = sealer.seal(&place("sessions", 1, "a"), b"secret").unwrap();
        assert_eq!(sealer.open("session", &place("sessions", 1, "a"), &sealed).unwrap(), b"secret");
        for wrong in [place("sessions", 2, "a"), place("sessions", 1, "b"), place("sender_keys", 1, "a")] {
            assert!(matches!(sealer.open("session", &wrong, &sealed), Err(StoreError::Corrupt("session"))));
        }
        let other = Sealer::new(&MasterKey::generate());
        assert!(other.open("session", &place("sessions", 1, "a"), &sealed).is_err());
        for cut in 0..sealed.len() {
            assert!(sealer.open("session", &place("sessions", 1, "a"), &sealed[..cut]).is_err());
        }
    }

    #[test]
    fn reads_keys_in_both_spellings() {
        let key = MasterKey::from_bytes(std::array::from_fn(|n| n as u8 * 7));
        assert_eq!(MasterKey::from_hex(&format!(" {}\n", *key.to_hex())).unwrap().0, key.0);
        let base64 = "AAcOFRwjKjE4P0ZNVFtiaXB3foWMk5qhqK+2vcTL0tk=";
        assert_eq!(MasterKey::from_base64(base64).unwrap().0, key.0);
        assert_eq!(MasterKey::from_base64(&base64.replace('+', "-").replace('=', "")).unwrap().0, key.0);
        for bad in ["", "00", &"g".repeat(64), "AAcOFRwjKjE4P0ZNVFtiaXB3foWMk5qhqK+2vcTL0t"] {
            assert!(MasterKey::from_hex(bad).is_none() && MasterKey::from_base64(bad).is_none());
        }
        assert_eq!(format!("{key:?}"), "MasterKey(…)");
    }
}

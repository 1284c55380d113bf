//! Signatures: Kero-Kero's header and Standard Webhooks (standardwebhooks.com, `v1` and `v1a`).

use base64::prelude::*;
use hmac::{Hmac, KeyInit, Mac};
use kero_domain::Timestamp;
use kero_store::Endpoint;
use ring::signature::{Ed25519KeyPair, KeyPair};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

fn hmac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    // HMAC takes keys of any length
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// `X-Webhook-Signature`: lowercase hex HMAC-SHA256 of the body, keyed with the secret's text.
pub fn kero_signature(secret: &str, body: &[u8]) -> String {
    hex(&hmac(secret.as_bytes(), &[body]))
}

/// One entry of `webhook-signature`: `v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`. A secret `whsec_…` is
/// base64 key material; any other secret is used as its bytes.
pub fn standard_signature(secret: &str, id: &str, timestamp: i64, body: &[u8]) -> String {
    let key = secret
        .strip_prefix("whsec_")
        .and_then(|encoded| BASE64_STANDARD.decode(encoded).ok())
        .unwrap_or_else(|| secret.as_bytes().to_vec());
    let signed = format!("{id}.{timestamp}.");
    format!("v1,{}", BASE64_STANDARD.encode(hmac(&key, &[signed.as_bytes(), body])))
}

/// The other kind of entry: `v1a,` and base64 of the ed25519 signature over the same; `None` for a key that is none.
pub fn asymmetric_signature(signing_key: &str, id: &str, timestamp: i64, body: &[u8]) -> Option<String> {
    let signed = [format!("{id}.{timestamp}.").as_bytes(), body].concat();
    Some(format!("v1a,{}", BASE64_STANDARD.encode(key_pair(signing_key)?.sign(&signed))))
}

/// `webhook-signature`: an entry for each secret that counts, and one for the signing key; empty without any.
pub(crate) fn standard_signatures(endpoint: &Endpoint, id: &str, at: Timestamp, body: &[u8]) -> String {
    let symmetric = endpoint.secrets(at).into_iter().map(|secret| standard_signature(secret, id, at.secs(), body));
    let key = endpoint.signing_key.as_ref();
    let asymmetric = key.and_then(|key| asymmetric_signature(key.expose_secret(), id, at.secs(), body));
    symmetric.chain(asymmetric).collect::<Vec<_>>().join(" ")
}

fn key_pair(signing_key: &str) -> Option<Ed25519KeyPair> {
    let bytes = BASE64_STANDARD.decode(signing_key.strip_prefix("whsk_")?).ok()?;
    Ed25519KeyPair::from_seed_and_public_key(bytes.get(..32)?, bytes.get(32..)?).ok()
}

/// A new signing key, `whsk_` and base64 of the seed and the public key.
pub(crate) fn new_signing_key() -> Option<SecretString> {
    let seed: [u8; 32] = rand::random();
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).ok()?;
    let bytes = [&seed, pair.public_key().as_ref()].concat();
    Some(SecretString::from(format!("whsk_{}", BASE64_STANDARD.encode(bytes))))
}

/// The public part of a signing key, `whpk_…`, for receivers.
pub fn public_key(signing_key: &SecretString) -> Option<String> {
    let pair = key_pair(signing_key.expose_secret())?;
    Some(format!("whpk_{}", BASE64_STANDARD.encode(pair.public_key().as_ref())))
}

/// A new secret of 32 random bytes, `whsec_…`.
pub(crate) fn new_secret() -> SecretString {
    let bytes: [u8; 32] = rand::random();
    SecretString::from(format!("whsec_{}", BASE64_STANDARD.encode(bytes)))
}

/// Why a caller's secret is not taken: it is `whsec_` and base64 of 24 to 64 bytes, or a text of as many bytes.
pub(crate) fn check_secret(secret: &str) -> Result<(), &'static str> {
    match secret.strip_prefix("whsec_") {
        Some(encoded) => match BASE64_STANDARD.decode(encoded) {
            Ok(bytes) if (24..=64).contains(&bytes.len()) => Ok(()),
            Ok(_) => Err("must have 24 to 64 bytes of key material after whsec_"),
            Err(_) => Err("must be base64 after whsec_"),
        },
        None if !(24..=64).contains(&secret.len()) => Err("must have 24 to 64 bytes, or be whsec_ and base64"),
        None if secret.chars().any(char::is_control) => Err("must not have control characters"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Standard Webhooks' own example
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const AT: i64 = 1_614_265_330;

    #[test]
    fn agrees_with_the_published_vector() {
        assert_eq!(
            standard_signature("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", ID, AT, BODY),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn agrees_with_the_published_asymmetric_vector() {
        let key = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
        let signature = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==";
        assert_eq!(asymmetric_signature(key, ID, AT, BODY).as_deref(), Some(signature));
        let public = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";
        assert_eq!(public_key(&SecretString::from(key)).as_deref(), Some(public));
        let own = new_signing_key().unwrap();
        assert!(asymmetric_signature(own.expose_secret(), ID, AT, BODY).is_some());
        for bad in ["", "whsk_", "whsk_AAAA", &own.expose_secret()[..80]] {
            assert_eq!(asymmetric_signature(bad, ID, AT, BODY), None, "{bad}");
        }
    }

    #[test]
    fn hex_hmac_of_rfc_4231() {
        assert_eq!(
            kero_signature("Jefe", b"what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn secrets_have_their_rules() {
        let whsec = |bytes: usize| format!("whsec_{}", BASE64_STANDARD.encode(vec![7; bytes]));
        for good in [&whsec(24), &whsec(64), &"x".repeat(24), &"x".repeat(64), new_secret().expose_secret()] {
            assert_eq!(check_secret(good), Ok(()), "{good}");
        }
        for bad in [
            &whsec(0),
            &whsec(23),
            &whsec(65),
            &whsec(10_000),
            "",
            "whsec_%%%",
            &"a\r\nb".repeat(8),
            &"x".repeat(65),
            &"x".repeat(23),
        ] {
            assert!(check_secret(bad).is_err(), "{bad}");
        }
        assert_ne!(new_secret().expose_secret(), new_secret().expose_secret());
    }
}

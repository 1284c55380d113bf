//! What a receiver does: both signatures of a webhook, checked over the bytes as they arrived.

use super::sink::Received;
use anyhow::{Context, ensure};
use base64::prelude::*;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Fails when a signature is missing or wrong.
pub fn check(received: &Received, secret: &[u8]) -> anyhow::Result<()> {
    let hex = received.header("x-webhook-signature").context("no X-Webhook-Signature")?;
    let expected: String = hmac(secret, &[&received.body])?.iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(hex == expected, "X-Webhook-Signature does not verify");

    let id = received.header("webhook-id").context("no webhook-id")?;
    let timestamp = received.header("webhook-timestamp").context("no webhook-timestamp")?;
    let listed = received.header("webhook-signature").context("no webhook-signature")?;
    let signed = format!("{id}.{timestamp}.");
    let expected = format!("v1,{}", BASE64_STANDARD.encode(hmac(secret, &[signed.as_bytes(), &received.body])?));
    ensure!(listed.split(' ').any(|one| one == expected), "webhook-signature does not verify");
    Ok(())
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> anyhow::Result<Vec<u8>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).context("HMAC takes keys of any length")?;
    parts.iter().for_each(|part| mac.update(part));
    Ok(mac.finalize().into_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(hex: &str, standard: &str) -> Received {
        let pairs = [
            ("x-webhook-signature", hex),
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", standard),
        ];
        Received {
            path: "/".to_owned(),
            headers: pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            body: br#"{"test": 2432232314}"#.to_vec(),
            envelope: serde_json::Value::Null,
        }
    }

    #[test]
    fn takes_the_published_vector_and_refuses_another() {
        // Standard Webhooks' own example.
        let secret = BASE64_STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let standard = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let hex: String =
            hmac(&secret, &[br#"{"test": 2432232314}"#]).unwrap().iter().map(|b| format!("{b:02x}")).collect();
        check(&received(&hex, standard), &secret).unwrap();
        check(&received(&hex, &format!("v1,other {standard}")), &secret).unwrap();
        assert!(check(&received(&hex, "v1,other"), &secret).is_err());
        assert!(check(&received("00", standard), &secret).is_err());
    }
}

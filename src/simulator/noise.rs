//! The server's side of the Noise handshake: XX for a first connection, IK for a client that remembers our key,
//! XXfallback when it remembers an old one. The certificate chain is properly signed, so that clients whose root key
//! can be set verify it.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use buffa::{Message as _, MessageField};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use wacore::libsignal::protocol::{KeyPair, PrivateKey};
use wacore_binary::consts::{NOISE_PATTERN_IK, NOISE_PATTERN_XX, NOISE_PATTERN_XXFALLBACK, WA_CONN_HEADER};
use wacore_noise::{NoiseCipher, NoiseHandshake, framing};
use waproto::whatsapp as wa;

use crate::node::{big_endian, key32, now};
use crate::phone::store::rng;
use crate::socket::{FrameReader, FrameWriter};
use crate::stats::Counters;

/// What the server proves itself with. Kept in the state file, so that clients can resume (IK) after a restart.
pub(crate) struct ServerKeys {
    statics: KeyPair,
    /// Public half of the key that signs the chain; foreign clients are given it (`GET /admin/root-key`).
    pub root: [u8; 32],
    chain: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    static_private: [u8; 32],
    root_public: [u8; 32],
    chain: Vec<u8>,
}

impl ServerKeys {
    /// New keys with a certificate chain root → intermediate → static key, valid for ten years.
    pub fn generate() -> Result<Self> {
        use wa::cert_chain::NoiseCertificate;
        use wa::cert_chain::noise_certificate::Details;

        const DAY: u64 = 86_400;
        let (statics, root, intermediate) =
            (KeyPair::generate(&mut rng()), KeyPair::generate(&mut rng()), KeyPair::generate(&mut rng()));
        let details = |serial, issuer, key: &KeyPair| {
            Details {
                serial: Some(serial),
                issuer_serial: Some(issuer),
                key: Some(key.public_key.public_key_bytes().to_vec()),
                not_before: Some(now().saturating_sub(DAY)),
                not_after: Some(now() + 3650 * DAY),
            }
            .encode_to_vec()
        };
        let signed = |details: Vec<u8>, by: &KeyPair| -> Result<NoiseCertificate> {
            let signature = by.private_key.calculate_signature(&details, &mut rng()).map_err(|e| anyhow!("{e}"))?;
            Ok(NoiseCertificate { details: Some(details), signature: Some(signature.to_vec()) })
        };
        let chain = wa::CertChain {
            leaf: MessageField::some(signed(details(2, 1, &statics), &intermediate)?),
            intermediate: MessageField::some(signed(details(1, 0, &intermediate), &root)?),
        };
        Ok(Self { statics, root: key32(root.public_key.public_key_bytes())?, chain: chain.encode_to_vec() })
    }

    /// The keys of the state file, which is made when it does not exist.
    pub fn load_or_create(path: &Path) -> Result<Self> {
        if path.exists() {
            let saved: Saved = serde_json::from_slice(&std::fs::read(path)?).context("the state file is damaged")?;
            let private = PrivateKey::deserialize(&saved.static_private).map_err(|e| anyhow!("{e}"))?;
            let statics =
                KeyPair { public_key: private.public_key().map_err(|e| anyhow!("{e}"))?, private_key: private };
            return Ok(Self { statics, root: saved.root_public, chain: saved.chain });
        }
        let keys = Self::generate()?;
        let saved = Saved { static_private: keys.private(), root_public: keys.root, chain: keys.chain.clone() };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, serde_json::to_vec(&saved)?)?;
        Ok(keys)
    }

    fn private(&self) -> [u8; 32] {
        *self.statics.private_key.serialize()
    }
}

/// A finished handshake.
pub(crate) struct Handshaken {
    pub write: NoiseCipher,
    pub read: NoiseCipher,
    /// The client's static key, by which a device is known again at login.
    pub client_static: [u8; 32],
    pub payload: wa::ClientPayload,
}

/// Answers the client's hello and reads its payload. `before_hello` is waited for before our answer: on loopback a
/// login can otherwise complete between two polls of a client's test harness.
pub(crate) async fn respond<S: AsyncRead + AsyncWrite + Unpin>(
    keys: &ServerKeys,
    counters: &Counters,
    before_hello: std::time::Duration,
    reader: &mut FrameReader<S>,
    writer: &mut FrameWriter<S>,
) -> Result<Handshaken> {
    let header = read_prologue(reader).await?;
    let hello = wa::HandshakeMessage::decode_from_slice(&reader.next().await?)?
        .client_hello
        .into_option()
        .context("the first frame is no clientHello")?;
    if !before_hello.is_zero() {
        tokio::time::sleep(before_hello).await;
    }
    let client_ephemeral = key32(&hello.ephemeral.context("no ephemeral key")?)?;
    let ephemeral = Ephemeral::new()?;

    let pattern = match (hello.r#static, hello.payload) {
        (Some(sealed_static), Some(sealed_payload)) => {
            match resume(keys, &header, &ephemeral, &client_ephemeral, &sealed_static, &sealed_payload) {
                Ok((noise, client_static, payload, sealed_chain)) => {
                    Counters::add(&counters.ik);
                    send_hello(writer, &ephemeral, None, sealed_chain).await?;
                    return finish(noise, client_static, &payload);
                }
                Err(e) => {
                    tracing::debug!("IK hello refused ({e:#}): falling back");
                    Counters::add(&counters.fallback);
                    NOISE_PATTERN_XXFALLBACK
                }
            }
        }
        _ => {
            Counters::add(&counters.xx);
            NOISE_PATTERN_XX
        }
    };
    exchange(keys, pattern, &header, &ephemeral, &client_ephemeral, reader, writer).await
}

/// IK: the client already sealed its identity and payload with our static key.
#[allow(clippy::type_complexity)]
fn resume(
    keys: &ServerKeys,
    header: &[u8; 4],
    ephemeral: &Ephemeral,
    client_ephemeral: &[u8; 32],
    sealed_static: &[u8],
    sealed_payload: &[u8],
) -> Result<(NoiseHandshake, [u8; 32], Vec<u8>, Vec<u8>)> {
    let mut noise = NoiseHandshake::new(NOISE_PATTERN_IK, header)?;
    noise.authenticate(keys.statics.public_key.public_key_bytes());
    noise.authenticate(client_ephemeral);
    noise.mix_shared_secret(&keys.private(), client_ephemeral)?;
    let client_static = key32(&noise.decrypt(sealed_static)?)?;
    noise.mix_shared_secret(&keys.private(), &client_static)?;
    let payload = noise.decrypt(sealed_payload)?;
    noise.authenticate(&ephemeral.public);
    noise.mix_shared_secret(&ephemeral.private, client_ephemeral)?;
    noise.mix_shared_secret(&ephemeral.private, &client_static)?;
    let sealed_chain = noise.encrypt(&keys.chain)?;
    Ok((noise, client_static, payload, sealed_chain))
}

/// XX and XXfallback, which differ in the pattern's name only.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    keys: &ServerKeys,
    pattern: &str,
    header: &[u8; 4],
    ephemeral: &Ephemeral,
    client_ephemeral: &[u8; 32],
    reader: &mut FrameReader<S>,
    writer: &mut FrameWriter<S>,
) -> Result<Handshaken> {
    let mut noise = NoiseHandshake::new(pattern, header)?;
    noise.authenticate(client_ephemeral);
    noise.authenticate(&ephemeral.public);
    noise.mix_shared_secret(&ephemeral.private, client_ephemeral)?;
    let sealed_static = noise.encrypt(keys.statics.public_key.public_key_bytes())?;
    noise.mix_shared_secret(&keys.private(), client_ephemeral)?;
    let sealed_chain = noise.encrypt(&keys.chain)?;
    send_hello(writer, ephemeral, Some(sealed_static), sealed_chain).await?;

    let last = wa::HandshakeMessage::decode_from_slice(&reader.next().await?)?
        .client_finish
        .into_option()
        .context("the second frame is no clientFinish")?;
    let client_static = key32(&noise.decrypt(&last.r#static.context("no static key")?)?)?;
    noise.mix_shared_secret(&ephemeral.private, &client_static)?;
    let payload = noise.decrypt(&last.payload.context("no payload")?)?;
    finish(noise, client_static, &payload)
}

fn finish(noise: NoiseHandshake, client_static: [u8; 32], payload: &[u8]) -> Result<Handshaken> {
    // What the initiator writes with, we read with.
    let (read, write) = noise.finish()?;
    Ok(Handshaken { write, read, client_static, payload: wa::ClientPayload::decode_from_slice(payload)? })
}

struct Ephemeral {
    public: [u8; 32],
    private: [u8; 32],
}

impl Ephemeral {
    fn new() -> Result<Self> {
        let pair = KeyPair::generate(&mut rng());
        Ok(Self { public: key32(pair.public_key.public_key_bytes())?, private: *pair.private_key.serialize() })
    }
}

async fn send_hello<S: AsyncRead + AsyncWrite + Unpin>(
    writer: &mut FrameWriter<S>,
    ephemeral: &Ephemeral,
    sealed_static: Option<Vec<u8>>,
    sealed_chain: Vec<u8>,
) -> Result<()> {
    let hello = wa::HandshakeMessage {
        server_hello: MessageField::some(wa::handshake_message::ServerHello {
            ephemeral: Some(ephemeral.public.to_vec()),
            r#static: sealed_static,
            payload: Some(sealed_chain),
            ..Default::default()
        }),
        ..Default::default()
    };
    writer.send(framing::encode_frame(&hello.encode_to_vec(), None)?).await
}

/// The first bytes of a connection: optional edge routing (`ED`, 0, 1, length, data), then `WA` and the version.
async fn read_prologue<S: AsyncRead + AsyncWrite + Unpin>(reader: &mut FrameReader<S>) -> Result<[u8; 4]> {
    let first = reader.next_message().await?;
    let mut rest: &[u8] = &first;
    if let Some(routing) = rest.strip_prefix(b"ED\0\x01") {
        let length = big_endian(routing.get(..3).context("short edge routing")?) as usize;
        rest = routing.get(3 + length..).context("short edge routing")?;
    }
    let header: [u8; 4] = rest.get(..4).context("short prologue")?.try_into()?;
    if !header.starts_with(b"WA") {
        bail!("the connection does not start with the protocol's header");
    }
    if header != WA_CONN_HEADER {
        tracing::warn!(?header, "unusual protocol version");
    }
    reader.feed(&rest[4..]);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::DuplexStream;
    use tokio_websockets::{ClientBuilder, ServerBuilder};
    use wacore_noise::{IkHandshakeState, IkServerHelloOutcome, XxFallbackHandshakeState, XxHandshakeState};

    use super::*;
    use crate::socket::frames;

    #[test]
    fn keys_survive_a_restart() {
        let folder = std::env::temp_dir().join(format!("kero-sim-{}", crate::node::message_id()));
        let file = folder.join("state.json");
        let first = ServerKeys::load_or_create(&file).unwrap();
        let second = ServerKeys::load_or_create(&file).unwrap();
        assert_eq!(first.root, second.root);
        assert_eq!(first.private(), second.private());
        assert_eq!(first.chain, second.chain);
        std::fs::remove_dir_all(folder).unwrap();
    }

    /// A responder with these keys at the far end of a socket, and the near end.
    #[allow(clippy::type_complexity, reason = "three parts that every test takes apart at once")]
    fn server(
        keys: ServerKeys,
    ) -> (FrameReader<DuplexStream>, FrameWriter<DuplexStream>, tokio::task::JoinHandle<(Handshaken, [u64; 3])>) {
        let (near, far) = tokio::io::duplex(1 << 16);
        let responding = tokio::spawn(async move {
            let (mut reader, mut writer) = frames(ServerBuilder::new().serve(far));
            let counters = Counters::default();
            let done = respond(&keys, &counters, Duration::ZERO, &mut reader, &mut writer).await.unwrap();
            let counted = [&counters.xx, &counters.ik, &counters.fallback];
            (done, counted.map(|c| c.load(std::sync::atomic::Ordering::Relaxed)))
        });
        let (reader, writer) = frames(ClientBuilder::new().take_over(near));
        (reader, writer, responding)
    }

    async fn send(writer: &mut FrameWriter<DuplexStream>, frame: &[u8], prologue: Option<&[u8]>) {
        writer.send(framing::encode_frame(frame, prologue).unwrap()).await.unwrap();
    }

    fn payload() -> Vec<u8> {
        wa::ClientPayload { username: Some(15551234567), ..Default::default() }.encode_to_vec()
    }

    fn static_of(keys: &ServerKeys) -> [u8; 32] {
        key32(keys.statics.public_key.public_key_bytes()).unwrap()
    }

    #[tokio::test]
    async fn a_first_connection_is_xx_even_behind_edge_routing() {
        let client = KeyPair::generate(&mut rng());
        let client_public = key32(client.public_key.public_key_bytes()).unwrap();
        let (mut reader, mut writer, server) = server(ServerKeys::generate().unwrap());
        let mut xx = XxHandshakeState::new(client, payload(), &WA_CONN_HEADER).unwrap();
        let prologue = [b"ED\0\x01\0\0\x03abc", &WA_CONN_HEADER[..]].concat();
        send(&mut writer, &xx.build_client_hello().unwrap(), Some(&prologue)).await;
        let hello = reader.next().await.unwrap();
        let last = xx.read_server_hello_and_build_client_finish(&hello).unwrap();
        send(&mut writer, &last, None).await;
        let ours = xx.finish().unwrap();
        let (theirs, counted) = server.await.unwrap();
        assert_eq!((theirs.client_static, counted), (client_public, [1, 0, 0]));
        assert_eq!(theirs.payload.username, Some(15551234567));
        let mut sealed = ours.write_cipher.encrypt_with_counter(0, b"hello").unwrap();
        theirs.read.decrypt_in_place_with_counter(0, &mut sealed).unwrap();
        assert_eq!(sealed, b"hello");
    }

    #[tokio::test]
    async fn a_known_key_resumes_and_an_old_one_falls_back() {
        let client = || KeyPair::generate(&mut rng());
        let keys = ServerKeys::generate().unwrap();
        let mut ik = IkHandshakeState::new(client(), static_of(&keys), payload(), &WA_CONN_HEADER).unwrap();
        let (mut reader, mut writer, responding) = server(keys);
        send(&mut writer, &ik.build_client_hello().unwrap(), Some(&WA_CONN_HEADER)).await;
        let hello = reader.next().await.unwrap();
        assert!(matches!(ik.read_server_hello(&hello).unwrap(), IkServerHelloOutcome::Continue(_)));
        assert_eq!(responding.await.unwrap().1, [0, 1, 0]);

        let old = static_of(&ServerKeys::generate().unwrap());
        let mut ik = IkHandshakeState::new(client(), old, payload(), &WA_CONN_HEADER).unwrap();
        let (mut reader, mut writer, responding) = server(ServerKeys::generate().unwrap());
        send(&mut writer, &ik.build_client_hello().unwrap(), Some(&WA_CONN_HEADER)).await;
        let hello = reader.next().await.unwrap();
        let IkServerHelloOutcome::Fallback(inputs) = ik.read_server_hello(&hello).unwrap() else {
            panic!("the server must refuse a hello to another key");
        };
        let mut fallback = XxFallbackHandshakeState::from_ik_failure(*inputs, &WA_CONN_HEADER).unwrap();
        send(&mut writer, &fallback.build_client_finish().unwrap(), None).await;
        fallback.finish().unwrap();
        let (theirs, counted) = responding.await.unwrap();
        assert_eq!(counted, [0, 0, 1]);
        assert_eq!(theirs.payload.username, Some(15551234567));
    }
}

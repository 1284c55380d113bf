//! The Signal state of a simulated phone, in memory: identity, prekeys, sessions, sender keys.

use std::collections::HashMap;

use async_trait::async_trait;
use wacore::libsignal::protocol::*;
use wacore::libsignal::store::sender_key_name::SenderKeyName;

use crate::world::device::SignedPrekey;

type Signal<T> = Result<T, SignalProtocolError>;

/// The one signed prekey of a phone.
const SIGNED_PREKEY: u32 = 1;

/// Randomness for key generation.
pub(crate) fn rng() -> rand::rngs::StdRng {
    rand::make_rng()
}

struct Identities {
    own: IdentityKeyPair,
    registration: u32,
    known: HashMap<String, IdentityKey>,
}

#[derive(Default)]
struct Sessions(HashMap<String, SessionRecord>);

#[derive(Default)]
struct Prekeys(HashMap<u32, KeyPair>);

struct SignedPrekeys(SignedPreKeyRecord);

#[derive(Default)]
struct SenderKeys(HashMap<String, SenderKeyRecord>);

/// All of it; addressed by phone number and device, whatever address was used on the wire, so that a peer that
/// changes between its two addresses stays one session.
pub(crate) struct SignalState {
    identities: Identities,
    sessions: Sessions,
    prekeys: Prekeys,
    signed: SignedPrekeys,
    sender_keys: SenderKeys,
    signed_public: SignedPrekey,
    next_prekey: u32,
    /// Who has the phone's sender key: (group, phone, device).
    pub distributed: std::collections::HashSet<(String, String, u16)>,
}

impl SignalState {
    pub fn new(own: IdentityKeyPair) -> Self {
        let mut rng = rng();
        let pair = KeyPair::generate(&mut rng);
        // Signing with a key that was just made does not fail; an empty signature would be refused by every client.
        let signature = own
            .private_key()
            .calculate_signature(&pair.public_key.serialize(), &mut rng)
            .map(|s| s.to_vec())
            .unwrap_or_default();
        let record = SignedPreKeyRecord::new(SIGNED_PREKEY.into(), Timestamp::from_epoch_millis(0), &pair, &signature);
        Self {
            identities: Identities { own, registration: (rand::random::<u32>() & 0x3fff) | 1, known: HashMap::new() },
            sessions: Sessions::default(),
            prekeys: Prekeys::default(),
            signed: SignedPrekeys(record),
            sender_keys: SenderKeys::default(),
            signed_public: SignedPrekey { id: SIGNED_PREKEY, key: public(&pair), signature },
            next_prekey: 1,
            distributed: Default::default(),
        }
    }

    pub fn registration(&self) -> u32 {
        self.identities.registration
    }

    pub fn signed_prekey(&self) -> SignedPrekey {
        self.signed_public.clone()
    }

    /// A new one-time prekey and its id.
    pub fn new_prekey(&mut self) -> (u32, [u8; 32]) {
        let pair = KeyPair::generate(&mut rng());
        let (id, key) = (self.next_prekey, public(&pair));
        self.next_prekey += 1;
        self.prekeys.0.insert(id, pair);
        (id, key)
    }

    pub fn has_session(&self, peer: &ProtocolAddress) -> bool {
        self.sessions.0.contains_key(peer.as_str())
    }

    /// Starts a session, or replaces one, from the peer's keys.
    pub async fn start_session(&mut self, peer: &ProtocolAddress, keys: &PreKeyBundle) -> Signal<()> {
        process_prekey_bundle(peer, &mut self.sessions, &mut self.identities, keys, &mut rng(), UsePQRatchet::No)
            .await?;
        Ok(())
    }

    /// The message type of the stanza, and the ciphertext.
    pub async fn encrypt(&mut self, peer: &ProtocolAddress, plain: &[u8]) -> Signal<(&'static str, Vec<u8>)> {
        let sealed = message_encrypt(plain, peer, &mut self.sessions, &mut self.identities).await?;
        let kind = match sealed.message_type() {
            CiphertextMessageType::PreKey => "pkmsg",
            _ => "msg",
        };
        Ok((kind, sealed.serialize().to_vec()))
    }

    pub async fn decrypt(&mut self, peer: &ProtocolAddress, kind: &str, sealed: &[u8]) -> Signal<Vec<u8>> {
        let message = if kind == "pkmsg" {
            CiphertextMessage::PreKeySignalMessage(PreKeySignalMessage::try_from(sealed)?)
        } else {
            CiphertextMessage::SignalMessage(SignalMessage::try_from(sealed)?)
        };
        let opened = message_decrypt(
            &message,
            peer,
            &mut self.sessions,
            &mut self.identities,
            &mut self.prekeys,
            &self.signed,
            &mut rng(),
            UsePQRatchet::No,
        )
        .await?;
        Ok(opened.plaintext.to_vec())
    }

    /// Our sender key for a group, to be sent to those who do not have it.
    pub async fn own_sender_key(&mut self, group: &str, own: &ProtocolAddress) -> Signal<Vec<u8>> {
        let name = SenderKeyName::from_parts(group, own.as_str());
        let message = create_sender_key_distribution_message(&name, &mut self.sender_keys, &mut rng()).await?;
        Ok(message.serialized().to_vec())
    }

    pub async fn encrypt_for_group(&mut self, group: &str, own: &ProtocolAddress, plain: &[u8]) -> Signal<Vec<u8>> {
        let name = SenderKeyName::from_parts(group, own.as_str());
        let message = group_encrypt(&mut self.sender_keys, &name, plain, &mut rng()).await?;
        Ok(message.serialized().to_vec())
    }

    /// Learns a member's sender key.
    pub async fn learn_sender_key(&mut self, group: &str, peer: &ProtocolAddress, key: &[u8]) -> Signal<()> {
        let name = SenderKeyName::from_parts(group, peer.as_str());
        let message = SenderKeyDistributionMessage::try_from(key)?;
        process_sender_key_distribution_message(&name, &message, &mut self.sender_keys).await
    }

    pub async fn decrypt_for_group(&mut self, group: &str, peer: &ProtocolAddress, sealed: &[u8]) -> Signal<Vec<u8>> {
        let name = SenderKeyName::from_parts(group, peer.as_str());
        group_decrypt(sealed, &mut self.sender_keys, &name).await
    }
}

fn public(pair: &KeyPair) -> [u8; 32] {
    let mut key = [0; 32];
    key.copy_from_slice(pair.public_key.public_key_bytes());
    key
}

#[async_trait]
impl IdentityKeyStore for Identities {
    async fn get_identity_key_pair(&self) -> Signal<IdentityKeyPair> {
        Ok(self.own.clone())
    }

    async fn get_local_registration_id(&self) -> Signal<u32> {
        Ok(self.registration)
    }

    async fn save_identity(&mut self, peer: &ProtocolAddress, identity: &IdentityKey) -> Signal<IdentityChange> {
        let old = self.known.insert(peer.as_str().to_owned(), *identity);
        Ok(IdentityChange::from_changed(old.is_some_and(|o| &o != identity)))
    }

    /// A new identity is taken, as a phone does with a changed security code.
    async fn is_trusted_identity(&self, _: &ProtocolAddress, _: &IdentityKey, _: Direction) -> Signal<bool> {
        Ok(true)
    }

    async fn get_identity(&self, peer: &ProtocolAddress) -> Signal<Option<IdentityKey>> {
        Ok(self.known.get(peer.as_str()).cloned())
    }
}

#[async_trait]
impl SessionStore for Sessions {
    async fn load_session(&self, peer: &ProtocolAddress) -> Signal<Option<SessionRecord>> {
        Ok(self.0.get(peer.as_str()).cloned())
    }

    async fn has_session(&self, peer: &ProtocolAddress) -> Signal<bool> {
        Ok(self.0.contains_key(peer.as_str()))
    }

    async fn store_session(&mut self, peer: &ProtocolAddress, record: SessionRecord) -> Signal<()> {
        self.0.insert(peer.as_str().to_owned(), record);
        Ok(())
    }
}

#[async_trait]
impl PreKeyStore for Prekeys {
    async fn get_pre_key(&self, id: PreKeyId) -> Signal<PreKeyRecord> {
        let pair = self.0.get(&u32::from(id)).ok_or(SignalProtocolError::InvalidPreKeyId)?;
        Ok(PreKeyRecord::new(id, pair))
    }

    async fn save_pre_key(&mut self, id: PreKeyId, record: &PreKeyRecord) -> Signal<()> {
        self.0.insert(id.into(), record.key_pair()?);
        Ok(())
    }

    async fn remove_pre_key(&mut self, id: PreKeyId) -> Signal<()> {
        self.0.remove(&u32::from(id));
        Ok(())
    }
}

#[async_trait]
impl SignedPreKeyStore for SignedPrekeys {
    async fn get_signed_pre_key(&self, _: SignedPreKeyId) -> Signal<SignedPreKeyRecord> {
        Ok(self.0.clone())
    }

    async fn save_signed_pre_key(&mut self, _: SignedPreKeyId, record: &SignedPreKeyRecord) -> Signal<()> {
        self.0 = record.clone();
        Ok(())
    }
}

#[async_trait]
impl SenderKeyStore for SenderKeys {
    async fn store_sender_key(&mut self, name: &SenderKeyName, record: SenderKeyRecord) -> Signal<()> {
        self.0.insert(name.cache_key().to_owned(), record);
        Ok(())
    }

    async fn load_sender_key(&self, name: &SenderKeyName) -> Signal<Option<SenderKeyRecord>> {
        Ok(self.0.get(name.cache_key()).cloned())
    }
}

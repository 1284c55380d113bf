//! The device store against the client's own in-memory one: the same random calls, the same answers.

#[path = "../../store/tests/database.rs"]
mod database;

use super::{DeviceStore, Outgoing};
use bytes::Bytes;
use kero_domain::{Content, CorrelationId, JobId, JobState, Priority, Timestamp};
use kero_store::{Durability, MasterKey, NewJob, Store, StoreConfig};
use std::collections::HashMap;
use std::sync::Arc;
use wacore::appstate::hash::HashState;
use wacore::appstate::processor::AppStateMutationMAC;
use wacore::store::error::Result;
use wacore::store::traits::*;
use wacore::store::{Device, InMemoryBackend};
use waproto::whatsapp as wa;

/// A small deterministic generator: a failing seed can be run again.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = self.below(40);
        (0..length).map(|_| self.below(256) as u8).collect()
    }

    fn array(&mut self) -> [u8; 32] {
        std::array::from_fn(|_| self.below(256) as u8)
    }
}

const ADDRESSES: &[&str] =
    &["1@lid", "1:2@lid", "10@lid", "491701234567@s.whatsapp.net", "491701234567:3@s.whatsapp.net", "ä|'\"%_@x"];
const USERS: &[&str] = &["1", "10", "49170", "491701234567", "ä|'\"%", "2"];
const GROUPS: &[&str] = &["120363000000000001@g.us", "120363000000000002@g.us"];
const IDS: &[&str] = &["3EB0A", "3EB0B", "3EB0C"];
const COLLECTIONS: &[&str] = &["regular", "critical_block"];

/// What a call answered, in a form that two backends share.
fn show<T: std::fmt::Debug>(result: Result<T>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("error: {error}"),
    }
}

fn sorted<T: Ord + std::fmt::Debug>(result: Result<Vec<T>>) -> String {
    show(result.map(|mut items| {
        items.sort();
        items
    }))
}

fn mapping(random: &mut Random, clock: i64) -> LidPnMappingEntry {
    // distinct pairs: what the in-memory one does when a LID moves to another number differs from its own contract
    let user = random.below(4);
    LidPnMappingEntry {
        lid: format!("lid{user}"),
        phone_number: format!("phone{}", user / 2),
        created_at: 5,
        updated_at: clock,
        learning_source: "usync".to_owned(),
    }
}

fn list(random: &mut Random, clock: i64) -> DeviceListRecord {
    DeviceListRecord {
        user: random.pick(USERS).to_owned(),
        devices: (0..random.below(4)).map(|n| DeviceInfo::new(n as u32, Some(7)).with_hosting(n == 2)).collect(),
        timestamp: clock,
        phash: Some("2:hash".to_owned()).filter(|_| clock % 2 == 0),
        raw_id: Some(9).filter(|_| clock % 3 == 0),
    }
}

fn secret(random: &mut Random) -> MsgSecretEntry {
    MsgSecretEntry {
        chat: random.pick(&ADDRESSES[..3]).into(),
        sender: random.pick(&ADDRESSES[..2]).into(),
        msg_id: random.pick(IDS).into(),
        secret: random.array(),
        expires_at: [0, 100, 200, 300][random.below(4)],
        message_ts: [0, 50, 60][random.below(3)],
    }
}

/// One random call; its name and its answer.
async fn call(kind: usize, seed: u64, clock: i64, on: &dyn Backend) -> (&'static str, String) {
    let random = &mut Random(seed);
    let address = random.pick(ADDRESSES);
    let group = random.pick(GROUPS);
    let id = random.pick(IDS);
    let name = random.pick(COLLECTIONS);
    let number = random.below(6) as u32;
    let records: Vec<(Arc<str>, Bytes)> =
        (0..random.below(4)).map(|_| (random.pick(ADDRESSES).into(), random.bytes().into())).collect();
    let numbered: Vec<(u32, Bytes)> =
        (0..random.below(4)).map(|_| (random.below(6) as u32, random.bytes().into())).collect();
    let key = random.bytes();
    let index: Vec<[u8; 32]> = (0..3).map(|_| [random.below(5) as u8; 32]).collect();
    macro_rules! calls {
        ($($n:literal $call:ident => $answer:expr;)+) => {
            match kind % CALLS { $($n => (stringify!($call), $answer),)+ _ => unreachable!() }
        };
    }
    calls! {
        0 put_identity => show(on.put_identity(address, random.array()).await);
        1 put_identities_batch => {
            let batch: Vec<_> = records.iter().map(|(address, _)| (address.clone(), random.array())).collect();
            show(on.put_identities_batch(&batch).await)
        };
        2 load_identity => show(on.load_identity(address).await);
        3 delete_identity => show(on.delete_identity(address).await);
        4 get_session => show(on.get_session(address).await);
        5 put_session => show(on.put_session(address, &key).await);
        6 put_sessions_batch => show(on.put_sessions_batch(&records).await);
        7 delete_session => show(on.delete_session(address).await);
        8 has_session => show(on.has_session(address).await);
        9 has_signal_state_for_user => show(on.has_signal_state_for_user(random.pick(USERS)).await);
        10 store_prekey => show(on.store_prekey(number, &key, number.is_multiple_of(2)).await);
        11 store_prekeys_batch => show(on.store_prekeys_batch(&numbered, false).await);
        12 load_prekey => show(on.load_prekey(number).await);
        13 load_prekeys_batch => sorted(on.load_prekeys_batch(&[0, 1, 2, 3, 4, 5, 99]).await);
        14 mark_prekeys_uploaded => show(on.mark_prekeys_uploaded(&[number, 77]).await);
        15 remove_prekey => show(on.remove_prekey(number).await);
        16 get_max_prekey_id => show(on.get_max_prekey_id().await);
        17 store_signed_prekey => show(on.store_signed_prekey(number, &key).await);
        18 load_signed_prekey => show(on.load_signed_prekey(number).await);
        19 load_all_signed_prekeys => sorted(on.load_all_signed_prekeys().await);
        20 remove_signed_prekey => show(on.remove_signed_prekey(number).await);
        21 put_sender_key => show(on.put_sender_key(address, &key).await);
        22 put_sender_keys_batch => show(on.put_sender_keys_batch(&records).await);
        23 get_sender_key => show(on.get_sender_key(address).await);
        24 delete_sender_key => show(on.delete_sender_key(address).await);
        25 get_sync_key => show(on.get_sync_key(name.as_bytes()).await);
        26 set_sync_key => {
            let sync_key = AppStateSyncKey { key_data: key.clone(), fingerprint: random.bytes(), timestamp: clock };
            show(on.set_sync_key(name.as_bytes(), sync_key).await)
        };
        27 get_version => show(on.get_version(name).await);
        28 set_version => {
            let index_value_map = HashMap::from([("a".to_owned(), key.clone())]);
            let state = HashState { version: clock as u64, hash: [number as u8; 128], index_value_map, ..HashState::default() };
            show(on.set_version(name, state).await)
        };
        29 put_mutation_macs => {
            let macs: Vec<_> = index
                .iter()
                .map(|index| AppStateMutationMAC { index_mac: index.to_vec(), value_mac: random.bytes() })
                .collect();
            show(on.put_mutation_macs(name, 1, &macs).await)
        };
        30 get_mutation_mac => show(on.get_mutation_mac(name, &index[0]).await);
        31 get_mutation_macs => sorted(on.get_mutation_macs(name, &index).await.map(|found| found.into_iter().collect()));
        32 delete_mutation_macs => show(on.delete_mutation_macs(name, &[index[0].to_vec(), vec![1]]).await);
        33 clear_mutation_macs => show(on.clear_mutation_macs(name).await);
        34 get_latest_sync_key_id => show(on.get_latest_sync_key_id().await);
        35 get_sender_key_devices => sorted(on.get_sender_key_devices(group).await);
        36 set_sender_key_status => show(on.set_sender_key_status(group, &[(address, number.is_multiple_of(2)), ("7@lid", true), (address, number < 3)]).await);
        37 clear_sender_key_devices => show(on.clear_sender_key_devices(group).await);
        38 delete_sender_key_device_rows => show(on.delete_sender_key_device_rows(&[address, "8@lid"]).await);
        39 clear_all_sender_key_devices => if number == 0 { show(on.clear_all_sender_key_devices().await) } else { String::new() };
        40 get_lid_mapping => show(on.get_lid_mapping(&format!("lid{number}")).await);
        41 get_pn_mapping => show(on.get_pn_mapping(&format!("phone{}", number / 2)).await);
        42 put_lid_mapping => show(on.put_lid_mapping(&mapping(random, clock)).await);
        43 put_lid_mappings => show(on.put_lid_mappings(&[mapping(random, clock), mapping(random, clock + 1)]).await);
        44 get_all_lid_mappings => sorted(on.get_all_lid_mappings().await.map(|all| all.iter().map(|entry| format!("{entry:?}")).collect()));
        45 save_base_key => show(on.save_base_key(address, id, &[number as u8; 32]).await);
        46 has_same_base_key => show(on.has_same_base_key(address, id, &[number as u8; 32]).await);
        47 delete_base_key => show(on.delete_base_key(address, id).await);
        48 update_device_list => show(on.update_device_list(list(random, clock)).await);
        49 update_device_lists => show(on.update_device_lists(vec![list(random, clock), list(random, clock)]).await);
        50 get_devices => show(on.get_devices(random.pick(USERS)).await);
        51 delete_devices => show(on.delete_devices(random.pick(USERS)).await);
        52 get_group_metadata => show(on.get_group_metadata(group).await);
        53 put_group_metadata => show(on.put_group_metadata(group, &key).await);
        54 delete_group_metadata => show(on.delete_group_metadata(group).await);
        55 get_tc_token => show(on.get_tc_token(address).await);
        56 put_tc_token => {
            let entry = TcTokenEntry {
                token: key.clone(),
                token_timestamp: i64::from(number) * 10,
                sender_timestamp: Some(i64::from(number)).filter(|_| clock % 2 == 0),
            };
            show(on.put_tc_token(address, &entry).await)
        };
        57 delete_tc_token => show(on.delete_tc_token(address).await);
        58 get_all_tc_token_jids => sorted(on.get_all_tc_token_jids().await);
        59 delete_expired_tc_tokens => show(on.delete_expired_tc_tokens(i64::from(number) * 10, i64::from(number)).await);
        60 touch_tc_token_sender_timestamp => show(on.touch_tc_token_sender_timestamp(address, i64::from(number)).await);
        61 store_received_tc_token => show(on.store_received_tc_token(address, &key, i64::from(number) * 10).await);
        62 store_sent_message => show(on.store_sent_message(address, id, &key).await);
        63 take_sent_message => show(on.take_sent_message(address, id).await);
        64 delete_expired_sent_messages => show(on.delete_expired_sent_messages(if number == 0 { i64::MAX } else { 1 }).await);
        65 store_pending_inbound => show(on.store_pending_inbound(address, group, id, &key).await);
        66 get_pending_inbound => show(on.get_pending_inbound(address, group, id).await);
        67 delete_pending_inbound => show(on.delete_pending_inbound(address, group, id).await);
        68 delete_expired_pending_inbound => show(on.delete_expired_pending_inbound(if number == 0 { i64::MAX } else { 1 }).await);
        69 store_pending_inbound_batch => {
            let row = |n: usize| PendingInboundRow { chat: address, sender: group, id: IDS[n], message: &key };
            show(on.store_pending_inbound_batch(&[row(0), row(2)]).await)
        };
        70 delete_pending_inbound_batch => {
            let row = |n: usize| PendingInboundKey { chat: address, sender: group, id: IDS[n] };
            show(on.delete_pending_inbound_batch(&[row(0), row(1)]).await)
        };
        71 put_msg_secret => show(on.put_msg_secret(address, address, id, &random.array()).await);
        72 put_msg_secrets => show(on.put_msg_secrets((0..4).map(|_| secret(random)).collect()).await);
        73 get_msg_secret => show(on.get_msg_secret(address, random.pick(&ADDRESSES[..2]), id).await);
        74 get_msg_secret_with_ts => show(on.get_msg_secret_with_ts(address, random.pick(&ADDRESSES[..2]), id).await);
        75 delete_expired_msg_secrets => show(on.delete_expired_msg_secrets([100, 150, 250][random.below(3)]).await);
        76 exists => show(on.exists().await);
    }
}

const CALLS: usize = 77;

async fn open(url: String) -> Store {
    let config = StoreConfig {
        url,
        durability: Durability::Power,
        master_key: MasterKey::generate(),
        readers: 2,
        writers: 4,
        max_size: 0,
    };
    Store::open(config).await.unwrap()
}

async fn own(store: &Store, id: &str) -> (i64, Arc<dyn Backend>) {
    let pk = store.create_instance(&id.parse().unwrap(), None, false, None).await.unwrap().pk;
    let epoch = store.take_ownership(pk).await.unwrap();
    (pk, DeviceStore::new(store.clone(), pk, epoch))
}

async fn answers_like_the_in_memory_one(store: Store) {
    let memory = InMemoryBackend::new();
    let (_, ours) = own(&store, "a").await;
    // what another instance does must not be seen
    let (_, other) = own(&store, "b").await;
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut called = HashMap::<&str, u32>::new();
    for clock in 0..4_000 {
        let (kind, seed) = (random.below(CALLS), random.below(usize::MAX) as u64 | 1);
        let (name, expected) = call(kind, seed, clock, &memory).await;
        let (_, answer) = call(kind, seed, clock, ours.as_ref()).await;
        assert_eq!(answer, expected, "call {clock}: {name} (kind {kind}, seed {seed})");
        *called.entry(name).or_default() += 1;
        if clock % 7 == 0 {
            call(kind, seed, clock, other.as_ref()).await;
        }
    }
    assert_eq!(called.len(), CALLS, "{called:?}");
}

async fn keeps_the_device(store: Store) {
    let (pk, backend) = own(&store, "a").await;
    assert!(!backend.exists().await.unwrap());
    assert!(backend.load().await.unwrap().is_none());
    assert_eq!(backend.create().await.unwrap(), 1);
    let created = backend.load().await.unwrap().unwrap();
    // creating again keeps the keys there are
    backend.create().await.unwrap();
    let json = |device: &Device| serde_json::to_value(device).unwrap();
    assert_eq!(json(&backend.load().await.unwrap().unwrap()), json(&created));
    let mut device = Device::new();
    device.push_name = "Shop 😀".to_owned();
    device.next_pre_key_id = 813;
    backend.save(&device).await.unwrap();
    assert!(backend.exists().await.unwrap());
    assert_eq!(json(&backend.load().await.unwrap().unwrap()), json(&device));
    assert_eq!(backend.resource_report().await.memory_bytes, Some(0));
    backend.snapshot_db("x", None).await.unwrap();

    // the first upload: one statement
    let keys: Vec<(u32, Bytes)> = (1..=812).map(|id| (id, Bytes::from(vec![id as u8; 64]))).collect();
    let before = store.stats();
    backend.store_prekeys_batch(&keys, false).await.unwrap();
    let done = store.stats();
    let fence = u64::from(store.backend() == kero_store::Database::Postgres);
    assert_eq!((done.commits - before.commits, done.statements - before.statements), (1, 1 + fence));
    assert_eq!(backend.get_max_prekey_id().await.unwrap(), 812);
    backend.remove_prekey(5).await.unwrap();
    backend.mark_prekeys_uploaded(&(1..=812).collect::<Vec<_>>()).await.unwrap();
    assert!(backend.load_prekey(5).await.unwrap().is_none(), "a used prekey stays gone");
    assert_eq!(backend.load_prekeys_batch(&(1..=812).collect::<Vec<_>>()).await.unwrap().len(), 811);

    // of many at once, one takes a sent message
    backend.store_sent_message("1@lid", "m", b"proto").await.unwrap();
    let takes: Vec<_> = (0..20)
        .map(|_| {
            let backend = Arc::clone(&backend);
            tokio::spawn(async move { backend.take_sent_message("1@lid", "m").await.unwrap() })
        })
        .collect();
    let mut taken = 0;
    for take in takes {
        taken += usize::from(take.await.unwrap().is_some());
    }
    assert_eq!(taken, 1);

    // a new owner: the old one's writes are errors, not silence
    store.take_ownership(pk).await.unwrap();
    let lost = backend.save(&device).await.unwrap_err();
    let source = std::error::Error::source(&lost).unwrap().downcast_ref::<kero_store::StoreError>();
    assert!(matches!(source, Some(kero_store::StoreError::EpochLost)), "{lost:?}");
}

/// The job's row is the one copy of what it sent: under both names of its chat, and for nobody else.
async fn knows_what_its_jobs_sent(store: Store) {
    const ID: &str = "3EB0AAAAAAAAAAAAAAAAAA";
    const PHONE: &str = "491701@s.whatsapp.net";
    let (pk, _) = own(&store, "a").await;
    let (_, other) = own(&store, "b").await;
    let epoch = store.take_ownership(pk).await.unwrap();
    let outgoing = Arc::new(Outgoing::default());
    let sending = DeviceStore::of_jobs(store.clone(), pk, epoch, Arc::clone(&outgoing));
    let mut device = Device::new();
    device.pn = Some("4916000:7@s.whatsapp.net".parse().unwrap());
    sending.save(&device).await.unwrap();
    let mapping = LidPnMappingEntry {
        lid: "77".into(),
        phone_number: "491701".into(),
        created_at: 0,
        updated_at: 0,
        learning_source: "usync".into(),
    };
    sending.put_lid_mapping(&mapping).await.unwrap();
    let proto = crate::Link::prepare(&Content::text("hello"));
    let job = NewJob {
        id: JobId::new(),
        instance_pk: pk,
        correlation_id: CorrelationId::mint(),
        message_id: ID.parse().unwrap(),
        chat: PHONE.to_owned(),
        priority: Priority::Interactive,
        content: Content::text("hello"),
        asynchronous: true,
        send_at: None,
        state: JobState::Queued,
        held: None,
        request_id: None,
        created_at: Timestamp::from_secs(1_000),
        idempotency: None,
    };
    let id = job.id;
    store.accept_job(job).await.unwrap();
    assert_eq!(sending.take_sent_message(PHONE, ID).await.unwrap(), None, "nothing was sent yet");
    store.intend_job(id, pk, epoch, proto.clone(), Timestamp::from_secs(2_000)).await.unwrap();
    outgoing.add(ID);

    // the client keeps its copies, and gets them from the job
    let before = store.stats().commits;
    sending.store_sent_message(PHONE, ID, b"the client's copy").await.unwrap();
    let secret = |id: &str, days: i64| MsgSecretEntry {
        chat: "77@lid".into(),
        sender: "4916000@s.whatsapp.net".into(),
        msg_id: id.into(),
        secret: [9; 32],
        expires_at: 2_000 + days * 86_400,
        message_ts: 2_000,
    };
    sending.put_msg_secrets(vec![secret(ID, 30)]).await.unwrap();
    assert_eq!(store.stats().commits, before, "a copy was written");
    for chat in [PHONE, "77@lid", PHONE] {
        assert_eq!(sending.take_sent_message(chat, ID).await.unwrap().as_ref(), Some(&proto), "{chat}");
    }
    let message: wa::Message = waproto::codec::message_decode(&proto).unwrap();
    let drawn = message.message_context_info.as_option().unwrap().message_secret.clone().unwrap();
    for chat in [PHONE, "77@lid"] {
        let found = sending.get_msg_secret_with_ts(chat, "4916000@s.whatsapp.net", ID).await.unwrap();
        assert_eq!(found, Some((drawn.clone(), 2_000)), "{chat}");
    }
    // another chat, another sender, another account
    for chat in ["491702@s.whatsapp.net", "78@lid", "491701@g.us", "77"] {
        assert_eq!(sending.take_sent_message(chat, ID).await.unwrap(), None, "{chat}");
        assert_eq!(sending.get_msg_secret(chat, "4916000@s.whatsapp.net", ID).await.unwrap(), None, "{chat}");
    }
    assert_eq!(sending.get_msg_secret(PHONE, PHONE, ID).await.unwrap(), None);
    assert_eq!(other.take_sent_message(PHONE, ID).await.unwrap(), None);

    // what must be kept for longer than jobs are, or is no job's, is written
    sending.put_msg_secrets(vec![secret(ID, 90), secret("POLL", 90)]).await.unwrap();
    sending.store_sent_message(PHONE, "PEER", b"peer").await.unwrap();
    assert_eq!(sending.get_msg_secret("77@lid", "4916000@s.whatsapp.net", ID).await.unwrap(), Some(vec![9; 32]));
    assert_eq!(sending.take_sent_message(PHONE, "PEER").await.unwrap(), Some(b"peer".to_vec()));
}

macro_rules! on_both {
    ($($name:ident),+) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $name() {
                let (url, _folder) = super::database::sqlite();
                super::$name(super::open(url).await).await;
            })+
        }
        mod postgres {
            $(#[tokio::test]
            async fn $name() { super::$name(super::open(super::database::postgres()).await).await })+
        }
    };
}
on_both!(knows_what_its_jobs_sent, answers_like_the_in_memory_one, keeps_the_device);

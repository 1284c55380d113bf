//! An instance's whole life: created, paired, sending, deleted; and what the disk shows of it.

use super::{Fixture, accept, event, new_job, on_both};
use crate::device::{LidMapping, MessageSecret, PendingMessage, Token};
use crate::{
    Attempt, DeliveryOutcome, Durability, FanOut, Idempotency, IntentOutcome, MasterKey, NewDelivery, NewEndpoint,
    Settlement, Store, StoreConfig, StoreError, Verdict,
};
use kero_domain::endpoint::EventFilter;
use kero_domain::{ApiKeyId, Cause, DeliveryId, EventKind, InstanceId, InstanceStatus, Timestamp};
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};

on_both!(migrations_apply_once, instances, everything_goes_with_its_instance, the_wrong_master_key, entities_fit, keys);

const CHAT: &str = "491701234567@s.whatsapp.net";
const SECRET_TEXT: &str = "meet me at the old bridge at nine";

async fn migrations_apply_once(fixture: Fixture) {
    assert!(Store::migrate(&fixture.config.url).await.unwrap().is_empty());
    fixture.store.ping().await.unwrap();
    let again = Store::open(fixture.config.clone()).await.unwrap();
    again.ping().await.unwrap();
    again.close().await;
    assert!(matches!(again.set_wanted(1, true).await, Err(StoreError::Closed)));
    assert!(matches!(Store::migrate("mysql://x").await, Err(StoreError::Address(_))));
    assert!(matches!(Store::migrate("sqlite::memory:").await, Err(StoreError::Address(_))));
}

async fn instances(fixture: Fixture) {
    let store = &fixture.store;
    let id: InstanceId = "shop".parse().unwrap();
    let webhook = NewEndpoint {
        url: "https://example.org/hook".to_owned(),
        events: EventFilter::default(),
        secret: Some(Some("s3cret".to_owned())),
        enabled: true,
    };
    let made = store.create_instance(&id, Some("Shop"), true, Some(webhook.clone())).await.unwrap();
    assert_eq!((made.status, made.cause, made.wanted), (InstanceStatus::Disconnected, Some(Cause::NotPaired), false));
    assert_eq!(store.webhook(made.pk).await.unwrap().unwrap().secret_text(), Some("s3cret"));
    let twice = store.create_instance(&id, None, false, None).await;
    assert!(matches!(twice, Err(StoreError::Conflict("instance"))), "{twice:?}");

    let kept = NewEndpoint { url: "https://example.org/other".to_owned(), secret: None, ..webhook.clone() };
    let changed = store.put_webhook(made.pk, kept).await.unwrap();
    assert_eq!((changed.url.as_str(), changed.secret_text()), ("https://example.org/other", Some("s3cret")));
    let cleared = store.put_webhook(made.pk, NewEndpoint { secret: Some(None), ..webhook.clone() }).await.unwrap();
    assert_eq!((cleared.id, cleared.secret_text()), (changed.id, None));
    assert_eq!(store.delete_webhook(made.pk).await.unwrap(), Some(changed.id));
    assert_eq!(store.delete_webhook(made.pk).await.unwrap(), None);
    assert!(store.webhook(made.pk).await.unwrap().is_none());
    assert!(matches!(store.put_webhook(9_999, webhook).await, Err(StoreError::NotFound)));

    let renamed = store.update_instance(made.pk, Some(None), Some(false)).await.unwrap();
    assert_eq!((renamed.name, renamed.sync_history), (None, false));
    store.set_wanted(made.pk, true).await.unwrap();
    assert!(matches!(store.set_wanted(9_999, true).await, Err(StoreError::NotFound)));

    let epoch = store.take_ownership(made.pk).await.unwrap();
    let at = Timestamp(1_700_000_000_000);
    let report = event(EventKind::Status, "", "connected");
    store.set_status(made.pk, epoch, InstanceStatus::Connected, None, at, Some(report)).await.unwrap();
    let number = || Some("491701234567".to_owned());
    store.set_identity(made.pk, epoch, number(), None, None, Some("Shop".to_owned())).await.unwrap();
    let read = store.instance(&id).await.unwrap().unwrap();
    assert_eq!(
        (read.status, read.cause, read.since, read.last_connected_at),
        (InstanceStatus::Connected, None, at, Some(at))
    );
    assert_eq!((read.phone, read.wanted, read.owner_epoch), (number(), true, epoch));
    assert_eq!(store.pending_events(made.pk, 10).await.unwrap().len(), 1);
    store
        .set_status(made.pk, epoch, InstanceStatus::Connecting, Some(Cause::ConnectionLost), Timestamp(at.0 + 1), None)
        .await
        .unwrap();
    let read = store.instance_by_pk(made.pk).await.unwrap().unwrap();
    assert_eq!((read.cause, read.last_connected_at), (Some(Cause::ConnectionLost), Some(at)));

    for n in 0..4 {
        store.create_instance(&format!("more-{n}").parse().unwrap(), None, false, None).await.unwrap();
    }
    let (first, total) = store.list_instances(None, 3).await.unwrap();
    let (rest, _) = store.list_instances(first.last().map(|last| last.pk), 3).await.unwrap();
    let ids: Vec<_> = first.iter().chain(&rest).map(|instance| instance.id.as_str().to_owned()).collect();
    assert_eq!((ids, total), (["more-3", "more-2", "more-1", "more-0", "shop"].map(str::to_owned).to_vec(), 5));
    assert_eq!(store.instances().await.unwrap().len(), 5);
}

/// Writes a row into every table.
async fn fill(store: &Store, pk: i64, epoch: i64) {
    let endpoint = store.webhook(pk).await.unwrap().unwrap().id;
    let instance = store.instance_by_pk(pk).await.unwrap().unwrap();
    let idempotency = Idempotency {
        api_key: ApiKeyId::new(),
        key: "once".to_owned(),
        body_hash: [7; 32],
        expires_at: Timestamp::now().after(std::time::Duration::from_secs(60)),
    };
    let job =
        accept(store, crate::NewJob { idempotency: Some(idempotency), ..new_job(&instance, CHAT, SECRET_TEXT) }).await;
    let proto = SECRET_TEXT.as_bytes().to_vec();
    let started = store.intend_job(job.id, pk, epoch, proto.clone(), Timestamp::now()).await.unwrap();
    assert_eq!(started, IntentOutcome::Started { attempt: 1, proto });
    let ack = event(EventKind::MessageAck, CHAT, SECRET_TEXT);
    assert!(
        store
            .settle_job(job.id, pk, epoch, Settlement::Sent { at: Timestamp::now() }, Some(ack.into()))
            .await
            .unwrap()
            .applied
    );
    let row = store.pending_events(pk, 1).await.unwrap()[0].row;
    let delivery = NewDelivery { id: DeliveryId::new(), endpoint, next_at: Timestamp(0) };
    let out = FanOut {
        event_row: row,
        verdict: Verdict::Pass,
        data: None,
        deliveries: vec![delivery.clone()],
        hooked: Some(hooked(store, &instance).await),
    };
    store.fan_out(pk, epoch, vec![out]).await.unwrap();
    let attempt = Attempt {
        n: 1,
        at: Timestamp::now(),
        trigger: crate::Trigger::Event,
        http_status: Some(500),
        error: None,
        dns_ms: Some(1),
        connect_ms: None,
        first_byte_ms: Some(2),
        total_ms: 3,
        response_head: Some(SECRET_TEXT.to_owned()),
        next_at: Some(Timestamp(5)),
    };
    let frozen = store.freeze_request(pk, delivery.id, SECRET_TEXT.as_bytes()).await.unwrap();
    assert_eq!(frozen, SECRET_TEXT.as_bytes());
    assert_eq!(store.freeze_request(pk, delivery.id, b"other").await.unwrap(), frozen, "the first one counts");
    let endpoint = std::sync::Arc::new(store.webhook(pk).await.unwrap().unwrap());
    let to = crate::Wanting { endpoint, room: 1 };
    let claimed = store.claim_deliveries(&[to], Timestamp(0), 1, 1, &Default::default()).await.unwrap();
    assert_eq!(claimed[0].run[0].request.as_deref(), Some(&frozen[..]));
    let retry = DeliveryOutcome::Retry { next_at: Timestamp(5), counts: true };
    assert!(store.record_attempt(pk, delivery.id, attempt.clone(), retry, None).await.unwrap());
    assert_eq!(store.attempts(delivery.id).await.unwrap(), [attempt]);
    store.create_key([u8::try_from(pk).unwrap(); 32], Some("key"), Some(pk)).await.unwrap();

    let device = store.device(pk, epoch);
    let secret = SECRET_TEXT.as_bytes();
    device.save_device(secret).await.unwrap();
    device.put_identities([("1:1@s.whatsapp.net", secret)]).await.unwrap();
    device.put_sessions([("1:1@s.whatsapp.net", secret)]).await.unwrap();
    device.put_sender_keys([("g:1", secret)]).await.unwrap();
    device.put_prekeys([(1, secret)], false).await.unwrap();
    device.put_signed_prekey(1, secret).await.unwrap();
    device.put_sender_key_devices("g@g.us", &[("1:1@s.whatsapp.net", true)]).await.unwrap();
    device.put_app_state_key(b"id", secret).await.unwrap();
    device.put_app_state_version("regular", secret).await.unwrap();
    device.put_mutation_macs("regular", 1, [(b"index".as_slice(), b"value".as_slice())]).await.unwrap();
    let mapping = LidMapping {
        lid: "1".to_owned(),
        phone: "2".to_owned(),
        created_secs: 1,
        updated_secs: 1,
        source: "usync".to_owned(),
    };
    device.put_lid_mappings([mapping]).await.unwrap();
    device.put_base_key("1", "m", secret).await.unwrap();
    device.put_device_lists([("1".to_owned(), "{}".to_owned())]).await.unwrap();
    device.put_group_metadata("g@g.us", secret).await.unwrap();
    device.put_token("1@lid", &Token { token: secret.to_vec(), token_secs: 1, sender_secs: None }).await.unwrap();
    device.put_sent_message(CHAT, "m", secret).await.unwrap();
    let message_secret =
        MessageSecret { chat: CHAT, sender: CHAT, message_id: "m", secret, expires_secs: 0, message_secs: 0 };
    device.put_message_secrets(&[message_secret]).await.unwrap();
    let message = PendingMessage { chat: CHAT, sender: CHAT, id: "m", message: secret };
    device.put_pending_inbound(&[message]).await.unwrap();
}

/// What a hook leaves with an event, and the plugin it is of.
async fn hooked(store: &Store, instance: &crate::Instance) -> Box<crate::Hooked> {
    let secret = serde_json::json!({ "text": SECRET_TEXT });
    store.add_plugin_version(super::hooks::version("p", "1")).await.unwrap();
    let change = crate::PluginChange { config: Some(secret.clone()), ..crate::PluginChange::default() };
    store.update_plugin("p", change).await.unwrap();
    let call = crate::NewHookCall { detail: Some(secret), ..super::hooks::call("p", "pass") };
    let value = crate::KvChange::Set { value: SECRET_TEXT.into(), ttl: None };
    let job = new_job(instance, "1@lid", SECRET_TEXT);
    Box::new(crate::Hooked {
        errors: None,
        chain: Some(super::hooks::chain(&[call])),
        kv: vec![crate::KvWrite { plugin: "p".to_owned(), key: "k".to_owned(), change: value }],
        sends: vec![crate::HookSend { plugin: "p".to_owned(), job, per_minute: 5 }],
    })
}

/// Every table of the schema, asked of the database itself.
async fn tables(raw: &DatabaseConnection) -> Vec<String> {
    let backend = raw.get_database_backend();
    let sql = match backend {
        sea_orm::DbBackend::Postgres => "SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public'",
        _ => "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
    };
    let rows = raw.query_all_raw(Statement::from_string(backend, sql)).await.unwrap();
    let names = rows.iter().map(|row| row.try_get::<String>("", "name").unwrap());
    names.filter(|name| name != "seaql_migrations" && name != "settings").collect()
}

async fn rows(raw: &DatabaseConnection, table: &str) -> i64 {
    let statement = Statement::from_string(raw.get_database_backend(), format!("SELECT COUNT(*) AS n FROM {table}"));
    raw.query_one_raw(statement).await.unwrap().unwrap().try_get("", "n").unwrap()
}

async fn everything_goes_with_its_instance(fixture: Fixture) {
    let store = &fixture.store;
    let raw = fixture.raw().await;
    let webhook = || NewEndpoint {
        url: "https://example.org/".to_owned(),
        events: EventFilter::All,
        secret: Some(Some(SECRET_TEXT.to_owned())),
        enabled: true,
    };
    let id: InstanceId = "short-lived".parse().unwrap();
    let instance = store.create_instance(&id, None, false, Some(webhook())).await.unwrap();
    let epoch = store.take_ownership(instance.pk).await.unwrap();
    fill(store, instance.pk, epoch).await;
    let tables = tables(&raw).await;
    assert_eq!(tables.len(), 8 + 6 + crate::device::TABLES.len(), "{tables:?}");
    for table in &tables {
        assert!(rows(&raw, table).await > 0, "nothing was written into {table}");
    }
    nothing_in_clear(&fixture);

    // forgetting the device leaves the instance, its jobs and events
    store.forget_device(instance.pk, epoch).await.unwrap();
    for table in &tables {
        let device = crate::device::TABLES.contains(&table.as_str());
        assert_eq!(rows(&raw, table).await == 0, device, "{table}");
    }

    store.delete_instance(instance.pk).await.unwrap();
    let shared = ["plugins", "plugin_versions", "hook_sets"];
    for table in tables.iter().filter(|table| !shared.contains(&table.as_str())) {
        assert_eq!(rows(&raw, table).await, 0, "{table} keeps rows of a deleted instance");
    }
    let late = store.device(instance.pk, epoch).put_sessions([("a", b"b".as_slice())]).await;
    assert!(matches!(late, Err(StoreError::EpochLost)), "{late:?}");

    // an instance made anew under the old id is another one
    let again = store.create_instance(&id, None, false, Some(webhook())).await.unwrap();
    assert!(again.pk > instance.pk);
    store.delete_instance(again.pk).await.unwrap();
    store.delete_instance(again.pk).await.unwrap();
}

/// Neither text nor keys can be read in the files.
fn nothing_in_clear(fixture: &Fixture) {
    let Some(folder) = &fixture.folder else { return };
    let mut searched = 0;
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        searched += bytes.len();
        for secret in [SECRET_TEXT.as_bytes(), &SECRET_TEXT.as_bytes()[8..20]] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret), "found in clear");
        }
        let hex = fixture.config.master_key.to_hex();
        assert!(!bytes.windows(hex.len()).any(|window| window == hex.as_bytes()));
    }
    assert!(searched > 100_000, "only {searched} bytes were searched");
}

async fn the_wrong_master_key(fixture: Fixture) {
    let wrong = StoreConfig { master_key: MasterKey::generate(), ..fixture.config.clone() };
    let refused = Store::open(wrong).await.map(drop);
    assert!(matches!(refused, Err(StoreError::WrongMasterKey)), "{refused:?}");
    let process = StoreConfig { durability: Durability::Process, ..fixture.config.clone() };
    Store::open(process).await.unwrap().close().await;
}

/// Each entity selects from the table that the migrations made.
async fn entities_fit(fixture: Fixture) {
    use crate::entity::*;
    use sea_orm::{EntityName, EntityTrait};
    let raw = fixture.raw().await;
    let mut seen = vec![];
    macro_rules! check {
        ($($module:ident)+) => { $(
            $module::Entity::find().all(&raw).await.unwrap();
            seen.push($module::Entity.table_name().to_owned());
        )+ };
    }
    check!(instances api_keys jobs idempotency events endpoints deliveries attempts);
    check!(plugins plugin_versions hook_chains hook_sets hook_kv hook_sends);
    check!(device identities sessions prekeys signed_prekeys sender_keys sender_key_devices app_state_keys);
    check!(app_state_versions app_state_macs lid_mappings base_keys device_lists group_metadata tc_tokens);
    check!(sent_messages msg_secrets pending_inbound);
    let mut tables = tables(&raw).await;
    tables.sort();
    seen.sort();
    assert_eq!(seen, tables);
}

async fn keys(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, _) = fixture.instance("owner").await;
    let admin = store.create_key([1; 32], None, None).await.unwrap();
    let bound = store.create_key([2; 32], Some("bound"), Some(instance.pk)).await.unwrap();
    assert_eq!(bound.instance_id, Some(instance.id.clone()));
    assert!(matches!(store.create_key([1; 32], None, None).await, Err(StoreError::Conflict("key"))));
    assert!(matches!(store.create_key([3; 32], None, Some(9_999)).await, Err(StoreError::NotFound)));
    assert_eq!(store.key_by_hash(&[2; 32]).await.unwrap(), Some(bound.clone()));
    assert_eq!(store.key_by_hash(&[9; 32]).await.unwrap(), None);
    assert!(store.revoke_key(admin.id).await.unwrap());
    assert!(!store.revoke_key(admin.id).await.unwrap());
    assert_eq!(store.key_by_hash(&[1; 32]).await.unwrap(), None);
    let listed = store.keys().await.unwrap();
    assert_eq!(listed.len(), 2);
    assert!(listed[0].revoked_at.is_some() && listed[1] == bound);
}

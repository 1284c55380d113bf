//! The link against the simulated WhatsApp: pairing, sending, receiving, and every way in which a connection ends.

use crate::{Inbound, InboundMessage, Link, LinkConfig, LinkEvent, PairBy, SendError};
use async_trait::async_trait;
use kero_domain::{Address, Cause, Content, EventKind, MessageId, NewEvent};
use kero_simulator::{Config, Fault, FaultRule, Person, Script, Simulator};
use kero_store::{Durability, MasterKey, Store, StoreConfig, StoreError};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;

const PHONE: &str = "15550000001";
const PEER: &str = "15550000002";
const SOON: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Journal {
    events: Mutex<Vec<NewEvent>>,
    broken: AtomicBool,
    refused: AtomicBool,
}

#[async_trait]
impl Inbound for Journal {
    async fn commit(&self, batch: Vec<InboundMessage>) -> Result<(), StoreError> {
        if self.broken.load(Ordering::SeqCst) {
            self.refused.store(true, Ordering::SeqCst);
            return Err(StoreError::Closed);
        }
        self.events.lock().unwrap().extend(batch.into_iter().map(|it| it.event));
        Ok(())
    }
}

impl Journal {
    async fn wait(&self, what: impl Fn(&NewEvent) -> bool) -> NewEvent {
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(event) = self.events.lock().unwrap().iter().find(|event| what(event)) {
                return event.clone();
            }
            assert!(Instant::now() < deadline, "no such inbound event");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

struct Setup {
    simulator: Simulator,
    config: LinkConfig,
    store: Store,
    instance_pk: i64,
    epoch: i64,
    journal: Arc<Journal>,
    _folder: tempfile::TempDir,
}

struct Running {
    link: Link,
    events: UnboundedReceiver<LinkEvent>,
}

impl Running {
    async fn until<T>(&mut self, what: &str, mut pick: impl FnMut(LinkEvent) -> Option<T>) -> T {
        let wait = async {
            loop {
                let event = self.events.recv().await.unwrap_or_else(|| panic!("the link ended before: {what}"));
                if let Some(found) = pick(event) {
                    return found;
                }
            }
        };
        tokio::time::timeout(SOON, wait).await.unwrap_or_else(|_| panic!("timeout: {what}"))
    }

    async fn connected(&mut self) {
        self.until("connected", |event| matches!(event, LinkEvent::Connected { .. }).then_some(())).await;
        assert!(self.link.is_connected());
    }

    async fn ack(&mut self, id: &MessageId) -> Option<u32> {
        self.until("ack", |event| match event {
            LinkEvent::Ack { message_id, error, .. } if message_id == id.as_str() => Some(error),
            _ => None,
        })
        .await
    }

    /// The last event, and that it is the last.
    async fn end(&mut self) -> LinkEvent {
        let end = self.until("end", |event| matches!(event, LinkEvent::Closed(_) | LinkEvent::Disconnected { .. }).then_some(event)).await;
        assert!(self.events.recv().await.is_none(), "something follows the end");
        assert!(!self.link.is_connected());
        end
    }
}

impl Setup {
    async fn new() -> Self {
        let simulator = kero_simulator::start(Config::default()).await.unwrap();
        let config = LinkConfig {
            url: Some(simulator.ws_url()),
            version: None,
            device_name: "Kero".into(),
            skip_history: true,
            push_name: Some("Kero test".into()),
        };
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(StoreConfig {
            url: format!("sqlite://{}?mode=rwc", folder.path().join("kero.db").display()),
            durability: Durability::Process,
            master_key: MasterKey::generate(),
            readers: 2,
            writers: 1,
        })
        .await
        .unwrap();
        let instance_pk = store.create_instance(&"test".parse().unwrap(), None, false, None).await.unwrap().pk;
        let epoch = store.take_ownership(instance_pk).await.unwrap();
        Self { simulator, config, store, instance_pk, epoch, journal: Arc::default(), _folder: folder }
    }

    async fn start(&self, pair: Option<PairBy>) -> Running {
        let inbound: Arc<dyn Inbound> = Arc::clone(&self.journal) as _;
        let (link, events) = Link::start(&self.config, self.store.clone(), self.instance_pk, self.epoch, pair, inbound).await.unwrap();
        Running { link, events }
    }

    async fn paired() -> (Self, Running) {
        let setup = Self::new().await;
        let mut running = setup.start(Some(PairBy::Qr)).await;
        let code = running.until("qr", |event| if let LinkEvent::PairingQr { code, .. } = event { Some(code) } else { None }).await;
        setup.simulator.scan_qr(&code, Some(PHONE)).await.unwrap();
        running.connected().await;
        (setup, running)
    }

    async fn nobody_connected(&self) {
        let deadline = Instant::now() + SOON;
        while self.simulator.stats().connected > 0 {
            assert!(Instant::now() < deadline, "the socket stays open");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn usync(&self) -> u64 {
        self.simulator.stats().iqs.get("usync").copied().unwrap_or_default()
    }
}

fn peer() -> Address {
    Address::Phone(PEER.into())
}

async fn send(running: &Running, to: &Address, text: &str) -> MessageId {
    let id = MessageId::mint();
    running.link.send(to, &id, &Link::prepare(&Content::text(text)), false).await.unwrap();
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_by_qr_and_tells_who_it_is() {
    let setup = Setup::new().await;
    assert!(!crate::is_paired(&setup.store, setup.instance_pk).await.unwrap());
    let mut running = setup.start(Some(PairBy::Qr)).await;
    assert!(!crate::is_paired(&setup.store, setup.instance_pk).await.unwrap());
    let (code, expires_in) = running
        .until("qr", |event| if let LinkEvent::PairingQr { code, expires_in } = event { Some((code, expires_in)) } else { None })
        .await;
    assert!(expires_in > Duration::from_secs(50));
    setup.simulator.scan_qr(&code, Some(PHONE)).await.unwrap();
    running.until("scanned", |event| matches!(event, LinkEvent::Scanned).then_some(())).await;
    let (jid, phone, lid) = running
        .until("paired", |event| if let LinkEvent::Paired { jid, phone, lid, .. } = event { Some((jid, phone, lid)) } else { None })
        .await;
    assert!(jid.starts_with(&format!("{PHONE}:")), "{jid}");
    assert_eq!(phone.as_deref(), Some(PHONE));
    let later = running
        .until("connected", |event| if let LinkEvent::Connected { jid, phone, lid, .. } = event { Some((jid, phone, lid)) } else { None })
        .await;
    assert_eq!(later, (jid, phone, lid));
    running.link.stop().await;
    assert!(running.events.recv().await.is_none(), "an ordered stop is no news");
    assert!(crate::is_paired(&setup.store, setup.instance_pk).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_by_code() {
    let setup = Setup::new().await;
    let mut running = setup.start(Some(PairBy::Code { phone: PHONE.into() })).await;
    let code = running
        .until("code", |event| {
            assert!(!matches!(event, LinkEvent::PairingQr { .. }), "a QR code although a pair code was asked for");
            if let LinkEvent::PairingCode { code, .. } = event { Some(code) } else { None }
        })
        .await;
    setup.simulator.enter_code(PHONE, &code).await.unwrap();
    running.connected().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sends_acknowledged_and_receipted_and_asks_once_about_a_number() {
    let (setup, mut running) = Setup::paired().await;
    let id = send(&running, &peer(), "one").await;
    // the delivery may be told before the server's own answer
    let (mut acked, mut received) = (false, None);
    let receipt = running
        .until("ack and receipt", |event| {
            match event {
                LinkEvent::Ack { message_id, error: None, .. } if message_id == id.as_str() => acked = true,
                LinkEvent::Receipt(receipt) if receipt.ids.iter().any(|it| it == id.as_str()) => received = Some(receipt),
                _ => {}
            }
            if acked { received.take() } else { None }
        })
        .await;
    assert_eq!(receipt.kind, "delivered");
    assert_eq!(receipt.chat, format!("{PEER}@s.whatsapp.net"));
    assert_eq!(receipt.from.phone.as_deref(), Some(PEER));
    assert!(receipt.from.lid.is_some());

    let before = setup.usync();
    for text in ["two", "three", "four"] {
        let id = send(&running, &peer(), text).await;
        assert_eq!(running.ack(&id).await, None);
    }
    assert_eq!(setup.usync(), before, "a send to a known number asked the server");
    let texts: Vec<_> = setup.simulator.received_texts(PEER).into_iter().map(|it| it.text).collect();
    assert_eq!(texts, ["one", "two", "three", "four"]);

    // also after a restart, from the device store alone
    running.link.stop().await;
    let mut running = setup.start(None).await;
    running.connected().await;
    tokio::time::sleep(Duration::from_millis(500)).await; // the login's own queries
    let before = setup.usync();
    let id = send(&running, &peer(), "five").await;
    assert_eq!(running.ack(&id).await, None);
    assert_eq!(setup.usync(), before, "a send to a number from the device store asked the server");
}

#[tokio::test(flavor = "multi_thread")]
async fn says_when_a_number_is_not_on_whatsapp_and_asks_once_a_minute() {
    let (setup, running) = Setup::paired().await;
    let absent = Address::Phone("15551230000".into());
    let before = setup.usync();
    for _ in 0..3 {
        let sent = running.link.send(&absent, &MessageId::mint(), &Link::prepare(&Content::text("x")), false).await;
        assert!(matches!(sent, Err(SendError::NotOnWhatsApp)), "{sent:?}");
    }
    assert_eq!(setup.usync(), before + 1);
    assert!(running.link.is_on_whatsapp("15551230000").await.unwrap().is_none());
    assert!(matches!(running.link.is_on_whatsapp(PEER).await.unwrap(), Some(Address::Lid(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_message_is_told_by_its_code_and_a_repeated_one_keeps_its_id() {
    let (setup, mut running) = Setup::paired().await;
    setup.simulator.inject(FaultRule::new(Fault::Nack).phone(PHONE).code(463));
    let id = send(&running, &peer(), "refused").await;
    assert_eq!(running.ack(&id).await, Some(463));
    running.link.send(&peer(), &id, &Link::prepare(&Content::text("refused")), true).await.unwrap();
    assert_eq!(running.ack(&id).await, None);
    assert_eq!(setup.simulator.ledger().iter().filter(|line| line.id == id.as_str()).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn receives_through_the_hook_once_and_again_after_a_failed_commit() {
    let (setup, mut running) = Setup::paired().await;
    setup.simulator.add_person(Person { phone: PEER.into(), name: Some("Bea".into()), script: Script::Silent });
    let id = setup.simulator.send_text(PEER, PHONE, "hello").await.unwrap();
    let event = setup.journal.wait(|event| event.data["text"] == "hello").await;
    assert_eq!(event.kind, EventKind::Message);
    assert_eq!(event.message_id.as_deref(), Some(id.as_str()));
    assert_eq!(event.order_key, format!("{PEER}@s.whatsapp.net"));
    assert_eq!(event.data["from"], format!("{PEER}@s.whatsapp.net"));
    assert_eq!(event.data["sender"]["phone"], PEER);
    assert_eq!(event.data["sender_name"], "Bea");
    assert!(event.data["sender"]["lid"].as_str().unwrap().ends_with("@lid"));

    // not acknowledged, so the server delivers it again with the next connection
    setup.journal.broken.store(true, Ordering::SeqCst);
    let id = setup.simulator.send_text(PEER, PHONE, "lost?").await.unwrap();
    let deadline = Instant::now() + SOON;
    while !setup.journal.refused.load(Ordering::SeqCst) {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    running.link.stop().await;
    setup.journal.broken.store(false, Ordering::SeqCst);
    running = setup.start(None).await;
    running.connected().await;
    let event = setup.journal.wait(|event| event.data["text"] == "lost?").await;
    assert_eq!(event.message_id.as_deref(), Some(id.as_str()));
    // the bus repeats what the hook has committed; the link does not
    while let Ok(event) = running.events.try_recv() {
        assert!(!matches!(&event, LinkEvent::Event(event) if event.kind == EventKind::Message), "{event:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_and_scripts_answer() {
    let (setup, mut running) = Setup::paired().await;
    setup.simulator.add_person(Person { phone: PEER.into(), name: None, script: Script::Echo });
    let id = send(&running, &peer(), "marco").await;
    assert_eq!(running.ack(&id).await, None);
    setup.journal.wait(|event| event.data["text"].as_str().is_some_and(|text| text.contains("marco"))).await;

    let group = setup.simulator.create_group("Team", &[PEER, PHONE]).await.unwrap();
    let group = Address::parse(&group).unwrap();
    let id = send(&running, &group, "hi group").await;
    assert_eq!(running.ack(&id).await, None);
    setup.simulator.send_text(PEER, &group.jid(), "hi back").await.unwrap();
    let event = setup.journal.wait(|event| event.data["text"] == "hi back").await;
    assert_eq!(event.order_key, group.jid());
    assert_eq!((&event.data["to"], &event.data["is_group"]), (&group.jid().into(), &true.into()));
    assert_eq!(event.data["from"], format!("{PEER}@s.whatsapp.net"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_told_once_and_a_new_link_takes_over() {
    let (setup, mut running) = Setup::paired().await;
    setup.simulator.inject(FaultRule::new(Fault::DropSocket).phone(PHONE));
    assert!(matches!(running.end().await, LinkEvent::Disconnected { .. }));
    let refused = running.link.send(&peer(), &MessageId::mint(), &[], false).await;
    assert!(matches!(refused, Err(SendError::NotConnected)));

    setup.simulator.send_text(PEER, PHONE, "while away").await.unwrap();
    let before = setup.simulator.stats().ik;
    let mut running = setup.start(None).await;
    running.connected().await;
    setup.journal.wait(|event| event.data["text"] == "while away").await;
    assert_eq!(setup.simulator.stats().ik, before + 1, "a known server is greeted with the short handshake");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_server_ends_the_link_with_the_reason() {
    let (setup, running) = Setup::paired().await;
    running.link.stop().await;
    setup.simulator.shutdown().await;
    let mut running = setup.start(None).await;
    let LinkEvent::Disconnected { detail } = running.end().await else { panic!("another end") };
    assert!(detail.contains("no connection"), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_final_end_has_its_cause() {
    for (code, cause) in [(401, Cause::DeviceRemoved), (409, Cause::Replaced)] {
        let (setup, mut running) = Setup::paired().await;
        setup.simulator.inject(FaultRule::new(Fault::StreamError).phone(PHONE).code(code));
        let end = running.end().await;
        assert!(matches!(end, LinkEvent::Closed(found) if found == cause), "{code}: {end:?}");
    }
    for (code, cause) in [(402, Cause::TemporaryBan), (403, Cause::AccountLocked), (405, Cause::ClientOutdated)] {
        let (setup, running) = Setup::paired().await;
        running.link.stop().await;
        setup.nobody_connected().await;
        setup.simulator.inject(FaultRule::new(Fault::StreamError).phone(PHONE).code(code));
        let end = setup.start(None).await.end().await;
        assert!(matches!(end, LinkEvent::Closed(found) if found == cause), "{code}: {end:?}");
    }
    // WhatsApp's own hiccups are worth another attempt
    for code in [503, 515] {
        let (setup, mut running) = Setup::paired().await;
        setup.simulator.inject(FaultRule::new(Fault::StreamError).phone(PHONE).code(code));
        let end = running.end().await;
        assert!(matches!(end, LinkEvent::Disconnected { .. }), "{code}: {end:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unlinking_from_the_phone_closes_the_link() {
    let (setup, mut running) = Setup::paired().await;
    setup.simulator.unlink(PHONE, None).await.unwrap();
    assert!(matches!(running.end().await, LinkEvent::Closed(Cause::DeviceRemoved)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logout_is_confirmed_by_whatsapp() {
    let (setup, running) = Setup::paired().await;
    assert_eq!(setup.simulator.stats().devices, 1);
    running.link.logout(SOON).await.unwrap();
    assert_eq!(setup.simulator.stats().devices, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undecryptable_message_is_told_and_its_repetition_arrives() {
    let (setup, mut running) = Setup::paired().await;
    setup.simulator.inject(FaultRule::new(Fault::Undecryptable).phone(PHONE));
    let id = setup.simulator.send_text(PEER, PHONE, "scrambled").await.unwrap();
    let event = running
        .until("undecryptable", |event| match event {
            LinkEvent::Event(event) if event.kind == EventKind::Undecryptable => Some(event),
            _ => None,
        })
        .await;
    assert_eq!(event.data["message_id"], id);
    assert_eq!(event.data["reason"], "decryption-failed");
    setup.journal.wait(|event| event.data["text"] == "scrambled").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_link_is_silent() {
    let (setup, mut running) = Setup::paired().await;
    running.link.abandon().await;
    assert!(!running.link.is_connected());
    let rest = tokio::time::timeout(SOON, async { while running.events.recv().await.is_some() {} }).await;
    assert!(rest.is_ok(), "the receiver never ends");
    setup.nobody_connected().await;
}

//! The link against the simulated WhatsApp. A build without the feature `simulator` keeps its certificate checks: there,
//! the only thing to see is that it refuses the simulator.
#![cfg_attr(not(feature = "simulator"), allow(dead_code, unused_imports))]

#[cfg(not(feature = "simulator"))]
mod certificates;
#[cfg(feature = "simulator")]
mod ends;
#[cfg(feature = "simulator")]
mod messages;
#[cfg(feature = "simulator")]
mod pairing;

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
        let end = self
            .until("end", |event| {
                matches!(event, LinkEvent::Closed(_) | LinkEvent::Disconnected { .. }).then_some(event)
            })
            .await;
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
            max_size: 0,
        })
        .await
        .unwrap();
        let instance_pk = store.create_instance(&"test".parse().unwrap(), None, false, None).await.unwrap().pk;
        let epoch = store.take_ownership(instance_pk).await.unwrap();
        Self { simulator, config, store, instance_pk, epoch, journal: Arc::default(), _folder: folder }
    }

    async fn start(&self, pair: Option<PairBy>) -> Running {
        let inbound: Arc<dyn Inbound> = Arc::clone(&self.journal) as _;
        let (link, events) =
            Link::start(&self.config, self.store.clone(), self.instance_pk, self.epoch, pair, inbound).await.unwrap();
        Running { link, events }
    }

    async fn paired() -> (Self, Running) {
        let setup = Self::new().await;
        let mut running = setup.start(Some(PairBy::Qr)).await;
        let code = running
            .until("qr", |event| if let LinkEvent::PairingQr { code, .. } = event { Some(code) } else { None })
            .await;
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

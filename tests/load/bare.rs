//! The baseline: the client crate alone, on the same store, with a socket that has `TCP_NODELAY`.

use crate::stage::Simulator;
use kero_domain::InstanceId;
use kero_store::Store;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_websockets::ClientBuilder;
use wacore::net::{Transport, TransportEvent, TransportFactory};
use wacore::types::events::{ChannelEventHandler, Event};
use whatsapp_rust::bot::{Bot, BotHandle};
use whatsapp_rust::client::Client;
use whatsapp_rust_ureq_http_client::UreqHttpClient;

struct NoDelay {
    address: String,
}

#[async_trait::async_trait]
impl TransportFactory for NoDelay {
    async fn create_transport(&self) -> anyhow::Result<(Arc<dyn Transport>, async_channel::Receiver<TransportEvent>)> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let uri = format!("ws://{}/ws/chat", self.address).parse()?;
        let (websocket, _) = ClientBuilder::from_uri(uri).connect_on(stream).await?;
        Ok(whatsapp_rust_tokio_transport::from_websocket(websocket))
    }
}

type Waiting = Arc<Mutex<HashMap<String, Option<oneshot::Sender<()>>>>>;

pub struct Bare {
    client: Arc<Client>,
    /// Who waits for which message's ack; `None` when the ack came first.
    waiting: Waiting,
    chats: Vec<wacore_binary::Jid>,
    _handle: BotHandle,
    _subscription: Box<dyn std::any::Any + Send + Sync>,
}

pub async fn paired(
    http: &reqwest::Client,
    simulator: &Simulator,
    store: &Store,
    id: &str,
    phone: &str,
    chats: &[String],
) -> Bare {
    let id: InstanceId = id.parse().unwrap();
    let instance = store.create_instance(&id, None, false, None).await.expect("an instance");
    let epoch = store.take_ownership(instance.pk).await.expect("an epoch");
    let bot = Bot::builder()
        .with_backend_arc(kero_whatsapp::device_store::DeviceStore::new(store.clone(), instance.pk, epoch))
        .with_transport_factory(NoDelay { address: simulator.url.trim_start_matches("http://").to_owned() })
        .with_http_client(UreqHttpClient::new())
        .with_runtime(whatsapp_rust::TokioRuntime)
        .with_version((2, 3000, 1_000_000_000))
        .build()
        .await
        .expect("the client is built");
    let client = bot.client();
    let (handler, events) = ChannelEventHandler::new();
    let subscription = client.subscribe_handler(handler);
    let handle = bot.spawn();
    loop {
        match &*events.recv().await.expect("the client runs") {
            Event::PairingQrCode(qr) => simulator.scan(http, phone, qr.code.clone()).await,
            Event::Connected(_) => break,
            _ => {}
        }
    }
    let waiting = Waiting::default();
    tokio::spawn(resolve(events, waiting.clone()));
    let mut bare = Bare { client, waiting, chats: Vec::new(), _handle: handle, _subscription: Box::new(subscription) };
    for chat in chats {
        // by LID once it is known, as Kero does: a send to a number asks WhatsApp each time
        let number: wacore_binary::Jid = format!("{chat}@s.whatsapp.net").parse().unwrap();
        bare.acknowledged(&number, "first").await;
        bare.chats.push(match bare.client.get_lid_pn_entry(&number).await {
            Ok(Some(entry)) => format!("{}@lid", entry.lid).parse().unwrap(),
            _ => number,
        });
    }
    bare
}

async fn resolve(events: async_channel::Receiver<Arc<Event>>, waiting: Waiting) {
    while let Ok(event) = events.recv().await {
        if let Event::ServerAck(ack) = &*event {
            let mut waiting = waiting.lock().unwrap();
            match waiting.remove(&ack.id) {
                Some(Some(waiter)) => drop(waiter.send(())),
                _ => drop(waiting.insert(ack.id.clone(), None)),
            }
        }
    }
}

impl Bare {
    /// POSTs the text of every message that comes in, from the callback, one after the other.
    pub fn post_messages(&self, http: reqwest::Client, url: String) {
        let (handler, events) = ChannelEventHandler::new();
        let subscription = self.client.subscribe_handler(handler);
        tokio::spawn(async move {
            let _subscription = subscription;
            while let Ok(event) = events.recv().await {
                if let Event::Messages(batch) = &*event {
                    for message in batch.iter() {
                        let text = message.message.conversation.clone().unwrap_or_default();
                        http.post(&url).body(text).send().await.unwrap();
                    }
                }
            }
        });
    }

    /// Sends to one chat, one after the other, each when the one before is acknowledged.
    pub async fn send(&self, chat: usize, sends: usize) {
        for n in 0..sends {
            self.acknowledged(&self.chats[chat], &format!("load {n}")).await;
        }
    }

    async fn acknowledged(&self, to: &wacore_binary::Jid, text: &str) {
        let sent = self.client.send_text(to.clone(), text).await.expect("a send");
        let ack = {
            let mut waiting = self.waiting.lock().unwrap();
            match waiting.remove(&sent.message_id) {
                Some(None) => return,
                _ => {
                    let (waiter, ack) = oneshot::channel();
                    waiting.insert(sent.message_id.clone(), Some(waiter));
                    ack
                }
            }
        };
        ack.await.expect("an ack");
    }
}

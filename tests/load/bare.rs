//! The baseline: the client crate alone, on the same store, with a socket that has `TCP_NODELAY`.

use super::RECIPIENT;
use kero_domain::InstanceId;
use kero_store::Store;
use std::sync::Arc;
use tokio::net::TcpStream;
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

pub struct Bare {
    client: Arc<Client>,
    events: async_channel::Receiver<Arc<Event>>,
    to: wacore_binary::Jid,
    _handle: BotHandle,
    _subscription: Box<dyn std::any::Any + Send + Sync>,
}

pub async fn paired(http: &reqwest::Client, simulator: &str, store: &Store) -> Bare {
    let id: InstanceId = "bare".parse().unwrap();
    let instance = store.create_instance(&id, None, false, None).await.expect("an instance");
    let epoch = store.take_ownership(instance.pk).await.expect("an epoch");
    let bot = Bot::builder()
        .with_backend_arc(kero_whatsapp::device_store::DeviceStore::new(store.clone(), instance.pk, epoch))
        .with_transport_factory(NoDelay { address: simulator.trim_start_matches("http://").to_owned() })
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
            Event::PairingQrCode(qr) => {
                let scan = format!("{simulator}/admin/mock-phone/scan-qr?phone=491581000001");
                http.post(scan).body(qr.code.clone()).send().await.unwrap().error_for_status().unwrap();
            }
            Event::Connected(_) => break,
            _ => {}
        }
    }
    // by LID once it is known, as Kero does: a send to a number asks WhatsApp each time
    let number: wacore_binary::Jid = format!("{RECIPIENT}@s.whatsapp.net").parse().unwrap();
    client.send_text(number.clone(), "first").await.expect("a first send");
    let to = match client.get_lid_pn_entry(&number).await {
        Ok(Some(entry)) => format!("{}@lid", entry.lid).parse().unwrap(),
        _ => number,
    };
    Bare { client, events, to, _handle: handle, _subscription: Box::new(subscription) }
}

impl Bare {
    pub async fn send(&self, sends: u32) {
        for n in 0..sends {
            let sent = self.client.send_text(self.to.clone(), format!("load {n}")).await.expect("a send");
            loop {
                let event = self.events.recv().await.expect("the client runs");
                if matches!(&*event, Event::ServerAck(ack) if ack.id == sent.message_id) {
                    break;
                }
            }
        }
    }
}

//! An unmodified whatsapp-rust client: a person with a real client, or another device of an instance's account.

use kero_simulator::Simulator;
use std::sync::Arc;
use std::time::Duration;
use wacore::proto_helpers::MessageExt;
use wacore::store::InMemoryBackend;
use wacore::types::events::{ChannelEventHandler, Event};
use whatsapp_rust::bot::{Bot, BotHandle};
use whatsapp_rust::client::Client;
use whatsapp_rust_tokio_transport::TokioWebSocketTransportFactory;
use whatsapp_rust_ureq_http_client::UreqHttpClient;

pub struct Foreign {
    pub client: Arc<Client>,
    events: async_channel::Receiver<Arc<Event>>,
    _handle: BotHandle,
    _subscription: Box<dyn std::any::Any + Send + Sync>,
}

impl Foreign {
    pub async fn paired(simulator: &Simulator, phone: &str) -> Self {
        let bot = Bot::builder()
            .with_backend_arc(Arc::new(InMemoryBackend::new()))
            .with_transport_factory(TokioWebSocketTransportFactory::new().with_url(simulator.wss_url()))
            .with_http_client(UreqHttpClient::new())
            .with_runtime(whatsapp_rust::TokioRuntime)
            .with_version((2, 3000, 1_000_000_000))
            .with_wanted_pre_key_count(50)
            .build()
            .await
            .expect("the client is built");
        let client = bot.client();
        let (handler, events) = ChannelEventHandler::new();
        let subscription = client.subscribe_handler(handler);
        let foreign = Foreign { client, events, _handle: bot.spawn(), _subscription: Box::new(subscription) };
        let code = foreign.wait("a QR code", |event| match event {
            Event::PairingQrCode(qr) => Some(qr.code.clone()),
            _ => None,
        });
        simulator.scan_qr(&code.await, Some(phone)).await.expect("the phone takes the code");
        foreign.wait("connected", |event| matches!(event, Event::Connected(_)).then_some(())).await;
        foreign
    }

    pub async fn wait<T>(&self, what: &str, pick: impl Fn(&Event) -> Option<T>) -> T {
        let found = tokio::time::timeout(Duration::from_secs(40), async {
            loop {
                let event = self.events.recv().await.expect("the client runs");
                if let Some(found) = pick(&event) {
                    return found;
                }
            }
        });
        found.await.unwrap_or_else(|_| panic!("the client never got: {what}"))
    }

    pub async fn wait_text(&self, text: &str) -> String {
        self.wait(text, |event| match event {
            Event::Messages(batch) => batch
                .iter()
                .find(|message| message.message.text_content() == Some(text))
                .map(|message| message.info.id.clone()),
            _ => None,
        })
        .await
    }
}

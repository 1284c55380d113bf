//! One connection of one instance: start it, send through it, end it.

use crate::device_store::{DeviceStore, Outgoing};
use crate::driver::{self, Fate};
use crate::error::{LinkError, SendError};
use crate::events::{LinkEvent, Sink};
use crate::guard::check_url;
use crate::hook::{Converter, Hook, Inbound};
use crate::http::Http;
use crate::pairing::{self, PairBy};
use crate::people::Directory;
use crate::recipient::Recipients;
use crate::transport::Dialer;
use kero_domain::{Address, Cause, Content, MessageId};
use kero_store::{Store, StoreError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use wacore::store::DevicePropsOverride;
use wacore::store::error::StoreError as TheirStoreError;
use wacore::types::events::Subscription;
use waproto::whatsapp::device_props::PlatformType;
use whatsapp_rust::store::commands::DeviceCommand;
use whatsapp_rust::store::persistence_manager::PersistenceManager;
use whatsapp_rust::{Client, SendOptions, TokioRuntime};

/// Announced when an address is configured and no version is: a configured address never fetches WhatsApp's version page.
const SIMULATED_VERSION: (u32, u32, u32) = (2, 3000, 1_000_000_000);
const SAVE_EVERY: Duration = Duration::from_secs(30);
/// How long an orderly stop may take; the client bounds each of its own steps.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// What every instance's link has in common.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// `None` is WhatsApp itself; only loopback addresses may be given ([`check_url`]).
    pub url: Option<String>,
    /// The client version to announce; without one the current version is fetched from WhatsApp once a day.
    pub version: Option<(u32, u32, u32)>,
    /// Shown in the phone's list of linked devices; takes effect when pairing.
    pub device_name: String,
    /// Do not download the phone's history.
    pub skip_history: bool,
    /// Announced when pairing.
    pub push_name: Option<String>,
}

/// A cheap handle on one connection life. Dropping every handle ends the connection without a flush.
#[derive(Clone)]
pub struct Link {
    inner: Arc<Inner>,
}

struct Inner {
    client: Arc<Client>,
    dialer: Dialer,
    recipients: Recipients,
    outgoing: Arc<Outgoing>,
    state: Arc<State>,
    run: AbortHandle,
    done: watch::Receiver<bool>,
    _subscription: Subscription,
}

/// What the driver, the event sink and the handle share.
#[derive(Default)]
pub(crate) struct State {
    /// Logged in and able to send.
    pub(crate) connected: AtomicBool,
    /// This side ends the connection; the end is not news.
    pub(crate) stopping: AtomicBool,
    /// This side asked WhatsApp to remove the device; that it is removed is not news.
    pub(crate) leaving: AtomicBool,
    pub(crate) fate: Fate,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.state.stopping.store(true, Ordering::Release);
        self.run.abort();
        self.client.signal_shutdown_sync();
        if let (Some(transport), Ok(runtime)) = (self.dialer.take_open(), Handle::try_current()) {
            runtime.spawn(async move { transport.disconnect().await });
        }
    }
}

impl Link {
    /// Builds the client from the device store and dials. Everything else is told by the receiver, whose end is the
    /// link's end. `pair` matters only while the instance is unpaired.
    pub async fn start(
        config: &LinkConfig,
        store: Store,
        instance_pk: i64,
        epoch: i64,
        pair: Option<PairBy>,
        inbound: Arc<dyn Inbound>,
    ) -> Result<(Self, mpsc::UnboundedReceiver<LinkEvent>), LinkError> {
        check_url(config.url.as_deref())?;
        let outgoing = Arc::new(Outgoing::default());
        let backend = DeviceStore::of_jobs(store, instance_pk, epoch, Arc::clone(&outgoing));
        let converter = Converter { directory: Arc::new(Directory::default()), backend: Arc::clone(&backend) };
        let persistence = PersistenceManager::new(backend).await.map_err(|error| LinkError::Store(error.into()))?;
        let persistence = Arc::new(persistence);
        announce(config, &persistence).await;

        let dialer = Dialer::new(config.url.as_deref());
        let mut builder = Client::builder()
            .with_runtime(TokioRuntime)
            .with_persistence_manager(persistence)
            .with_transport_factory(dialer.clone())
            .with_http_client(Http::new(config.url.as_deref()))
            .with_inbound_durability_hook(Hook { inbound, converter: converter.clone() })
            .with_skip_history_sync(config.skip_history)
            .with_background_saver_interval(SAVE_EVERY);
        if let Some(version) = config.version.or_else(|| config.url.as_ref().map(|_| SIMULATED_VERSION)) {
            builder = builder.with_version_override(version);
        }
        let client = builder.build().await.map_err(|error| LinkError::Build(error.into()))?.into_client();
        // one connection life: the actor reconnects
        client.enable_auto_reconnect.store(false, Ordering::Relaxed);

        let (events, receiver) = mpsc::unbounded_channel();
        let state = Arc::new(State::default());
        let (sink, raw) = Sink::new(Arc::clone(&state), pair.clone(), config.skip_history);
        let subscription = client.subscribe_handler(Arc::new(sink));
        let (finished, done) = watch::channel(false);
        if let Some(PairBy::Code { phone }) = pair
            && client.pn().is_none()
        {
            tokio::spawn(pairing::request_code(Arc::clone(&client), phone));
        }
        let run = tokio::spawn(driver::run(
            Arc::clone(&client),
            dialer.clone(),
            Arc::clone(&state),
            converter,
            raw,
            events,
            finished,
        ))
        .abort_handle();
        let inner = Inner {
            client,
            dialer,
            recipients: Recipients::default(),
            outgoing,
            state,
            run,
            done,
            _subscription: subscription,
        };
        Ok((Self { inner: Arc::new(inner) }, receiver))
    }

    /// The protobuf to freeze for a send.
    pub fn prepare(content: &Content) -> Vec<u8> {
        crate::outbound::encode(content)
    }

    /// Logged in and able to send.
    pub fn is_connected(&self) -> bool {
        self.inner.state.connected.load(Ordering::Acquire) && self.inner.client.is_connected()
    }

    /// Encrypts and writes the message of a job, whose row has these very bytes: from there they come when a recipient
    /// asks for them again. The server's answer comes as [`LinkEvent::Ack`] with the same id. A send that is
    /// repeated (`resend`) goes to an address that was checked before and asks the server nothing.
    pub async fn send(
        &self,
        chat: &Address,
        message_id: &MessageId,
        proto: &[u8],
        resend: bool,
    ) -> Result<(), SendError> {
        if !self.is_connected() {
            return Err(SendError::NotConnected);
        }
        let message = waproto::codec::message_decode(proto)
            .map_err(|error| SendError::Invalid(format!("the stored message cannot be read: {error}")))?;
        let client = &self.inner.client;
        let to = self.inner.recipients.resolve(client, chat, !resend).await?;
        self.inner.outgoing.add(message_id.as_str());
        client
            .send_message_with_options(to, message, SendOptions::default().with_message_id(message_id.as_str()))
            .await?;
        Ok(())
    }

    /// The address of a number that is on WhatsApp (its LID when known), `None` when it is not. Positive answers are
    /// remembered, negative ones for a minute.
    pub async fn is_on_whatsapp(&self, phone: &str) -> Result<Option<Address>, SendError> {
        if !self.is_connected() {
            return Err(SendError::NotConnected);
        }
        self.inner.recipients.lookup(&self.inner.client, phone).await
    }

    /// Unlinks this device at WhatsApp and ends the link, silently. `Ok` only when WhatsApp confirmed it; after an error
    /// the link lives on as it was. The stored device is the caller's to forget.
    pub async fn logout(&self, timeout: Duration) -> Result<(), LinkError> {
        let client = &self.inner.client;
        let jid = client.pn().ok_or(LinkError::NotPaired)?;
        if !self.is_connected() {
            return Err(LinkError::NotConnected);
        }
        let state = &self.inner.state;
        state.leaving.store(true, Ordering::Release);
        if let Err(error) = client.execute(pairing::Unlink::new(&jid, timeout)).await {
            // WhatsApp may end the stream with the news before it answers the query
            if state.fate.get() != Some(Cause::DeviceRemoved) {
                state.leaving.store(false, Ordering::Release);
                return Err(LinkError::Unconfirmed(error.to_string()));
            }
        }
        self.stop().await;
        Ok(())
    }

    /// Orderly: commits what was received, flushes, closes the socket; the credentials stay.
    pub async fn stop(&self) {
        self.inner.state.stopping.store(true, Ordering::Release);
        self.inner.state.connected.store(false, Ordering::Release);
        let ended = async {
            self.inner.client.disconnect().await;
            let _ = self.inner.done.clone().wait_for(|done| *done).await;
        };
        if tokio::time::timeout(STOP_TIMEOUT, ended).await.is_err() {
            tracing::warn!("the link did not stop in time; it is abandoned");
            self.abandon().await;
        }
    }

    /// Without a flush: nothing that is only in the client's memory is written any more. For a link whose pending-inbound
    /// write failed or whose epoch is lost.
    pub async fn abandon(&self) {
        self.inner.state.stopping.store(true, Ordering::Release);
        self.inner.state.connected.store(false, Ordering::Release);
        // the run loop's own cleanup would flush: it is cut off first
        self.inner.run.abort();
        self.inner.client.signal_shutdown_sync();
        if let Some(transport) = self.inner.dialer.take_open() {
            transport.disconnect().await;
        }
    }
}

/// What the phone shows of this device; it matters when pairing only.
async fn announce(config: &LinkConfig, persistence: &PersistenceManager) {
    if persistence.get_device_snapshot().pn.is_some() {
        return;
    }
    if let Some(name) = &config.push_name {
        persistence.process_command(DeviceCommand::SetPushName(name.clone())).await;
    }
    let props =
        DevicePropsOverride::new().with_os(config.device_name.as_str()).with_platform_type(PlatformType::CHROME);
    persistence.process_command(DeviceCommand::SetDeviceProps(props)).await;
}

/// Whether an instance has a linked device.
pub async fn is_paired(store: &Store, instance_pk: i64) -> Result<bool, StoreError> {
    // reads need no epoch
    let device = DeviceStore::new(store.clone(), instance_pk, 0).load().await;
    match device {
        Ok(device) => Ok(device.is_some_and(|device| device.pn.is_some())),
        Err(TheirStoreError::Database(source) | TheirStoreError::Connection(source)) => {
            Err(source.downcast::<StoreError>().map_or(StoreError::Corrupt("device"), |error| *error))
        }
        Err(_) => Err(StoreError::Corrupt("device")),
    }
}

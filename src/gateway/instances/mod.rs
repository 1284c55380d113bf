//! Instances: a registry of handles, one actor per instance, and the operations the API calls.

mod actor;
mod recorder;
mod state;

pub(crate) use actor::{Handle, View};

use crate::webhooks::{PutWebhook, new_endpoint};
use crate::{Gateway, errors::fault};
use actor::Command;
use futures_util::StreamExt;
use kero_domain::{Address, Cause, Fault, FaultCode, InstanceId, InstanceStatus, Timestamp};
use kero_store::{Instance, StoreError};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a caller waits for the first QR or pair code.
const CODE_WAIT: Duration = Duration::from_secs(25);
/// How long WhatsApp has to confirm a logout.
const LOGOUT_WAIT: Duration = Duration::from_secs(15);
/// How long a deleted instance tries to unlink itself at WhatsApp.
const DELETE_LOGOUT_WAIT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
pub struct CreateInstance {
    pub id: InstanceId,
    pub name: Option<String>,
    pub webhook_url: Option<String>,
    pub sync_history: bool,
}

#[derive(Debug, Clone, Default)]
pub struct UpdateInstance {
    pub name: Option<String>,
    pub webhook_url: Option<String>,
    pub sync_history: Option<bool>,
}

/// The text behind a QR code that is valid now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QrCode {
    pub code: String,
    pub expires_at: Timestamp,
}

/// The eight characters to type on the phone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairCode {
    pub code: String,
    pub expires_at: Timestamp,
}

#[derive(Debug, Clone)]
pub struct StatusView {
    pub status: InstanceStatus,
    pub cause: Option<Cause>,
    pub since: Timestamp,
    pub next_retry_at: Option<Timestamp>,
}

/// Which instances this process runs.
#[derive(Default)]
pub(crate) struct Registry {
    handles: Mutex<HashMap<InstanceId, Handle>>,
}

impl Registry {
    pub(crate) fn get(&self, id: &InstanceId) -> Option<Handle> {
        self.lock().get(id).cloned()
    }

    pub(crate) fn by_pk(&self, pk: i64) -> Option<Handle> {
        self.lock().values().find(|handle| handle.pk == pk).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Handle> {
        self.lock().values().cloned().collect()
    }

    fn insert(&self, handle: Handle) {
        self.lock().insert(handle.id.clone(), handle);
    }

    fn remove(&self, handle: &Handle) {
        let mut handles = self.lock();
        if handles.get(&handle.id).is_some_and(|found| found.pk == handle.pk) {
            handles.remove(&handle.id);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<InstanceId, Handle>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Spawns the actors of every stored instance, none of them connected yet.
pub(crate) async fn load(gateway: &Gateway) -> Result<(), StoreError> {
    for instance in gateway.store().instances().await? {
        let handle = actor::spawn(gateway, &instance).await?;
        gateway.inner.instances.insert(handle);
    }
    Ok(())
}

/// Connects the instances that should be connected, one after the other with a pause.
pub(crate) async fn resume(gateway: Gateway) {
    let pace = gateway.config().resume_pace;
    let mut handles = gateway.inner.instances.all();
    handles.sort_by_key(|handle| handle.pk);
    for handle in handles.into_iter().filter(|handle| handle.view().wanted) {
        if gateway.inner.stopping.is_cancelled() {
            return;
        }
        let _ = handle.ask(Command::Connect).await;
        tokio::time::sleep(pace).await;
    }
}

/// Tells an actor that the database refused to buffer an inbound message: its session must be rebuilt.
pub(crate) async fn watch_poisoned(gateway: Gateway) {
    let mut poisoned = gateway.store().on_poisoned();
    loop {
        tokio::select! {
            () = gateway.inner.stopping.cancelled() => return,
            received = poisoned.recv() => match received {
                Ok(pk) => if let Some(handle) = gateway.inner.instances.by_pk(pk) { handle.tell(Command::StorageFailed); },
                Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
            },
        }
    }
}

/// Closes every link in an orderly way; the credentials and the wish to be connected stay.
pub(crate) async fn stop_all(gateway: &Gateway) {
    futures_util::stream::iter(gateway.inner.instances.all())
        .for_each_concurrent(32, |handle| async move {
            let _ = handle.ask(Command::Stop).await;
        })
        .await;
}

impl Gateway {
    pub(crate) fn handle(&self, id: &InstanceId) -> Result<Handle, Fault> {
        self.inner.instances.get(id).ok_or_else(|| FaultCode::InstanceNotFound.into())
    }

    /// The only existing instance, for the short form of the paths.
    pub fn only_instance(&self) -> Result<InstanceId, Fault> {
        let handles = self.inner.instances.all();
        match handles.as_slice() {
            [] => Err(FaultCode::InstanceNotFound.into()),
            [one] => Ok(one.id.clone()),
            _ => Err(FaultCode::InstanceAmbiguous.into()),
        }
    }

    pub async fn create_instance(&self, request: CreateInstance) -> Result<Instance, Fault> {
        let webhook = match request.webhook_url.filter(|url| !url.is_empty()) {
            Some(url) => Some(
                new_endpoint(self, PutWebhook { url, events: Vec::new(), secret: None, enabled: true })
                    .map_err(|fault| rename_pointer(fault, "/url", "/webhook_url"))?,
            ),
            None => None,
        };
        let name = request.name.as_deref().filter(|name| !name.is_empty());
        let instance = match self.store().create_instance(&request.id, name, request.sync_history, webhook).await {
            Ok(instance) => instance,
            Err(StoreError::Conflict(_)) => return Err(FaultCode::InstanceExists.into()),
            Err(error) => return Err(fault(error)),
        };
        let handle = actor::spawn(self, &instance).await.map_err(fault)?;
        self.inner.instances.insert(handle);
        Ok(instance)
    }

    pub async fn instance(&self, id: &InstanceId) -> Result<Instance, Fault> {
        let mut instance =
            self.store().instance(id).await.map_err(fault)?.ok_or_else(|| Fault::from(FaultCode::InstanceNotFound))?;
        if let Some(handle) = self.inner.instances.get(id) {
            let view = handle.view();
            (instance.status, instance.cause, instance.since) = (view.status, view.cause, view.since);
        }
        Ok(instance)
    }

    /// The QR code that is shown now, if there is one.
    pub fn current_qr(&self, id: &InstanceId) -> Option<QrCode> {
        self.inner.instances.get(id)?.view().qr.filter(|qr| qr.expires_at > Timestamp::now())
    }

    /// Where the events of these instances go, by pk: the URLs of their webhooks.
    pub async fn webhook_urls(&self, instances: &[Instance]) -> Result<HashMap<i64, String>, Fault> {
        let pks: Vec<i64> = instances.iter().map(|instance| instance.pk).collect();
        self.store().webhook_urls(&pks).await.map_err(fault)
    }

    /// Newest first; `after` is the pk of the last one of the page before. Also the total.
    pub async fn list_instances(&self, after: Option<i64>, limit: u64) -> Result<(Vec<Instance>, u64), Fault> {
        self.store().list_instances(after, limit).await.map_err(fault)
    }

    pub async fn update_instance(&self, id: &InstanceId, update: UpdateInstance) -> Result<Instance, Fault> {
        let instance = self.instance(id).await?;
        if let Some(url) = update.webhook_url.filter(|url| !url.is_empty()) {
            // the events and the secret of an existing webhook stay
            let current = self.store().webhook(instance.pk).await.map_err(fault)?;
            let events = current.map(|endpoint| endpoint.events.names()).unwrap_or_default();
            let webhook = new_endpoint(self, PutWebhook { url, events, secret: None, enabled: true })
                .map_err(|fault| rename_pointer(fault, "/url", "/webhook_url"))?;
            let stored = self.store().put_webhook(instance.pk, webhook).await.map_err(fault)?;
            self.endpoint_changed(Some(instance.pk), stored.id);
        }
        let name = update.name.map(|name| (!name.is_empty()).then_some(name));
        self.store().update_instance(instance.pk, name, update.sync_history).await.map_err(fault)?;
        self.instance(id).await
    }

    /// Stops the link, unlinks the device at WhatsApp where that is possible at once, and removes every row.
    pub async fn delete_instance(&self, id: &InstanceId) -> Result<(), Fault> {
        let handle = self.handle(id)?;
        handle.ask(Command::Delete { logout_wait: DELETE_LOGOUT_WAIT }).await?;
        self.inner.instances.remove(&handle);
        self.inner.load.forget(handle.pk);
        self.inner.fanout.endpoints_changed(handle.pk);
        self.inner.feed.end(handle.pk);
        Ok(())
    }

    /// Starts connecting and returns; `GET …/status` and the `status` event tell the rest.
    pub async fn connect(&self, id: &InstanceId) -> Result<(), Fault> {
        self.handle(id)?.ask(Command::Connect).await
    }

    /// Closes the connection; the credentials are kept.
    pub async fn disconnect(&self, id: &InstanceId) -> Result<(), Fault> {
        self.handle(id)?.ask(Command::Disconnect).await
    }

    /// Unlinks the device; returns when WhatsApp confirmed it.
    pub async fn logout(&self, id: &InstanceId) -> Result<(), Fault> {
        self.handle(id)?.ask(Command::Logout { wait: LOGOUT_WAIT }).await
    }

    pub async fn status(&self, id: &InstanceId) -> Result<StatusView, Fault> {
        let view = self.handle(id)?.view();
        Ok(StatusView { status: view.status, cause: view.cause, since: view.since, next_retry_at: view.next_retry_at })
    }

    /// The QR code that is valid now. Connects when needed and waits for the first code.
    pub async fn qr(&self, id: &InstanceId) -> Result<QrCode, Fault> {
        let handle = self.handle(id)?;
        let view = handle.view();
        if view.paired {
            return Err(FaultCode::InstanceAlreadyPaired.into());
        }
        if view.by_code {
            // asking for the picture must not end what somebody is typing on the phone
            return Err(Fault::new(FaultCode::QrNotAvailable)
                .with_detail("A pair code was asked for; disconnect the instance to pair it by QR code."));
        }
        handle.ask(Command::Connect).await?;
        handle.wait(CODE_WAIT, |view| view.qr.clone().filter(|qr| qr.expires_at > Timestamp::now())).await
    }

    /// Asks WhatsApp for an eight-character code to be typed on the phone with that number.
    pub async fn pair_code(&self, id: &InstanceId, phone: &Address) -> Result<PairCode, Fault> {
        let Address::Phone(number) = phone else {
            return Err(Fault::new(FaultCode::InvalidRecipient).at("/phone", "must be a phone number"));
        };
        let handle = self.handle(id)?;
        if handle.view().paired {
            return Err(FaultCode::InstanceAlreadyPaired.into());
        }
        handle.ask(Command::PairByCode { phone: number.clone() }).await?;
        handle.wait(CODE_WAIT, |view| view.code.clone().filter(|code| code.expires_at > Timestamp::now())).await
    }

    /// Waits until the instance has a status; for tests and the demo.
    pub async fn wait_for_status(&self, id: &InstanceId, status: InstanceStatus, wait: Duration) -> Result<(), Fault> {
        self.handle(id)?.wait(wait, |view| (view.status == status).then_some(())).await
    }
}

fn rename_pointer(mut fault: Fault, from: &str, to: &str) -> Fault {
    for error in &mut fault.errors {
        if error.pointer == from {
            error.pointer = to.to_owned();
        }
    }
    fault
}

/// A command's reply channel.
pub(crate) type Reply = oneshot::Sender<Result<(), Fault>>;

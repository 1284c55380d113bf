//! One task per instance. It owns the link, drives the state machine and publishes a view that everybody else reads.

use super::recorder::{self, Record, Recorder};
use super::state::{Action, Backoff, Input, State};
use super::{PairCode, QrCode, Reply};
use crate::events::Journal;
use crate::hooks::Fresh;
use crate::worker::Lane;
use crate::{Gateway, errors::fault};
use kero_domain::{Cause, Class, EventKind, Fault, FaultCode, InstanceId, InstanceStatus, NewEvent, Timestamp};
use kero_store::{Instance, StoreError};
use kero_whatsapp::{Link, LinkError, LinkEvent, PairBy};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// What the actor can be asked.
pub(crate) enum Command {
    Connect,
    Disconnect,
    Logout {
        wait: Duration,
    },
    PairByCode {
        phone: String,
    },
    Delete {
        logout_wait: Duration,
    },
    StorageFailed,
    /// The gateway stops.
    Stop,
}

/// What everybody else may know of an instance, always current.
#[derive(Clone)]
pub(crate) struct View {
    pub status: InstanceStatus,
    pub cause: Option<Cause>,
    pub since: Timestamp,
    pub next_retry_at: Option<Timestamp>,
    pub wanted: bool,
    pub paired: bool,
    pub qr: Option<QrCode>,
    pub code: Option<PairCode>,
    /// A pair code was asked for, so WhatsApp gives no QR codes.
    pub by_code: bool,
    /// Present while connected.
    pub link: Option<Link>,
    pub epoch: i64,
    /// Grows with every connection, so that a waiting send notices that its connection ended.
    pub generation: u64,
}

#[derive(Clone)]
pub(crate) struct Handle {
    pub pk: i64,
    pub id: InstanceId,
    mailbox: mpsc::UnboundedSender<(Command, Option<Reply>)>,
    view: watch::Receiver<View>,
    pub lane: Lane,
    pub fresh: Arc<Fresh>,
}

impl Handle {
    pub(crate) fn view(&self) -> View {
        self.view.borrow().clone()
    }

    pub(crate) fn tell(&self, command: Command) {
        let _ = self.mailbox.send((command, None));
    }

    pub(crate) async fn ask(&self, command: Command) -> Result<(), Fault> {
        let (reply, answer) = oneshot::channel();
        let gone = || Fault::from(FaultCode::InstanceNotFound);
        self.mailbox.send((command, Some(reply))).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Waits until `pick` finds what it wants; a failure of the instance ends the wait.
    pub(crate) async fn wait<T>(&self, wait: Duration, pick: impl Fn(&View) -> Option<T>) -> Result<T, Fault> {
        let mut view = self.view.clone();
        let found = tokio::time::timeout(wait, async {
            loop {
                let current = view.borrow_and_update().clone();
                if let Some(found) = pick(&current) {
                    return Ok(found);
                }
                if matches!(
                    current.status,
                    InstanceStatus::Failed | InstanceStatus::Disconnected | InstanceStatus::LoggedOut
                ) && !current.wanted
                {
                    let cause = current.cause.map_or("The instance is not connected.", Cause::sentence);
                    return Err(Fault::new(FaultCode::InstanceNotConnected).with_detail(cause));
                }
                view.changed().await.map_err(|_| Fault::from(FaultCode::InstanceNotFound))?;
            }
        });
        found.await.unwrap_or_else(|_| Err(Fault::new(FaultCode::WhatsAppUnreachable).retry_after(5)))
    }
}

struct Actor {
    gateway: Gateway,
    pk: i64,
    id: InstanceId,
    epoch: i64,
    state: State,
    link: Option<Link>,
    link_events: Option<mpsc::UnboundedReceiver<LinkEvent>>,
    connected: bool,
    generation: u64,
    pair_phone: Option<String>,
    pairing_until: Option<Timestamp>,
    published: Option<(InstanceStatus, Option<Cause>)>,
    qr: Option<QrCode>,
    code: Option<PairCode>,
    view: watch::Sender<View>,
    lane: Lane,
    recorder: Recorder,
}

/// Takes the instance over (a new epoch fences every earlier owner) and starts its actor and lane.
pub(super) async fn spawn(gateway: &Gateway, instance: &Instance) -> Result<Handle, StoreError> {
    let epoch = gateway.store().take_ownership(instance.pk).await?;
    let paired = kero_whatsapp::is_paired(gateway.store(), instance.pk).await?;
    let state = initial_state(instance, paired);
    let (mailbox, inbox) = mpsc::unbounded_channel();
    let (view_sender, view) = watch::channel(View {
        status: state.status,
        cause: state.cause,
        since: state.since,
        next_retry_at: None,
        wanted: state.wanted,
        paired,
        qr: None,
        code: None,
        by_code: false,
        link: None,
        epoch,
        generation: 0,
    });
    let lane = crate::worker::spawn_lane(gateway, instance, view.clone());
    let actor = Actor {
        gateway: gateway.clone(),
        pk: instance.pk,
        id: instance.id.clone(),
        epoch,
        published: Some((instance.status, instance.cause)),
        state,
        link: None,
        link_events: None,
        connected: false,
        generation: 0,
        pair_phone: None,
        pairing_until: None,
        qr: None,
        code: None,
        view: view_sender,
        lane: lane.clone(),
        recorder: recorder::spawn(gateway, instance.pk),
    };
    gateway.inner.tasks.spawn(actor.run(inbox));
    Ok(Handle { pk: instance.pk, id: instance.id.clone(), mailbox, view, lane, fresh: Arc::default() })
}

/// What a stored status means after a restart: no socket survived, and an unfinished pairing starts over.
fn initial_state(instance: &Instance, paired: bool) -> State {
    let wanted = instance.wanted && paired;
    let (status, cause) = match instance.status {
        _ if wanted => (InstanceStatus::Connecting, Some(Cause::Restart)),
        InstanceStatus::LoggedOut | InstanceStatus::Failed => (instance.status, instance.cause),
        InstanceStatus::Disconnected if instance.cause.is_some() => (instance.status, instance.cause),
        _ => (InstanceStatus::Disconnected, Some(if paired { Cause::Requested } else { Cause::NotPaired })),
    };
    // a retry that is due at once: `resume` connects the wanted ones, paced
    let next_retry_at = wanted.then(Timestamp::now);
    State { status, cause, since: instance.since, wanted, attempts: 0, next_retry_at, paired }
}

impl Actor {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<(Command, Option<Reply>)>) {
        loop {
            let retry = self.state.next_retry_at.filter(|_| self.state.attempts > 0);
            let pairing_until = self.pairing_until;
            let timer = async {
                match (retry, pairing_until) {
                    (Some(at), _) | (None, Some(at)) => tokio::time::sleep(Timestamp::now().until(at)).await,
                    (None, None) => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                command = inbox.recv() => {
                    let Some((command, reply)) = command else { return };
                    let ends = matches!(command, Command::Delete { .. } | Command::Stop);
                    let result = self.command(command).await;
                    let ended = ends && result.is_ok();
                    if let Some(reply) = reply {
                        let _ = reply.send(result);
                    }
                    if ended {
                        return;
                    }
                }
                event = next_event(&mut self.link_events) => match event {
                    Some(event) => self.link_event(event).await,
                    // the link ended without a word: treat it as a lost connection
                    None => { self.link_events = None; self.input(Input::LinkLost).await }
                },
                () = timer => {
                    if retry.is_some() {
                        self.input(Input::RetryDue).await;
                    } else {
                        (self.pairing_until, self.pair_phone) = (None, None);
                        self.input(Input::PairingEnded(Cause::PairingTimeout)).await;
                    }
                }
            }
        }
    }

    async fn command(&mut self, command: Command) -> Result<(), Fault> {
        match command {
            Command::Connect => {
                if self.gateway.inner.stopping.is_cancelled() {
                    return Err(FaultCode::ShuttingDown.into());
                }
                self.input(Input::Connect).await;
                Ok(())
            }
            Command::Disconnect => {
                self.pair_phone = None;
                self.input(Input::Disconnect).await;
                Ok(())
            }
            Command::PairByCode { phone } => {
                if self.state.paired {
                    return Err(FaultCode::InstanceAlreadyPaired.into());
                }
                // a link that was started for QR codes never asks for a pair code
                if self.link.is_some() || self.state.status == InstanceStatus::Pairing {
                    self.input(Input::Disconnect).await;
                }
                self.code = None;
                self.pair_phone = Some(phone);
                self.input(Input::Connect).await;
                Ok(())
            }
            Command::Logout { wait } => {
                if !self.state.paired {
                    return Err(FaultCode::InstanceNotPaired.into());
                }
                let Some(link) = self.link.clone().filter(|_| self.connected) else {
                    return Err(Fault::new(FaultCode::InstanceNotConnected)
                        .with_detail("Connect first: WhatsApp must confirm the logout."));
                };
                if let Err(error) = link.logout(wait).await {
                    tracing::warn!(instance = %self.id, error = &error as &dyn std::error::Error, "logout was not confirmed");
                    return Err(FaultCode::LogoutUnconfirmed.into());
                }
                self.input(Input::LoggedOutByRequest).await;
                Ok(())
            }
            Command::Delete { logout_wait } => {
                if let Some(link) = self.link.take() {
                    if self.connected {
                        let _ = link.logout(logout_wait).await;
                    }
                    link.abandon().await;
                }
                self.link_events = None;
                self.connected = false;
                self.publish_view();
                self.lane.stop();
                self.gateway.store().delete_instance(self.pk).await.map_err(fault)
            }
            Command::StorageFailed => {
                self.input(Input::StorageFailed).await;
                Ok(())
            }
            Command::Stop => {
                self.connected = false;
                self.publish_view();
                self.lane.stop();
                if let Some(link) = self.link.take() {
                    link.stop().await;
                }
                self.link_events = None;
                Ok(())
            }
        }
    }

    async fn link_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Ack { message_id, error, .. } => self.lane.acks().resolve(&message_id, error),
            LinkEvent::Receipt(receipt) => {
                self.lane.acks().receipt(&receipt.ids);
                let _ = self.recorder.send((self.epoch, Record::Receipt(receipt)));
            }
            LinkEvent::Event(event) => {
                let _ = self.recorder.send((self.epoch, Record::Event(event)));
            }
            LinkEvent::PairingQr { code, expires_in } => {
                let expires_at = Timestamp::now().after(expires_in);
                self.pairing_event("qr", Some(&code), Some(expires_at));
                self.qr = Some(QrCode { code, expires_at });
                self.input(Input::LinkPairing).await;
                self.publish_view();
            }
            LinkEvent::PairingCode { code, expires_in } => {
                let expires_at = Timestamp::now().after(expires_in);
                self.pairing_event("code", Some(&code), Some(expires_at));
                self.code = Some(PairCode { code, expires_at });
                self.input(Input::LinkPairing).await;
                self.publish_view();
            }
            LinkEvent::Scanned => self.pairing_event("scanned", None, None),
            LinkEvent::PairingExhausted => {
                self.pairing_event("timeout", None, None);
                self.pair_phone = None;
                self.input(Input::PairingEnded(Cause::PairingTimeout)).await;
            }
            LinkEvent::PairingFailed { reason } => {
                tracing::warn!(instance = %self.id, reason, "pairing failed");
                self.pairing_event("failed", None, None);
                self.pair_phone = None;
                self.input(Input::PairingEnded(Cause::PairingFailed)).await;
            }
            LinkEvent::Paired { jid, phone, lid, push_name } => {
                self.pairing_event("paired", None, None);
                (self.qr, self.code, self.pair_phone, self.pairing_until) = (None, None, None, None);
                self.identity(Some(jid), phone, lid, push_name).await;
                self.input(Input::LinkPaired).await;
            }
            LinkEvent::Connected { jid, phone, lid, push_name } => {
                self.identity(Some(jid), phone, lid, push_name).await;
                self.connected = true;
                self.generation += 1;
                self.input(Input::LinkConnected).await;
                self.publish_view();
            }
            LinkEvent::Disconnected { detail } => {
                tracing::info!(instance = %self.id, detail, "connection ended");
                self.input(Input::LinkLost).await;
            }
            LinkEvent::Closed(cause) => {
                tracing::warn!(instance = %self.id, %cause, "link closed");
                self.input(Input::LinkClosed(cause)).await;
            }
        }
    }

    fn pairing_event(&self, kind: &str, code: Option<&str>, expires_at: Option<Timestamp>) {
        let mut data = serde_json::json!({ "kind": kind });
        if let Some(code) = code {
            data["code"] = code.into();
        }
        if let Some(at) = expires_at {
            data["expires_at"] = at.rfc3339().into();
        }
        let event = NewEvent::new(EventKind::Pairing, "", Timestamp::now(), data);
        let _ = self.recorder.send((self.epoch, Record::Event(event)));
    }

    async fn identity(
        &self,
        jid: Option<String>,
        phone: Option<String>,
        lid: Option<String>,
        push_name: Option<String>,
    ) {
        if let Err(error) = self.gateway.store().set_identity(self.pk, self.epoch, phone, lid, jid, push_name).await {
            tracing::warn!(instance = %self.id, error = &error as &dyn std::error::Error, "identity was not stored");
        }
    }

    /// Steps the machine and carries out what it asks for; a failed start is the next input.
    async fn input(&mut self, input: Input) {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            let config = self.gateway.config();
            let backoff = Backoff { base: config.reconnect_base, ceiling: config.reconnect_ceiling };
            let actions = self.state.step(input, Timestamp::now(), backoff, rand::random());
            for action in actions {
                if let Some(failed) = self.act(action).await {
                    next = Some(failed);
                }
            }
        }
        self.publish_view();
    }

    async fn act(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::StartLink { pair } => return self.start_link(pair).await,
            Action::StopLink => {
                if let Some(link) = self.drop_link() {
                    link.stop().await;
                }
            }
            Action::AbandonLink => {
                if let Some(link) = self.drop_link() {
                    link.abandon().await;
                }
                self.renew_epoch().await;
            }
            Action::ForgetDevice => {
                if let Err(error) = self.gateway.store().forget_device(self.pk, self.epoch).await {
                    tracing::error!(instance = %self.id, error = &error as &dyn std::error::Error, "the device was not forgotten");
                }
                // with the new epoch, which the lane writes under
                self.publish_view();
                self.lane.fail_all();
            }
            Action::StoreWanted(wanted) => {
                if let Err(error) = self.gateway.store().set_wanted(self.pk, wanted).await {
                    tracing::warn!(instance = %self.id, error = &error as &dyn std::error::Error, "the wish to connect was not stored");
                }
            }
            Action::Publish => self.publish_status().await,
            Action::RetryAt(_) | Action::CancelRetry => {}
        }
        None
    }

    /// Fences every write of an earlier session, and lifts the refusal after a failed inbound write.
    async fn renew_epoch(&mut self) {
        match self.gateway.store().take_ownership(self.pk).await {
            Ok(epoch) => self.epoch = epoch,
            Err(error) => {
                tracing::error!(instance = %self.id, error = &error as &dyn std::error::Error, "no new epoch");
            }
        }
    }

    fn drop_link(&mut self) -> Option<Link> {
        self.link_events = None;
        self.connected = false;
        (self.qr, self.code, self.pairing_until) = (None, None, None);
        let link = self.link.take();
        self.publish_view();
        link
    }

    async fn start_link(&mut self, pair: bool) -> Option<Input> {
        let config = self.gateway.config();
        let mut link_config = config.link.clone();
        if let Ok(Some(instance)) = self.gateway.store().instance(&self.id).await {
            link_config.skip_history = !instance.sync_history;
        }
        let pair_by = pair.then(|| match self.pair_phone.clone() {
            Some(phone) => PairBy::Code { phone },
            None => PairBy::Qr,
        });
        self.pairing_until = pair.then(|| Timestamp::now().after(config.pairing_timeout));
        let inbound = Arc::new(Journal::new(&self.gateway, self.pk, self.epoch));
        match Link::start(&link_config, self.gateway.store().clone(), self.pk, self.epoch, pair_by, inbound).await {
            Ok((link, events)) => {
                self.link = Some(link);
                self.link_events = Some(events);
                None
            }
            Err(error) => {
                tracing::warn!(instance = %self.id, error = &error as &dyn std::error::Error, "the link did not start");
                self.renew_epoch().await;
                Some(Input::StartFailed(start_cause(&error)))
            }
        }
    }

    /// Stores the status and, when it changed, its event, in one transaction.
    async fn publish_status(&mut self) {
        let state = &self.state;
        let now = Timestamp::now();
        let event = (self.published != Some((state.status, state.cause))).then(|| {
            let mut data = serde_json::json!({ "status": state.status.as_str() });
            if let Some(cause) = state.cause {
                data["cause"] = cause.as_str().into();
            }
            data["since"] = state.since.rfc3339().into();
            if let Some(at) = state.next_retry_at {
                data["next_retry_at"] = at.rfc3339().into();
            }
            NewEvent::new(EventKind::Status, "", now, data)
        });
        self.published = Some((state.status, state.cause));
        let had_event = event.is_some();
        tracing::info!(instance = %self.id, status = %state.status, cause = state.cause.map(Cause::as_str), "instance status");
        match self.gateway.store().set_status(self.pk, self.epoch, state.status, state.cause, state.since, event).await
        {
            Ok(()) if had_event => self.gateway.inner.fanout.dirty(self.pk),
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(instance = %self.id, error = &error as &dyn std::error::Error, "status was not stored")
            }
        }
    }

    fn publish_view(&self) {
        let state = &self.state;
        self.view.send_replace(View {
            status: state.status,
            cause: state.cause,
            since: state.since,
            next_retry_at: state.next_retry_at,
            wanted: state.wanted,
            paired: state.paired,
            qr: self.qr.clone(),
            code: self.code.clone(),
            by_code: self.pair_phone.is_some(),
            link: self.link.clone().filter(|_| self.connected && state.status == InstanceStatus::Connected),
            epoch: self.epoch,
            generation: self.generation,
        });
    }
}

/// Why a link did not start: transient failures are tried again.
fn start_cause(error: &LinkError) -> Cause {
    match error {
        // building reads and probes the device store, and does nothing else that can fail
        LinkError::Store(_) | LinkError::Build(_) => Cause::StorageFailed,
        LinkError::NotPaired => Cause::NotPaired,
        error if error.class() == Class::Transient => Cause::Unreachable,
        _ => Cause::Refused,
    }
}

async fn next_event(events: &mut Option<mpsc::UnboundedReceiver<LinkEvent>>) -> Option<LinkEvent> {
    match events {
        Some(events) => events.recv().await,
        None => std::future::pending().await,
    }
}

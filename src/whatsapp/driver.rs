//! The life of a connection: run the client until it ends, say once how it ended.

use crate::events::{self, LinkEvent, Raw};
use crate::hook::Converter;
use crate::link::State;
use crate::transport::Dialer;
use kero_domain::Cause;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use whatsapp_rust::handshake::HandshakeError;
use whatsapp_rust::{Client, ConnectError};

/// What is known of the connection's end before it comes.
#[derive(Default)]
pub(crate) struct Fate {
    cause: Mutex<Option<Cause>>,
    detail: Mutex<Option<String>>,
    restart: AtomicBool,
    /// Wakes the driver when the link must end although the socket is alive.
    pub(crate) end: Notify,
}

impl Fate {
    /// The first cause is the real one; what follows are its echoes.
    pub(crate) fn seal(&self, cause: Cause) {
        self.cause.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(cause);
    }

    pub(crate) fn get(&self) -> Option<Cause> {
        *self.cause.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn explain(&self, detail: String) {
        *self.detail.lock().unwrap_or_else(PoisonError::into_inner) = Some(detail);
    }

    fn take_detail(&self) -> Option<String> {
        self.detail.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// After pairing WhatsApp ends the stream and expects the device back at once.
    pub(crate) fn expect_restart(&self) {
        self.restart.store(true, Ordering::Release);
    }
}

/// Ends when the connection has ended and its events are all told.
pub(crate) async fn run(
    client: Arc<Client>,
    dialer: Dialer,
    state: Arc<State>,
    converter: Converter,
    raw: mpsc::UnboundedReceiver<Raw>,
    out: mpsc::UnboundedSender<LinkEvent>,
    finished: watch::Sender<bool>,
) {
    let (stop_telling, told) = oneshot::channel();
    let telling = tokio::spawn(events::tell(Arc::clone(&client), converter, raw, out.clone(), told));
    // an abandoned driver must not leave the teller behind
    let guard = AbortOnDrop(telling.abort_handle());

    let mut end = live(&client, &dialer, &state).await;
    state.connected.store(false, Ordering::Release);
    // what was reported before the end is told before it
    let _ = stop_telling.send(());
    let _ = telling.await;
    drop(guard);
    let removed = matches!(end, Some(LinkEvent::Closed(Cause::DeviceRemoved)));
    if state.stopping.load(Ordering::Acquire) || (removed && state.leaving.load(Ordering::Acquire)) {
        end = None;
    }
    if let Some(end) = end {
        let _ = out.send(end);
    }
    let _ = finished.send(true);
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn live(client: &Arc<Client>, dialer: &Dialer, state: &State) -> Option<LinkEvent> {
    loop {
        let opened = one_run(client, state).await;
        let fate = &state.fate;
        if state.stopping.load(Ordering::Acquire) {
            return None;
        }
        if let Some(cause) = fate.get() {
            return Some(LinkEvent::Closed(cause));
        }
        if fate.restart.swap(false, Ordering::AcqRel) {
            tracing::debug!("paired; dialling again as WhatsApp expects");
            continue;
        }
        if opened {
            let detail = fate.take_detail().unwrap_or_else(|| "WhatsApp closed the stream".to_owned());
            return Some(LinkEvent::Disconnected { detail });
        }
        let dial = dialer.last();
        return Some(match dial.failed {
            Some(_) if dial.certificate => LinkEvent::Closed(Cause::CertificateRefused),
            Some(detail) => LinkEvent::Disconnected { detail },
            None => failed_handshake(client).await,
        });
    }
}

/// Runs the client once; says whether the handshake succeeded.
async fn one_run(client: &Arc<Client>, state: &State) -> bool {
    let run = client.run();
    tokio::pin!(run);
    let (mut opened, mut waiting, mut ending) = (false, true, false);
    // the waiter registers before the run begins, so that it cannot miss a short life
    let socket = client.wait_for_socket(Duration::from_secs(3600));
    tokio::pin!(socket);
    loop {
        tokio::select! {
            biased;
            waited = &mut socket, if waiting => {
                waiting = false;
                opened = waited.is_ok();
            }
            () = &mut run => return opened,
            () = state.fate.end.notified(), if !ending => {
                ending = true;
                tokio::spawn({ let client = Arc::clone(client); async move { client.disconnect().await } });
            }
        }
    }
}

/// The run loop keeps a handshake's error to itself. The handshake is made once more, alone, to learn it.
async fn failed_handshake(client: &Arc<Client>) -> LinkEvent {
    match client.connect().await {
        Ok(()) => {
            // the first attempt used a cached server key that is no longer valid; there is no reader on this socket
            client.disconnect().await;
            LinkEvent::Disconnected { detail: "the handshake had to be made anew".to_owned() }
        }
        Err(error) => handshake_end(&error),
    }
}

fn handshake_end(error: &ConnectError) -> LinkEvent {
    match error {
        ConnectError::Handshake(HandshakeError::Core(wacore::handshake::HandshakeError::CertVerification(reason))) => {
            tracing::error!(%reason, "the server's certificate chain did not verify");
            LinkEvent::Closed(Cause::CertificateRefused)
        }
        error => LinkEvent::Disconnected { detail: format!("the handshake failed: {error}") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_certificate_ends_a_handshake_for_good() {
        let certificate = wacore::handshake::HandshakeError::CertVerification("signature".into());
        let end = handshake_end(&ConnectError::Handshake(HandshakeError::Core(certificate)));
        assert!(matches!(end, LinkEvent::Closed(Cause::CertificateRefused)), "{end:?}");
        let end = handshake_end(&ConnectError::Handshake(HandshakeError::Timeout));
        assert!(matches!(end, LinkEvent::Disconnected { .. }), "{end:?}");
    }

    #[test]
    fn the_first_cause_is_kept() {
        let fate = Fate::default();
        fate.seal(Cause::Replaced);
        fate.seal(Cause::DeviceRemoved);
        assert_eq!(fate.get(), Some(Cause::Replaced));
    }
}

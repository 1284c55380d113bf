//! Runs on the client's own tasks, before anything else happens to an event: notes at once what the driver and the
//! handle must know, hands the rest on.

use crate::driver::Fate;
use crate::link::State;
use crate::pairing::PairBy;
use kero_domain::Cause;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;
use wacore::types::events::{ConnectFailureReason, Event, EventHandler, EventInterest, EventKind, LoggedOut};

pub(crate) enum Raw {
    Qr {
        code: String,
        expires_in: Duration,
    },
    /// Pairing failed, in words.
    Failed(String),
    Event(Arc<Event>),
}

pub(crate) struct Sink {
    state: Arc<State>,
    out: mpsc::UnboundedSender<Raw>,
    by_code: bool,
    skip_history: bool,
}

impl Sink {
    pub(crate) fn new(
        state: Arc<State>,
        pair: Option<PairBy>,
        skip_history: bool,
    ) -> (Self, mpsc::UnboundedReceiver<Raw>) {
        let (out, raw) = mpsc::unbounded_channel();
        (Self { state, out, by_code: matches!(pair, Some(PairBy::Code { .. })), skip_history }, raw)
    }

    fn send(&self, raw: Raw) {
        let _ = self.out.send(raw);
    }

    fn pairing_failed(&self, reason: String) {
        self.send(Raw::Failed(reason));
        self.state.fate.seal(Cause::PairingFailed);
        self.state.fate.end.notify_one();
    }

    /// Returns whether the event is to be told.
    fn note(&self, event: &Event) -> bool {
        let fate: &Fate = &self.state.fate;
        match event {
            Event::Connected(_) => self.state.connected.store(true, Ordering::Release),
            Event::PairSuccess(_) => fate.expect_restart(),
            Event::PairingQrCode(qr) => {
                if !self.by_code {
                    self.send(Raw::Qr { code: qr.code.clone(), expires_in: qr.timeout });
                }
                return false;
            }
            Event::PairingQrCodesExhausted(exhausted) => {
                // a pair code outlives the QR codes of its connection
                if !exhausted.disconnected {
                    return false;
                }
                fate.seal(Cause::PairingTimeout);
            }
            Event::PairError(error) => {
                self.pairing_failed(error.error.clone());
                return false;
            }
            Event::PairingCodeError(error) => {
                self.pairing_failed(error.error.clone());
                return false;
            }
            Event::QrScannedWithoutMultidevice(_) => {
                self.pairing_failed("the phone does not take linked devices".to_owned());
                return false;
            }
            Event::PairPasskeyRequest(_) | Event::PairPasskeyError(_) => {
                self.pairing_failed(
                    "WhatsApp asks for a passkey, which only a browser can give; use the other way of pairing"
                        .to_owned(),
                );
                return false;
            }
            Event::LoggedOut(out) => {
                self.lost();
                fate.seal(logged_out(out));
                return false;
            }
            Event::StreamReplaced(_) => {
                self.lost();
                fate.seal(Cause::Replaced);
                return false;
            }
            Event::TemporaryBan(_) => {
                fate.seal(Cause::TemporaryBan);
                return false;
            }
            Event::ClientOutdated(_) => {
                fate.seal(Cause::ClientOutdated);
                return false;
            }
            Event::ConnectFailure(failure) => {
                fate.explain(format!("WhatsApp refused the connection ({})", failure.reason.code()));
                match failure.reason {
                    ConnectFailureReason::TempBanned => fate.seal(Cause::TemporaryBan),
                    reason if !reason.should_reconnect() => fate.seal(Cause::Refused),
                    _ => {}
                }
                return false;
            }
            Event::StreamError(error) => {
                fate.explain(format!("WhatsApp ended the stream ({})", error.code));
                return false;
            }
            Event::Disconnected(disconnected) => {
                self.lost();
                fate.explain(disconnected.reason.to_string());
                return false;
            }
            _ => {}
        }
        true
    }

    fn lost(&self) {
        self.state.connected.store(false, Ordering::Release);
    }
}

fn logged_out(event: &LoggedOut) -> Cause {
    match event.reason {
        ConnectFailureReason::AccountLocked => Cause::AccountLocked,
        _ => Cause::DeviceRemoved,
    }
}

impl EventHandler for Sink {
    fn handle_event(&self, event: Arc<Event>) {
        if self.note(&event) {
            self.send(Raw::Event(event));
        }
    }

    /// The client does not even build the events that nobody wants.
    fn interest(&self) -> EventInterest {
        let wanted = EventInterest::of(WANTED);
        if self.skip_history { wanted } else { wanted.with(EventKind::HistorySync) }
    }
}

const WANTED: &[EventKind] = &[
    EventKind::Connected,
    EventKind::Disconnected,
    EventKind::LoggedOut,
    EventKind::StreamReplaced,
    EventKind::TemporaryBan,
    EventKind::ClientOutdated,
    EventKind::ConnectFailure,
    EventKind::StreamError,
    EventKind::PairSuccess,
    EventKind::PairError,
    EventKind::PairingQrCode,
    EventKind::PairingCode,
    EventKind::PairingCodeError,
    EventKind::PairingQrCodesExhausted,
    EventKind::QrScannedWithoutMultidevice,
    EventKind::PairPasskeyRequest,
    EventKind::PairPasskeyError,
    EventKind::Messages,
    EventKind::ServerAck,
    EventKind::Receipt,
    EventKind::UndecryptableMessage,
    EventKind::ChatPresence,
    EventKind::Presence,
    EventKind::PictureUpdate,
    EventKind::UserAboutUpdate,
    EventKind::ContactUpdate,
    EventKind::ContactNumberChanged,
    EventKind::PushNameUpdate,
    EventKind::SelfPushNameUpdated,
    EventKind::IdentityChange,
    EventKind::BusinessStatusUpdate,
    EventKind::GroupUpdate,
    EventKind::IncomingCall,
    EventKind::MissedCall,
    EventKind::CallEndedElsewhere,
    EventKind::PinUpdate,
    EventKind::MuteUpdate,
    EventKind::ArchiveUpdate,
    EventKind::StarUpdate,
    EventKind::MarkChatAsReadUpdate,
    EventKind::DeleteChatUpdate,
    EventKind::ClearChatUpdate,
    EventKind::DeleteMessageForMeUpdate,
    EventKind::DisappearingModeChanged,
    EventKind::LabelEditUpdate,
    EventKind::LabelAssociationUpdate,
    EventKind::NewsletterLiveUpdate,
    EventKind::OfflineSyncPreview,
    EventKind::OfflineSyncCompleted,
];

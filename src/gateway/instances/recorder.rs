//! Commits what arrives outside the durability hook (receipts, presence, …) in the order of arrival, without making
//! the link's events wait for the database.

use crate::{Gateway, events};
use futures_util::StreamExt;
use kero_domain::{JobState, NewEvent};
use kero_whatsapp::ReceiptIn;
use tokio::sync::mpsc;

/// Commits under way at once; they are submitted, and so committed, in order.
const WINDOW: usize = 64;

pub(super) enum Record {
    Receipt(ReceiptIn),
    Event(NewEvent),
}

pub(super) type Recorder = mpsc::UnboundedSender<(i64, Record)>;

/// One task an instance; ends when the actor does. The number beside a record is the epoch.
pub(super) fn spawn(gateway: &Gateway, pk: i64) -> Recorder {
    let (sender, mut inbox) = mpsc::unbounded_channel();
    let gateway = gateway.clone();
    let tracker = gateway.inner.tasks.clone();
    tracker.spawn(async move {
        let records = futures_util::stream::poll_fn(move |context| inbox.poll_recv(context));
        records
            .map(|(epoch, record)| write(&gateway, pk, epoch, record))
            .buffered(WINDOW)
            .for_each(|()| async {})
            .await;
    });
    sender
}

async fn write(gateway: &Gateway, pk: i64, epoch: i64, record: Record) {
    let store = gateway.store();
    let (written, due) = match record {
        Record::Receipt(receipt) => {
            let entry = events::entry(gateway, pk, kero_whatsapp::receipt_event(&receipt));
            let (state, due) = (JobState::from_receipt(&receipt.kind), events::due([&entry]));
            (store.record_receipt(pk, epoch, &receipt.ids, &receipt.chat, state, entry).await, due)
        }
        Record::Event(mut event) => {
            if !gateway.config().keep_raw {
                event.raw = None;
            }
            let entry = events::entry(gateway, pk, event);
            let due = events::due([&entry]);
            (store.append_events(pk, epoch, vec![entry]).await, due)
        }
    };
    match written {
        Ok(appended) => events::appended(gateway, pk, appended, due),
        // best effort by design: WhatsApp was answered by the library already
        Err(error) => {
            tracing::warn!(instance = pk, error = &error as &dyn std::error::Error, "an event was not stored")
        }
    }
}

//! How far a download of history or of missed messages is.

use crate::inbound::Data;
use kero_domain::{EventKind, NewEvent, Timestamp};
use wacore::types::events::Event;

pub(super) fn read(event: &Event) -> Option<NewEvent> {
    let mut data = Data::default();
    match event {
        Event::HistorySync(history) => {
            data.put("percentage", history.progress().unwrap_or_default());
            data.put("sync_type", history_type(history.sync_type()));
            data.put_some("chunk", history.chunk_order());
        }
        Event::OfflineSyncPreview(preview) => {
            data.put("percentage", 0);
            data.put("sync_type", "offline");
            data.put("messages", preview.messages);
            data.put("notifications", preview.notifications);
            data.put("receipts", preview.receipts);
        }
        Event::OfflineSyncCompleted(completed) => {
            data.put("percentage", 100);
            data.put("sync_type", "offline");
            data.put("count", completed.count);
        }
        _ => return None,
    }
    Some(NewEvent::new(EventKind::SyncProgress, "", Timestamp::now(), data.into_value()))
}

/// Kero-Kero's words.
fn history_type(number: i32) -> &'static str {
    match number {
        0 => "initial_bootstrap",
        1 => "initial_status_v3",
        2 => "full",
        3 => "recent",
        4 => "push_name",
        5 => "non_blocking_data",
        6 => "on_demand",
        _ => "other",
    }
}

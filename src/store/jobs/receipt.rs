//! Receipts: one statement moves the jobs of all receipts of a group.

use crate::append::{Appended, Entry, EventRow};
use crate::sql::{few_shapes, tuples, values};
use crate::writer::{Answer, Fence, Op, Tx};
use crate::{Store, StoreError};
use kero_domain::{Address, JobState, Timestamp};
use std::collections::HashSet;

/// The command.
pub(crate) struct Receipt {
    instance_pk: i64,
    /// The WhatsApp ids that it names, when it moves jobs at all.
    ids: Vec<String>,
    state: JobState,
    /// The jobs' chat; `None`: any contact's.
    chat: Option<String>,
    pub event: EventRow,
    pub answer: Answer<Appended>,
}

impl Store {
    /// Moves the jobs whose WhatsApp ids a receipt names forward to `state` (delivered, read, played; never back) and
    /// appends the event, in one transaction. Fenced.
    ///
    /// Only jobs that were sent are moved. One whose intent is stored and whose result is not remembers the receipt: its
    /// result starts from there.
    ///
    /// A receipt from a contact may come under another address than the job has (a LID for a number), so only the
    /// kind of chat is compared there; groups and broadcasts have one address, which must be the same.
    pub async fn record_receipt(
        &self,
        instance_pk: i64,
        epoch: i64,
        ids: &[String],
        from_chat: &str,
        state: Option<JobState>,
        event: impl Into<Entry>,
    ) -> Result<Appended, StoreError> {
        let event = EventRow::new(self.sealer(), instance_pk, event)?;
        let moves = state.filter(|state| matches!(state, JobState::Delivered | JobState::Read | JobState::Played));
        let chat = match Address::parse(from_chat) {
            Ok(Address::Phone(_) | Address::Lid(_)) => None,
            _ => Some(from_chat.to_owned()),
        };
        let fence = Some(Fence { pk: instance_pk, epoch });
        let ids = if moves.is_some() { ids.to_vec() } else { Vec::new() };
        let state = moves.unwrap_or(JobState::Delivered);
        self.submit(instance_pk, fence, self.configured(), |answer| {
            Op::Receipt(Box::new(Receipt { instance_pk, ids, state, chat, event, answer }))
        })
        .await
    }
}

/// Moves the jobs of a group's receipts. Their events are appended with the group's others.
pub(crate) async fn receipts(tx: &Tx, receipts: Vec<&mut Receipt>) -> Result<(), StoreError> {
    // a message that several receipts name takes turns
    let mut waiting: Vec<(&Receipt, &String)> =
        receipts.iter().flat_map(|receipt| receipt.ids.iter().map(move |id| (&**receipt, id))).collect();
    while !waiting.is_empty() {
        let mut seen = HashSet::new();
        let (turn, later) = waiting.into_iter().partition(|(receipt, id)| seen.insert((receipt.instance_pk, *id)));
        move_jobs(tx, turn).await?;
        waiting = later;
    }
    Ok(())
}

async fn move_jobs(tx: &Tx, named: Vec<(&Receipt, &String)>) -> Result<(), StoreError> {
    const WIDTH: usize = 4;
    for named in named.chunks(crate::sql::MAX_BINDS / WIDTH - 1) {
        let mut values = values![Timestamp::now().0];
        for (receipt, id) in named {
            values.extend(values![receipt.instance_pk, id.as_str(), receipt.state.as_str(), receipt.chat.clone()]);
        }
        let rows = few_shapes(&mut values, named.len(), WIDTH);
        tx.db.run(update(rows), values).await?;
    }
    Ok(())
}

/// `$1` now, then of each message: instance, WhatsApp id, new state, chat.
pub(crate) fn update(rows: usize) -> String {
    format!(
        "UPDATE jobs SET state = CASE WHEN jobs.ended_at IS NULL THEN jobs.state ELSE v.column3 END,
           receipt = CASE WHEN jobs.ended_at IS NULL THEN v.column3 ELSE jobs.receipt END, updated_at = $1
         FROM (VALUES {}) AS v
         WHERE jobs.instance_pk = v.column1 AND jobs.message_id = v.column2
           AND (jobs.state = 'sent' OR (jobs.state = 'delivered' AND v.column3 <> 'delivered')
             OR (jobs.state = 'read' AND v.column3 = 'played')
             OR (jobs.ended_at IS NULL AND jobs.proto IS NOT NULL AND (jobs.receipt IS NULL
               OR (jobs.receipt = 'delivered' AND v.column3 <> 'delivered')
               OR (jobs.receipt = 'read' AND v.column3 = 'played'))))
           AND (jobs.chat = v.column4 OR (v.column4 IS NULL
             AND (jobs.chat LIKE '%@s.whatsapp.net' OR jobs.chat LIKE '%@lid')))",
        tuples(1, rows, 4)
    )
}

//! Reading the journal: in order, without holes that nobody told of, at a bounded cost whatever is asked for.

use crate::append::raw_place;
use crate::entity::events::{Column, Entity};
use crate::sql::{placeholders, values};
use crate::{Event, Store, StoreError};
use kero_domain::EventKind;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, Value};
use std::collections::HashMap;
use uuid::Uuid;

/// Numbers that one read looks at, however few of them are wanted.
const WINDOW: i64 = 1000;

/// A part of an instance's journal.
#[derive(Debug, Clone)]
pub struct Reading {
    /// In order.
    pub events: Vec<Event>,
    /// The last number that was looked at: the place to read on from.
    pub through: i64,
    /// The instance's newest number; 0 when it never had an event.
    pub newest: i64,
    /// The number after `through` is no longer kept; the first that is, or one more than `newest`.
    pub gone: Option<i64>,
}

impl Store {
    /// Fanned-out events with a number above `after` (`None`: from the first one that is kept), at most `limit` of
    /// them, only of `kinds` when given. Numbers are dense, so a missing one was pruned: the part ends before it, and a
    /// part that could only begin behind it is empty and `gone`. [`StoreError::NotFound`] when the instance is gone.
    pub async fn read_journal(
        &self,
        instance_pk: i64,
        after: Option<i64>,
        kinds: Option<&[EventKind]>,
        limit: u64,
    ) -> Result<Reading, StoreError> {
        // first, so that a number below it that the next look does not find cannot be one that is yet to come
        let sql = "SELECT next_seq FROM instances WHERE pk = $1";
        let row = self.reader().one(sql, values![instance_pk]).await?.ok_or(StoreError::NotFound)?;
        let newest = row.try_get::<i64>("", "next_seq")? - 1;
        let from = after.unwrap_or(0);
        let sql = "SELECT pk, seq, kind FROM events WHERE instance_pk = $1 AND seq > $2 ORDER BY seq LIMIT $3";
        let look = if kinds.is_some() { WINDOW } else { WINDOW.min(i64::try_from(limit).unwrap_or(WINDOW)) };
        let found = self.reader().all(sql, values![instance_pk, from, look]).await?;
        let mut reading = Reading { events: Vec::new(), through: from, newest, gone: None };
        let (mut wanted, mut expected) = (Vec::new(), after.map(|after| after.saturating_add(1)));
        for row in &found {
            let (pk, seq): (i64, i64) = (row.try_get("", "pk")?, row.try_get("", "seq")?);
            if expected.is_some_and(|expected| expected != seq) {
                break;
            }
            let kind: String = row.try_get("", "kind")?;
            if kinds.is_none_or(|kinds| kinds.iter().any(|wanted| wanted.as_str() == kind)) {
                if wanted.len() as u64 >= limit {
                    break;
                }
                wanted.push(pk);
            }
            reading.through = seq;
            expected = Some(seq + 1);
        }
        let first = found.first().map(|row| row.try_get::<i64>("", "seq")).transpose()?;
        match (after, first) {
            (Some(after), Some(first)) if first > after.saturating_add(1) => reading.gone = Some(first),
            (Some(after), None) if after < newest => reading.gone = Some(newest + 1),
            // everything was pruned, and the reader begins with what comes next
            (None, None) => reading.through = newest,
            _ => {}
        }
        if !wanted.is_empty() {
            let rows = Entity::find().filter(Column::Pk.is_in(wanted)).order_by_asc(Column::Seq);
            reading.events = self.read_events(rows.all(self.reader()).await?).await?;
        }
        Ok(reading)
    }

    /// The messages behind these events as WhatsApp sent them (protobuf), by row. Events that are none, that a hook
    /// changed, or that were stored without, are missing.
    pub async fn raw_messages(&self, instance_pk: i64, rows: &[i64]) -> Result<HashMap<i64, Vec<u8>>, StoreError> {
        let mut messages = HashMap::new();
        for part in rows.chunks(crate::sql::MAX_BINDS - 1) {
            let sql = format!(
                "SELECT pk, id, raw FROM events WHERE instance_pk = $1 AND raw IS NOT NULL AND pk IN ({})",
                placeholders(1, part.len())
            );
            let mut values = values![instance_pk];
            values.extend(part.iter().map(|row| Value::from(*row)));
            for row in self.reader().all(sql, values).await? {
                let (pk, id, sealed): (i64, Uuid, Vec<u8>) =
                    (row.try_get("", "pk")?, row.try_get("", "id")?, row.try_get("", "raw")?);
                messages.insert(pk, self.sealer().open("event's message", &raw_place(instance_pk, id), &sealed)?);
            }
        }
        Ok(messages)
    }
}

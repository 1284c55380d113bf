//! The list of a plugin's calls.

use super::{COLUMNS, SETS_OF, Stored, calls_place, open, pairs};
use crate::sql::{placeholders, tuples, values};
use crate::{Store, StoreError};
use kero_domain::{DeliveryId, EventId, InstanceId, Timestamp};
use sea_orm::{QueryResult, Value};
use serde_json::Value as Json;
use std::collections::HashMap;
use std::time::Duration;
use uuid::Uuid;

/// A call that was kept.
#[derive(Debug, Clone)]
pub struct HookCall {
    /// Begins with the time.
    pub id: Uuid,
    pub plugin: String,
    pub version: String,
    pub instance_id: InstanceId,
    pub event: EventId,
    pub delivery: Option<DeliveryId>,
    pub outcome: String,
    /// When its chain had been run.
    pub at: Timestamp,
    pub ticks: u32,
    pub wall: Duration,
    pub memory_peak: u64,
    pub detail: Option<Json>,
}

/// A row, read.
struct Chain {
    row: i64,
    instance_id: InstanceId,
    event: EventId,
    delivery: Option<DeliveryId>,
    at: Timestamp,
    calls: Vec<Stored>,
}

/// Sets of which each is looked at for the newest rows. When more have what is wanted, most rows do: then the rows are.
const SETS: usize = 64;

/// Calls have no number of their own: time, place in the chain and the chain's row make an id, in the form of a UUID of
/// version 7.
fn call_id(at: Timestamp, row: i64, place: usize) -> Uuid {
    let millis = u128::try_from(at.0).unwrap_or(0) & 0xffff_ffff_ffff;
    let (place, row) = (place as u128 & 0xfff, u128::try_from(row).unwrap_or(0) & ((1 << 62) - 1));
    Uuid::from_u128(millis << 80 | 7 << 76 | place << 64 | 2 << 62 | row)
}

/// The chain's row and the place in it.
fn row_and_place(id: Uuid) -> (i64, usize) {
    let bits = id.as_u128();
    ((bits & ((1 << 62) - 1)) as i64, (bits >> 64 & 0xfff) as usize)
}

impl Store {
    /// A plugin's calls, newest first, before the one with this id; only those that ended with one of `outcomes`,
    /// when there are any.
    pub async fn hook_calls(
        &self,
        plugin: &str,
        outcomes: &[String],
        event: Option<EventId>,
        before: Option<Uuid>,
        limit: u64,
    ) -> Result<Vec<HookCall>, StoreError> {
        let wanted = |(of, outcome): (&str, &str)| {
            of == plugin && (outcomes.is_empty() || outcomes.iter().any(|word| word == outcome))
        };
        let mut sets = HashMap::new();
        for row in self.reader().all(SETS_OF, values![format!("% {plugin}=%")]).await? {
            let set: String = row.try_get("", "calls")?;
            if pairs(&set).any(wanted) {
                sets.insert(row.try_get::<i64>("", "pk")?, set);
            }
        }
        if sets.is_empty() {
            return Ok(Vec::new());
        }
        let (last, end) = before.map_or((i64::MAX, 0), row_and_place);
        let mut values = values![last];
        values.extend(event.map(|event| Value::from(event.0)));
        values.extend(sets.keys().map(|pk| Value::from(*pk)));
        // each row has a call that is wanted, but for the one that the part before ended in
        let sql = if event.is_some() || sets.len() > SETS {
            by_row_sql(event.is_some(), sets.len(), limit.saturating_add(1))
        } else {
            by_set_sql(self.reader().is_postgres(), sets.len(), limit.saturating_add(1))
        };
        let mut found = Vec::new();
        for row in self.reader().all(sql, values).await? {
            let Some(set) = sets.get(&row.try_get("", "set_pk")?) else { continue };
            let Some(chain) = self.read_chain(&row).await? else { continue };
            let calls = pairs(set).zip(chain.calls).enumerate();
            let mine = calls.filter(|(place, (pair, _))| wanted(*pair) && (chain.row < last || *place < end));
            let mine: Vec<HookCall> = mine
                .map(|(place, ((plugin, outcome), call))| HookCall {
                    id: call_id(chain.at, chain.row, place),
                    plugin: plugin.to_owned(),
                    version: call.version,
                    instance_id: chain.instance_id.clone(),
                    event: chain.event,
                    delivery: chain.delivery,
                    outcome: outcome.to_owned(),
                    at: chain.at,
                    ticks: call.ticks,
                    wall: Duration::from_micros(call.wall_us),
                    memory_peak: call.memory_peak,
                    detail: call.detail,
                })
                .collect();
            found.extend(mine.into_iter().rev());
        }
        found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(found)
    }

    async fn read_chain(&self, row: &QueryResult) -> Result<Option<Chain>, StoreError> {
        let instance_pk: i64 = row.try_get("", "instance_pk")?;
        let Some(instance_id) = self.id_of(instance_pk).await? else { return Ok(None) };
        let at = Timestamp(row.try_get("", "ran_at")?);
        let place = calls_place(instance_pk, row.try_get("", "event_pk")?, at);
        Ok(Some(Chain {
            row: row.try_get("", "pk")?,
            instance_id,
            event: EventId(row.try_get("", "event_id")?),
            delivery: row.try_get::<Option<Uuid>>("", "delivery_id")?.map(DeliveryId),
            at,
            calls: open(self.sealer(), &place, &row.try_get::<Vec<u8>>("", "calls")?)?,
        }))
    }
}

/// The newest rows up to `$1` of each set, and of those the newest. The two databases have no common words for "the first
/// few of each".
pub(crate) fn by_set_sql(postgres: bool, sets: usize, limit: u64) -> String {
    let of = tuples(1, sets, 1);
    if postgres {
        format!(
            "SELECT {COLUMNS} FROM (VALUES {of}) AS v CROSS JOIN LATERAL (SELECT * FROM hook_chains
               WHERE set_pk = v.column1 AND pk <= $1 ORDER BY pk DESC LIMIT {limit}) AS c
             JOIN events e ON e.pk = c.event_pk ORDER BY c.pk DESC LIMIT {limit}"
        )
    } else {
        format!(
            "SELECT {COLUMNS} FROM (VALUES {of}) AS v CROSS JOIN hook_chains c CROSS JOIN events e
             WHERE e.pk = c.event_pk AND c.pk IN (SELECT x.pk FROM hook_chains x
               WHERE x.set_pk = v.column1 AND x.pk <= $1 ORDER BY x.pk DESC LIMIT {limit})
             ORDER BY c.pk DESC LIMIT {limit}"
        )
    }
}

/// The newest rows up to `$1` with one of the sets; of the event `$2`, if there is one. The sign keeps the index of sets
/// out of it.
pub(crate) fn by_row_sql(event: bool, sets: usize, limit: u64) -> String {
    let (taken, of_event) = if event { (2, " AND e.id = $2") } else { (1, "") };
    format!(
        "SELECT {COLUMNS} FROM hook_chains c JOIN events e ON e.pk = c.event_pk
         WHERE c.pk <= $1{of_event} AND +c.set_pk IN ({}) ORDER BY c.pk DESC LIMIT {limit}",
        placeholders(taken, sets)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_the_row_and_the_place() {
        let id = call_id(Timestamp(1_767_268_800_123), 987_654_321, 15);
        assert_eq!(row_and_place(id), (987_654_321, 15));
        assert_eq!(id.get_version_num(), 7);
        assert_eq!(id.get_timestamp().unwrap().to_unix(), (1_767_268_800, 123_000_000));
        assert!(call_id(Timestamp(2), 1, 0) > call_id(Timestamp(1), 9, 9), "later ones are larger");
    }
}

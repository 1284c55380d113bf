//! Hooks of deliveries: the request is shaped before the first attempt and stored, so that all attempts send the same;
//! each answer is judged.

use super::registry::Chain;
use super::{chains, fanout, record, setting};
use crate::delivery::classify::Verdict;
use crate::delivery::exchange::Answer;
use crate::delivery::prepare::Prepared;
use crate::{Gateway, crash};
use kero_domain::{DeliveryId, EndpointId, Timestamp};
use kero_hooks::chain::{End, Tries};
use kero_hooks::policy::ERROR_HEADER;
use kero_hooks::run::{Chained, Record};
use kero_hooks::verdict::RESPONSE_BODY;
use kero_hooks::{Effects, Judgement, Request, Response};
use kero_store::{Delivery, Event, Hooked, Shaped, StoreError};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use url::Url;

/// How long a delivery waits for a plugin that is suspended or cannot be run, before it is looked at again.
const HELD: Duration = Duration::from_secs(30);

/// What is known of deliveries whose hooks have to be called later. Lost without harm.
#[derive(Default)]
pub(super) struct Waiting {
    /// Failed tries of hooks that ask for another.
    tries: Mutex<HashMap<DeliveryId, Tries>>,
    /// Deliveries that wait for a plugin, with their instance and endpoint.
    held: Mutex<HashMap<DeliveryId, (i64, EndpointId)>>,
}

/// Held deliveries that are let go at once when plugins change; those beyond are found when their time comes.
const LET_GO: usize = 10_000;

impl Waiting {
    fn take(&self, delivery: DeliveryId) -> Tries {
        self.held().remove(&delivery);
        self.tries().remove(&delivery).unwrap_or_default()
    }

    fn put(&self, delivery: DeliveryId, tries: Tries) {
        self.tries().insert(delivery, tries);
    }

    fn tries(&self) -> MutexGuard<'_, HashMap<DeliveryId, Tries>> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<DeliveryId, (i64, EndpointId)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A delivery was put off for a hook.
pub(crate) fn held(gateway: &Gateway, delivery: &Delivery) {
    let mut held = gateway.inner.hooks.waiting.held();
    if held.len() < LET_GO {
        held.insert(delivery.id, (delivery.event.instance_pk, delivery.endpoint.id));
    }
}

/// Plugins changed: what was held for one is looked at again now.
pub(super) fn let_go(gateway: &Gateway) {
    let held = std::mem::take(&mut *gateway.inner.hooks.waiting.held());
    if held.is_empty() {
        return;
    }
    let (gateway, task) = (gateway.clone(), gateway.inner.tasks.clone());
    task.spawn(async move {
        let now = Timestamp::now();
        let mut endpoints = BTreeSet::new();
        for (delivery, (instance_pk, endpoint)) in held {
            // one that could not be put forward comes when its time does
            if gateway.store().hold_delivery(instance_pk, delivery, now).await.is_ok() {
                endpoints.insert(endpoint);
            }
        }
        gateway.inner.delivery.due(endpoints.into_iter().collect());
    });
}

/// What shaping came to.
pub(crate) enum Shaping {
    /// Send this, now and in every attempt to come.
    Send(Prepared),
    /// No attempt now, and none is counted.
    Wait { until: Timestamp },
    /// A hook failed and wants nothing sent.
    Dead { why: String },
}

/// Shapes the request of a delivery that has none yet; `None` when no hook is concerned.
pub(crate) async fn shape(gateway: &Gateway, delivery: &Delivery, plain: &Prepared) -> Option<Shaping> {
    if !gateway.inner.hooks.any() {
        return None;
    }
    let table = gateway.inner.hooks.table();
    let event = &delivery.event;
    let endpoint = delivery.endpoint.id.to_string();
    if delivery.request.is_some() || !table.shapes(event.kind, &event.instance_id, &endpoint) {
        return None;
    }
    if gateway.inner.instances.get(&event.instance_id).is_none() {
        // it is going: its deliveries go with it
        return Some(Shaping::Wait { until: Timestamp::now().after(HELD) });
    }
    let read = match event.read() {
        Ok(read) => read,
        Err(error) => return Some(Shaping::Dead { why: error.to_string() }),
    };
    let seen = match shown(gateway, &read).await {
        Ok(seen) => seen,
        Err(error) => return Some(waits_for_database(delivery, &error)),
    };
    let (hooks, passed_by) = match table.for_delivery(&seen, &endpoint) {
        Chain::Run { hooks, passed_by } => (hooks, passed_by),
        Chain::Held { by, reason } => {
            tracing::debug!(plugin = by, reason, delivery = %delivery.id, "a delivery is held");
            return Some(Shaping::Wait { until: Timestamp::now().after(HELD) });
        }
    };
    let url = Url::parse(&delivery.endpoint.url).ok()?;
    let shown = request(plain, path(&url));
    let host = match gateway.inner.hooks.host().await {
        Ok(host) => host,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "hooks cannot be run");
            return Some(Shaping::Wait { until: Timestamp::now().after(HELD) });
        }
    };
    let tries = gateway.inner.hooks.waiting.take(delivery.id);
    let id = delivery.id.to_string();
    let asked = kero_hooks::Delivery { event: &seen, data: &seen.data, endpoint: &endpoint, id: &id, attempt: None };
    let Chained { end, effects, records } =
        host.run_shapes(hooks, asked, shown.clone(), tries, &setting(gateway)).await;
    crash::point("hook:after_shape");
    match end {
        End::Go(shaped) => {
            let mut failures = passed_by;
            failures.extend(shaped.failures);
            let prepared = shaped_request(plain, &url, &shown, shaped.request, &failures);
            Some(keep(gateway, delivery, prepared, &effects, records).await)
        }
        End::Dropped { by, .. } => Some(ended(gateway, delivery, "dropped", by, records).await),
        End::Dead { by, .. } => Some(ended(gateway, delivery, "failed", by, records).await),
        End::Later { after, tries, .. } => {
            gateway.inner.hooks.waiting.put(delivery.id, tries);
            note(gateway, delivery, records).await;
            Some(Shaping::Wait { until: Timestamp::now().after(after) })
        }
        End::Held { until, .. } => {
            note(gateway, delivery, records).await;
            let soonest = Timestamp::now().after(Duration::from_millis(200));
            Some(Shaping::Wait { until: Timestamp(until).max(soonest) })
        }
    }
}

/// Asks the hooks what an answer means: the judgement that holds, and what goes into the record of the attempt.
pub(crate) async fn judge(
    gateway: &Gateway,
    delivery: &Delivery,
    prepared: &Prepared,
    answer: &Answer,
    usual: Verdict,
) -> Option<(Verdict, Hooked)> {
    if !gateway.inner.hooks.any() {
        return None;
    }
    let table = gateway.inner.hooks.table();
    let event = &delivery.event;
    let endpoint = delivery.endpoint.id.to_string();
    if !table.shapes(event.kind, &event.instance_id, &endpoint) {
        return None;
    }
    // an attempt was made and must end: a hook that cannot be asked has no say
    let seen = shown(gateway, &event.read().ok()?).await.ok()?;
    let Chain::Run { hooks, .. } = table.for_delivery(&seen, &endpoint) else { return None };
    if hooks.is_empty() {
        return None;
    }
    let host = gateway.inner.hooks.host().await.ok()?;
    let url = Url::parse(prepared.url.as_deref().unwrap_or(&delivery.endpoint.url)).ok()?;
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = answer.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
    let body = answer.head[..answer.head.len().min(RESPONSE_BODY)].to_vec();
    let response = Response { status: answer.status, headers, body };
    let judged = match usual {
        Verdict::Success => Judgement::Success,
        Verdict::Retry { after } => Judgement::Retry { after },
        Verdict::Dead => Judgement::Dead { reason: String::new() },
    };
    let (id, attempt) = (delivery.id.to_string(), Some(delivery.attempts + 1));
    let asked = kero_hooks::Delivery { event: &seen, data: &seen.data, endpoint: &endpoint, id: &id, attempt };
    let sent = request(prepared, path(&url));
    let ran = host.run_judges(hooks, asked, sent, response, judged, &setting(gateway)).await;
    crash::point("hook:after_judge");
    let verdict = match ran.end {
        End::Go(Judgement::Success) => Verdict::Success,
        End::Go(Judgement::Retry { after }) => Verdict::Retry { after },
        End::Go(Judgement::Dead { .. }) => Verdict::Dead,
        _ => usual,
    };
    Some((verdict, hooked(gateway, delivery, &ran.effects, ran.records)))
}

/// The event as hooks see it, with the plugins that caused it.
async fn shown(gateway: &Gateway, event: &Event) -> Result<Arc<kero_hooks::Event>, StoreError> {
    let mut senders = HashMap::new();
    if gateway.inner.hooks.table().sends() {
        senders = fanout::senders(gateway, event.instance_pk, std::slice::from_ref(event)).await?;
    }
    Ok(chains::shown(event, &senders))
}

fn waits_for_database(delivery: &Delivery, error: &StoreError) -> Shaping {
    tracing::warn!(delivery = %delivery.id, error = error as &dyn std::error::Error, "a delivery's hooks wait for the database");
    Shaping::Wait { until: Timestamp::now().after(Duration::from_secs(1)) }
}

fn path(url: &Url) -> String {
    url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()))
}

fn request(prepared: &Prepared, path: String) -> Request {
    let headers = prepared.headers.iter().filter(|(name, _)| name != ERROR_HEADER).cloned().collect();
    Request { method: prepared.method.to_string(), path, headers, body: prepared.body.to_vec() }
}

/// The shaped request under the endpoint's origin. An unchanged path leaves the URL to the endpoint.
fn shaped_request(plain: &Prepared, url: &Url, shown: &Request, shaped: Request, failures: &[String]) -> Prepared {
    let origin = url.origin().ascii_serialization();
    let target = (shaped.path != shown.path).then(|| format!("{origin}{}", shaped.path));
    let mut headers = shaped.headers;
    // those of transforms are in the plain request
    let before = plain.headers.iter().find(|(name, _)| name == ERROR_HEADER).map(|(_, value)| value.clone());
    let errors: Vec<String> = before.into_iter().chain(failures.iter().cloned()).collect();
    if !errors.is_empty() {
        headers.push((ERROR_HEADER.to_owned(), errors.join(", ")));
    }
    let method = shaped.method.parse().unwrap_or(http::Method::POST);
    Prepared { method, url: target, headers, body: shaped.body.into() }
}

fn hooked(gateway: &Gateway, delivery: &Delivery, effects: &Effects, records: Vec<Record>) -> Hooked {
    let event = &delivery.event;
    let handle = gateway.inner.instances.get(&event.instance_id);
    Hooked {
        errors: None,
        chain: record::chain(&gateway.inner.hooks.meters, records, event.id, Some(delivery.id)),
        kv: record::kv(effects),
        sends: record::sends(gateway, effects, handle.as_ref(), event.request_id.as_deref()),
    }
}

/// Stores the bytes and what the hooks left, in one transaction. What was stored before stays.
async fn keep(
    gateway: &Gateway,
    delivery: &Delivery,
    prepared: Prepared,
    effects: &Effects,
    records: Vec<Record>,
) -> Shaping {
    let event = &delivery.event;
    let left = hooked(gateway, delivery, effects, records);
    let stored =
        gateway.store().shape_delivery(event.instance_pk, delivery.id, event.row, prepared.encode(), left).await;
    crash::point("hook:after_shape_commit");
    match stored {
        Ok(Shaped { request, jobs, over_quota }) => {
            took_sends(gateway, delivery, &jobs, &over_quota);
            match Prepared::decode(&request) {
                Some(prepared) => Shaping::Send(prepared),
                None => Shaping::Dead { why: "the stored request cannot be read".to_owned() },
            }
        }
        Err(StoreError::NotFound) => Shaping::Wait { until: Timestamp::now().after(HELD) },
        Err(error) => waits_for_database(delivery, &error),
    }
}

/// Puts what was accepted with an attempt or a request before a worker.
pub(crate) fn took_sends(gateway: &Gateway, delivery: &Delivery, jobs: &[kero_store::Job], over_quota: &[String]) {
    if let Some(handle) = gateway.inner.instances.get(&delivery.event.instance_id) {
        jobs.iter().for_each(|job| gateway.took(&handle, job));
    }
    for plugin in over_quota {
        tracing::warn!(plugin, delivery = %delivery.id, "a hook's message is left out: its quota is used up");
    }
}

async fn ended(gateway: &Gateway, delivery: &Delivery, how: &str, by: String, records: Vec<Record>) -> Shaping {
    note(gateway, delivery, records).await;
    tracing::info!(plugin = by, delivery = %delivery.id, how, "a hook ended a delivery");
    Shaping::Dead { why: format!("the hook {by} {how} on it; see its calls") }
}

/// Keeps calls of which nothing counts.
async fn note(gateway: &Gateway, delivery: &Delivery, records: Vec<Record>) {
    let event = &delivery.event;
    let Some(chain) = record::made(&gateway.inner.hooks.meters, records, event.id, Some(delivery.id)) else { return };
    if let Err(error) = gateway.store().record_hook_calls(event.instance_pk, event.row, chain).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "a hook's tries could not be kept");
    }
}

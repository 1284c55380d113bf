//! Endpoints: URLs that receive the events of an instance, or (global ones) of every instance.

use crate::delivery::{LONGEST_TIMEOUT, Sampled, guard, sample, sign};
use crate::{Gateway, errors::fault};
use kero_domain::endpoint::{ChatType, Direction, EventFilter, Narrow, Order};
use kero_domain::{Address, EndpointId, EventKind, Fault, FaultCode, InstanceId, Timestamp};
use kero_store::{Endpoint, EndpointChange, Replay, StoreError};
use secrecy::{ExposeSecret, SecretString};
use std::time::Duration;

/// What a caller sets of an endpoint; `None` leaves it as it is, `Some(None)` takes it back.
#[derive(Debug, Clone, Default)]
pub struct EndpointSettings {
    pub url: Option<String>,
    /// Empty: the default events.
    pub events: Option<Vec<String>>,
    pub chats: Option<Vec<String>>,
    pub chat_types: Option<Vec<ChatType>>,
    pub message_types: Option<Vec<String>>,
    pub direction: Option<Option<Direction>>,
    pub headers: Option<Vec<(String, SecretString)>>,
    pub order: Option<Order>,
    pub rate_limit: Option<Option<u32>>,
    pub timeout: Option<Option<Duration>>,
    pub schedule: Option<Option<Vec<Duration>>>,
    /// With the message as WhatsApp sent it.
    pub include_raw: Option<bool>,
    pub enabled: Option<bool>,
    /// Signs with an ed25519 key beside the secret.
    pub asymmetric: Option<bool>,
}

/// An endpoint and the secret that was made for it, which is never shown again.
#[derive(Debug, Clone)]
pub struct WithSecret {
    pub endpoint: Endpoint,
    pub secret: Option<SecretString>,
}

/// What a replay takes up.
#[derive(Debug, Clone, Default)]
pub struct ReplayRange {
    /// The event's time, inclusive; `None`: from the first one.
    pub since: Option<Timestamp>,
    /// The event's time, exclusive; `None`: until now.
    pub until: Option<Timestamp>,
    /// Empty for all.
    pub events: Vec<EventKind>,
}

/// What came of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Replayed {
    /// Dead deliveries that are due again.
    pub replayed: u64,
    /// Events that the endpoint wants and had missed while it was disabled, or not there.
    pub missed: u64,
}

/// Earlier secrets that may sign beside the present one.
const OLD_SECRETS: usize = 10;
/// The longest overlap of a rotation.
pub const LONGEST_OVERLAP: Duration = Duration::from_secs(7 * 86_400);
/// Events that a replay looks at in one go.
const BATCH: u64 = 500;
const MAX_HEADERS: usize = 20;
const MAX_HEADER_BYTES: usize = 4096;
const MAX_LIST: usize = 200;
const MAX_SCHEDULE: usize = 20;

/// Headers that are ours, or the connection's.
const RESERVED: &[&str] = &[
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "x-hub-signature-256",
    "x-request-id",
    "x-webhook-signature",
];

fn invalid(pointer: &str, why: impl std::fmt::Display) -> Fault {
    Fault::new(FaultCode::ValidationFailed).at(pointer, why.to_string())
}

/// A URL that events may go to.
pub(crate) fn check_url(gateway: &Gateway, text: &str) -> Result<(), Fault> {
    let config = &gateway.config().delivery;
    let url = guard::check_url(text, &config.allow_networks).map_err(|why| invalid("/url", why))?;
    let own = config.public_url.as_deref().and_then(|own| url::Url::parse(own).ok());
    if own.is_some_and(|own| own.host() == url.host() && own.port_or_known_default() == url.port_or_known_default()) {
        return Err(invalid("/url", "leads to this gateway"));
    }
    Ok(())
}

fn check_headers(headers: &[(String, SecretString)]) -> Result<(), Fault> {
    if headers.len() > MAX_HEADERS {
        return Err(invalid("/headers", format!("must be at most {MAX_HEADERS}")));
    }
    for (name, value) in headers {
        let place = format!("/headers/{}", name.replace('~', "~0").replace('/', "~1"));
        let lower = name.to_ascii_lowercase();
        if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            return Err(invalid(&place, "is no name of a header"));
        }
        if RESERVED.contains(&lower.as_str()) || lower.starts_with("webhook-") {
            return Err(invalid(&place, "is set by the gateway"));
        }
        let value = value.expose_secret();
        let clean = value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if !clean || value.len() > MAX_HEADER_BYTES {
            return Err(invalid(&place, format!("must be printable ASCII, at most {MAX_HEADER_BYTES} characters")));
        }
    }
    let mut names: Vec<_> = headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(invalid("/headers", "has a name twice"));
    }
    Ok(())
}

/// The settings as the store takes them; nothing is changed when one of them is wrong.
fn change(gateway: &Gateway, settings: EndpointSettings, old: Option<&Endpoint>) -> Result<EndpointChange, Fault> {
    if let Some(url) = &settings.url {
        check_url(gateway, url)?;
    }
    let events = settings.events.map(EventFilter::try_from).transpose().map_err(|why| invalid("/events", why))?;
    let mut narrow = old.map(|old| old.narrow.clone()).unwrap_or_default();
    apply_narrow(&mut narrow, settings.chats, settings.chat_types, settings.message_types, settings.direction)?;
    if let Some(headers) = &settings.headers {
        check_headers(headers)?;
    }
    if settings.rate_limit.flatten().is_some_and(|limit| !(1..=1000).contains(&limit)) {
        return Err(invalid("/rate_limit", "must lie between 1 and 1000"));
    }
    let seconds = Duration::from_secs(1)..=LONGEST_TIMEOUT;
    if settings.timeout.flatten().is_some_and(|timeout| !seconds.contains(&timeout)) {
        return Err(invalid("/timeout_seconds", "must lie between 1 and 30"));
    }
    if let Some(Some(waits)) = &settings.schedule {
        let week = Duration::from_secs(1)..=Duration::from_secs(7 * 86_400);
        if waits.len() > MAX_SCHEDULE || !waits.iter().all(|wait| week.contains(wait)) {
            return Err(invalid("/retry_schedule", "must have at most 20 waits, each between one second and a week"));
        }
    }
    let has_key = old.is_some_and(|old| old.signing_key.is_some());
    let signing_key = match settings.asymmetric {
        Some(true) if !has_key => Some(Some(sign::new_signing_key().ok_or_else(|| Fault::from(FaultCode::Internal))?)),
        Some(false) => Some(None),
        _ => None,
    };
    Ok(EndpointChange {
        url: settings.url,
        events,
        narrow: Some(narrow),
        headers: settings.headers,
        secret: None,
        signing_key,
        order: settings.order,
        rate_limit: settings.rate_limit,
        timeout: settings.timeout,
        schedule: settings.schedule,
        include_raw: settings.include_raw,
        enabled: settings.enabled,
    })
}

fn apply_narrow(
    narrow: &mut Narrow,
    chats: Option<Vec<String>>,
    chat_types: Option<Vec<ChatType>>,
    message_types: Option<Vec<String>>,
    direction: Option<Option<Direction>>,
) -> Result<(), Fault> {
    if let Some(chats) = chats {
        if chats.len() > MAX_LIST {
            return Err(invalid("/chats", format!("must be at most {MAX_LIST}")));
        }
        let read =
            |(n, text): (usize, &String)| Address::parse(text).map_err(|why| invalid(&format!("/chats/{n}"), why));
        narrow.chats = chats.iter().enumerate().map(read).collect::<Result<_, _>>()?;
    }
    if let Some(types) = message_types {
        let word = |text: &String| {
            (1..=40).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        if types.len() > MAX_LIST || !types.iter().all(word) {
            return Err(invalid("/message_types", "must be names like text or image"));
        }
        narrow.message_types = types;
    }
    narrow.chat_types = chat_types.unwrap_or_else(|| std::mem::take(&mut narrow.chat_types));
    narrow.direction = direction.unwrap_or(narrow.direction);
    Ok(())
}

fn checked_secret(secret: Option<SecretString>) -> Result<(SecretString, bool), Fault> {
    match secret {
        Some(secret) => {
            sign::check_secret(secret.expose_secret()).map_err(|why| invalid("/secret", why))?;
            Ok((secret, false))
        }
        None => Ok((sign::new_secret(), true)),
    }
}

fn endpoint_fault(error: StoreError) -> Fault {
    match error {
        StoreError::NotFound => FaultCode::EndpointNotFound.into(),
        error => fault(error),
    }
}

impl Gateway {
    /// The row of an owner; `None` owns the global endpoints.
    async fn owner(&self, owner: Option<&InstanceId>) -> Result<Option<i64>, Fault> {
        match owner {
            Some(id) => Ok(Some(self.instance(id).await?.pk)),
            None => Ok(None),
        }
    }

    /// Oldest first; an instance's first one is its webhook.
    pub async fn endpoints(&self, owner: Option<&InstanceId>) -> Result<Vec<Endpoint>, Fault> {
        let pk = self.owner(owner).await?;
        self.store().endpoints_of(pk).await.map_err(fault)
    }

    pub async fn endpoint(&self, owner: Option<&InstanceId>, id: EndpointId) -> Result<Endpoint, Fault> {
        let pk = self.owner(owner).await?;
        self.store().endpoint(pk, id).await.map_err(fault)?.ok_or_else(|| FaultCode::EndpointNotFound.into())
    }

    /// Makes an endpoint. Without a secret one is made, and shown this once.
    pub async fn create_endpoint(
        &self,
        owner: Option<&InstanceId>,
        settings: EndpointSettings,
        secret: Option<SecretString>,
    ) -> Result<WithSecret, Fault> {
        let pk = self.owner(owner).await?;
        let (secret, made) = checked_secret(secret)?;
        let change = EndpointChange { secret: Some(Some(secret.clone())), ..change(self, settings, None)? };
        let limit = self.config().delivery.max_endpoints;
        let endpoint = match self.store().create_endpoint(pk, change, limit).await {
            Ok(endpoint) => endpoint,
            Err(StoreError::Conflict(_)) => {
                return Err(Fault::new(FaultCode::EndpointLimit).with("limit", limit));
            }
            Err(error) => return Err(fault(error)),
        };
        self.endpoint_changed(pk, endpoint.id);
        Ok(WithSecret { endpoint, secret: made.then_some(secret) })
    }

    pub async fn update_endpoint(
        &self,
        owner: Option<&InstanceId>,
        id: EndpointId,
        settings: EndpointSettings,
    ) -> Result<Endpoint, Fault> {
        let old = self.endpoint(owner, id).await?;
        let change = change(self, settings, Some(&old))?;
        let pk = old.instance_pk;
        let endpoint = self.store().update_endpoint(pk, id, change).await.map_err(endpoint_fault)?;
        if endpoint.order != old.order {
            for instance in self.store().instances_waiting_for(id).await.map_err(fault)? {
                self.store().reline_deliveries(id, instance).await.map_err(fault)?;
            }
        }
        self.endpoint_changed(pk, id);
        Ok(endpoint)
    }

    /// Deletes an endpoint with its deliveries.
    pub async fn delete_endpoint(&self, owner: Option<&InstanceId>, id: EndpointId) -> Result<(), Fault> {
        let pk = self.owner(owner).await?;
        if !self.store().delete_endpoint(pk, id).await.map_err(fault)? {
            return Err(FaultCode::EndpointNotFound.into());
        }
        self.endpoint_changed(pk, id);
        Ok(())
    }

    /// Replaces the secret; the one before signs beside it for `overlap`.
    pub async fn rotate_secret(
        &self,
        owner: Option<&InstanceId>,
        id: EndpointId,
        secret: Option<SecretString>,
        overlap: Duration,
    ) -> Result<WithSecret, Fault> {
        let pk = self.owner(owner).await?;
        let (secret, made) = checked_secret(secret)?;
        if overlap > LONGEST_OVERLAP {
            return Err(invalid("/overlap_seconds", "must be at most 604800, seven days"));
        }
        let until = Timestamp::now().after(overlap);
        let endpoint =
            self.store().rotate_secret(pk, id, secret.clone(), until, OLD_SECRETS).await.map_err(endpoint_fault)?;
        self.endpoint_changed(pk, id);
        Ok(WithSecret { endpoint, secret: made.then_some(secret) })
    }

    /// Sends a sample event at once and says what came back. It is not tried again. An endpoint that takes it is no
    /// longer left alone: what waits for it is tried.
    pub async fn test_endpoint(
        &self,
        owner: Option<&InstanceId>,
        id: EndpointId,
        kind: EventKind,
    ) -> Result<Sampled, Fault> {
        let endpoint = self.endpoint(owner, id).await?;
        let from = match owner {
            Some(owner) => owner.clone(),
            None => "test".parse().map_err(|_| Fault::from(FaultCode::Internal))?,
        };
        let sampled = sample::send(self, &endpoint, from, kind).await;
        if sampled.status.is_some_and(|status| (200..300).contains(&status)) {
            self.inner.delivery.asked(id);
        }
        Ok(sampled)
    }

    /// Makes the dead deliveries of a range due again, and those that were never made: events that the endpoint wants
    /// and that came while it was disabled, or before it was there.
    pub async fn replay_endpoint(
        &self,
        owner: Option<&InstanceId>,
        id: EndpointId,
        range: ReplayRange,
    ) -> Result<Replayed, Fault> {
        let endpoint = self.endpoint(owner, id).await?;
        let until = range.until.unwrap_or_else(Timestamp::now);
        let since = range.since.unwrap_or(Timestamp(until.0.min(0)));
        if since > until {
            return Err(invalid("/since", "must not lie behind until"));
        }
        let instances = match endpoint.instance_pk {
            Some(pk) => vec![pk],
            None => self.store().instances().await.map_err(fault)?.iter().map(|instance| instance.pk).collect(),
        };
        let mut done = Replayed::default();
        for instance_pk in instances {
            let replay = Replay { endpoint: id, instance_pk, since, until, events: range.events.clone() };
            done.replayed += self.store().replay_dead(&replay).await.map_err(fault)?;
            done.missed += self.deliver_missed(&endpoint, &replay).await.map_err(fault)?;
            self.inner.hooks.replayed(self, instance_pk);
            self.inner.delivery.asked(id);
        }
        Ok(done)
    }

    async fn deliver_missed(&self, endpoint: &Endpoint, replay: &Replay) -> Result<u64, StoreError> {
        let (mut after, mut count) = (0, 0);
        loop {
            let mut found = self.store().missed_events(replay, after, BATCH).await?;
            let Some(last) = found.last() else { return Ok(count) };
            after = last.row;
            found.retain(|event| {
                endpoint.events.wants(event.kind) && endpoint.narrow.lets_through(&event.order_key, &event.data)
            });
            if !found.is_empty() {
                count += self.store().deliver_late(endpoint.id, replay.instance_pk, &found).await?;
            }
        }
    }
}

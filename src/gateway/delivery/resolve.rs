//! Names to addresses, through the guard. The address that it let through is the one that is dialled: a name that answers
//! differently the second time is judged the second time.

use super::guard::{in_networks, is_internal, is_listed, is_public};
use super::{DeliveryConfig, timing};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use hyper_util::client::legacy::connect::dns::Name;
use ipnet::IpNet;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::Semaphore;
use tower_service::Service;

/// How long an exchange waits for a name's addresses.
const DNS_TIMEOUT: Duration = Duration::from_secs(3);
/// Look-ups that are begun at once. The system's resolver blocks a thread for each.
const RESOLVING: usize = 64;
/// A look-up that takes longer gives its place to others: a name server that does not answer keeps the system busy for
/// half a minute, and is the trouble of its own names only.
const PATIENCE: Duration = Duration::from_millis(100);
/// Names that are looked up at once, those that hang among them; each has a thread.
const NAMES: usize = 256;

/// What is said of a name that has closed addresses.
const CLOSED: &str = "the name leads into a private, loopback or reserved network (see delivery.allow_networks and \
                      delivery.allow_hosts)";

/// Asks for a name's addresses.
pub(super) trait Lookup: Send + Sync + 'static {
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// The system's resolver.
pub(super) struct System;

impl Lookup for System {
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// The addresses of a name, or why there are none; everybody who asked meanwhile gets the same.
type Answer = Shared<BoxFuture<'static, Result<Vec<IpAddr>, String>>>;

#[derive(Clone)]
pub(super) struct Resolver(Arc<Inner>);

struct Inner {
    lookup: Box<dyn Lookup>,
    networks: Vec<IpNet>,
    hosts: Vec<String>,
    places: Semaphore,
    /// By name: a name that hangs is asked for once, however many wait for it.
    asked: Mutex<HashMap<String, Answer>>,
}

impl Resolver {
    pub(super) fn new(lookup: impl Lookup, config: &DeliveryConfig) -> Self {
        Self(Arc::new(Inner {
            lookup: Box::new(lookup),
            networks: config.allow_networks.clone(),
            hosts: config.allow_hosts.clone(),
            places: Semaphore::new(RESOLVING),
            asked: Mutex::default(),
        }))
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let started = tokio::time::Instant::now();
            let found = tokio::time::timeout(DNS_TIMEOUT, ask(&inner, name.as_str())).await;
            timing::resolved(started.elapsed());
            let found = found.map_err(|_| io::Error::other("the name could not be resolved in time"))?;
            admit(&inner, name.as_str(), found.map_err(io::Error::other)?)
        })
    }
}

/// Those of a name's addresses that may be dialled.
fn admit(inner: &Inner, name: &str, found: Vec<IpAddr>) -> io::Result<std::vec::IntoIter<SocketAddr>> {
    let listed = is_listed(name, &inner.hosts);
    let opened = |address: &IpAddr| in_networks(*address, &inner.networks) || (listed && is_internal(*address));
    let closed = |address: &IpAddr| !is_public(*address) && !opened(address);
    // one closed address among public ones is how such names are made: nothing of it is used. Addresses that
    // were opened on purpose are, also where the name has others (localhost is often 127.0.0.1 and ::1).
    let mixed = found.iter().any(closed);
    let usable = found.into_iter().filter(|address| opened(address) || !mixed);
    let addresses: Vec<SocketAddr> = usable.map(|address| SocketAddr::new(address, 0)).collect();
    if mixed && addresses.is_empty() {
        metrics::counter!("kero_delivery_blocked_total", "reason" => "resolved").increment(1);
        return Err(io::Error::other(CLOSED));
    }
    Ok(addresses.into_iter())
}

/// Joins the look-up of this name, or begins one.
fn ask(inner: &Arc<Inner>, name: &str) -> Answer {
    let mut asked = inner.asked.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(answer) = asked.get(name) {
        return answer.clone();
    }
    if asked.len() >= NAMES {
        let why = "too many names are being looked up".to_owned();
        return futures_util::future::ready(Err(why)).boxed().shared();
    }
    // a task of its own: it goes on when nobody waits any longer, and the name is not asked for beside it
    let looking = tokio::spawn(look_up(Arc::clone(inner), name.to_owned()));
    let answer = async move { looking.await.unwrap_or_else(|error| Err(error.to_string())) }.boxed().shared();
    asked.insert(name.to_owned(), answer.clone());
    answer
}

async fn look_up(inner: Arc<Inner>, name: String) -> Result<Vec<IpAddr>, String> {
    let place = inner.places.acquire().await;
    let mut answer = inner.lookup.lookup(name.clone());
    let found = match tokio::time::timeout(PATIENCE, &mut answer).await {
        Ok(found) => found,
        Err(_) => {
            drop(place);
            answer.await
        }
    };
    inner.asked.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
    found.map_err(|error| error.to_string())
}

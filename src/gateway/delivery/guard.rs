//! The guard against requests into private networks (SSRF). It stands at the resolver, and the address that it let
//! through is the one that is dialled: a name that answers differently the second time is judged the second time.
//! Literal addresses never reach a resolver and are judged with the URL. The client follows no redirect and takes no
//! system proxy, which would connect elsewhere.

use super::{DeliveryConfig, timing};
use ipnet::IpNet;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// How long a name's look-up may take.
const DNS_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A backstop: every exchange has a deadline of its own, at most this.
pub const LONGEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Names that are looked up at once. The system's resolver blocks a thread, for longer than we wait for it.
const RESOLVING: usize = 64;
/// Ports where no web server listens, but something that a request could be taken for (the Fetch standard's list in
/// short, and databases).
const OTHER_PROTOCOLS: &[u16] = &[
    0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109,
    110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531,
    532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1433, 1521, 1719, 1720, 1723, 2049, 3306, 3659,
    4045, 5060, 5061, 5432, 6000, 6379, 6566, 6665, 6666, 6667, 6668, 6669, 6697, 9042, 9200, 10080, 11211, 27017,
    5672,
];

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("is not a URL")]
    NotAUrl,
    #[error("must begin with http:// or https://")]
    Scheme,
    #[error("must name a host")]
    Host,
    #[error("must not have the port of another protocol")]
    Port,
    #[error("must not contain a user name or password")]
    Credentials,
    #[error("must have at most 2048 characters")]
    Long,
    #[error("must not point into a private, loopback or reserved network (see delivery.allow_networks)")]
    Private,
}

/// What is said of a name that has closed addresses.
const CLOSED: &str = "the name leads into a private, loopback or reserved network (see delivery.allow_networks and \
                      delivery.allow_hosts)";

/// Whether the address is one of the public internet, in every spelling (mapped, 6to4, NAT64, Teredo).
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => {
            if let Some(v4) = embedded_v4(v6) {
                return is_public_v4(v4);
            }
            let [first, second, ..] = v6.segments();
            // 2000::/3 is what is routed; take out 6to4, documentation, Teredo, benchmarking and ORCHID
            (first & 0xe000) == 0x2000
                && first != 0x2002
                && !(first == 0x2001 && (second < 0x0200 || second == 0x0db8))
                && !(first == 0x3fff && second < 0x1000)
        }
    }
}

fn is_public_v4(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    !(v4.is_private()
        || v4.is_loopback()
        || v4.is_link_local()
        || v4.is_broadcast()
        || v4.is_documentation()
        || v4.is_multicast()
        || a == 0
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19))
        || a >= 240)
}

/// The IPv4 address inside an IPv6 one that leads to it: mapped, compatible, NAT64 (64:ff9b::/96).
fn embedded_v4(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = v6.segments();
    let low = || Ipv4Addr::from((u32::from(s[6]) << 16) | u32::from(s[7]));
    match s {
        [0, 0, 0, 0, 0, 0xffff | 0, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => Some(low()),
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(low()),
        _ => None,
    }
}

/// Public, or in an allowed network.
pub fn is_allowed(address: IpAddr, networks: &[IpNet]) -> bool {
    is_public(address) || in_networks(address, networks)
}

/// An IPv4 network also has the mapped spelling of its addresses.
fn in_networks(address: IpAddr, networks: &[IpNet]) -> bool {
    let plain = match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    };
    networks.iter().any(|network| network.contains(&plain))
}

/// Addresses that machines in clouds have their credentials at, and that lie in networks that hosts may be allowed in.
fn is_metadata(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.octets() == [100, 100, 100, 200] || v4.octets() == [192, 0, 0, 192],
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254],
    }
}

/// In a network that people run machines of their own in: what an allowed host may have beside public addresses.
fn is_internal(address: IpAddr) -> bool {
    if is_metadata(address) {
        return false;
    }
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_private() || v4.is_loopback() || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_internal(v4.into()),
            None => v6.is_loopback() || v6.is_unique_local(),
        },
    }
}

/// Whether a host is on the list, which names hosts (`n8n`) and everything below some (`*.internal`).
fn is_listed(host: &str, hosts: &[String]) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    hosts.iter().any(|listed| {
        let listed = listed.to_ascii_lowercase();
        match listed.strip_prefix("*.") {
            Some(above) => host.strip_suffix(above).is_some_and(|below| below.len() > 1 && below.ends_with('.')),
            None => host == listed,
        }
    })
}

/// What can be said of a URL without resolving its name.
pub fn check_url(text: &str, networks: &[IpNet]) -> Result<Url, UrlError> {
    if text.len() > 2048 {
        return Err(UrlError::Long);
    }
    let url = Url::parse(text).map_err(|_| UrlError::NotAUrl)?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(UrlError::Scheme);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(UrlError::Credentials);
    }
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or(UrlError::Host)?;
    if url.port().is_some_and(|port| OTHER_PROTOCOLS.contains(&port)) {
        return Err(UrlError::Port);
    }
    // the parser has turned 0x7f.1, 2130706433 and full-width digits into dotted form already
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    if let Ok(address) = literal
        && !is_allowed(address, networks)
    {
        return Err(UrlError::Private);
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    if literal.is_err() && (name.len() > 253 || name.split('.').any(|label| label.is_empty() || label.len() > 63)) {
        return Err(UrlError::Host);
    }
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    if (name == "localhost" || name.ends_with(".localhost")) && !is_allowed(loopback, networks) {
        return Err(UrlError::Private);
    }
    Ok(url)
}

type Found = Pin<Box<dyn Future<Output = std::io::Result<Vec<IpAddr>>> + Send>>;

/// Asks for a name's addresses.
trait Lookup: Send + Sync + 'static {
    fn lookup(&self, name: String) -> Found;
}

/// The system's resolver.
struct System {
    places: Arc<Semaphore>,
}

impl Lookup for System {
    fn lookup(&self, name: String) -> Found {
        let places = self.places.clone();
        Box::pin(async move {
            let place = places.acquire_owned().await.map_err(std::io::Error::other)?;
            // a task of its own: the place is taken until the system answers, also when nobody waits any longer
            let asked = tokio::spawn(async move {
                let _place = place;
                let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
                Ok(found.map(|address| address.ip()).collect())
            });
            asked.await.map_err(std::io::Error::other)?
        })
    }
}

struct Guarded<L> {
    lookup: Arc<L>,
    networks: Arc<[IpNet]>,
    hosts: Arc<[String]>,
}

impl<L: Lookup> Guarded<L> {
    fn new(lookup: L, config: &DeliveryConfig) -> Self {
        Self {
            lookup: Arc::new(lookup),
            networks: config.allow_networks.clone().into(),
            hosts: config.allow_hosts.clone().into(),
        }
    }
}

impl<L: Lookup> Resolve for Guarded<L> {
    fn resolve(&self, name: Name) -> Resolving {
        let (lookup, networks) = (self.lookup.clone(), self.networks.clone());
        let listed = is_listed(name.as_str(), &self.hosts);
        Box::pin(async move {
            let started = tokio::time::Instant::now();
            let found = tokio::time::timeout(DNS_TIMEOUT, lookup.lookup(name.as_str().to_owned())).await;
            timing::resolved(started.elapsed());
            let found = found.map_err(|_| std::io::Error::other("the name could not be resolved in time"))??;
            let opened = |address: &IpAddr| in_networks(*address, &networks) || (listed && is_internal(*address));
            let closed = |address: &IpAddr| !is_public(*address) && !opened(address);
            // one closed address among public ones is how such names are made: nothing of it is used. Addresses that
            // were opened on purpose are, also where the name has others (localhost is often 127.0.0.1 and ::1).
            let mixed = found.iter().any(closed);
            let usable = found.into_iter().filter(|address| opened(address) || !mixed);
            let addresses: Vec<SocketAddr> = usable.map(|address| SocketAddr::new(address, 0)).collect();
            if mixed && addresses.is_empty() {
                metrics::counter!("kero_delivery_blocked_total", "reason" => "resolved").increment(1);
                return Err(CLOSED.into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// The one HTTP client that may talk to other people's hosts. Of an answer's headers it holds up to 408 KiB, and up to 100
/// of them, until they are complete or the exchange's time is over; the library has no setting for less. With HTTP/2 it is
/// 16 KiB.
///
/// It sends a request once: a connection that ends with a request on it fails the exchange, whether or not the receiver
/// did its work. Only what was not begun is sent again by the library itself: on a connection that was closed before
/// anything was written, and where HTTP/2 says that a stream was refused.
pub(crate) fn client(config: &DeliveryConfig) -> Result<reqwest::Client, reqwest::Error> {
    client_over(System { places: Arc::new(Semaphore::new(RESOLVING)) }, config)
}

fn client_over(lookup: impl Lookup, config: &DeliveryConfig) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .dns_resolver(Arc::new(Guarded::new(lookup, config)))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .timeout(config.timeout.max(LONGEST_TIMEOUT))
        .connect_timeout(CONNECT_TIMEOUT)
        .connector_layer(timing::Timed)
        .tcp_nodelay(true)
        .pool_idle_timeout(Duration::from_secs(60))
        .user_agent(concat!("Kero/", env!("CARGO_PKG_VERSION")))
        .build()
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;

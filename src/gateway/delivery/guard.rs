//! The guard against requests into private networks (SSRF): which addresses and URLs may be reached. Pure.
//!
//! It is asked at the resolver, for every address of a name, and at the connector, for literal addresses, which never
//! reach a resolver; and before either for what a URL says by itself.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use url::Url;

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
pub(super) fn in_networks(address: IpAddr, networks: &[IpNet]) -> bool {
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
pub(super) fn is_internal(address: IpAddr) -> bool {
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
pub(super) fn is_listed(host: &str, hosts: &[String]) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    hosts.iter().any(|listed| {
        let listed = listed.to_ascii_lowercase();
        match listed.strip_prefix("*.") {
            Some(above) => host.strip_suffix(above).is_some_and(|below| below.len() > 1 && below.ends_with('.')),
            None => host == listed,
        }
    })
}

fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Whether a host that is an address may be reached; names are judged when they are resolved.
pub(super) fn check_host(host: &str, networks: &[IpNet]) -> Result<(), UrlError> {
    match literal(host) {
        Some(address) if !is_allowed(address, networks) => Err(UrlError::Private),
        _ => Ok(()),
    }
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
    check_host(host, networks)?;
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    if literal(host).is_none()
        && (name.len() > 253 || name.split('.').any(|label| label.is_empty() || label.len() > 63))
    {
        return Err(UrlError::Host);
    }
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    if (name == "localhost" || name.ends_with(".localhost")) && !is_allowed(loopback, networks) {
        return Err(UrlError::Private);
    }
    Ok(url)
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;

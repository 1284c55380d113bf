//! The guard against requests into private networks (SSRF): it stands at the resolver, so a rebinding name is caught
//! as well as a literal address, and the client follows no redirect and takes no system proxy.

use super::{DeliveryConfig, timing};
use ipnet::IpNet;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("is not a URL")]
    NotAUrl,
    #[error("must begin with http:// or https://")]
    Scheme,
    #[error("must name a host")]
    Host,
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
            // 2000::/3 is what is routed; take out documentation, Teredo, benchmarking and ORCHID
            (first & 0xe000) == 0x2000
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

/// The IPv4 address inside an IPv6 one: mapped, compatible, NAT64 (64:ff9b::/96), 6to4 (2002::/16).
fn embedded_v4(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = v6.segments();
    let low = || Ipv4Addr::from((u32::from(s[6]) << 16) | u32::from(s[7]));
    match s {
        [0, 0, 0, 0, 0, 0xffff | 0, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => Some(low()),
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(low()),
        [0x2002, ..] => Some(Ipv4Addr::from((u32::from(s[1]) << 16) | u32::from(s[2]))),
        _ => None,
    }
}

/// Public, or in an allowed network. An IPv4 network also allows its mapped spelling.
pub fn is_allowed(address: IpAddr, networks: &[IpNet]) -> bool {
    let plain = match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    };
    is_public(address) || networks.iter().any(|network| network.contains(&plain))
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
    // the parser has turned 0x7f.1, 2130706433 and full-width digits into dotted form already
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    if let Ok(address) = literal
        && !is_allowed(address, networks)
    {
        return Err(UrlError::Private);
    }
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    if (name == "localhost" || name.ends_with(".localhost")) && !is_allowed(loopback, networks) {
        return Err(UrlError::Private);
    }
    Ok(url)
}

/// How long a name's look-up may take.
const DNS_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A backstop: every exchange has a deadline of its own, at most this.
pub const LONGEST_TIMEOUT: Duration = Duration::from_secs(30);

struct GuardedResolver {
    networks: Arc<[IpNet]>,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let networks = self.networks.clone();
        Box::pin(async move {
            let started = tokio::time::Instant::now();
            let lookup = tokio::time::timeout(DNS_TIMEOUT, tokio::net::lookup_host((name.as_str(), 0))).await;
            timing::resolved(started.elapsed());
            let found = lookup.map_err(|_| std::io::Error::other("the name could not be resolved in time"))??;
            let allowed: Vec<SocketAddr> = found.filter(|address| is_allowed(address.ip(), &networks)).collect();
            if allowed.is_empty() {
                metrics::counter!("kero_delivery_blocked_total", "reason" => "resolved").increment(1);
                return Err(Box::new(UrlError::Private) as Box<dyn std::error::Error + Send + Sync>);
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// The one HTTP client that may talk to other people's hosts.
pub(crate) fn client(config: &DeliveryConfig) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .dns_resolver(Arc::new(GuardedResolver { networks: config.allow_networks.clone().into() }))
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
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_private_address_is_refused() {
        for text in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://0x7f.1/",
            "http://2130706433/",
            "http://0177.0.0.1/",
            "http://①②⑦.0.0.1/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
            "http://[64:ff9b::7f00:1]/",
            "http://[2002:7f00:1::]/",
            "http://[fd00:ec2::254]/",
            "http://[fe80::1]/",
            "http://169.254.169.254/",
            "http://10.0.0.1/",
            "http://172.16.0.1/",
            "http://192.168.1.1/",
            "http://100.64.0.1/",
            "http://0.0.0.0/",
            "http://224.0.0.1/",
            "http://255.255.255.255/",
            "http://198.18.0.1/",
            "http://localhost/",
            "http://LOCALHOST./",
            "http://a.localhost/",
        ] {
            assert_eq!(check_url(text, &[]), Err(UrlError::Private), "{text}");
        }
    }

    #[test]
    fn other_schemes_and_credentials_are_refused() {
        for text in [
            "javascript:alert(1)",
            "ftp://example.com/",
            "file:///etc/passwd",
            "gopher://example.com",
            "//example.com",
            "",
            "http://",
            "http://u:p@example.com/",
        ] {
            assert!(check_url(text, &[]).is_err(), "{text}");
        }
        assert!(check_url("https://example.com:8443/hook?a=b", &[]).is_ok());
        assert!(check_url("http://93.184.216.34/", &[]).is_ok());
        assert!(check_url("http://[2606:2800:220:1::1]/", &[]).is_ok());
    }

    #[test]
    fn an_allowed_network_lets_its_addresses_through() {
        let networks = ["127.0.0.0/8".parse().unwrap()];
        assert!(check_url("http://127.0.0.1:9000/", &networks).is_ok());
        assert!(check_url("http://localhost:9000/", &networks).is_ok());
        assert!(check_url("http://[::ffff:127.0.0.1]/", &networks).is_ok());
        assert_eq!(check_url("http://10.0.0.1/", &networks), Err(UrlError::Private));
    }
}

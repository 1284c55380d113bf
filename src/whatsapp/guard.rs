//! The loopback rule: a WhatsApp address may be configured only on this machine, and a build that skips the certificate
//! checks (feature `simulator`) talks to nothing else.

use crate::error::LinkError;
use std::net::IpAddr;

/// Whether this build skips the certificate checks of the client.
pub(crate) const SKIPS_CERTIFICATES: bool = cfg!(feature = "simulator");

/// `None` is WhatsApp itself. Only literal loopback IPs and `localhost` may be given; a `simulator` build refuses `None`.
pub fn check_url(url: Option<&str>) -> Result<(), LinkError> {
    let Some(url) = url else {
        if SKIPS_CERTIFICATES {
            return Err(LinkError::Url(
                "must name the simulator: this build skips WhatsApp's certificate checks and talks to loopback addresses only",
            ));
        }
        return Ok(());
    };
    // control characters, spaces and backslashes mean different hosts to different parsers
    if url.chars().any(|c| c.is_whitespace() || c.is_control() || c == '\\') || !url.is_ascii() {
        return Err(LinkError::Url("has characters that no address has"));
    }
    let uri: ::http::Uri =
        url.parse().map_err(|_| LinkError::Url("is not an address (ws://127.0.0.1:PORT/ws/chat)"))?;
    if !matches!(uri.scheme_str(), Some("ws" | "wss")) {
        return Err(LinkError::Url("must begin with ws:// or wss://"));
    }
    let authority = uri.authority().ok_or(LinkError::Url("has no host"))?;
    if authority.as_str().contains('@') {
        return Err(LinkError::Url("must not contain a user"));
    }
    if is_loopback_host(authority.host()) {
        Ok(())
    } else {
        Err(LinkError::Url("must be on this machine (localhost, 127.x.x.x or [::1])"))
    }
}

/// Literal loopback addresses and `localhost`; no other name, whatever it resolves to.
pub(crate) fn is_loopback_host(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_loopback_only() {
        for url in [
            "ws://localhost:8081/ws/chat",
            "ws://LocalHost/ws",
            "ws://127.0.0.1/",
            "ws://127.0.0.1:1/ws/chat",
            "wss://127.9.9.9:443/ws",
            "ws://[::1]:9000/ws/chat",
        ] {
            assert!(check_url(Some(url)).is_ok(), "{url}");
        }
        for url in [
            "",
            "127.0.0.1:80",
            "http://127.0.0.1/",
            "ws://0.0.0.0/",
            "ws://10.0.0.1/",
            "ws://192.168.1.1/",
            "wss://web.whatsapp.com/ws/chat",
            "http://127.0.0.1.evil.com",
            "ws://127.0.0.1.evil.com",
            "ws://localhost.evil.com",
            "ws://evil.com/127.0.0.1",
            "ws://evil.com#127.0.0.1",
            "ws://evil.com?localhost",
            "ws://127.0.0.1@evil.com",
            "ws://localhost:80@evil.com/",
            "ws://evil@127.0.0.1/",
            "ws://127.0.0.1\\@evil.com/",
            "ws://127.1/",
            "ws://0177.0.0.1/",
            "ws://2130706433/",
            "ws://0x7f000001/",
            "ws://[::]/",
            "ws://[::ffff:127.0.0.1]/",
            "ws://[fe80::1]/",
            "ws://１27.0.0.1/",
            "ws:///ws",
            "ws://",
            " ws://127.0.0.1/",
            "ws://127.0.0.1/\n",
        ] {
            assert!(check_url(Some(url)).is_err(), "{url:?}");
        }
    }

    #[test]
    fn only_a_build_with_certificate_checks_talks_to_whatsapp() {
        assert_eq!(check_url(None).is_err(), SKIPS_CERTIFICATES);
    }
}

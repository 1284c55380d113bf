//! The guard against every spelling of a closed address.

use super::*;

#[test]
fn every_spelling_of_a_private_address_is_refused() {
    for text in [
        "http://127.0.0.1/",
        "http://127.1/",
        "http://0x7f.1/",
        "http://0x7f000001/",
        "http://2130706433/",
        "http://0177.0.0.1/",
        "http://127.0.0.1./",
        "http://①②⑦.0.0.1/",
        "http://127。0。0。1/",
        "http://%31%32%37.0.0.1/",
        "http://[::1]/",
        "http://[::]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://[::127.0.0.1]/",
        "http://[::ffff:0:127.0.0.1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[64:ff9b::127.0.0.1]/",
        "http://[64:ff9b:1::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://[2002:808:808::1]/",
        "http://[2001::7f00:1]/",
        "http://[2001:db8::1]/",
        "http://[fd00:ec2::254]/",
        "http://[fc00::1]/",
        "http://[fe80::1]/",
        "http://[fec0::1]/",
        "http://[ff02::1]/",
        "http://169.254.169.254/",
        "http://169.254.170.2/",
        "http://10.0.0.1/",
        "http://172.16.0.1/",
        "http://172.31.255.255/",
        "http://192.168.1.1/",
        "http://100.64.0.1/",
        "http://100.100.100.200/",
        "http://192.0.0.192/",
        "http://0.0.0.0/",
        "http://0/",
        "http://224.0.0.1/",
        "http://240.0.0.1/",
        "http://255.255.255.255/",
        "http://198.18.0.1/",
        "http://203.0.113.1/",
        "http://localhost/",
        "http://LOCALHOST./",
        "http://a.localhost/",
        "http://ｌocalhost/",
    ] {
        assert_eq!(check_url(text, &[]), Err(UrlError::Private), "{text}");
    }
}

#[test]
fn what_is_no_plain_http_url_is_refused() {
    let label = format!("http://{}.example.com/", "a".repeat(255));
    let name = format!("http://{}com/", "abcdefgh.".repeat(40));
    let long = format!("http://example.com/{}", "a".repeat(2048));
    for (text, why) in [
        ("javascript:alert(1)", UrlError::Scheme),
        ("ftp://example.com/", UrlError::Scheme),
        ("file:///etc/passwd", UrlError::Scheme),
        ("gopher://example.com", UrlError::Scheme),
        ("data:text/plain,x", UrlError::Scheme),
        ("//example.com", UrlError::NotAUrl),
        ("example.com/hook", UrlError::NotAUrl),
        ("", UrlError::NotAUrl),
        ("http://", UrlError::NotAUrl),
        ("http:///", UrlError::NotAUrl),
        ("http://[::1%25lo]/", UrlError::NotAUrl),
        ("http://exa mple.com/", UrlError::NotAUrl),
        ("http://example.com:65536/", UrlError::NotAUrl),
        ("http://u:p@example.com/", UrlError::Credentials),
        ("http://u@example.com/", UrlError::Credentials),
        ("http://example.com:0/", UrlError::Port),
        ("http://example.com:22/", UrlError::Port),
        ("http://example.com:25/", UrlError::Port),
        ("http://example.com:6379/", UrlError::Port),
        (&label, UrlError::Host),
        (&name, UrlError::Host),
        ("http://example..com/", UrlError::Host),
        (&long, UrlError::Long),
    ] {
        assert_eq!(check_url(text, &[]), Err(why), "{text}");
    }
    for text in [
        "https://example.com:8443/hook?a=b",
        "https://example.com./",
        "http://93.184.216.34/",
        "http://[2606:2800:220:1::1]/",
        "http://[64:ff9b::5db8:d822]/",
        "https://bücher.example/",
        "http://n8n:5678/webhook/x",
    ] {
        assert!(check_url(text, &[]).is_ok(), "{text}");
    }
}

#[test]
fn an_allowed_network_lets_its_addresses_through() {
    let networks = ["127.0.0.0/8".parse().unwrap()];
    assert!(check_url("http://127.0.0.1:9000/", &networks).is_ok());
    assert!(check_url("http://localhost:9000/", &networks).is_ok());
    assert!(check_url("http://[::ffff:127.0.0.1]/", &networks).is_ok());
    assert_eq!(check_url("http://10.0.0.1/", &networks), Err(UrlError::Private));
    assert_eq!(check_url("http://127.0.0.1:6379/", &networks), Err(UrlError::Port));
}

#[test]
fn hosts_are_listed_whole_or_from_a_dot_on() {
    let hosts = ["n8n".to_owned(), "*.Internal".to_owned()];
    for host in ["n8n", "N8N.", "hooks.internal", "a.b.INTERNAL"] {
        assert!(is_listed(host, &hosts), "{host}");
    }
    for host in ["n8n.evil.test", "xn8n", "internal", "evilinternal", ".internal", "internal.evil.test"] {
        assert!(!is_listed(host, &hosts), "{host}");
    }
}

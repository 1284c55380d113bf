//! The guard against every spelling of a closed address, and against names that lead there.

use super::*;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

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

/// A resolver that answers from a script; the last answer of a name is repeated.
#[derive(Default)]
struct Scripted {
    answers: Mutex<HashMap<String, Vec<Vec<IpAddr>>>>,
}

impl Scripted {
    fn answer(self, name: &str, answers: &[&[&str]]) -> Self {
        let parsed = answers.iter().map(|one| one.iter().map(|text| text.parse().unwrap()).collect()).collect();
        self.answers.lock().unwrap().insert(name.to_owned(), parsed);
        self
    }
}

impl Lookup for Scripted {
    fn lookup(&self, name: String) -> Found {
        let mut answers = self.answers.lock().unwrap();
        let found = match answers.get_mut(&name) {
            Some(answers) if answers.len() > 1 => Ok(answers.remove(0)),
            Some(answers) => Ok(answers[0].clone()),
            None => Err(std::io::Error::other("no such name")),
        };
        Box::pin(async move { found })
    }
}

/// A receiver on loopback that counts the requests that reach it, closing each connection.
async fn receiver() -> (SocketAddr, Arc<Mutex<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let reached = Arc::new(Mutex::new(0));
    let counting = reached.clone();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            *counting.lock().unwrap() += 1;
            let _ = socket.read(&mut [0; 1024]).await;
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
        }
    });
    (address, reached)
}

fn config(networks: &[&str], hosts: &[&str]) -> DeliveryConfig {
    DeliveryConfig {
        allow_networks: networks.iter().map(|text| text.parse().unwrap()).collect(),
        allow_hosts: hosts.iter().map(|text| (*text).to_owned()).collect(),
        timeout: Duration::from_secs(2),
        ..DeliveryConfig::default()
    }
}

async fn post(client: &reqwest::Client, host: &str, port: u16) -> Result<u16, String> {
    let url = format!("http://{host}:{port}/hook");
    assert!(check_url(&url, &[]).is_ok(), "the URL itself says nothing");
    match client.post(url).body("x").send().await {
        Ok(answer) => Ok(answer.status().as_u16()),
        Err(error) => {
            let mut text = String::new();
            let mut source: Option<&dyn std::error::Error> = Some(&error);
            while let Some(error) = source {
                text.push_str(&error.to_string());
                source = error.source();
            }
            Err(text)
        }
    }
}

#[tokio::test]
async fn names_that_lead_into_a_closed_network_reach_nothing() {
    prepare();
    let (address, reached) = receiver().await;
    let scripted = Scripted::default()
        .answer("loopback.test", &[&["127.0.0.1"]])
        .answer("mixed.test", &[&["93.184.216.34", "::1"]])
        .answer("mixed-first.test", &[&["::1", "93.184.216.34"]])
        .answer("cname.test", &[&["10.0.0.8"]])
        .answer("mapped.test", &[&["::ffff:127.0.0.1"]])
        .answer("nat64.test", &[&["64:ff9b::7f00:1"]])
        .answer("metadata.test", &[&["169.254.169.254"]])
        .answer("metadata6.test", &[&["fd00:ec2::254"]])
        .answer("any.test", &[&["0.0.0.0"]]);
    let names: Vec<String> = scripted.answers.lock().unwrap().keys().cloned().collect();
    let client = client_over(scripted, &config(&[], &[])).unwrap();
    for name in names {
        let refused = post(&client, &name, address.port()).await.unwrap_err();
        assert!(refused.contains("private, loopback or reserved network"), "{name}: {refused}");
    }
    assert_eq!(*reached.lock().unwrap(), 0);
}

#[tokio::test]
async fn a_name_that_answers_differently_the_second_time_is_judged_the_second_time() {
    prepare();
    let (address, reached) = receiver().await;
    // allowed first (127.0.0.1 stands for the public address here), then closed, then allowed again
    let scripted = Scripted::default()
        .answer("rebind.test", &[&["127.0.0.1"], &["127.0.0.2"], &["169.254.169.254"], &["127.0.0.1"]]);
    let client = client_over(scripted, &config(&["127.0.0.1/32"], &[])).unwrap();
    assert_eq!(post(&client, "rebind.test", address.port()).await, Ok(200));
    for _ in 0..2 {
        assert!(post(&client, "rebind.test", address.port()).await.is_err());
    }
    assert_eq!(*reached.lock().unwrap(), 1);
    assert_eq!(post(&client, "rebind.test", address.port()).await, Ok(200));
    assert_eq!(*reached.lock().unwrap(), 2, "each request dials the address that was judged");
}

#[tokio::test]
async fn what_was_opened_on_purpose_is_used_where_a_name_has_other_addresses() {
    prepare();
    let (address, reached) = receiver().await;
    let scripted = Scripted::default()
        .answer("dual.test", &[&["::1", "127.0.0.1"]])
        .answer("three.test", &[&["93.184.216.34", "127.0.0.1", "10.0.0.1"]])
        .answer("none.test", &[&["::1", "10.0.0.1"]]);
    let client = client_over(scripted, &config(&["127.0.0.0/8"], &[])).unwrap();
    assert_eq!(post(&client, "dual.test", address.port()).await, Ok(200));
    assert_eq!(post(&client, "three.test", address.port()).await, Ok(200));
    assert!(post(&client, "none.test", address.port()).await.is_err());
    assert_eq!(*reached.lock().unwrap(), 2);
}

#[tokio::test]
async fn an_allowed_host_may_be_internal_but_not_where_credentials_lie() {
    prepare();
    let (address, reached) = receiver().await;
    let scripted = Scripted::default()
        .answer("n8n", &[&["127.0.0.1"], &["169.254.169.254"], &["fd00:ec2::254"], &["100.100.100.200"], &["0.0.0.0"]])
        .answer("hooks.internal", &[&["127.0.0.1"]])
        .answer("other", &[&["127.0.0.1"]]);
    let client = client_over(scripted, &config(&[], &["n8n", "*.internal"])).unwrap();
    assert_eq!(post(&client, "n8n", address.port()).await, Ok(200));
    for _ in 0..4 {
        assert!(post(&client, "n8n", address.port()).await.is_err());
    }
    assert_eq!(post(&client, "hooks.internal", address.port()).await, Ok(200));
    assert!(post(&client, "other", address.port()).await.is_err());
    assert_eq!(*reached.lock().unwrap(), 2);
    for (text, internal) in [
        ("10.0.0.1", true),
        ("192.168.0.1", true),
        ("fc00::1", true),
        ("::1", true),
        ("::ffff:10.0.0.1", true),
        ("100.64.0.1", true),
        ("fe80::1", false),
        ("224.0.0.1", false),
        ("::ffff:169.254.169.254", false),
    ] {
        assert_eq!(is_internal(text.parse().unwrap()), internal, "{text}");
    }
}

#[tokio::test]
async fn a_resolver_that_does_not_answer_is_given_up() {
    struct Never;
    impl Lookup for Never {
        fn lookup(&self, _: String) -> Found {
            Box::pin(std::future::pending())
        }
    }
    prepare();
    let client = client_over(Never, &DeliveryConfig { timeout: Duration::from_secs(60), ..config(&[], &[]) }).unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(20), post(&client, "slow.test", 80)).await.unwrap().is_err());
}

#[tokio::test]
async fn the_systems_resolver_is_guarded_too() {
    prepare();
    let (address, reached) = receiver().await;
    let url = format!("http://localhost:{}/", address.port());
    let closed = client(&config(&[], &[])).unwrap();
    assert!(closed.get(&url).send().await.is_err());
    let open = client(&config(&["127.0.0.0/8"], &[])).unwrap();
    assert_eq!(open.get(&url).send().await.unwrap().status(), 200);
    assert_eq!(*reached.lock().unwrap(), 1);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    prepare();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (inside, reached) = receiver().await;
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let _ = socket.read(&mut [0; 1024]).await;
        let answer = format!("HTTP/1.1 307 Moved\r\nlocation: http://{inside}/\r\ncontent-length: 0\r\n\r\n");
        let _ = socket.write_all(answer.as_bytes()).await;
    });
    let scripted = Scripted::default().answer("outside.test", &[&["127.0.0.1"]]);
    let client = client_over(scripted, &config(&["127.0.0.0/8"], &[])).unwrap();
    assert_eq!(post(&client, "outside.test", port).await, Ok(307));
    assert_eq!(*reached.lock().unwrap(), 0);
}

/// TLS has to be chosen once in a process, also for clients that do not use it.
fn prepare() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

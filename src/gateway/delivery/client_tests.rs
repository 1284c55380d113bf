//! The client against names that lead where it may not go, or nowhere at all.

use super::super::guard::is_internal;
use super::*;
use crate::delivery::guard::check_url;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

type Found = BoxFuture<'static, io::Result<Vec<IpAddr>>>;

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
            None => Err(io::Error::other("no such name")),
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

async fn post(client: &Client, host: &str, port: u16) -> Result<u16, String> {
    let url = format!("http://{host}:{port}/hook");
    assert!(check_url(&url, &[]).is_ok(), "the URL itself says nothing");
    let answer = client.send(Request::post(url).body(Full::from("x")).unwrap()).await;
    answer.map(|answer| answer.status().as_u16()).map_err(|error| error.to_string())
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
    let client = Client::over(scripted, &config(&[], &[])).unwrap();
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
    let client = Client::over(scripted, &config(&["127.0.0.1/32"], &[])).unwrap();
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
    let client = Client::over(scripted, &config(&["127.0.0.0/8"], &[])).unwrap();
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
    let client = Client::over(scripted, &config(&[], &["n8n", "*.internal"])).unwrap();
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
    let client = Client::over(Never, &DeliveryConfig { timeout: Duration::from_secs(60), ..config(&[], &[]) }).unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(20), post(&client, "slow.test", 80)).await.unwrap().is_err());
}

/// More names than look-ups have places, at a name server that does not answer: the others' connections come about, and
/// each name is asked for once.
#[tokio::test]
async fn names_that_hang_hold_up_nobody_else() {
    #[derive(Clone, Default)]
    struct Hanging(Arc<Mutex<Vec<String>>>);
    impl Lookup for Hanging {
        fn lookup(&self, name: String) -> Found {
            self.0.lock().unwrap().push(name.clone());
            match name.as_str() {
                "fine.test" => Box::pin(async { Ok(vec!["127.0.0.1".parse().unwrap()]) }),
                _ => Box::pin(std::future::pending()),
            }
        }
    }
    prepare();
    let (address, _) = receiver().await;
    let hanging = Hanging::default();
    let client = Client::over(hanging.clone(), &config(&["127.0.0.0/8"], &[])).unwrap();
    let names = || (0..100).map(|n| format!("hangs{n}.test"));
    // eight at once of each, as there may be
    let waiting = names().chain(names().flat_map(|name| vec![name; 7])).map(|name| {
        let client = client.clone();
        tokio::spawn(async move { post(&client, &name, 80).await })
    });
    let waiting: Vec<_> = waiting.collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(hanging.0.lock().unwrap().len() >= 64, "they take what there is");
    let started = std::time::Instant::now();
    assert_eq!(post(&client, "fine.test", address.port()).await, Ok(200));
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    for waiting in waiting {
        let refused = waiting.await.unwrap().unwrap_err();
        assert!(refused.contains("the name could not be resolved in time"), "{refused}");
    }
    let mut asked = hanging.0.lock().unwrap().clone();
    asked.sort();
    let mut once: Vec<String> = names().chain(["fine.test".to_owned()]).collect();
    once.sort();
    assert_eq!(asked, once, "each once");
}

#[tokio::test]
async fn literal_addresses_are_judged_where_they_are_dialled() {
    prepare();
    let (address, reached) = receiver().await;
    let closed = Client::new(&config(&[], &[])).unwrap();
    for host in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254"] {
        let request = Request::get(format!("http://{host}:{}/", address.port())).body(Full::default()).unwrap();
        let refused = closed.send(request).await.unwrap_err();
        assert!(matches!(refused, ClientError::Closed(UrlError::Private)), "{host}: {refused}");
    }
    assert_eq!(*reached.lock().unwrap(), 0);
    let open = Client::new(&config(&["127.0.0.0/8"], &[])).unwrap();
    let request = Request::get(format!("http://{address}/")).body(Full::default()).unwrap();
    assert_eq!(open.send(request).await.unwrap().status(), 200);
}

#[tokio::test]
async fn the_systems_resolver_is_guarded_too() {
    prepare();
    let (address, reached) = receiver().await;
    let get = || {
        let url = format!("http://localhost:{}/", address.port());
        Request::get(url).body(Full::default()).unwrap()
    };
    let closed = Client::new(&config(&[], &[])).unwrap();
    assert!(closed.send(get()).await.is_err());
    let open = Client::new(&config(&["127.0.0.0/8"], &[])).unwrap();
    assert_eq!(open.send(get()).await.unwrap().status(), 200);
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
    let client = Client::over(scripted, &config(&["127.0.0.0/8"], &[])).unwrap();
    assert_eq!(post(&client, "outside.test", port).await, Ok(307));
    assert_eq!(*reached.lock().unwrap(), 0);
}

/// TLS has to be chosen once in a process, also for clients that do not use it.
fn prepare() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

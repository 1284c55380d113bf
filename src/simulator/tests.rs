//! The control API over real HTTP on loopback. Real clients are run against the simulator in the workspace's
//! integration tests.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::*;

async fn simulator() -> Simulator {
    start(Config::default()).await.unwrap()
}

/// One request on a connection of its own: the status and the body.
async fn request(at: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {at}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn error_of(body: &str) -> String {
    serde_json::from_str::<Value>(body).unwrap()["error"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn only_loopback_is_listened_on() {
    let config = Config { listen: "0.0.0.0:0".parse().unwrap(), ..Config::default() };
    assert!(matches!(start(config).await, Err(StartError::NotLoopback(_))));
}

#[tokio::test]
async fn it_says_ready_and_shows_its_root_key() {
    use base64::prelude::*;
    let sim = simulator().await;
    assert_eq!(request(sim.addr(), "GET", "/", "").await, (200, "ready\n".to_owned()));
    let (status, key) = request(sim.addr(), "GET", "/admin/root-key", "").await;
    assert_eq!(status, 200);
    assert_eq!(BASE64_STANDARD.decode(key).unwrap(), sim.root_key());
    assert_eq!(request(sim.addr(), "GET", "/elsewhere", "").await.0, 404);
}

#[tokio::test]
async fn invalid_control_requests_say_what_to_do() {
    let sim = simulator().await;
    let cases = [
        ("/admin/mock-phone/scan-qr", "hello", "no WhatsApp QR text"),
        ("/admin/mock-phone/scan-qr?phone=1", "hello", "no WhatsApp QR text"),
        ("/admin/mock-phone/enter-code", "ABCDEFGH", "?phone="),
        ("/admin/mock-phone/enter-code?phone=15551234567", "ABCDEFGH", "start pairing by code"),
        ("/admin/mock-phone/enter-code?phone=15551234567", "ABC", "eight characters"),
        ("/admin/people", "", "send JSON like"),
        ("/admin/people", r#"{"phone":"abc"}"#, "send digits"),
        ("/admin/people", r#"{"phone":"15551230000"}"#, "not on WhatsApp"),
        ("/admin/people", r#"{"phone":"15551234567","script":"shout"}"#, "script must be"),
        ("/admin/people/15551234567/messages", r#"{"to":"15557654321"}"#, "missing field `text`"),
        ("/admin/people/15551234567/messages", r#"{"to":"9@g.us","text":"a"}"#, "no group 9@g.us"),
        ("/admin/people/15558888888/unlink", "", "no account"),
        ("/admin/groups", r#"{"subject":"a","members":[]}"#, "needs members"),
        ("/admin/faults", r#"{"fault":"gremlins"}"#, "unknown variant `gremlins`"),
        ("/admin/faults", r#"{"fault":"nack","count":0}"#, "count must be at least 1"),
    ];
    for (path, body, wanted) in cases {
        let (status, answer) = request(sim.addr(), "POST", path, body).await;
        assert_eq!(status, 400, "{path} {body}: {answer}");
        let error = error_of(&answer);
        assert!(error.contains(wanted), "{path} {body}: {error}");
    }
}

#[tokio::test]
async fn people_write_to_each_other_and_to_groups() {
    let sim = simulator().await;
    let (status, ann) =
        request(sim.addr(), "POST", "/admin/people", r#"{"phone":"+1 555 123 4567","script":"echo"}"#).await;
    assert_eq!(status, 200, "{ann}");
    assert_eq!(serde_json::from_str::<Value>(&ann).unwrap()["phone"], json!("15551234567"));

    let (status, sent) =
        request(sim.addr(), "POST", "/admin/people/15557654321/messages", r#"{"to":"15551234567","text":"hi"}"#).await;
    assert_eq!(status, 200, "{sent}");
    let texts = sim.received_texts("15551234567").await;
    assert_eq!((texts[0].from.as_str(), texts[0].text.as_str()), ("15557654321", "hi"));
    assert_eq!(serde_json::from_str::<Value>(&sent).unwrap()["id"], json!(texts[0].id));

    let group = sim.create_group("Friends", &["15551234567", "15557654321"]).await.unwrap();
    sim.send_text("15551234567", &group, "all").await.unwrap();
    assert_eq!(sim.received_texts("15557654321").await[0].chat.as_deref(), Some(group.as_str()));
    let refused = sim.send_text("15559999999", &group, "all").await.unwrap_err();
    assert!(matches!(refused, Refused::NotAMember { .. }));

    let stats = sim.stats();
    assert_eq!((stats.accounts, stats.groups, stats.devices), (3, 1, 0));
    let (_, shown) = request(sim.addr(), "GET", "/admin/stats", "").await;
    assert_eq!(serde_json::from_str::<Value>(&shown).unwrap()["accounts"], json!(3));
    assert_eq!(request(sim.addr(), "GET", "/admin/ledger", "").await, (200, String::new()));
}

#[tokio::test]
async fn media_are_kept() {
    let sim = simulator().await;
    let (status, _) = request(sim.addr(), "POST", "/mms/image/tok%3D?auth=a&resume=1", "").await;
    assert_eq!(status, 404);
    let (status, answer) = request(sim.addr(), "POST", "/mms/image/tok%3D?auth=a&token=tok", "bytes").await;
    assert_eq!(status, 200);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let path = answer["direct_path"].as_str().unwrap();
    assert!(answer["url"].as_str().unwrap().starts_with("https://127.0.0.1:"));
    for query in ["", "?auth=a"] {
        let got = request(sim.addr(), "GET", &format!("{path}{query}"), "").await;
        assert_eq!(got, (200, "bytes".to_owned()));
    }
    assert_eq!(request(sim.addr(), "GET", "/v/sim/none", "").await.0, 404);
}

#[tokio::test]
async fn faults_are_set_and_cleared_and_the_server_stops() {
    let sim = simulator().await;
    let (status, _) = request(sim.addr(), "POST", "/admin/faults", r#"{"fault":"nack","phone":"15551234567"}"#).await;
    assert_eq!(status, 200);
    let (status, _) = request(sim.addr(), "DELETE", "/admin/faults", "").await;
    assert_eq!(status, 200);
    assert!(sim.wait_for(|_| true, Duration::from_millis(20)).await.is_none());
    tokio::time::timeout(Duration::from_secs(5), sim.shutdown()).await.unwrap();
    assert!(TcpStream::connect(sim.addr()).await.is_err());
}

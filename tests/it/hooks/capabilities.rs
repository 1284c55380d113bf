//! What hooks reach: listed hosts through the guard, messages with a quota, never themselves.

use super::{ACCOUNT, JANE, Stage, install, manifest, options};
use crate::support::{Kero, Sink, eventually, own_name, person, simulator};
use kero_simulator::Script;
use serde_json::{Value, json};

const RAW: &str = "on = [\"message\"]\non_error = \"raw\"";

/// Fetches what the message says and tells what came of it.
const FETCH: &str = r#"
export default async function handle(event) {
  try {
    const answer = await fetch(event.message.text, { method: 'POST', headers: { host: 'evil.example', 'x-mine': '1' }, body: 'asked' });
    event.data.fetched = `${answer.status} ${answer.headers.get('location') ?? ''} ${await answer.text()}`;
  } catch (error) {
    event.data.failed = String(error);
  }
  return event;
}"#;

#[tokio::test(flavor = "multi_thread")]
async fn http_goes_to_listed_hosts_through_the_guard() {
    let api = Sink::start().await;
    let host = api.url.trim_end_matches("/hook").to_owned();
    let port = host.rsplit(':').next().unwrap().to_owned();
    let stage = Stage::new().await;
    let hosts = format!("http = [\"{host}/hook*\", \"http://10.1.2.3/*\", \"http://localhost:{port}/*\"]");
    install(&stage.kero, &manifest("fetch", "1", "transform", &format!("{RAW}\n[grants]\n{hosts}")), FETCH.as_bytes())
        .await;
    let ask = async |url: &str| {
        stage.receive(JANE, url).await;
        stage.wait_text(url).await["data"].clone()
    };
    // the tests' gateway lets 127.0.0.0/8 through, for the webhooks
    let url = format!("{host}/hook/contacts?x=1");
    assert!(ask(&url).await["fetched"].as_str().unwrap().starts_with("200 "));
    let seen = api.received().remove(0);
    assert_eq!(seen.target.as_deref(), Some("POST /hook/contacts?x=1"));
    assert_eq!(seen.headers["x-mine"], "1");
    assert_eq!(format!("http://{}", seen.headers["host"]), host, "a host header chooses nothing");
    assert!(seen.headers["idempotency-key"].contains("/fetch/"));
    // not listed: neither path nor host
    for other in [
        format!("{host}/other"),
        format!("http://127.0.0.1:{}/hook", stage.sink.url.rsplit(':').next().unwrap().split('/').next().unwrap()),
    ] {
        let failed = ask(&other).await["failed"].as_str().unwrap().to_owned();
        assert!(failed.contains("denied") || failed.contains("does not name"), "{failed}");
    }
    // listed, but private
    let failed = ask("http://10.1.2.3/x").await["failed"].as_str().unwrap().to_owned();
    assert!(failed.contains("private"), "{failed}");
    // redirects are told, not followed
    api.behave(crate::support::Behaviour::Redirect);
    let before = api.received().len();
    assert!(ask(&format!("{host}/hook/away")).await["fetched"].as_str().unwrap().starts_with("302 http://10.1.2.3/"));
    assert_eq!(api.received().len(), before + 1);
}

/// Five requests for an event, as long as each says, a mebibyte of each answer.
#[tokio::test(flavor = "multi_thread")]
async fn requests_are_few_and_short_and_answers_small() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = vec![0; 4096];
                let read = stream.read(&mut asked).await.unwrap_or(0);
                let path = String::from_utf8_lossy(&asked[..read]).split(' ').nth(1).unwrap_or("").to_owned();
                // `/never` is not answered, `/1000` with as many bytes, `/chunked/1000` without saying how many
                let Ok(bytes) = path.rsplit('/').next().unwrap_or("").parse::<usize>() else {
                    return std::future::pending().await;
                };
                let head = if path.starts_with("/chunked") {
                    format!("transfer-encoding: chunked\r\n\r\n{bytes:x}\r\n")
                } else {
                    format!("content-length: {bytes}\r\n\r\n")
                };
                let answer =
                    format!("HTTP/1.1 200 OK\r\nconnection: close\r\n{head}{}\r\n0\r\n\r\n", "x".repeat(bytes));
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    let script = "export default async function handle(event) {
        const told = [];
        for (const path of event.message.text.split(' ')) {
          const began = Date.now();
          try { told.push((await (await fetch(kero.config.url + path, path === 'never' ? { timeout: 300 } : {})).text()).length); }
          catch (error) { told.push(String(error)); }
          event.data.took = Date.now() - began;
        }
        event.data.told = told; return event; }";
    let more = format!(
        "{RAW}\n[limits]\nwall_ms = 10000\ncpu_ms = 1000\n[grants]\nhttp = [\"{url}*\"]\n[config.schema]\ntype = \"object\""
    );
    let stage = Stage::new().await;
    install(&stage.kero, &manifest("fetch", "1", "transform", &more), script.as_bytes()).await;
    let config = json!({ "config": { "url": url } }).to_string().into_bytes();
    stage.kero.request(reqwest::Method::PUT, "/plugins/fetch/config", &[], Some(config)).await.expect(200);
    let ask = async |text: &str| {
        stage.receive(JANE, text).await;
        stage.wait_text(text).await["data"].clone()
    };
    let told = ask("1 2 3 4 5 6").await["told"].clone();
    assert_eq!(told.as_array().unwrap()[..5], [1, 2, 3, 4, 5]);
    assert!(told[5].as_str().unwrap().contains("at most 5 requests per event"), "{told}");
    let (most, over) = (1 << 20, (1 << 20) + 1);
    let told = ask(&format!("{most} {over} chunked/{over}")).await["told"].clone();
    assert_eq!(told[0], most);
    for answer in [&told[1], &told[2]] {
        assert!(answer.as_str().is_some_and(|it| it.contains("too large")), "{told}");
    }
    let data = ask("never").await;
    assert!(data["told"][0].as_str().unwrap().contains("no answer in time"), "{data}");
    assert!(data["took"].as_i64().unwrap() >= 300, "{data}");
}

/// A name that leads into the gateway's own network is refused when it is resolved, however it is written.
#[tokio::test(flavor = "multi_thread")]
async fn names_of_private_addresses_are_refused_when_resolved() {
    let api = Sink::start().await;
    let port = api.url.trim_end_matches("/hook").rsplit(':').next().unwrap().to_owned();
    // no network is let through
    let (simulator, options) = (simulator().await, options().env("KERO_DELIVERY__ALLOW_NETWORKS", ""));
    let kero = Kero::start_with(&simulator, options).await;
    kero.paired(&simulator, "a", ACCOUNT).await;
    person(&simulator, JANE, Script::Silent);
    let name = own_name();
    let hosts = format!("http = [\"http://{name}:{port}/*\", \"http://127.0.0.1:{port}/*\"]");
    install(&kero, &manifest("fetch", "1", "transform", &format!("{RAW}\n[grants]\n{hosts}")), FETCH.as_bytes()).await;
    for host in [name.as_str(), "127.0.0.1"] {
        let url = format!("http://{host}:{port}/hook");
        simulator.send_text(JANE, ACCOUNT, &url).await.unwrap();
        let failed = eventually("the event", || async {
            let events = kero.get("/instances/a/events?limit=1000").await.expect(200);
            let found = events["data"].as_array().unwrap().iter().find(|it| it["data"]["text"] == url.as_str())?;
            Some(found["data"]["failed"].as_str().unwrap_or("it was fetched").to_owned())
        })
        .await;
        assert!(failed.contains("private"), "{host}: {failed}");
    }
    assert!(api.received().is_empty());
}

/// Answers every message, also its own and what comes of them.
const ANSWER: &str = r#"
export default function handle(event) {
  const chat = event.message?.chat || event.data.chat || event.data.from || kero.config.chat;
  try { event.data.sent = kero.send.text(chat, `answer to ${event.name}`); }
  catch (error) { event.data.refused = String(error); }
  return event;
}"#;

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_sent_once_within_the_quota_and_cause_no_loop() {
    let stage = Stage::new().await;
    let more = "on = [\"message\", \"message_ack\", \"receipt\"]\non_error = \"raw\"\n[grants]\nsend = { per_chat_per_minute = 3 }\n\
                [config.schema]\ntype = \"object\"\nproperties.chat = { type = \"string\" }";
    install(&stage.kero, &manifest("answer", "1", "transform", more), ANSWER.as_bytes()).await;
    stage.receive(JANE, "hello").await;
    let event = stage.wait_text("hello").await;
    let correlation = event["data"]["sent"].as_str().unwrap().to_owned();
    assert_eq!(correlation, format!("{}.answer.1", event["id"].as_str().unwrap()));
    let got =
        async || stage.simulator.received_texts(JANE).await.iter().map(|text| text.text.clone()).collect::<Vec<_>>();
    eventually("the answer", || async { (!got().await.is_empty()).then_some(()) }).await;
    // its acknowledgement and its receipts are events that the plugin wants, and caused
    let (_, ack) = stage.sink.wait_for("ack", |event| event["data"]["correlation_id"] == correlation.as_str()).await;
    assert_eq!(ack["data"]["status"], "sent");
    assert!(ack["data"].get("sent").is_none() && ack["data"].get("refused").is_none(), "{ack}");
    // the quota: three a minute and chat
    for n in 0..4 {
        stage.receive(JANE, &format!("more {n}")).await;
    }
    let last = stage.wait_text("more 3").await;
    assert!(last["data"]["refused"].as_str().unwrap().contains("at most 3 messages per chat and minute"), "{last}");
    eventually("three answers", || async { (got().await.len() == 3).then_some(()) }).await;
    let calls = stage.calls("answer").await;
    assert!(calls.len() >= 5 && calls.iter().all(|call| call["outcome"] == "replace"));
    let about_own: Vec<&Value> = calls.iter().filter(|call| call["event_id"] == ack["id"]).collect();
    assert!(about_own.is_empty(), "not called for what it caused");

    // somebody else's send is not its own: it is called for that
    let mine = stage.kero.send_async("a", JANE, "by the API").await;
    let (_, ack) =
        stage.sink.wait_for("the other ack", |event| event["data"]["correlation_id"] == mine["correlation_id"]).await;
    assert!(ack["data"].get("refused").is_some(), "{ack}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_grants_everything_is_denied_by_name() {
    let stage = Stage::new().await;
    let script = r#"
export default async function handle(event) {
  const told = [];
  for (const ask of [() => kero.kv.get('k'), () => kero.send.text(event.message.chat, 'x'), () => fetch('https://example.com/')]) {
    try { await ask(); told.push('given'); } catch (error) { told.push(String(error)); }
  }
  event.data.told = told;
  return event;
}"#;
    install(&stage.kero, &manifest("denied", "1", "transform", RAW), script.as_bytes()).await;
    stage.receive(JANE, "hello").await;
    let event = stage.wait_text("hello").await;
    let told = event["data"]["told"].as_array().unwrap();
    for (said, grant) in told.iter().zip(["kv", "send", "http"]) {
        let said = said.as_str().unwrap();
        assert!(said.contains(&format!("the grant `{grant}` is missing")), "{said}");
    }
    let call = stage.calls("denied").await.remove(0);
    assert_eq!(call["denied"], json!(["http", "kv", "send"]));
    assert!(stage.simulator.received_texts(JANE).await.is_empty());
}

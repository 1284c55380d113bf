//! Plugins that answer what comes of messages, in a conversation with somebody who reads and answers everything: what
//! one caused is not given to it, and what two cause each other ends at their quotas.

use super::{Stage, install, manifest};
use crate::support::{eventually, eventually_within, person};
use kero_simulator::Script;
use serde_json::Value;
use std::collections::HashSet;
use std::time::Duration;

const ECHO: &str = "491551000599";

/// A message for every event, whatever it is about.
fn answering() -> String {
    format!(
        "export default (event) => {{ event.data.sent = kero.send.text('{ECHO}', 'about ' + event.id); return event; }}"
    )
}

fn asked(name: &str, quota: u32) -> String {
    let more = format!(
        "on = [\"message_ack\", \"receipt\"]\non_error = \"raw\"\n[grants]\nsend = {{ per_chat_per_minute = {quota} }}"
    );
    manifest(name, "1", "transform", &more)
}

async fn journal(stage: &Stage) -> Vec<Value> {
    let page = stage.kero.get("/instances/a/events?limit=1000").await.expect(200);
    page["data"].as_array().unwrap().clone()
}

/// The ids of the messages that an event is about.
fn about(event: &Value) -> HashSet<&str> {
    let listed = event["data"]["ids"].as_array().into_iter().flatten().filter_map(Value::as_str);
    event["data"]["message_id"].as_str().into_iter().chain(listed).collect()
}

/// Waits until all is told of every message that the person got, its result and that it was read, and the person got
/// every message that a plugin was promised.
async fn settled(stage: &Stage, least: usize) -> Vec<Value> {
    eventually_within(Duration::from_secs(90), "all messages, results and receipts", || async {
        let events = journal(stage).await;
        let got = stage.simulator.received_texts(ECHO).await;
        let has = |id: &str, fits: &dyn Fn(&Value) -> bool| events.iter().any(|it| about(it).contains(id) && fits(it));
        let told = got.iter().all(|text| {
            has(&text.id, &|it| it["event"] == "message_ack")
                && has(&text.id, &|it| it["event"] == "receipt" && it["data"]["type"] == "read")
        });
        let promised = events.iter().filter(|it| it["data"]["sent"].is_string());
        let came = promised.map(answer_to).all(|text| got.iter().any(|it| it.text == text));
        (got.len() >= least && told && came).then_some(events)
    })
    .await
}

fn answer_to(event: &Value) -> String {
    format!("about {}", event["id"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn results_and_receipts_of_a_plugins_own_messages_cause_no_more_of_them() {
    let stage = Stage::new().await;
    person(&stage.simulator, ECHO, Script::Echo);
    // far more than there should be, so that it is not the quota that ends it
    install(&stage.kero, &asked("answering", 500), answering().as_bytes()).await;
    let mut own = HashSet::new();
    for text in ["hello", "the end"] {
        let sent = stage.kero.send_async("a", ECHO, text).await;
        own.insert(sent["message_id"].as_str().unwrap().to_owned());
        stage.wait_text(&format!("echo: {text}")).await;
    }
    // each of the two has a result and is read, which makes four answers at least
    let events = settled(&stage, 2 + 4).await;
    let theirs = |it: &&Value| matches!(it["event"].as_str(), Some("message_ack" | "receipt"));
    let (mine, caused): (Vec<&Value>, Vec<&Value>) =
        events.iter().filter(theirs).partition(|it| about(it).iter().any(|id| own.contains(*id)));
    assert!(mine.iter().all(|it| it["data"]["sent"].is_string()), "called for what others caused");
    assert!(caused.len() >= 2 * mine.len(), "results and receipts of the answers are there: {}", caused.len());
    assert!(caused.iter().all(|it| it["data"].get("sent").is_none()), "and it is called for none of them");
    assert_eq!(stage.calls("answering").await.len(), mine.len());
    let mut answers = stage.got(ECHO).await;
    answers.retain(|text| text.starts_with("about "));
    let mut expected: Vec<String> = mine.iter().map(|it| answer_to(it)).collect();
    answers.sort();
    expected.sort();
    assert_eq!(answers, expected, "one for each event");
}

/// Neither is called for its own, but for the other's: then the quota is the end of it.
#[tokio::test(flavor = "multi_thread")]
async fn plugins_that_answer_each_other_end_at_their_quotas() {
    const QUOTA: u32 = 4;
    let stage = Stage::new().await;
    person(&stage.simulator, ECHO, Script::Read);
    for name in ["first", "second"] {
        install(&stage.kero, &asked(name, QUOTA), answering().as_bytes()).await;
    }
    stage.kero.send_async("a", ECHO, "hello").await;
    eventually("both to be refused", || async {
        let refused = async |name: &str| stage.calls(name).await.iter().any(|call| call["outcome"] == "reject");
        (refused("first").await && refused("second").await).then_some(())
    })
    .await;
    settled(&stage, 1 + 2 * QUOTA as usize).await;
    let answers = stage.got(ECHO).await.into_iter().filter(|text| text.starts_with("about ")).count();
    assert_eq!(answers, 2 * QUOTA as usize, "not one more than both may send in a minute");
}

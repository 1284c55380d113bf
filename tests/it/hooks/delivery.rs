//! Delivery hooks: the shaped request, stored once; judged answers; holding.

use super::{JANE, Stage, install, manifest};
use crate::support::{Behaviour, eventually};
use serde_json::Value;

const SHAPE: &str = r#"
let shaped = 0;
export function shape(event, request) {
  request.method = 'PUT';
  request.path += '/' + event.name + '?x=1';
  request.headers['x-shaped'] = String(++shaped) + ' ' + Math.random();
  request.body = { said: event.message?.text, n: kero.kv.increment('shaped', 1) };
  return request;
}
export function judge(request, response, usual) {
  if (response.status === 409) return 'success';
  if (response.status === 418) return ['dead', 'it is a teapot'];
  return usual;
}
"#;

const GRANTS: &str = "\n[grants]\nkv = \"1KiB\"";

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_shaped_once_and_answers_judged() {
    let stage = Stage::new().await;
    let more = format!("on = [\"message\"]\non_error = \"dead\"{GRANTS}");
    install(&stage.kero, &manifest("shaper", "1", "delivery", &more), SHAPE.as_bytes()).await;
    stage.sink.behave(Behaviour::Status(500));
    stage.receive(JANE, "hello").await;
    eventually("three tries", || async { (shaped(&stage, "hello").len() >= 3).then_some(()) }).await;
    stage.sink.behave(Behaviour::Status(409));
    eventually("a success", || async {
        stage.calls("shaper").await.iter().any(|call| call["outcome"] == "success").then_some(())
    })
    .await;
    let tries = shaped(&stage, "hello");
    let first = &tries[0];
    assert_eq!(first.json()["n"], 1);
    for other in &tries {
        assert_eq!(other.body, first.body, "the same bytes");
        assert_eq!(other.headers["x-shaped"], first.headers["x-shaped"]);
        assert!(other.target.as_deref() == Some("PUT /hook/message?x=1"), "{:?}", other.target);
        assert_eq!(other.headers["webhook-id"], first.headers["webhook-id"]);
    }
    let count = |calls: &[Value], outcome: &str| calls.iter().filter(|call| call["outcome"] == outcome).count();
    let calls = stage.calls("shaper").await;
    assert_eq!(count(&calls, "shaped"), 1);
    assert_eq!((count(&calls, "success"), count(&calls, "retry")), (1, tries.len() - 1));
    assert!(calls.iter().all(|call| call["delivery_id"].is_string()));

    stage.sink.behave(Behaviour::Status(418));
    stage.receive(JANE, "teapot").await;
    eventually("its end", || async {
        stage.calls("shaper").await.iter().any(|call| call["outcome"] == "dead").then_some(())
    })
    .await;
    stage.sink.behave(Behaviour::Status(200));
    stage.receive(JANE, "after").await;
    eventually("the next in line", || async { (!shaped(&stage, "after").is_empty()).then_some(()) }).await;
    assert_eq!(shaped(&stage, "teapot").len(), 1, "dead is dead");
    assert_eq!(shaped(&stage, "after")[0].json()["n"], 3, "its storage counts deliveries, not tries");
}

fn shaped(stage: &Stage, text: &str) -> Vec<crate::support::Received> {
    stage
        .sink
        .received()
        .into_iter()
        .filter(|it| serde_json::from_slice::<Value>(&it.body).is_ok_and(|body| body["said"] == text))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_shape_follows_its_policy_and_burns_no_attempt() {
    let stage = Stage::new().await;
    let script = r#"
export function shape(event, request) {
  const text = event.message.text;
  if (text === 'later' && !kero.kv.get('ready')) { throw new kero.Retry('not yet'); }
  if (text === 'bad') throw new Error('no');
  if (text === 'go') kero.kv.set('ready', '1');
  return request;
}"#;
    let more = |policy: &str| format!("on = [\"message\"]\non_error = \"{policy}\"{GRANTS}");
    install(&stage.kero, &manifest("shaper", "1", "delivery", &more("raw")), script.as_bytes()).await;
    stage.receive(JANE, "bad").await;
    let (received, _) = stage.sink.wait_for("bad, as it is", |event| event["data"]["text"] == "bad").await;
    assert_eq!(received.headers.get("x-kero-hook-error").map(String::as_str), Some("shaper/reject"));

    install(&stage.kero, &manifest("shaper", "2", "delivery", &more("dead")), script.as_bytes()).await;
    stage.receive(JANE, "bad").await;
    stage.receive(JANE, "later").await;
    eventually("the first try", || async {
        stage.calls("shaper").await.iter().any(|call| call["outcome"] == "retry").then_some(())
    })
    .await;
    stage.receive(super::JOHN, "go").await;
    stage.wait_text("later").await;
    assert_eq!(stage.texts(), ["bad", "go", "later"], "the bad one is dead, the other held until it could go");
    let calls = stage.calls("shaper").await;
    assert!(
        calls
            .iter()
            .any(|call| call["outcome"] == "retry" && call["note"].as_str().is_some_and(|it| it.contains("not yet")))
    );

    stage.kero.post_empty("/plugins/shaper/suspend").await.expect(200);
    stage.receive(JANE, "held").await;
    eventually("it to be put off", || async {
        let pending = stage.kero.get("/instances/a/deliveries?state=pending").await.expect(200);
        let pending = pending["data"].as_array().unwrap().clone();
        // due with the event at first, half a minute later once it is held
        let second =
            |it: &Value, member: &str| it[member].as_str().unwrap_or_default().chars().take(19).collect::<String>();
        pending.iter().any(|it| second(it, "next_attempt_at") > second(it, "created_at")).then_some(())
    })
    .await;
    // what was put off comes at once, not when its time is over
    stage.kero.post_empty("/plugins/shaper/deactivate").await.expect(200);
    let limit = std::time::Duration::from_secs(20);
    let (received, _) = crate::support::eventually_within(limit, "held", || async {
        stage.sink.received().into_iter().find_map(|it| {
            let json = it.json();
            (json["data"]["text"] == "held").then_some((it, json))
        })
    })
    .await;
    assert!(!received.headers.contains_key("x-kero-hook-error"));
}

/// A hook cannot leave the endpoint's origin, nor set what is the gateway's.
#[tokio::test(flavor = "multi_thread")]
async fn a_shape_stays_under_its_origin() {
    let stage = Stage::new().await;
    let script = r#"
export function shape(event, request) {
  const text = event.message.text;
  if (text === 'path') request.path = '//evil.example/x';
  if (text === 'host') request.headers['host'] = 'evil.example';
  if (text === 'signature') request.headers['webhook-signature'] = 'v1,forged';
  if (text === 'connect') request.method = 'CONNECT';
  return request;
}"#;
    let more = "on = [\"message\"]\non_error = \"dead\"";
    install(&stage.kero, &manifest("escape", "1", "delivery", more), script.as_bytes()).await;
    for text in ["path", "host", "signature", "connect", "fine"] {
        stage.receive(JANE, text).await;
    }
    stage.wait_text("fine").await;
    assert_eq!(stage.texts(), ["fine"]);
    let calls = stage.calls("escape").await;
    assert_eq!(calls.iter().filter(|call| call["outcome"] == "bad_answer").count(), 4, "{calls:?}");
}

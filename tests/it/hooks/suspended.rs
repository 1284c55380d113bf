//! A plugin of the policy `drop` that the operator suspended: what a client waits for comes, and nothing is lost.

use super::{JANE, JOHN, Stage, activate, manifest, upload};
use crate::support::eventually;
use serde_json::{Value, json};

const MARK: &str = "export default (event) => { event.data.by = 'hook'; return event; }";
const SHAPE: &str = "export function shape(event, request) { request.headers['x-shaped'] = 'yes'; return request; }";
const BOTH: &str = "on = [\"message\", \"message_ack\"]\non_error = \"drop\"\n[grants]\ndrop-ack = true";

/// Uploads and activates it without what it asks for, and suspends it.
async fn suspended(stage: &Stage, kind: &str, script: &str) {
    let asked = manifest("picky", "1", kind, BOTH);
    upload(&stage.kero, &asked, script.as_bytes()).await.expect(201);
    let body = json!({ "with_fewer_grants": true });
    stage.kero.post("/plugins/picky/versions/1/activate", body).await.expect(200);
    let view = stage.kero.post_empty("/plugins/picky/suspend").await.expect(200);
    assert_eq!(view["data"]["state"], "suspended");
}

/// The sink's request with the acknowledgement of a send to John.
async fn acknowledged(stage: &Stage, text: &str) -> crate::support::Received {
    let sent = stage.kero.send_async("a", JOHN, text).await;
    let mine = |event: &Value| event["data"]["correlation_id"] == sent["correlation_id"];
    let (received, event) = stage.sink.wait_for("the acknowledgement", mine).await;
    assert_eq!((&event["event"], &event["data"]["status"]), (&json!("message_ack"), &json!("sent")));
    received
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_pass_a_suspended_transform_and_the_rest_is_held() {
    let mut stage = Stage::new().await;
    suspended(&stage, "transform", MARK).await;
    for restarted in [false, true] {
        if restarted {
            stage.kero.restart().await;
            stage.kero.wait_status("a", "connected").await;
        }
        let received = acknowledged(&stage, &format!("restarted: {restarted}")).await;
        assert!(received.json()["data"].get("by").is_none(), "it is not called");
        assert_eq!(received.headers["x-kero-hook-error"], "picky/suspended", "and that is told");
        stage.receive(JANE, &format!("message {restarted}")).await;
    }
    // an event behind the messages has come, and they have not: they wait
    acknowledged(&stage, "the last").await;
    assert!(stage.texts().is_empty(), "{:?}", stage.texts());
    stage.kero.post_empty("/plugins/picky/resume").await.expect(200);
    assert_eq!(stage.wait_text("message true").await["data"]["by"], "hook");
    assert_eq!(stage.texts(), ["message false", "message true"], "held, in order, not lost");
    assert_eq!(stage.calls("picky").await.len(), 2, "not called while it was suspended");
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_pass_a_suspended_shape_and_the_rest_is_held() {
    let stage = Stage::new().await;
    suspended(&stage, "delivery", SHAPE).await;
    let received = acknowledged(&stage, "hello").await;
    assert!(!received.headers.contains_key("x-shaped"), "it is not called");
    assert_eq!(received.headers["x-kero-hook-error"], "picky/suspended", "and that is told");
    stage.receive(JANE, "held").await;
    acknowledged(&stage, "the last").await;
    assert!(stage.texts().is_empty(), "{:?}", stage.texts());
    stage.kero.post_empty("/plugins/picky/resume").await.expect(200);
    let (received, _) = stage.sink.wait_for("held", |event| event["data"]["text"] == "held").await;
    assert_eq!(received.headers["x-shaped"], "yes");
    assert!(stage.deliveries("dead").await.is_empty());
}

/// With the grant it may keep an acknowledgement back: then that is held as everything else, and comes when it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_plugin_that_may_drop_acknowledgements_holds_them() {
    let stage = Stage::new().await;
    let asked = manifest("picky", "1", "transform", BOTH);
    let uploaded = upload(&stage.kero, &asked, MARK.as_bytes()).await.expect(201);
    activate(&stage.kero, &uploaded["data"]).await;
    stage.kero.post_empty("/plugins/picky/suspend").await.expect(200);
    let sent = stage.kero.send_async("a", JOHN, "hello").await;
    eventually("the message to be sent", || async {
        stage.got(JOHN).await.contains(&"hello".to_owned()).then_some(())
    })
    .await;
    // events of others come meanwhile
    stage.instance("b", "491551000540").await;
    assert!(stage.sink.events("message_ack").is_empty());
    stage.kero.post_empty("/plugins/picky/resume").await.expect(200);
    let mine = |event: &Value| event["data"]["correlation_id"] == sent["correlation_id"];
    let (_, event) = stage.sink.wait_for("the acknowledgement", mine).await;
    assert_eq!((&event["data"]["by"], &event["data"]["status"]), (&json!("hook"), &json!("sent")));
}

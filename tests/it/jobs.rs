//! The jobs API: pages, states, cancelling; and what a key of one instance sees of the queue.

use crate::support::{Kero, Options, Sink, eventually, paired_with_sink, person};
use kero_domain::Timestamp;
use kero_simulator::{Fault, FaultRule, Script};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

fn names(page: &Value) -> Vec<String> {
    page["data"].as_array().unwrap().iter().map(|job| job["correlation_id"].as_str().unwrap().to_owned()).collect()
}

async fn send(kero: &Kero, correlation: &str, body: Value) -> Value {
    let headers = [("x-async", "true"), ("x-correlation-id", correlation)];
    kero.post_with("/instances/a/messages/text", &headers, body).await.expect(202)
}

async fn ended(sink: &Sink, correlation: &str) -> Value {
    let of = |event: &Value| event["event"] == "message_ack" && event["data"]["correlation_id"] == correlation;
    sink.wait_for(correlation, of).await.1["data"].clone()
}

fn in_an_hour() -> String {
    Timestamp::now().after(Duration::from_secs(3_600)).rfc3339()
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_read_in_pages_and_by_several_states() {
    let (simulator, kero, sink) = paired_with_sink("491532000001", Options::default()).await;
    let recipient = person(&simulator, "491532000002", Script::Silent);
    for n in 0..4 {
        send(&kero, &format!("sent{n}"), json!({ "phone": recipient, "message": "x" })).await;
    }
    send(&kero, "dead", json!({ "phone": "491532000000", "message": "x" })).await;
    for name in ["later", "cancelled"] {
        send(&kero, name, json!({ "phone": recipient, "message": "x", "send_at": in_an_hour() })).await;
    }
    kero.post_empty("/instances/a/jobs/cancelled/cancel").await.expect(200);
    for name in ["sent0", "sent1", "sent2", "sent3", "dead", "cancelled"] {
        ended(&sink, name).await;
    }
    let all = ["cancelled", "later", "dead", "sent3", "sent2", "sent1", "sent0"];
    let list = async |query: &str| kero.get(&format!("/instances/a/jobs{query}")).await.expect(200);
    let whole = list("").await;
    assert_eq!(
        (names(&whole), whole.get("next_cursor").filter(|it| !it.is_null())),
        (all.map(str::to_owned).to_vec(), None)
    );
    let (mut read, mut sizes, mut query) = (Vec::new(), Vec::new(), "?limit=3".to_owned());
    loop {
        let page = list(&query).await;
        sizes.push(names(&page).len());
        read.extend(names(&page));
        // what is accepted meanwhile is newer than any page that follows
        send(&kero, &format!("meanwhile{}", sizes.len()), json!({ "phone": recipient, "message": "x" })).await;
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        query = format!("?limit=3&cursor={cursor}");
    }
    assert_eq!((read, sizes), (all.map(str::to_owned).to_vec(), vec![3, 3, 1]));
    assert_eq!(names(&list("?state=failed&state=cancelled").await), ["cancelled", "dead"]);
    assert_eq!(names(&list("?state=held").await), ["later"]);
    assert_eq!(names(&list("?state=failed&state=held&limit=1").await), ["later"]);
    let cursor = list("?state=failed&state=held&limit=1").await["next_cursor"].as_str().unwrap().to_owned();
    assert_eq!(names(&list(&format!("?state=failed&state=held&limit=1&cursor={cursor}")).await), ["dead"]);
    assert!(names(&list("?state=played").await).is_empty());
    for bad in ["?state=gone", "?cursor=x", "?limit=0", "?limit=1001"] {
        kero.get(&format!("/instances/a/jobs{bad}")).await.problem(400, "validation-failed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_cancelled_and_what_began_or_ended_is_not() {
    let (simulator, kero, sink) = paired_with_sink("491532000011", Options::default()).await;
    kero.paired(&simulator, "away", "491532000012").await;
    kero.post_empty("/instances/away/disconnect").await.expect(200);
    let recipient = person(&simulator, "491532000013", Script::Silent);
    let cancel = async |name: &str| kero.post_empty(&format!("/instances/a/jobs/{name}/cancel")).await;
    send(&kero, "scheduled", json!({ "phone": recipient, "message": "never", "send_at": in_an_hour() })).await;
    let cancelled = cancel("scheduled").await.expect(200);
    assert_eq!(cancelled["data"]["state"], "cancelled", "{cancelled}");
    let end = ended(&sink, "scheduled").await;
    assert_eq!((&end["status"], &end["code"], &end["attempts"]), (&json!("cancelled"), &json!("cancelled"), &json!(0)));
    cancel("scheduled").await.problem(409, "job-not-cancellable");
    // under way
    simulator.inject(FaultRule::new(Fault::AckLate).phone("491532000011").delay(Duration::from_secs(4)).count(1));
    let sending = send(&kero, "sending", json!({ "phone": "491532000012", "message": "x" })).await;
    simulator.wait_for(|line| sending["message_id"] == line.id.as_str(), Duration::from_secs(20)).await.unwrap();
    cancel("sending").await.problem(409, "job-not-cancellable");
    assert_eq!(ended(&sink, "sending").await["status"], "sent");
    cancel("sending").await.problem(409, "job-not-cancellable");
    send(&kero, "dead", json!({ "phone": "491532000000", "message": "x" })).await;
    assert_eq!(ended(&sink, "dead").await["status"], "failed");
    cancel("dead").await.problem(409, "job-not-cancellable");
    cancel("nobody").await.problem(404, "job-not-found");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let ends: std::collections::HashSet<String> =
        sink.events("message_ack").iter().map(|event| event["id"].to_string()).collect();
    assert_eq!(ends.len(), 3, "one end each");
    assert!(simulator.received_texts(&recipient).await.is_empty());
}

/// A key of one instance sees its own part of the queue, and changes nothing for others.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_an_instance_sees_its_own_queue_only() {
    let (simulator, mut kero, sink) = paired_with_sink("491532000021", Options::default()).await;
    kero.post("/instances", json!({ "instance_id": "b", "webhook_url": sink.url })).await.expect(201);
    kero.pair(&simulator, "b", "491532000022").await;
    let recipient = person(&simulator, "491532000023", Script::Silent);
    for id in ["a", "b"] {
        kero.send_async(id, "491532000000", "never").await;
        let path = format!("/instances/{id}/messages/text");
        let later = json!({ "phone": recipient, "message": "later", "send_at": in_an_hour() });
        kero.post_with(&path, &[("x-async", "true")], later).await.expect(202);
    }
    eventually("both dead letters", || async {
        (kero.get("/dead-letters").await.expect(200)["data"].as_array().unwrap().len() == 2).then_some(())
    })
    .await;
    kero.terminate().await;
    let output = kero.command().args(["key", "new", "--instance", "a"]).output().await.unwrap();
    let key = String::from_utf8(output.stdout).unwrap().split_whitespace().last().unwrap().to_owned();
    kero.launch().await;
    let headers = [("x-api-key", key.as_str())];
    let get = async |path: &str| kero.request(Method::GET, path, &headers, None).await;
    let queue = get("/queue").await.expect(200);
    let instances = |queue: &Value| -> Vec<String> {
        queue["instances"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["instance_id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!((instances(&queue), &queue["total"]), (vec!["a".to_owned()], &json!(1)), "{queue}");
    assert!(queue["data"].as_array().unwrap().iter().all(|row| row["instance_id"] == "a"), "{queue}");
    assert_eq!(instances(&kero.get("/queue").await.expect(200)), ["a", "b"]);
    for path in ["/queue/pause", "/queue/resume"] {
        kero.request(Method::POST, path, &headers, None).await.problem(403, "forbidden");
    }
    assert_eq!(kero.get("/queue").await.expect(200)["paused"], false);
    get("/dead-letters").await.problem(403, "forbidden");
    assert_eq!(names(&get("/instances/a/dead-letters").await.expect(200)).len(), 1);
    for path in ["/instances/b/dead-letters", "/instances/b/jobs"] {
        get(path).await.problem(403, "forbidden");
    }
    let body = Some(b"{}".to_vec());
    kero.request(Method::POST, "/instances/b/dead-letters/retry", &headers, body).await.problem(403, "forbidden");
    assert_eq!(kero.get("/dead-letters").await.expect(200)["data"].as_array().unwrap().len(), 2);
}

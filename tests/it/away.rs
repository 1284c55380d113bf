//! The database is away for a while: nothing is promised meanwhile, nothing that was promised is lost, and nobody has to
//! do anything when it is back.

use crate::support::{Kero, Options, Proxy, Sink, database_url, eventually, eventually_within, person, simulator};
use kero_simulator::Script;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

const OWN: &str = "491533000001";

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_nothing_is_promised_and_nothing_lost() {
    let url = database_url().await;
    let (scheme, rest) = url.split_once("://").unwrap();
    let (authority, path) = rest.split_once('/').unwrap();
    let (user, server) = authority.rsplit_once('@').unwrap();
    let proxy = Proxy::start(server.to_owned()).await;
    let through = format!("{scheme}://{user}@{}/{path}", proxy.address);
    let (simulator, sink) = (simulator().await, Sink::start().await);
    let kero = Kero::start_with(&simulator, Options::default().database(through)).await;
    kero.post("/instances", json!({ "instance_id": "a", "webhook_url": sink.url })).await.expect(201);
    kero.pair(&simulator, "a", OWN).await;
    let recipients: Vec<String> =
        (0..4).map(|n| person(&simulator, &format!("49153300001{n}"), Script::Silent)).collect();
    let peer = person(&simulator, "491533000021", Script::Silent);
    simulator.send_text(&peer, OWN, "before").await.unwrap();
    sink.wait_for("the first message", |event| event["data"]["text"] == "before").await;

    // what was accepted the moment before the cut is under way
    let mut accepted: BTreeMap<String, (String, String)> = BTreeMap::new();
    for n in 0..40 {
        let (text, phone) = (format!("n{n:02}"), &recipients[n % recipients.len()]);
        let answer = kero.send_async("a", phone, &text).await;
        accepted.insert(answer["correlation_id"].as_str().unwrap().to_owned(), (phone.clone(), text));
    }
    proxy.cut();
    let cut = Instant::now();
    let inbound = simulator.send_text(&peer, OWN, "meanwhile").await.unwrap();
    let (mut refused, mut rounds) = (0, 0);
    while cut.elapsed() < Duration::from_secs(4) || rounds < 2 {
        let body = json!({ "phone": recipients[0], "message": "refused" });
        let path = "/instances/a/messages/text";
        let (asynchronous, synchronous) =
            tokio::join!(kero.post_with(path, &[("x-async", "true")], body.clone()), kero.post(path, body.clone()));
        for answer in [asynchronous, synchronous] {
            assert_eq!(answer.status, 503, "{}", answer.text());
            assert!(answer.json()["code"].is_string());
            refused += 1;
        }
        rounds += 1;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(simulator.unacknowledged(OWN).contains(&inbound), "what could not be stored is not acknowledged");
    assert!(sink.events("message").iter().all(|event| event["data"]["text"] != "meanwhile"));
    proxy.reopen();

    sink.wait_for("the message that came meanwhile", |event| event["data"]["text"] == "meanwhile").await;
    eventually("its acknowledgement", || async { (!simulator.unacknowledged(OWN).contains(&inbound)).then_some(()) })
        .await;
    eventually_within(Duration::from_secs(90), "an end for every send", || async {
        let told: HashSet<String> = sink
            .events("message_ack")
            .iter()
            .map(|event| event["data"]["correlation_id"].as_str().unwrap().to_owned())
            .collect();
        accepted.keys().all(|correlation| told.contains(correlation)).then_some(())
    })
    .await;
    // nobody intervened, and the next one is as ever
    kero.send_text("a", &recipients[0], "after").await.expect(200);
    for correlation in accepted.keys() {
        let of = |event: &&Value| event["data"]["correlation_id"] == correlation.as_str();
        let ends = sink.events("message_ack");
        let ends: Vec<&Value> = ends.iter().filter(of).collect();
        let ids: HashSet<String> = ends.iter().map(|end| end["id"].to_string()).collect();
        assert_eq!((ids.len(), &ends[0]["data"]["status"]), (1, &json!("sent")), "{ends:?}");
    }
    for recipient in &recipients {
        let expected: Vec<&str> =
            accepted.values().filter(|(phone, _)| phone == recipient).map(|(_, text)| text.as_str()).collect();
        let mut expected = expected;
        expected.sort_unstable();
        let mut seen = HashSet::new();
        let texts = simulator.received_texts(recipient).await;
        let shown: Vec<&str> = texts
            .iter()
            .filter(|text| seen.insert(text.id.clone()) && text.text != "after")
            .map(|text| text.text.as_str())
            .collect();
        assert_eq!(shown, expected, "once each, in order, and nothing that was refused");
    }
    println!("away: {refused} sends were refused, {} were accepted before, all of these were sent", accepted.len());
}

//! Receipts that overtake the acknowledgement of the message that they are about: none is lost, and nothing that a
//! receipt proves is sent again.

use crate::support::{Kero, Options, Sink, eventually, paired_with_sink, person};
use futures_util::StreamExt;
use kero_simulator::{Fault, FaultRule, Script, Simulator};
use serde_json::{Value, json};
use std::time::Duration;

async fn job(kero: &Kero, accepted: &Value) -> Value {
    let path = format!("/instances/a/jobs/{}", accepted["correlation_id"].as_str().unwrap());
    kero.get(&path).await.expect(200)["data"].clone()
}

/// The receipt is all that says that the message arrived.
#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_without_an_acknowledgement_delivers_its_job() {
    let (simulator, kero, sink) = paired_with_sink("491530000001", Options::default()).await;
    for (n, (script, state)) in [(Script::Silent, "delivered"), (Script::Read, "read")].into_iter().enumerate() {
        let recipient = person(&simulator, &format!("49153000001{n}"), script);
        simulator.inject(FaultRule::new(Fault::AckMissing).phone("491530000001").count(1));
        let accepted = kero.send_async("a", &recipient, "never acknowledged").await;
        let last =
            eventually(state, || async { Some(job(&kero, &accepted).await).filter(|job| job["state"] == state) }).await;
        assert_eq!(last["attempts"], 1, "{last}");
        let of = |event: &Value| event["data"]["correlation_id"] == accepted["correlation_id"];
        let (_, ack) = sink.wait_for("its end", of).await;
        assert_eq!(ack["data"]["status"], "sent", "{ack}");
        assert_eq!(simulator.ledger().iter().filter(|line| accepted["message_id"] == line.id.as_str()).count(), 1);
    }
}

/// Acknowledgement, delivery and reading come together, in any order: the last of them is what the job says.
#[tokio::test(flavor = "multi_thread")]
async fn every_send_to_who_reads_at_once_becomes_read() {
    const SENDS: usize = 100;
    let (simulator, kero, _sink) = paired_with_sink("491530000021", Options::default()).await;
    let recipient = person(&simulator, "491530000022", Script::Read);
    futures_util::stream::iter(0..SENDS)
        .for_each_concurrent(8, |n| {
            let (kero, recipient) = (&kero, &recipient);
            async move {
                kero.send_async("a", recipient, &format!("n{n}")).await;
            }
        })
        .await;
    let states = async || -> Vec<String> {
        let page = kero.get("/instances/a/jobs?limit=1000").await.expect(200);
        page["data"].as_array().unwrap().iter().map(|job| job["state"].as_str().unwrap().to_owned()).collect()
    };
    eventually("all of them to be sent", || async {
        let open = ["queued", "held", "sending"];
        states().await.iter().all(|state| !open.contains(&state.as_str())).then_some(())
    })
    .await;
    eventually("all of them to be read", || async {
        let states = states().await;
        (states.len() == SENDS && states.iter().all(|state| state == "read")).then_some(())
    })
    .await;
}

/// A send that WhatsApp did not acknowledge, to a recipient whose device `b` is away; it is repeated after `again`.
async fn in_doubt([own, recipient]: [&str; 2], again: &str) -> (Simulator, Kero, Sink, Value) {
    let options = Options::default()
        .env("KERO_SENDING__ACK_TIMEOUT", "500ms")
        .env("KERO_QUEUE__RETRY_BASE", again)
        .env("KERO_QUEUE__RETRY_CEILING", again);
    let (simulator, kero, sink) = paired_with_sink(own, options).await;
    kero.paired(&simulator, "b", recipient).await;
    kero.post_empty("/instances/b/disconnect").await.expect(200);
    simulator.inject(FaultRule::new(Fault::AckMissing).phone(own).count(1));
    let accepted = kero.send_async("a", recipient, "once").await;
    eventually("doubt", || async { (job(&kero, &accepted).await["held_reason"] == "in_doubt").then_some(()) }).await;
    (simulator, kero, sink, accepted)
}

/// The same, and a receipt of it came before it was due again.
async fn in_doubt_with_a_receipt(numbers: [&str; 2]) -> (Simulator, Kero, Sink, Value) {
    let (simulator, kero, sink, accepted) = in_doubt(numbers, "8s").await;
    // the recipient's device takes it, and says so
    kero.post_empty("/instances/b/connect").await.expect(200);
    kero.wait_status("b", "connected").await;
    let of = |event: &Value| event["event"] == "receipt" && event["data"]["ids"][0] == accepted["message_id"];
    sink.wait_for("the receipt", of).await;
    assert_eq!(job(&kero, &accepted).await["held_reason"], "in_doubt", "before it is due");
    (simulator, kero, sink, accepted)
}

/// What a receipt proved is sent, also when the account is logged out before that is settled.
#[tokio::test(flavor = "multi_thread")]
async fn a_logout_does_not_fail_what_a_receipt_proved() {
    let (_simulator, kero, sink, accepted) = in_doubt_with_a_receipt(["491530000061", "491530000062"]).await;
    kero.post_empty("/instances/a/logout").await.expect(200);
    let of = |event: &Value| event["data"]["correlation_id"] == accepted["correlation_id"];
    let (_, ack) = sink.wait_for("its end", of).await;
    assert_eq!(ack["data"]["status"], "sent", "{ack}");
    assert_eq!(job(&kero, &accepted).await["state"], "delivered");
}

/// In doubt, and then a receipt names it: whoever has it need not get it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_settles_a_send_in_doubt_without_a_second_one() {
    let (simulator, kero, sink, accepted) = in_doubt_with_a_receipt(["491530000031", "491530000032"]).await;
    let of = |event: &Value| event["data"]["correlation_id"] == accepted["correlation_id"];
    let (_, ack) = sink.wait_for("its end", of).await;
    assert_eq!((&ack["data"]["status"], &ack["data"]["attempts"]), (&json!("sent"), &json!(1)), "{ack}");
    assert_eq!(job(&kero, &accepted).await["state"], "delivered");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let lines = simulator.ledger().iter().filter(|line| accepted["message_id"] == line.id.as_str()).count();
    assert_eq!(lines, 1, "it was sent again");
}

/// Who could not read a message asks for it again, and gets the very same: from the row of its job, the only copy.
#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_read_a_message_gets_it_again() {
    let (simulator, kero, _sink) = paired_with_sink("491530000041", Options::default()).await;
    let recipient = person(&simulator, "491530000042", Script::Silent);
    let (first, again) = ("at once", "at the second try");
    kero.send_async("a", &recipient, first).await;
    eventually("the first", || async { (simulator.received_texts(&recipient).await.len() == 1).then_some(()) }).await;
    simulator.inject(FaultRule::new(Fault::Undecryptable).phone(&recipient).count(1));
    let accepted = kero.send_async("a", &recipient, again).await;
    eventually("the second", || async { (simulator.received_texts(&recipient).await.len() == 2).then_some(()) }).await;
    assert_eq!(simulator.received_texts(&recipient).await[1].text, again);
    let lines = simulator.ledger();
    let of_it: Vec<_> = lines.iter().filter(|line| accepted["message_id"] == line.id.as_str()).collect();
    assert_eq!(of_it.iter().map(|line| line.retry).collect::<Vec<_>>(), [false, true], "{of_it:?}");
    eventually("its delivery", || async { (job(&kero, &accepted).await["state"] == "delivered").then_some(()) }).await;
    assert_eq!(job(&kero, &accepted).await["attempts"], 1);
}

/// Its first attempt may have arrived, whatever is said about the second.
#[tokio::test(flavor = "multi_thread")]
async fn a_send_in_doubt_stays_so_when_its_repetition_is_refused() {
    let (simulator, kero, sink, accepted) = in_doubt(["491530000051", "491530000052"], "2s").await;
    simulator.inject(FaultRule::new(Fault::Nack).phone("491530000051").code(503).count(1));
    let refused = eventually("a refusal", || async {
        Some(job(&kero, &accepted).await).filter(|job| job["state"] == "held" && job["attempts"] == 2)
    })
    .await;
    assert_eq!((&refused["held_reason"], &refused["error_code"]), (&json!("in_doubt"), &json!("503")), "{refused}");
    let path = format!("/instances/a/jobs/{}", accepted["correlation_id"].as_str().unwrap());
    kero.post_empty(&format!("{path}/cancel")).await.problem(409, "job-not-cancellable");
    let of = |event: &Value| event["data"]["correlation_id"] == accepted["correlation_id"];
    let (_, ack) = sink.wait_for("its end", of).await;
    assert_eq!((&ack["data"]["status"], &ack["data"]["attempts"]), (&json!("sent"), &json!(3)), "{ack}");
}

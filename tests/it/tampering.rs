//! Bad input of sends and of the queue: where each row of the list is tested.
//!
//! | bad input | test |
//! | --- | --- |
//! | no, empty, 1 MB `Idempotency-Key` | `headers_that_no_client_should_send` |
//! | the same key with another body, 100 at once | `queue::a_hundred_duplicates_with_one_idempotency_key_are_one_send` |
//! | `X-Async`: `TRUE`, `1`, `yes`, `banana` | `bad_input::bodies_that_are_wrong_change_nothing`, `headers_that_…` |
//! | correlation id with newline, NUL, 10 kB, emoji | `headers_that_…`, `queue::correlation_ids_are_the_callers_and_unique` |
//! | forms of addresses | `recipients_in_every_form`, `bad_input::bodies_that_…` |
//! | texts: empty, too long, lone surrogates, zero-width | `texts_that_say_nothing_or_too_much`, `bad_input::bodies_that_…` |
//! | times: 1970, 9999, no zone, DST gap | `times_of_every_kind`, `queue::a_scheduled_send_…` |
//! | unknown priority, deep JSON, wrong types, too large | `bad_input::bodies_that_are_wrong_change_nothing` |
//! | a member twice, 10 MB | `texts_that_say_nothing_or_too_much` |
//! | `max_retries` -1, 10^9 | `retries_without_sense_refuse_to_start` |
//! | unknown instance | `bad_input::unknown_and_malformed_instances_…` |
//! | instance deleted between accept and send | `an_instance_deleted_before_its_sends_takes_them_along` |
//! | job for a logged-out device | `sends_of_a_logged_out_device_fail_and_say_so` |
//! | queue: junk, elements of finished jobs, twice | `queue::junk_in_the_queue_goes_to_the_dead_letters` |
//! | queue: future schema, foreign members, other chat | `elements_from_elsewhere_only_wake` |
//! | queue: missing or orphaned elements, wrong type | `redis_faults::an_empty_redis_in_the_place_of_the_old_one_is_filled_again` |
//! | dead letters: doubled, of finished jobs, missing | `dead_letters::letters_are_filtered_retried_and_discarded_and_stay_so` |
//! | dead letters: a million | `redis_faults::a_million_dead_letters_are_never_read_at_once` |

use crate::support::{KEY, Kero, Options, Redis, eventually, paired_with_sink, person, simulator};
use kero_simulator::Script;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A request as bytes, so that its headers may be what no client library sends.
async fn raw(kero: &Kero, headers: &[u8], body: &[u8]) -> u16 {
    let address = kero.url.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let start = format!(
        "POST /instances/a/messages/text HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-api-key: {KEY}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    let mut answer = Vec::new();
    // a server that has seen enough may close before it read everything
    for part in [start.as_bytes(), headers, b"\r\n", body] {
        if stream.write_all(part).await.is_err() {
            break;
        }
    }
    let _ = stream.read_to_end(&mut answer).await;
    let line = String::from_utf8_lossy(&answer[..answer.len().min(12)]).into_owned();
    line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

async fn job_count(kero: &Kero) -> usize {
    kero.get("/instances/a/jobs").await.expect(200)["data"].as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_no_client_should_send() {
    let (simulator, kero, _) = paired_with_sink("491528000001", Options::default()).await;
    person(&simulator, "491528000002", Script::Silent);
    let body = json!({ "phone": "491528000002", "message": "x" }).to_string().into_bytes();
    let long = [b"idempotency-key: ".as_slice(), &vec![b'k'; 1_000_000], b"\r\n"].concat();
    let ten_kb = [b"x-correlation-id: ".as_slice(), &vec![b'k'; 10_000], b"\r\n"].concat();
    let just_too_long = [b"idempotency-key: ".as_slice(), &[b'k'; 256], b"\r\n"].concat();
    for header in [
        b"idempotency-key: \r\n".as_slice(),
        b"idempotency-key: a\tb\r\n",
        b"idempotency-key: \xf0\x9f\x98\x80\r\n",
        b"idempotency-key: one\r\nidempotency-key: two\r\n",
        &just_too_long,
        &long,
        b"x-correlation-id: \r\n",
        b"x-correlation-id: \xf0\x9f\x98\x80\r\n",
        b"x-correlation-id: a\0b\r\n",
        b"x-correlation-id: a\n b\r\n",
        b"x-correlation-id: a\nb\r\n",
        &ten_kb,
        b"x-async: TRUE\r\n",
        b"x-async: yes\r\n",
        b"x-async: \r\n",
        b"x-async: true\r\nx-async: false\r\n",
    ] {
        let status = raw(&kero, header, &body).await;
        let what = String::from_utf8_lossy(&header[..header.len().min(60)]).into_owned();
        // 0: the connection ended without an answer
        assert!(matches!(status, 0 | 400 | 413 | 431), "{what:?}: {status}");
    }
    assert_eq!(job_count(&kero).await, 0, "no job was stored");
    assert_eq!(raw(&kero, b"x-async: 1\r\n", &body).await, 202);
    assert_eq!(job_count(&kero).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn recipients_in_every_form() {
    let (simulator, kero, _) = paired_with_sink("491528000011", Options::default()).await;
    person(&simulator, "491528000012", Script::Silent);
    let send = async |phone: &str| {
        let body = json!({ "phone": phone, "message": "x" });
        kero.post_with("/instances/a/messages/text", &[("x-async", "1")], body).await
    };
    let same = [
        "491528000012",
        "+491528000012",
        " +49 (1528) 000-012 ",
        "491528000012@s.whatsapp.net",
        "491528000012@c.us",
        "491528000012:3@s.whatsapp.net",
    ];
    for form in same {
        send(form).await.expect(202);
    }
    let jobs = kero.get("/instances/a/jobs").await.expect(200);
    let chats: Vec<&str> = jobs["data"].as_array().unwrap().iter().map(|job| job["chat"].as_str().unwrap()).collect();
    assert_eq!(chats, ["491528000012@s.whatsapp.net"; 6], "one chat, whatever it was called");
    // one's own number is a chat like any other, and so are a group and a newsletter that do not exist: told later
    for form in ["491528000011", "120363000000000009@g.us", "120363000000000009@newsletter"] {
        send(form).await.expect(202);
    }
    for form in [
        "",
        "   ",
        "status@broadcast",
        "123456@broadcast",
        &"4".repeat(40),
        "\u{200f}491528000012",
        "\u{202e}491528000012\u{202c}",
        "4915２８000012",
        "٤٩١٥٢٨٠٠٠٠١٢",
        "491528000012@s.whatsapp.net@g.us",
        "491528000012@S.WHATSAPP.NET",
        "@s.whatsapp.net",
        "491528000012@",
        "49152800\u{0}0012",
        "491528000012;DROP TABLE jobs",
    ] {
        let problem = send(form).await;
        assert_eq!(problem.status, 400, "{form:?}: {}", problem.text());
        assert_eq!(problem.json()["code"], "invalid-recipient", "{form:?}");
    }
    assert_eq!(job_count(&kero).await, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_that_say_nothing_or_too_much() {
    let (simulator, kero, _) = paired_with_sink("491528000021", Options::default()).await;
    person(&simulator, "491528000022", Script::Silent);
    let post = async |body: String| {
        let headers = [("x-async", "1")];
        let path = "/instances/a/messages/text";
        kero.request(reqwest::Method::POST, path, &headers, Some(body.into_bytes())).await
    };
    let text = |text: &str| format!("{{\"phone\":\"491528000022\",\"message\":{text}}}");
    for (bad, code) in [
        (text("\"\""), "validation-failed"),
        (text("\"\\u200b\\u200d\\ufeff \\n\""), "validation-failed"),
        (text("\"a\\u0000b\""), "validation-failed"),
        (text("\"\\ud800\""), "invalid-json"),
        (text("\"\\udc00\\ud800\""), "invalid-json"),
        (text(&format!("\"{}\"", "x".repeat(65_537))), "validation-failed"),
        (text(&format!("\"{}\"", "ä".repeat(65_537))), "validation-failed"),
        (text("\"line\nbreak\""), "invalid-json"),
        (text("NaN"), "invalid-json"),
    ] {
        let answer = post(bad.clone()).await;
        assert_eq!(answer.status, 400, "{}: {}", &bad[..bad.len().min(80)], answer.text());
        assert_eq!(answer.json()["code"], code, "{}", &bad[..bad.len().min(80)]);
    }
    let ten_mb = text(&format!("\"{}\"", "x".repeat(10 * 1024 * 1024)));
    post(ten_mb).await.problem(413, "payload-too-large");
    let invalid = [b"{\"phone\":\"491528000022\",\"message\":\"".as_slice(), b"\xff\xfe\"}"].concat();
    let answer = kero.request(reqwest::Method::POST, "/instances/a/messages/text", &[], Some(invalid)).await;
    answer.problem(400, "invalid-json");
    assert_eq!(job_count(&kero).await, 0);
    // the longest text goes through, and of a member that is there twice the last one counts
    post(text(&format!("\"{}\"", "ä".repeat(65_536)))).await.expect(202);
    post(
        "{\"phone\":\"491528000099\",\"message\":\"first\",\"phone\":\"491528000022\",\"message\":\"last\"}".to_owned(),
    )
    .await
    .expect(202);
    let texts = eventually("both texts", || async {
        let texts = simulator.received_texts("491528000022").await;
        (texts.len() == 2).then_some(texts)
    })
    .await;
    assert_eq!((texts[0].text.chars().count(), texts[1].text.as_str()), (65_536, "last"));
}

#[tokio::test(flavor = "multi_thread")]
async fn times_of_every_kind() {
    let (simulator, kero, _) = paired_with_sink("491528000031", Options::default()).await;
    person(&simulator, "491528000032", Script::Silent);
    let at = async |time: Value| {
        let body = json!({ "phone": "491528000032", "message": time.to_string(), "send_at": time });
        kero.post_with("/instances/a/messages/text", &[("x-async", "1")], body).await
    };
    let ninety_one_days = kero_domain::Timestamp::now().after(std::time::Duration::from_secs(91 * 24 * 3600));
    for bad in [
        json!("9999-12-31T23:59:59Z"),
        json!(ninety_one_days.rfc3339()),
        json!(253_402_300_799_i64),
        json!(i64::MAX),
        json!(i64::MIN),
        json!("2026-03-29T02:30:00"),
        json!("2026-02-30T00:00:00Z"),
        json!("2026-01-01T25:00:00Z"),
        json!("2026-01-01"),
        json!("now"),
        json!(""),
        json!(1.5),
        json!(true),
        json!({}),
    ] {
        at(bad.clone()).await.problem(400, "validation-failed");
    }
    // what is past runs now: 1970, seconds before it, and an hour that the clocks leave out where it is written
    let past = [json!("1970-01-01T00:00:00Z"), json!(0), json!(-5), json!("2026-03-29T02:30:00+01:00")];
    for good in &past {
        at(good.clone()).await.expect(202);
    }
    eventually("those of the past", || async {
        (simulator.received_texts("491528000032").await.len() == past.len()).then_some(())
    })
    .await;
    let texts: Vec<String> = simulator.received_texts("491528000032").await.into_iter().map(|text| text.text).collect();
    assert_eq!(texts, past.iter().map(Value::to_string).collect::<Vec<_>>(), "they jump no queue");
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_without_sense_refuse_to_start() {
    let simulator = simulator().await;
    let mut kero = Kero::start(&simulator).await;
    kero.terminate().await;
    for bad in ["-1", "1000000000", "many", "1.5"] {
        let output = kero.command().env("KERO_QUEUE__MAX_RETRIES", bad).arg("serve").output().await.unwrap();
        let error = String::from_utf8_lossy(&output.stderr).to_lowercase();
        assert!(!output.status.success() && error.contains("max_retries"), "{bad}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_deleted_before_its_sends_takes_them_along() {
    let redis = Redis::start().await;
    let options = Options::default().redis(redis.url()).env("KERO_QUEUE__RECONCILE_EVERY", "300ms");
    let (simulator, kero, _sink) = paired_with_sink("491528000041", options).await;
    person(&simulator, "491528000042", Script::Silent);
    kero.post_empty("/queue/pause").await.expect(200);
    let mut gone = Vec::new();
    for n in 0..3 {
        let answer = kero.send_async("a", "491528000042", &format!("{n}")).await;
        gone.push(answer["correlation_id"].as_str().unwrap().to_owned());
    }
    kero.delete("/instances/a").await.expect(200);
    kero.get(&format!("/instances/a/jobs/{}", gone[0])).await.problem(404, "instance-not-found");
    // the same name again is another instance: it inherits nothing
    kero.paired(&simulator, "a", "491528000043").await;
    kero.post_empty("/queue/resume").await.expect(200);
    kero.send_async("a", "491528000042", "new").await;
    eventually("the new one's text", || async {
        (!simulator.received_texts("491528000042").await.is_empty()).then_some(())
    })
    .await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let texts: Vec<_> = simulator.received_texts("491528000042").await.into_iter().map(|text| text.text).collect();
    assert_eq!(texts, ["new"]);
    assert_eq!(job_count(&kero).await, 1);
    eventually("empty lists", || async {
        (redis.len("kero_message_queue").await == 0 && redis.len("kero_processing").await == 0).then_some(())
    })
    .await;
    assert_eq!(kero.get("/queue").await.expect(200)["total"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn sends_of_a_logged_out_device_fail_and_say_so() {
    // the process dies between the logout and what follows from it; the next start takes that up
    let options = Options::default()
        .env("KERO_CRASH_AT", "before_fail_all:1")
        .env("KERO_DELIVERY__SCHEDULE", "[\"100ms\",\"500ms\",\"1s\"]");
    let (simulator, mut kero, sink) = paired_with_sink("491528000051", options).await;
    person(&simulator, "491528000052", Script::Silent);
    let later = kero_domain::Timestamp::now().after(std::time::Duration::from_secs(3_600)).rfc3339();
    let body = json!({ "phone": "491528000052", "message": "scheduled", "send_at": later });
    let scheduled = kero.post("/instances/a/messages/text", body).await.expect(202);
    kero.post_empty("/queue/pause").await.expect(200);
    let waiting = kero.send_async("a", "491528000052", "waiting").await;
    simulator.unlink("491528000051", None).await.unwrap();
    for _ in 0..600 {
        if kero.has_exited() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    kero.revive().await;
    assert_eq!(kero.crashes, 1);
    let status = kero.status("a").await;
    assert!(matches!(status["status"].as_str(), Some("logged_out" | "disconnected")), "{status}");
    for accepted in [&scheduled, &waiting] {
        let (_, end) =
            sink.wait_for("the end", |event| event["data"]["correlation_id"] == accepted["correlation_id"]).await;
        assert_eq!((&end["data"]["status"], &end["data"]["code"]), (&json!("failed"), &json!("instance-logged-out")));
    }
    let body = json!({ "phone": "491528000052", "message": "x" });
    let answer = kero.post_with("/instances/a/messages/text", &[("x-async", "1")], body).await;
    assert_eq!(answer.status, 409, "{}", answer.text());
    let retry = kero.post("/instances/a/dead-letters/retry", json!({})).await;
    assert_eq!(retry.status, 409, "nothing can be sent: {}", retry.text());
    assert_eq!(kero.get("/instances/a/dead-letters").await.expect(200)["data"].as_array().unwrap().len(), 2);
    assert!(simulator.received_texts("491528000052").await.is_empty());
}

/// The row decides: an element only wakes a lane, whatever else it says.
#[tokio::test(flavor = "multi_thread")]
async fn elements_from_elsewhere_only_wake() {
    let redis = Redis::start().await;
    let (simulator, kero, sink) = paired_with_sink("491528000061", Options::default().redis(redis.url())).await;
    for phone in ["491528000062", "491528000063"] {
        person(&simulator, phone, Script::Silent);
    }
    kero.post_empty("/queue/pause").await.expect(200);
    let accepted = kero.send_async("a", "491528000062", "as accepted").await;
    eventually("the element", || async { (redis.len("kero_message_queue").await == 1).then_some(()) }).await;
    let own = redis.list("kero_message_queue").await.remove(0);
    // a newer version's element, one that says something else, one that names another chat, one without members
    let mut future = own.clone();
    future["schema"] = json!(99);
    future["payload"]["new_member"] = json!({ "a": [1, 2] });
    let mut forged = own.clone();
    forged["payload"]["message"] = json!("forged");
    forged["message_id"] = json!("FORGED");
    let mut elsewhere = own.clone();
    elsewhere["payload"]["phone"] = json!("491528000063");
    let mut unknown_class = own.clone();
    unknown_class["priority"] = json!("urgent");
    let mut no_chat = own.clone();
    no_chat["payload"] = json!({});
    let mut never_accepted = own.clone();
    never_accepted["correlation_id"] = json!("never-accepted");
    for element in [future, forged, elsewhere, unknown_class, no_chat, never_accepted] {
        redis.command(&["LPUSH", "kero_message_queue", &element.to_string()]).await;
    }
    kero.post_empty("/queue/resume").await.expect(200);
    sink.wait_for("the end", |event| event["data"]["correlation_id"] == accepted["correlation_id"]).await;
    eventually("empty lists", || async {
        (redis.len("kero_message_queue").await == 0 && redis.len("kero_processing").await == 0).then_some(())
    })
    .await;
    let letters = eventually("what names no lane or no job", || async {
        let letters = redis.list("kero_dead_letter_queue").await;
        (letters.len() == 3).then_some(letters)
    })
    .await;
    assert!(letters.iter().all(|letter| letter["code"] == "unknown_job"), "{letters:?}");
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let texts: Vec<_> = simulator.received_texts("491528000062").await.into_iter().map(|text| text.text).collect();
    assert_eq!(texts, ["as accepted"]);
    assert!(simulator.received_texts("491528000063").await.is_empty());
    assert!(simulator.ledger().iter().all(|line| line.id != "FORGED"));
}

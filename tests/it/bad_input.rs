//! Bad input on every route: the right status, a problem with a stable code, nothing changed.

use crate::support::{Kero, Options, person, simulator};
use kero_simulator::Script;
use reqwest::Method;
use serde_json::{Value, json};

/// Every route of the document with a path parameter filled in.
async fn operations(kero: &Kero) -> Vec<(Method, String, bool)> {
    let document = kero.get("/openapi.json").await.expect(200);
    let mut found = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let Ok(method) = method.to_uppercase().parse::<Method>() else { continue };
            if !matches!(method.as_str(), "GET" | "POST" | "PUT" | "DELETE" | "PATCH") {
                continue;
            }
            let open =
                operation["security"].as_array().is_some_and(Vec::is_empty) || operation.get("security").is_none();
            found.push((method, path.clone(), open));
        }
    }
    assert!(found.len() > 20, "{found:?}");
    found
}

fn fill(path: &str, instance: &str) -> String {
    path.replace("{instance_id}", instance)
        .replace("{correlation_id}", "none")
        .replace("{endpoint_id}", "019ab000-0000-7000-8000-000000000000")
        .replace("{delivery_id}", "none")
        .replace("{event_id}", "019ab000-0000-7000-8000-000000000000")
        .replace("{id}", instance)
        .replace("{code}", "nothing")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_wants_a_key_and_knows_its_methods() {
    let simulator = simulator().await;
    let kero = Kero::start(&simulator).await;
    kero.create("a").await;
    let before = kero.get("/instances").await.expect(200);
    for (method, path, open) in operations(&kero).await {
        let path = fill(&path, "a");
        if !open {
            for headers in [
                vec![("x-api-key", "wrong")],
                vec![("authorization", "Bearer wrong")],
                vec![("authorization", "")],
                vec![("x-api-key", "wrong"), ("authorization", "Bearer test-admin-key-0123456789abcdef0123456789")],
            ] {
                let answer = kero.request(method.clone(), &path, &headers, Some(b"{}".to_vec())).await;
                answer.problem(401, "unauthorized");
                assert!(answer.header("www-authenticate").is_some(), "{method} {path}");
            }
        }
        let answer = kero.request(Method::TRACE, &path, &[], None).await;
        assert!(matches!(answer.status, 404 | 405), "{path}: {}", answer.status);
    }
    kero.get("/nothing/here").await.problem(404, "not-found");
    kero.request(Method::DELETE, "/instances", &[], None).await.problem(405, "method-not-allowed");
    assert_eq!(kero.get("/instances").await.expect(200), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_and_malformed_instances_are_problems_on_every_route() {
    let simulator = simulator().await;
    let kero = Kero::start(&simulator).await;
    kero.create("a").await;
    for (method, path, open) in
        operations(&kero).await.into_iter().filter(|(_, path, _)| path.contains("{instance_id}"))
    {
        assert!(!open, "{path} is open");
        // the settings of endpoints know no members but their own
        let body = match path.split_once("/endpoints").map(|(_, rest)| rest.matches('/').count()) {
            None => {
                json!({ "phone": "491514000001", "message": "x", "url": "http://127.0.0.1:9/", "name": "x", "send_at": "2026-01-01T00:00:00Z" })
            }
            Some(0 | 1) => json!({ "url": "http://127.0.0.1:9/" }),
            Some(_) => json!({}),
        };
        let body = Some(body.to_string().into_bytes());
        kero.request(method.clone(), &fill(&path, "unknown"), &[], body.clone())
            .await
            .problem(404, "instance-not-found");
        for bad in ["a%2Fb", "a:b", "a%20b", &"x".repeat(300), "%C3%A4", "%00"] {
            let answer = kero.request(method.clone(), &fill(&path, bad), &[], body.clone()).await;
            assert!(matches!(answer.status, 400 | 404), "{method} {path} {bad}: {} {}", answer.status, answer.text());
            assert_eq!(answer.header("content-type").as_deref(), Some("application/problem+json"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_wrong_change_nothing() {
    let simulator = simulator().await;
    let kero = Kero::start(&simulator).await;
    kero.paired(&simulator, "a", "491514000011").await;
    person(&simulator, "491514000012", Script::Silent);
    let ledger = simulator.ledger().len();
    let send = "/instances/a/messages/text";
    let with_body = [
        ("/instances", Method::POST),
        ("/instances/a", Method::PUT),
        ("/instances/a/webhook", Method::POST),
        ("/instances/a/pair-code", Method::POST),
        (send, Method::POST),
        ("/messages/text", Method::POST),
    ];
    for (path, method) in with_body {
        for body in ["{", "", "nul", "{\"a\":", "\u{0}"] {
            let answer = kero.request(method.clone(), path, &[], Some(body.as_bytes().to_vec())).await;
            answer.problem(400, "invalid-json");
        }
        for body in ["[]", "3", "\"x\"", "null"] {
            kero.request(method.clone(), path, &[], Some(body.as_bytes().to_vec()))
                .await
                .problem(400, "validation-failed");
        }
        kero.request(method.clone(), path, &[("content-type", "text/plain")], Some(b"{}".to_vec()))
            .await
            .problem(415, "unsupported-media-type");
        let huge = format!("{{\"message\":\"{}\"}}", "x".repeat(3 * 1024 * 1024));
        kero.request(method.clone(), path, &[], Some(huge.into_bytes())).await.problem(413, "payload-too-large");
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        let answer = kero.request(method.clone(), path, &[], Some(deep.into_bytes())).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
    }
    for phone in [
        "",
        "abc",
        "123",
        "1234567890123456789",
        "@g.us",
        "x@y.z",
        "49151@s.whatsapp.net.evil",
        "\u{202e}491514000012",
        "49151 4000012\n1",
    ] {
        let answer = kero.send_text("a", phone, "x").await;
        assert!(
            matches!(answer.json()["code"].as_str(), Some("invalid-recipient" | "validation-failed")),
            "{phone:?}: {}",
            answer.text()
        );
        assert_eq!(answer.status, 400);
    }
    for (body, pointer) in [
        (json!({ "phone": "491514000012" }), "/message"),
        (json!({ "message": "x" }), "/phone"),
        (json!({ "phone": "491514000012", "message": "" }), "/message"),
        (json!({ "phone": "491514000012", "message": "\u{200b}" }), "/message"),
        (json!({ "phone": "491514000012", "message": "x".repeat(65_537) }), "/message"),
        (json!({ "phone": "491514000012", "message": ["x"] }), "/message"),
        (json!({ "phone": { "a": 1 }, "message": "x" }), "/phone"),
        (json!({ "phone": "491514000012", "message": "x", "priority": "urgent" }), "/priority"),
    ] {
        let problem = kero.post(send, body.clone()).await;
        assert_eq!(problem.status, 400, "{body}");
        let pointers = problem.json()["errors"]
            .as_array()
            .map(|errors| errors.iter().map(|error| error["pointer"].clone()).collect::<Vec<_>>());
        assert_eq!(pointers, Some(vec![Value::from(pointer)]), "{body}: {}", problem.text());
    }
    for id in ["", "a/b", "a:b", "a b", &"x".repeat(300), "ä", ".."] {
        let answer = kero.post("/instances", json!({ "instance_id": id })).await;
        assert_eq!(answer.status, 400, "{id:?}: {}", answer.text());
    }
    for url in [
        "javascript:alert(1)",
        "ftp://example.com/",
        "http://",
        "http://10.0.0.1/",
        "http://[::1]/",
        "http://user:pw@example.com/",
    ] {
        kero.post("/instances/a/webhook", json!({ "url": url })).await.problem(400, "validation-failed");
        kero.post("/instances", json!({ "instance_id": "never", "webhook_url": url }))
            .await
            .problem(400, "validation-failed");
    }
    kero.post("/instances/a/webhook", json!({ "url": "http://127.0.0.1:9/", "events": ["nonsense"] }))
        .await
        .problem(400, "validation-failed");
    for value in ["TRUE", "yes", "banana"] {
        kero.post_with(send, &[("x-async", value)], json!({ "phone": "491514000012", "message": "x" }))
            .await
            .problem(400, "invalid-async-header");
    }
    assert_eq!(simulator.ledger().len(), ledger, "nothing was sent");
    assert_eq!(kero.get("/instances").await.expect(200)["total"], 1, "nothing was created");
    assert_eq!(kero.get("/instances/a/jobs").await.expect(200)["data"], json!([]), "no job was stored");
    kero.get("/instances/a/webhook").await.problem(404, "webhook-not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_are_not_on_whatsapp_are_told() {
    let simulator = simulator().await;
    let kero = Kero::start(&simulator).await;
    kero.paired(&simulator, "a", "491514000021").await;
    kero.send_text("a", "491514000000", "x").await.problem(422, "recipient-not-on-whatsapp");
    assert!(simulator.ledger().iter().all(|line| !line.to.contains("491514000000")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_an_instance_sees_only_that_one() {
    let simulator = simulator().await;
    let mut kero = Kero::start_with(&simulator, Options::default()).await;
    kero.create("mine").await;
    kero.create("other").await;
    kero.terminate().await;
    let output = kero.command().args(["key", "new", "--instance", "mine"]).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let key = String::from_utf8(output.stdout).unwrap().split_whitespace().last().unwrap().to_owned();
    kero.launch().await;
    let headers = [("x-api-key", key.as_str())];
    assert_eq!(kero.request(Method::GET, "/instances/mine", &headers, None).await.status, 200);
    for (method, path) in [
        (Method::GET, "/instances/other"),
        (Method::DELETE, "/instances/other"),
        (Method::GET, "/instances/other/qr"),
        (Method::POST, "/instances/other/connect"),
        (Method::GET, "/instances/unknown"),
    ] {
        kero.request(method, path, &headers, None).await.problem(403, "forbidden");
    }
    let body = json!({ "instance_id": "new" }).to_string().into_bytes();
    kero.request(Method::POST, "/instances", &headers, Some(body)).await.problem(403, "forbidden");
    let listed = kero.request(Method::GET, "/instances", &headers, None).await.expect(200);
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    // the short form's instance is the key's
    let body = json!({ "phone": "491514000031", "message": "x" }).to_string().into_bytes();
    kero.request(Method::POST, "/messages/text", &headers, Some(body.clone()))
        .await
        .problem(409, "instance-not-connected");
    kero.request(Method::POST, "/messages/text", &[], Some(body)).await.problem(400, "instance-ambiguous");
    // revoked: refused
    kero.terminate().await;
    let list = kero.command().args(["key", "list"]).output().await.unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    assert!(!list.contains(&key), "the secret is never shown again");
    let id = list
        .lines()
        .find(|line| line.contains("mine"))
        .and_then(|line| line.split_whitespace().next())
        .unwrap()
        .to_owned();
    assert!(kero.command().args(["key", "revoke", &id]).status().await.unwrap().success());
    kero.launch().await;
    kero.request(Method::GET, "/instances/mine", &headers, None).await.problem(401, "unauthorized");
}

//! The frame over `poem::test::TestClient`: problems for everything, keys, documents.

use super::{KEY, client, client_with};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use poem::http::{Method, StatusCode};
use poem::test::TestResponse;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::time::Duration;

async fn problem(response: TestResponse, status: u16, code: &str) -> Value {
    assert_eq!(response.0.status(), StatusCode::from_u16(status).unwrap());
    response.assert_content_type("application/problem+json");
    let id = response.0.header("x-request-id").unwrap().to_owned();
    let body: Value = serde_json::from_str(&response.0.into_body().into_string().await.unwrap()).unwrap();
    assert_eq!((body["code"].as_str(), body["status"].as_u64()), (Some(code), Some(status.into())), "{body}");
    assert_eq!(body["type"], format!("/problems/{code}"));
    assert_eq!(body["success"], false);
    assert_eq!(body["request_id"], id);
    body
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let client = client();
    let body = problem(client.get("/nothing/here").send().await, 404, "not-found").await;
    assert_eq!(body["instance"], "/nothing/here");
    let response = client.delete("/instances").send().await;
    assert_eq!(response.0.header("allow"), Some("POST, GET, HEAD"));
    problem(response, 405, "method-not-allowed").await;
    problem(client.request(Method::TRACE, "/instances/a/qr").send().await, 405, "method-not-allowed").await;
    problem(client.post("/docs").send().await, 405, "method-not-allowed").await;
    problem(client.get("/problems/nothing").send().await, 404, "not-found").await;
}

#[tokio::test]
async fn a_key_is_asked_for_before_anything_is_read() {
    let client = client();
    for path in ["/instances", "/instances/a", "/instances/a b", "/instances/a/jobs?limit=0", "/queue", "/metrics"] {
        let response = client.get(path.replace(' ', "%20")).send().await;
        assert_eq!(response.0.header("www-authenticate"), Some(r#"Bearer realm="kero""#), "{path}");
        problem(response, 401, "unauthorized").await;
    }
    let response = client.post("/messages/text").content_type("text/plain").body("x".repeat(2 << 20)).send().await;
    problem(response, 401, "unauthorized").await;
    let two = client.get("/instances").header("x-api-key", "other").header("authorization", format!("Bearer {KEY}"));
    problem(two.send().await, 401, "unauthorized").await;
    // known: it gets as far as the missing gateway
    for name in ["x-api-key", "authorization"] {
        problem(client.get("/instances").header(name, KEY).send().await, 500, "internal").await;
    }
}

#[tokio::test]
async fn bodies_and_parameters_that_are_wrong_are_problems() {
    let client = client();
    let post = |kind: &str, body: &str| {
        client.post("/messages/text").header("x-api-key", KEY).content_type(kind).body(body.to_owned()).send()
    };
    problem(post("text/plain", "{}").await, 415, "unsupported-media-type").await;
    problem(post("application/json", "{").await, 400, "invalid-json").await;
    problem(post("application/json", "").await, 400, "invalid-json").await;
    problem(post("application/json", "[]").await, 400, "validation-failed").await;
    let body = problem(post("application/json", r#"{"message":"secret"}"#).await, 400, "validation-failed").await;
    assert_eq!(body["errors"], serde_json::json!([{"pointer": "/phone", "detail": "is required"}]));
    assert!(!body.to_string().contains("secret"));
    problem(post("application/json", &format!("\"{}\"", "x".repeat(2 << 20))).await, 413, "payload-too-large").await;
    let get = |path: &str| client.get(path).header("x-api-key", KEY).send();
    for path in [
        "/instances/a/jobs?limit=0",
        "/instances/a/jobs?limit=1001",
        "/instances/a/jobs?limit=x",
        "/instances/a/jobs?state=lost",
    ] {
        let body = problem(get(path).await, 400, "validation-failed").await;
        assert!(body["parameter"].is_string(), "{body}");
    }
    problem(get("/instances/a%2Fb/qr").await, 400, "invalid-instance-id").await;
    for value in ["yes", ""] {
        let response = client.post("/instances/a/messages/text").header("x-api-key", KEY).header("x-async", value);
        problem(response.send().await, 400, "invalid-async-header").await;
    }
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_given_up() {
    let client = client_with(|config| config.body_timeout = Duration::from_millis(20));
    let never = poem::Body::from_bytes_stream(futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    let response = client.post("/instances").header("x-api-key", KEY).content_type("application/json").body(never);
    problem(response.send().await, 408, "request-timeout").await;
}

#[tokio::test]
async fn slashes_and_request_ids() {
    let client = client();
    let response = client.get("/livez/").header("x-request-id", "mine-1").send().await;
    response.assert_status_is_ok();
    response.assert_header("x-request-id", "mine-1");
    let response = client.get("/livez?x=1").header("x-request-id", "not\tmine").send().await;
    assert_eq!(response.0.header("x-request-id").map(str::len), Some(36));
    let response = client.get("/").send().await;
    response
        .assert_json(serde_json::json!({"service": "kero", "version": env!("CARGO_PKG_VERSION"), "status": "running"}))
        .await;
}

#[tokio::test]
async fn probes_without_a_gateway() {
    let client = client();
    problem(client.get("/readyz").send().await, 503, "not-ready").await;
    let response = client.get("/health").send().await;
    response.assert_status(StatusCode::SERVICE_UNAVAILABLE);
    response.assert_json(serde_json::json!({"status": "unhealthy", "database": "error", "redis": "disabled"})).await;
}

#[tokio::test]
async fn a_stopping_process_takes_no_new_work() {
    let client = client_with(|config| config.shutting_down.cancel());
    problem(client.get("/instances").header("x-api-key", KEY).send().await, 503, "shutting-down").await;
    client.get("/livez").send().await.assert_status_is_ok();
}

#[tokio::test]
async fn metrics_are_closed_unless_opened() {
    let metrics = std::sync::Arc::new(|| "kero_up 1\n".to_owned());
    let closed = client_with(|config| config.metrics = metrics.clone());
    problem(closed.get("/metrics").send().await, 401, "unauthorized").await;
    let open = client_with(|config| (config.metrics, config.metrics_open) = (metrics, true));
    open.get("/metrics").send().await.assert_text("kero_up 1\n").await;
}

#[tokio::test]
async fn panics_are_internal_problems() {
    let client = client_with(|config| {
        config.metrics_open = true;
        config.metrics = std::sync::Arc::new(|| panic!("a test of the net under the handlers"));
    });
    problem(client.get("/metrics").send().await, 500, "internal").await;
}

#[tokio::test]
async fn requests_that_take_too_long_are_ended() {
    let client = client_with(|config| config.request_timeout = Duration::from_millis(20));
    let never = poem::Body::from_bytes_stream(futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    let response = client.post("/instances").header("x-api-key", KEY).content_type("application/json").body(never);
    problem(response.send().await, 503, "timeout").await;
}

#[tokio::test]
async fn cors_only_for_configured_origins() {
    let preflight = |client: poem::test::TestClient<poem::endpoint::BoxEndpoint<'static>>| async move {
        client
            .options("/messages/text")
            .header("origin", "https://app.example.org")
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "x-api-key")
            .send()
            .await
    };
    let refused = preflight(client()).await;
    assert_eq!(refused.0.header("access-control-allow-origin"), None);
    let allowed = preflight(client_with(|config| config.cors_origins = vec!["https://app.example.org".into()])).await;
    allowed.assert_status(StatusCode::NO_CONTENT);
    allowed.assert_header("access-control-allow-origin", "https://app.example.org");
    assert!(allowed.0.header("access-control-allow-headers").unwrap().contains("X-API-Key"));
    let client = client_with(|config| config.cors_origins = vec!["https://app.example.org".into()]);
    let failed = client.get("/instances").header("origin", "https://app.example.org").send().await;
    failed.assert_header("access-control-allow-origin", "https://app.example.org");
    let foreign = client.get("/livez").header("origin", "https://evil.example.org").send().await;
    assert_eq!(foreign.0.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn the_documents_are_served_with_tag_and_gzip() {
    let client = client_with(|config| config.public_url = Some("https://wa.example.org/".into()));
    let response = client.get("/openapi.json").send().await;
    response.assert_status_is_ok();
    response.assert_content_type("application/json");
    let tag = response.0.header("etag").unwrap().to_owned();
    let document: Value = serde_json::from_str(&response.0.into_body().into_string().await.unwrap()).unwrap();
    assert_eq!(document["servers"][0]["url"], "https://wa.example.org");
    assert_eq!(document["openapi"], "3.1.0");
    client.get("/openapi.json").header("if-none-match", &tag).send().await.assert_status(StatusCode::NOT_MODIFIED);
    let packed = client.get("/openapi-3.0.json").header("accept-encoding", "br, gzip").send().await;
    packed.assert_header("content-encoding", "gzip");
    assert!(packed.0.into_body().into_bytes().await.unwrap().starts_with(&[0x1f, 0x8b]));
}

#[tokio::test]
async fn swagger_ui_needs_nobody_else() {
    let client = client();
    let response = client.get("/docs").send().await;
    response.assert_status_is_ok();
    response.assert_content_type("text/html; charset=utf-8");
    let policy = response.0.header("content-security-policy").unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-") && !policy.contains("unsafe-eval"));
    assert_eq!(policy.matches("'sha256-").count(), 2, "{policy}");
    let page = response.0.into_body().into_string().await.unwrap();
    assert!(page.starts_with("<!DOCTYPE html>"));
    // the bundle's texts have start tags of their own; what a browser hashes ends at the first end tag
    for start in ["<script charset=\"UTF-8\">", "<script>\n    let spec = "] {
        let from = page.find(start).unwrap() + start.find('>').unwrap() + 1;
        let script = &page[from..from + page[from..].find("</script>").unwrap()];
        let hash = STANDARD.encode(Sha256::digest(script.as_bytes()));
        assert!(policy.contains(&format!("'sha256-{hash}'")), "{start}");
    }
    // ours, not poem-openapi's
    assert!(page.contains(r#""openapi": "3.1.0""#) && !page.contains(r#""openapi": "3.0.0""#));
    assert_eq!(page.matches("</script>").count(), 2, "nothing in the document ends the script");
    for foreign in ["src=\"http", "href=\"http", "@import", "url(http"] {
        assert!(!page.split("let spec").next().unwrap().contains(foreign), "{foreign}");
    }
}

#[tokio::test]
async fn problems_explain_themselves() {
    let response = client().get("/problems/instance-not-connected").send().await;
    response.assert_status_is_ok();
    let body: Value = serde_json::from_str(&response.0.into_body().into_string().await.unwrap()).unwrap();
    assert_eq!((body["status"].as_u64(), body["retryable"].as_bool()), (Some(409), Some(true)), "{body}");
}

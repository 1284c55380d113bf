//! The guard as a caller meets it: closed URLs are refused when they are set, and no proxy of the environment moves
//! requests past it.

use crate::support::{Kero, Options, Sink, binary, person, simulator};
use kero_simulator::Script;
use serde_json::{Value, json};
use tokio::net::TcpListener;

#[tokio::test(flavor = "multi_thread")]
async fn closed_urls_are_refused_and_change_nothing() {
    let simulator = simulator().await;
    let kero = Kero::start_with(&simulator, Options::default().env("KERO_DELIVERY__ALLOW_NETWORKS", "")).await;
    kero.create("a").await;
    kero.post("/instances/a/webhook", json!({ "url": "https://example.com/hook" })).await.expect(200);
    for url in [
        "http://[::ffff:127.0.0.1]/",
        "http://[::1%25lo]/",
        "http://0x7f.1/",
        "http://2130706433/",
        "http://127.1/",
        "http://localhost./",
        "http://①②⑦.0.0.1/",
        "http://[64:ff9b::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://[fd00:ec2::254]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://100.64.0.1/",
        "http://10.0.0.1/",
        "https://user:pass@example.com/",
        "javascript:alert(1)",
        "ftp://example.com/",
        "http://",
        "http://example.com:0/",
        "http://example.com:6379/",
        &format!("http://{}.example.com/", "a".repeat(255)),
        "http://example.com/\r\nX-Evil: 1",
    ] {
        let refused = kero.post("/instances/a/webhook", json!({ "url": url })).await;
        // the parser takes line ends out of a URL, so the last one is a plain path
        if url.contains('\r') && refused.status == 200 {
            continue;
        }
        assert_eq!(refused.problem(400, "validation-failed")["errors"][0]["pointer"], "/url", "{url}");
        let refused = kero.post("/instances", json!({ "instance_id": "b", "webhook_url": url })).await;
        assert_eq!(refused.problem(400, "validation-failed")["errors"][0]["pointer"], "/webhook_url", "{url}");
        kero.get("/instances/b").await.problem(404, "instance-not-found");
        let stored = kero.get("/instances/a/webhook").await.expect(200);
        assert_eq!(stored["data"]["url"], "https://example.com/hook", "{url}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_proxy_of_the_environment_gets_a_webhook() {
    let simulator = simulator().await;
    let trap = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("http://{}", trap.local_addr().unwrap());
    let mut options = Options::default();
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
        options = options.env(name, &proxy);
    }
    let kero = Kero::start_with(&simulator, options).await;
    let sink = Sink::start().await;
    kero.create("a").await;
    kero.post("/instances/a/webhook", json!({ "url": sink.url, "events": ["message"] })).await.expect(200);
    kero.pair(&simulator, "a", "491519000001").await;
    person(&simulator, "491519000002", Script::Silent);
    simulator.send_text("491519000002", "491519000001", "straight").await.unwrap();
    sink.wait_for("the message", |json| json["data"]["text"] == "straight").await;
    let trapped = tokio::time::timeout(std::time::Duration::from_millis(100), trap.accept()).await;
    assert!(trapped.is_err(), "something went to the proxy");
}

/// Names that lead inside by way of others, and one whose second answer is another than its first, asked of a real DNS
/// server by the system's resolver: in namespaces of its own, where that can be arranged. (Where it may not be, the tests
/// of the guard itself, with resolvers that follow a script, stand in.)
#[tokio::test(flavor = "multi_thread")]
async fn names_that_lead_inside_reach_nothing_with_a_real_dns_server() {
    let unshare = || {
        let mut command = tokio::process::Command::new("unshare");
        command.args(["--map-root-user", "--mount", "--net"]).kill_on_drop(true);
        command
    };
    let may = unshare().args(["mount", "--make-rprivate", "/"]).stderr(std::process::Stdio::null()).status().await;
    if !may.is_ok_and(|status| status.success()) {
        println!("no namespaces may be made here; the tests with scripted resolvers stand in");
        return;
    }
    let folder = tempfile::TempDir::new().unwrap();
    let world = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dns/world.py");
    let output = unshare().arg("python3").arg(world).arg(binary()).arg(folder.path()).output().await.unwrap();
    let log = std::fs::read_to_string(folder.path().join("kero.log")).unwrap_or_default();
    assert!(output.status.success(), "{}\n{log}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (last, samples) = lines.split_last().unwrap();
    assert_eq!(samples.len(), 7 * 3);
    for sample in samples {
        // one address is open on purpose, so that it is seen that the others could be reached
        let open = sample["name"] == "open.test" || (sample["name"] == "rebind.test" && sample["try"] != 1);
        assert_eq!(sample["delivered"], open, "{sample}");
        let error = sample["error"].as_str().unwrap_or_default();
        assert!(open || error.contains("the name leads into a private, loopback or reserved network"), "{sample}");
    }
    let arrived = last["arrived"].as_array().unwrap();
    assert_eq!(arrived.len(), 5, "{last}");
    assert!(arrived.iter().all(|it| it[1] == "::ffff:127.0.0.2"), "{last}");
}

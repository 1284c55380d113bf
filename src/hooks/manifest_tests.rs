use super::*;

const GOOD: &str = r#"
name = "crm-sync"
version = "1.2.0"
api = "kero:plugin@0.1"
entry = "hook.wasm"
kind = "transform"
on = ["message", "message_ack"]
instances = ["shop-*"]
order = 10
on_error = "raw"
reuse = { calls = 1000, age = "10m" }

[grants]
kv = "1MiB"
http = ["https://api.crm.example/*"]
send = { per_chat_per_minute = 5 }
drop-ack = true

[limits]
wall_ms = 500
memory = "64MiB"

[config.schema]
type = "object"
required = ["token"]
properties.token = { type = "string", writeOnly = true }
properties.limit = { type = "integer" }
"#;

#[test]
fn reads_every_member() {
    let manifest = Manifest::from_toml(GOOD).unwrap();
    assert_eq!(manifest.name.as_str(), "crm-sync");
    assert_eq!(manifest.kind, Kind::Transform);
    assert_eq!(manifest.on_error, Policy::Raw);
    assert_eq!(manifest.reuse, Some(Reuse { calls: 1000, age: Duration::from_secs(600) }));
    assert!(manifest.grants.drop_ack && manifest.grants.send.is_some());
    assert_eq!(manifest.limits.memory, Some(Bytes(64 << 20)));
    assert!(manifest.wants(EventKind::MessageAck, "shop-1"));
    assert!(!manifest.wants(EventKind::Receipt, "shop-1"));
    assert!(!manifest.wants(EventKind::Message, "other"));
    assert_eq!(manifest.secret_settings(), vec!["token"]);
    let json = serde_json::to_value(&manifest).unwrap();
    assert_eq!(Manifest::from_json(json).unwrap(), manifest);
}

#[test]
fn settings_are_checked_by_the_schema_and_not_repeated() {
    let manifest = Manifest::from_toml(GOOD).unwrap();
    assert!(manifest.check_config(&serde_json::json!({"token": "s3cret"})).is_empty());
    let complaints = manifest.check_config(&serde_json::json!({"token": 5577, "limit": "hunter2"}));
    assert_eq!(complaints.len(), 2, "{complaints:?}");
    assert!(complaints.iter().any(|(pointer, _)| pointer == "/token"));
    assert!(complaints.iter().all(|(_, text)| !text.contains("hunter2") && !text.contains("5577")), "{complaints:?}");
    assert_eq!(manifest.check_config(&serde_json::json!({})).len(), 1);
}

#[test]
fn says_what_is_wrong() {
    let with = |from: &str, to: &str| Manifest::from_toml(&GOOD.replace(from, to)).unwrap_err().0;
    for (from, to, expected) in [
        ("on_error = \"raw\"\n", "", "missing field `on_error`: say what becomes"),
        ("crm-sync", "CRM Sync", "1 to 64 of a-z"),
        ("1.2.0", "1/2", "version"),
        ("kero:plugin@0.1", "kero:plugin@9.0", "this gateway speaks"),
        ("hook.wasm", "../hook.wasm", "beside the manifest"),
        ("hook.wasm", "hook.exe", "beside the manifest"),
        ("\"transform\"", "\"filter\"", "unknown variant `filter`"),
        ("order = 10", "endpoints = [\"e1\"]", "kind = \"delivery\""),
        ("\"1MiB\"", "\"one\"", "write it as 65536, 64KiB or 1MiB"),
        ("order = 10", "ordre = 10", "unknown field `ordre`"),
        ("\"message_ack\"]", "\"massage\"]", "unknown event"),
        ("type = \"object\"", "type = \"objekt\"", "config.schema"),
        ("1.2.0", "..", "beginning with a letter or digit"),
        ("1.2.0", "ä", "beginning with a letter or digit"),
        ("crm-sync", "crm\u{202e}sync", "1 to 64 of a-z"),
        ("[\"shop-*\"]", "[]", "instances: 1 to 256"),
        ("hook.wasm", "a\\u0007.wasm", "beside the manifest"),
        // schemas are not fetched: neither from the network nor from files
        ("type = \"object\"", "\"$ref\" = \"http://127.0.0.1:9/schema\"", "config.schema"),
        ("type = \"object\"", "\"$ref\" = \"file:///etc/passwd\"", "config.schema"),
        // what would not be hidden must not look as if it were
        (
            "{ type = \"integer\" }",
            "{ properties.key = { writeOnly = true } }",
            "/properties/limit/properties/key: `writeOnly`",
        ),
        ("{ type = \"integer\" }", "{ allOf = [{ writeOnly = true }] }", "`writeOnly` may only stand"),
    ] {
        let error = with(from, to);
        assert!(error.contains(expected), "{to}: {error}");
    }
}

#[test]
fn the_sample_of_the_authors_guide_is_a_manifest() {
    let guide = include_str!("../../plugins/README.md");
    let samples: Vec<&str> = guide.split("```toml\n").skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect();
    assert!(!samples.is_empty());
    for sample in samples {
        Manifest::from_toml(sample).unwrap();
    }
}

#[test]
fn a_huge_manifest_is_refused_unread() {
    let huge = format!("{GOOD}\n# {}", "x".repeat(LARGEST));
    assert!(Manifest::from_toml(&huge).unwrap_err().0.contains("at most 65536"));
    let many: Vec<String> = (0..300).map(|n| format!("\"i{n}\"")).collect();
    let error = Manifest::from_toml(&GOOD.replace("\"shop-*\"", &many.join(", "))).unwrap_err();
    assert!(error.0.contains("1 to 256"), "{error}");
    let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
    assert!(Manifest::from_toml(&GOOD.replace("order = 10", &format!("order = {deep}"))).is_err());
}

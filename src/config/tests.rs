use super::*;
use std::collections::BTreeSet;

fn environment(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn with(pairs: &[(&str, &str)]) -> anyhow::Result<Config> {
    load(None, environment(pairs), &Overrides::default())
}

fn paths(value: &serde_json::Value, prefix: &str, out: &mut BTreeSet<String>) {
    match value.as_object() {
        Some(inner) => inner.iter().for_each(|(key, value)| paths(value, &format!("{prefix}.{key}"), out)),
        None => {
            out.insert(prefix.trim_start_matches('.').to_owned());
        }
    }
}

#[test]
fn the_documented_file_and_the_structs_name_the_same_keys() {
    let file: serde_json::Value = Figment::from(Toml::string(DEFAULTS)).extract().unwrap();
    let structs = serde_json::to_value(Config::defaults().unwrap()).unwrap();
    let (mut in_file, mut in_structs) = (BTreeSet::new(), BTreeSet::new());
    paths(&file, "", &mut in_file);
    paths(&structs, "", &mut in_structs);
    assert_eq!(in_file, in_structs);
}

#[test]
fn every_key_has_a_reason() {
    let mut before = "";
    for line in DEFAULTS.lines() {
        if line.contains(" = ") && !line.starts_with('#') {
            assert!(before.starts_with('#'), "{line:?} has no comment above it");
        }
        before = line;
    }
}

#[test]
fn the_environment_names_every_kind_of_key() {
    let config = with(&[
        ("KERO_LISTEN", "127.0.0.1:9000"),
        ("KERO_API_KEY", "0123456789012345678901234567890123456789"),
        ("KERO_QUEUE__MAX_RETRIES", "7"),
        ("KERO_QUEUE__PAUSED", "true"),
        ("KERO_DELIVERY__ALLOW_NETWORKS", "127.0.0.0/8, ::1/128"),
        ("KERO_DELIVERY__ALLOW_HOSTS", "n8n, *.internal"),
        ("KERO_EVENTS__KEEP_RAW", "false"),
        ("KERO_HTTP__HEARTBEAT", "20s"),
        ("KERO_DELIVERY__SCHEDULE", "1s,2m"),
        ("KERO_WHATSAPP__VERSION", "2.3000.1"),
        ("KERO_DURABILITY", "process"),
        ("KERO_SENDING__SYNC_TIMEOUT", "3s"),
    ])
    .unwrap();
    assert_eq!(config.listen.port(), 9000);
    assert_eq!(config.queue.max_retries, 7);
    assert!(config.queue.paused);
    assert_eq!(config.delivery.allow_networks.len(), 2);
    assert_eq!(config.delivery.allow_hosts, ["n8n", "*.internal"]);
    assert!(!config.events.keep_raw);
    assert_eq!(config.http.heartbeat, Duration::from_secs(20));
    assert_eq!(config.delivery.schedule, [Duration::from_secs(1), Duration::from_secs(120)]);
    assert_eq!(config.whatsapp.version, Some((2, 3000, 1)));
    assert_eq!(config.durability, Durability::Process);
    assert_eq!(config.sending.sync_timeout, Duration::from_secs(3));
    assert_eq!(secrecy::ExposeSecret::expose_secret(&config.api_key.unwrap()).len(), 40);
}

#[test]
fn unknown_names_are_refused_or_reported() {
    let wrong = format!("{:#}", with(&[("KERO_QUEUE__MAX_RETRY", "7")]).unwrap_err());
    assert!(wrong.contains("max_retry"), "{wrong}");
    // A container platform sets these for a service named kero.
    let platform = environment(&[("KERO_PORT", "tcp://10.0.0.1:80"), ("KERO_TEST_X", "1"), ("KERO_LISTEN", "[::1]:1")]);
    assert_eq!(platform.unknown(), ["KERO_PORT"]);
    assert!(load(None, platform, &Overrides::default()).is_ok());
}

#[test]
fn all_complaints_come_at_once() {
    let wrong = with(&[
        ("KERO_DATABASE_URL", "mysql://x"),
        ("KERO_API_KEY", "short"),
        ("KERO_DATABASE__READERS", "0"),
        ("KERO_DELIVERY__ALLOW_HOSTS", "n8n,10.0.0.1"),
        ("KERO_HTTP__HEARTBEAT", "10ms"),
    ]);
    let text = format!("{:#}", wrong.unwrap_err());
    for key in ["database_url", "api_key", "database.readers", "delivery.allow_hosts", "http.heartbeat"] {
        assert!(text.contains(key), "{key} missing in {text}");
    }
}

#[test]
fn sources_win_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kero.toml");
    std::fs::write(&file, "listen = \"127.0.0.1:1\"\ndata_dir = \"/from/file\"\n[queue]\nmax_retries = 1\n").unwrap();
    let variables = environment(&[("KERO_LISTEN", "127.0.0.1:2"), ("KERO_QUEUE__MAX_RETRIES", "2")]);
    let flags = Overrides { listen: Some("127.0.0.1:3".parse().unwrap()), ..Overrides::default() };
    let config = load(Some(&file), variables, &flags).unwrap();
    assert_eq!((config.listen.port(), config.queue.max_retries), (3, 2));
    assert_eq!(config.data_dir, Path::new("/from/file"));
    std::fs::write(&file, "[queue]\nmax_tries = 1\n").unwrap();
    assert!(load(Some(&file), Environment::empty(), &Overrides::default()).is_err());
}

#[test]
fn secrets_come_from_files_and_are_masked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, "a-very-secret-admin-key\n").unwrap();
    let config = with(&[
        ("KERO_API_KEY_FILE", file.to_str().unwrap()),
        ("KERO_DATABASE_URL", "postgres://user:hunter2@db.example/kero?password=hunter3"),
        ("KERO_REDIS_URL", "redis://127.0.0.1:6379/0"),
    ])
    .unwrap();
    let printed = print(&config).unwrap();
    for secret in ["a-very-secret", "hunter2", "hunter3"] {
        assert!(!printed.contains(secret), "{printed}");
    }
    assert!(printed.contains("database_url = \"postgres://user:***@db.example/kero?***\""), "{printed}");
    assert!(printed.contains("redis_url = \"redis://127.0.0.1:6379/0\""), "{printed}");
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn what_is_printed_can_be_read_again() {
    let printed = print(&Config::defaults().unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kero.toml");
    std::fs::write(&file, &printed).unwrap();
    let again = load(Some(&file), Environment::empty(), &Overrides::default()).unwrap();
    assert_eq!(print(&again).unwrap(), printed);
}

//! What the types cannot say. Everything that is wrong is reported at once.

use super::Config;
use secrecy::ExposeSecret;
use std::time::Duration;

/// Every complaint as a sentence that names the key and what to do.
pub fn validate(config: &Config) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut check = |fine: bool, complaint: &str| {
        if !fine {
            complaints.push(complaint.to_owned());
        }
    };

    let database = config.database_url();
    check(
        ["sqlite:", "postgres://", "postgresql://"].iter().any(|scheme| database.starts_with(scheme)),
        "database_url: must begin with sqlite: or postgres://",
    );
    check(
        config.redis_url.as_ref().is_none_or(|url| {
            ["redis://", "rediss://", "redis+unix://", "unix://"].iter().any(|s| url.expose_secret().starts_with(s))
        }),
        "redis_url: must begin with redis:// or rediss://",
    );
    check(
        config.redis_ca_file.is_none()
            || config.redis_url.as_ref().is_some_and(|url| url.expose_secret().starts_with("rediss://")),
        "redis_ca_file: needs a redis_url that begins with rediss://",
    );
    check(
        config.api_key.as_ref().is_none_or(|key| key.expose_secret().len() >= 16),
        "api_key: must have 16 characters or more, because it opens everything",
    );
    check(
        config.api_key.as_ref().is_none_or(|key| key.expose_secret().bytes().all(|b| b.is_ascii_graphic())),
        "api_key: must be printable ASCII without spaces, because it travels in a header",
    );

    let http = &config.http;
    check(
        http.public_url.as_ref().is_none_or(|url| url.starts_with("http://") || url.starts_with("https://")),
        "http.public_url: must begin with http:// or https://",
    );
    check(http.max_body >= 4096, "http.max_body: must be 4096 or more");
    check(
        http.request_timeout >= config.sending.sync_timeout + Duration::from_secs(5),
        "http.request_timeout: must be 5 s longer than sending.sync_timeout or more, or a send loses its answer",
    );
    check(http.write_timeout >= Duration::from_secs(1), "http.write_timeout: must be 1 s or more");
    check(http.heartbeat >= Duration::from_secs(1), "http.heartbeat: must be 1 s or more");
    check(http.max_streams >= 1, "http.max_streams: must be 1 or more");
    check(
        http.cors_origins.iter().all(|origin| origin == "*" || origin.contains("://")),
        "http.cors_origins: each must be \"*\" or an origin like https://app.example.org",
    );

    let hooks = &config.hooks;
    check(hooks.max_artefact >= 4096, "hooks.max_artefact: must be 4096 or more");
    check(hooks.max_artefact <= 32 << 20, "hooks.max_artefact: must be 33554432 (32 MiB) or less");
    check(!hooks.compile_timeout.is_zero(), "hooks.compile_timeout: must be longer than zero");
    check(
        hooks.compile_timeout < http.request_timeout,
        "hooks.compile_timeout: must be shorter than http.request_timeout, or an upload loses its answer",
    );
    check((2..=256).contains(&hooks.workers), "hooks.workers: must be 2 to 256; one is always left for short calls");

    check(config.database.readers >= 1, "database.readers: must be 1 or more");
    check(config.database.writers >= 1, "database.writers: must be 1 or more");
    check(
        config.database.max_size == 0 || config.database.max_size >= 1 << 20,
        "database.max_size: must be 0 or 1048576 and more",
    );

    let whatsapp = &config.whatsapp;
    check(
        (1..=50).contains(&whatsapp.device_name.chars().count()),
        "whatsapp.device_name: must have 1 to 50 characters",
    );
    check(!whatsapp.reconnect_base.is_zero(), "whatsapp.reconnect_base: must be longer than zero");
    check(
        whatsapp.reconnect_base <= whatsapp.reconnect_ceiling,
        "whatsapp.reconnect_base: must not be longer than whatsapp.reconnect_ceiling",
    );
    check(whatsapp.pairing_timeout >= Duration::from_secs(10), "whatsapp.pairing_timeout: must be 10 s or more");

    let sending = &config.sending;
    check(sending.sync_timeout >= Duration::from_millis(100), "sending.sync_timeout: must be 100 ms or more");
    check(sending.ack_timeout >= Duration::from_millis(100), "sending.ack_timeout: must be 100 ms or more");
    check(sending.lane_concurrency >= 1, "sending.lane_concurrency: must be 1 or more");

    check((1..=10_000).contains(&sending.rate_burst), "sending.rate_burst: must be 1 to 10000");

    check(config.queue.max_retries <= 100, "queue.max_retries: must be 100 or less");
    check(!config.queue.retry_base.is_zero(), "queue.retry_base: must be longer than zero");
    check(
        config.queue.retry_base <= config.queue.retry_ceiling,
        "queue.retry_base: must not be longer than queue.retry_ceiling",
    );

    check(config.queue.reconcile_every >= Duration::from_millis(100), "queue.reconcile_every: must be 100 ms or more");

    check(config.queue.max_jobs >= 1, "queue.max_jobs: must be 1 or more");
    check(config.queue.max_jobs_total >= 1, "queue.max_jobs_total: must be 1 or more");
    check(config.retention.every >= Duration::from_millis(100), "retention.every: must be 100 ms or more");
    check(
        config.delivery.allow_hosts.iter().all(|host| is_host(host)),
        "delivery.allow_hosts: each must be a host name like n8n or hooks.internal, or *.internal for those below it",
    );
    check(config.delivery.timeout >= Duration::from_millis(100), "delivery.timeout: must be 100 ms or more");
    check(config.delivery.timeout <= Duration::from_secs(30), "delivery.timeout: must be 30 s or less");
    check(config.delivery.max_payload >= 4096, "delivery.max_payload: must be 4096 or more");
    check(config.delivery.max_endpoints >= 1, "delivery.max_endpoints: must be 1 or more");
    check((1..=100).contains(&config.delivery.breaker_percent), "delivery.breaker_percent: must lie between 1 and 100");
    check(config.delivery.breaker_least >= 1, "delivery.breaker_least: must be 1 or more");
    check(
        !config.delivery.breaker_open.is_zero() && config.delivery.breaker_open <= config.delivery.breaker_ceiling,
        "delivery.breaker_open: must be longer than zero and not longer than delivery.breaker_ceiling",
    );
    check(config.delivery.concurrency >= 1, "delivery.concurrency: must be 1 or more");
    check(config.delivery.per_endpoint >= 1, "delivery.per_endpoint: must be 1 or more");
    check(
        config.shutdown.timeout >= Duration::from_secs(1),
        "shutdown.timeout: must be 1 s or more, or nothing can be finished",
    );
    complaints
}

/// A name, or `*.` and a name; an address belongs into `allow_networks`.
fn is_host(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    name.split('.').all(label) && name.parse::<std::net::IpAddr>().is_err()
}

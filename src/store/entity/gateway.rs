//! Instances, keys, jobs, events and their deliveries.

entity! { "settings", settings {
    #[sea_orm(primary_key, auto_increment = false)]
    name: String,
    value: Vec<u8>,
} }

entity! { "instances", instances {
    #[sea_orm(primary_key)]
    pk: i64,
    #[sea_orm(unique)]
    id: String,
    name: Option<String>,
    wanted: bool,
    status: String,
    cause: Option<String>,
    since: i64,
    phone: Option<String>,
    lid: Option<String>,
    jid: Option<String>,
    push_name: Option<String>,
    sync_history: bool,
    owner_epoch: i64,
    next_seq: i64,
    last_connected_at: Option<i64>,
    created_at: i64,
    updated_at: i64,
} }

entity! { "api_keys", api_keys {
    #[sea_orm(primary_key, auto_increment = false)]
    id: Uuid,
    hash: Vec<u8>,
    name: Option<String>,
    instance_pk: Option<i64>,
    created_at: i64,
    revoked_at: Option<i64>,
} }

entity! { "jobs", jobs {
    #[sea_orm(primary_key, auto_increment = false)]
    id: Uuid,
    instance_pk: i64,
    correlation_id: String,
    message_id: String,
    chat: String,
    priority: String,
    content: Vec<u8>,
    proto: Option<Vec<u8>>,
    state: String,
    held: Option<String>,
    due_at: i64,
    send_at: Option<i64>,
    order_at: i64,
    attempts: i32,
    asynchronous: bool,
    error_code: Option<String>,
    error: Option<String>,
    request_id: Option<String>,
    created_at: i64,
    updated_at: i64,
    ended_at: Option<i64>,
    retries: i32,
    attempts_before: i32,
    discarded_at: Option<i64>,
    receipt: Option<String>,
} }

entity! { "idempotency", idempotency {
    #[sea_orm(primary_key, auto_increment = false)]
    api_key_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    idem_key: String,
    instance_pk: i64,
    job_id: Uuid,
    body_hash: Vec<u8>,
    expires_at: i64,
} }

entity! { "events", events {
    #[sea_orm(primary_key)]
    pk: i64,
    id: Uuid,
    instance_pk: i64,
    kind: String,
    order_key: String,
    dedupe_key: Option<String>,
    seq: Option<i64>,
    fanout: i16,
    occurred_at: i64,
    message_id: Option<String>,
    data: Vec<u8>,
    request_id: Option<String>,
    verdict: Option<String>,
    hook_errors: Option<String>,
} }

entity! { "endpoints", endpoints {
    #[sea_orm(primary_key, auto_increment = false)]
    id: Uuid,
    instance_pk: Option<i64>,
    url: String,
    events: String,
    narrow: String,
    headers: Option<Vec<u8>>,
    secret: Option<Vec<u8>>,
    old_secrets: Option<Vec<u8>>,
    signing_key: Option<Vec<u8>>,
    ordering: String,
    rate_limit: Option<i32>,
    timeout_ms: Option<i64>,
    schedule: Option<String>,
    enabled: bool,
    disabled_reason: Option<String>,
    disabled_at: Option<i64>,
    failing_since: Option<i64>,
    created_at: i64,
    updated_at: i64,
    include_raw: bool,
} }

entity! { "deliveries", deliveries {
    #[sea_orm(primary_key, auto_increment = false)]
    id: Uuid,
    endpoint_id: Uuid,
    event_pk: i64,
    instance_pk: i64,
    order_key: String,
    state: String,
    head: bool,
    priority: i16,
    attempts: i32,
    uncounted: i32,
    triggered_by: String,
    next_at: i64,
    request: Option<Vec<u8>>,
    created_at: i64,
    updated_at: i64,
} }

entity! { "attempts", attempts {
    #[sea_orm(primary_key, auto_increment = false)]
    delivery_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    n: i32,
    started_at: i64,
    triggered_by: String,
    http_status: Option<i32>,
    error: Option<String>,
    dns_ms: Option<i64>,
    connect_ms: Option<i64>,
    first_byte_ms: Option<i64>,
    total_ms: i64,
    next_at: Option<i64>,
    response_head: Option<Vec<u8>>,
} }

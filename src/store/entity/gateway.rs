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
    secret: Option<Vec<u8>>,
    enabled: bool,
    created_at: i64,
    updated_at: i64,
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
    attempts: i32,
    next_at: i64,
    created_at: i64,
    updated_at: i64,
} }

entity! { "attempts", attempts {
    #[sea_orm(primary_key, auto_increment = false)]
    delivery_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    n: i32,
    started_at: i64,
    http_status: Option<i32>,
    error: Option<String>,
    total_ms: i64,
    response_head: Option<Vec<u8>>,
} }

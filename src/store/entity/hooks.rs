//! Plugins, their versions, and what their calls left.

entity! { "plugins", plugins {
    #[sea_orm(primary_key, auto_increment = false)]
    name: String,
    active: Option<String>,
    previous: Option<String>,
    suspended: bool,
    grants: Option<String>,
    config: Option<Vec<u8>>,
    created_at: i64,
    updated_at: i64,
} }

entity! { "plugin_versions", plugin_versions {
    #[sea_orm(primary_key, auto_increment = false)]
    plugin: String,
    #[sea_orm(primary_key, auto_increment = false)]
    version: String,
    hash: String,
    manifest: String,
    report: String,
    bytes: i64,
    artefact: Vec<u8>,
    created_at: i64,
} }

entity! { "hook_chains", hook_chains {
    #[sea_orm(primary_key)]
    pk: i64,
    event_pk: i64,
    delivery_id: Option<Uuid>,
    ran_at: i64,
    set_pk: i64,
    calls: Vec<u8>,
} }

entity! { "hook_sets", hook_sets {
    #[sea_orm(primary_key)]
    pk: i64,
    hash: Vec<u8>,
    calls: String,
} }

entity! { "hook_kv", hook_kv {
    #[sea_orm(primary_key, auto_increment = false)]
    plugin: String,
    #[sea_orm(primary_key, auto_increment = false)]
    instance_pk: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    entry: Vec<u8>,
    value: Vec<u8>,
    bytes: i64,
    expires_at: Option<i64>,
    updated_at: i64,
} }

entity! { "hook_sends", hook_sends {
    #[sea_orm(primary_key, auto_increment = false)]
    job_id: Uuid,
    plugin: String,
    instance_pk: i64,
    chat: String,
    message_id: String,
    created_at: i64,
} }

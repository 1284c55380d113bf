//! What the WhatsApp client keeps for an instance. Every key begins with the instance.

entity! { "device", device {
    #[sea_orm(primary_key, auto_increment = false)]
    instance_pk: i64,
    record: Vec<u8>,
    updated_at: i64,
} }

entity! { "identities", identities {
    #[sea_orm(primary_key, auto_increment = false)]
    instance_pk: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    address: String,
    record: Vec<u8>,
} }

entity! { "sessions", sessions {
    #[sea_orm(primary_key, auto_increment = false)]
    instance_pk: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    address: String,
    record: Vec<u8>,
} }

entity! { "prekeys", prekeys {
    #[sea_orm(primary_key, auto_increment = false)]
    instance_pk: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    id: i64,
    record: Vec<u8>,
    uploaded: bool,
} }

entity! { "signed_prekeys", signed_prekeys {
    #[sea_orm(primary_key, auto_increment = false)]
    instance_pk: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    id: i64,
    record: Vec<u8>,
} }

entity! { "sender_keys", sender_keys {
    #[sea_orm(primary_key, auto_increment = false)]
    instance_pk: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    address: String,
    record: Vec<u8>,
} }

entity! { "sender_key_devices", sender_key_devices {
    #[sea_orm(primary_key, auto_increment = false)]
    instance_pk: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    group_jid: String,
    #[sea_orm(primary_key, auto_increment = false)]
    device_jid: String,
    has_key: bool,
} }

entity! { "app_state_keys", app_state_keys {
    #[sea_orm(primary_key, auto_increment = false)]
    instance_pk: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    key_id: Vec<u8>,
    record: Vec<u8>,
    position: i64,
} }

entity! { "app_state_versions", app_state_versions {
    #[sea_orm(primary_key, auto_increment = false)]
    instance_pk: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    name: String,
    record: Vec<u8>,
} }

entity! { "app_state_macs", app_state_macs {
    #[sea_orm(primary_key, auto_increment = false)]
    instance_pk: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    name: String,
    #[sea_orm(primary_key, auto_increment = false)]
    index_mac: Vec<u8>,
    value_mac: Vec<u8>,
    version: i64,
} }

entity! { "lid_mappings", lid_mappings {
    #[sea_orm(primary_key, auto_increment = false)]
    instance_pk: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    lid: String,
    phone: String,
    created_secs: i64,
    updated_secs: i64,
    source: String,
} }

entity! { "base_keys", base_keys {
    #[sea_orm(primary_key, auto_increment = false)]
    instance_pk: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    address: String,
    #[sea_orm(primary_key, auto_increment = false)]
    message_id: String,
    record: Vec<u8>,
} }

entity! { "device_lists", device_lists {
    #[sea_orm(primary_key, auto_increment = false)]
    instance_pk: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    account: String,
    record: String,
} }

entity! { "group_metadata", group_metadata {
    #[sea_orm(primary_key, auto_increment = false)]
    instance_pk: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    group_jid: String,
    record: Vec<u8>,
} }

entity! { "tc_tokens", tc_tokens {
    #[sea_orm(primary_key, auto_increment = false)]
    instance_pk: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    jid: String,
    token: Vec<u8>,
    token_secs: i64,
    sender_secs: Option<i64>,
} }

entity! { "sent_messages", sent_messages {
    #[sea_orm(primary_key, auto_increment = false)]
    instance_pk: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    chat: String,
    #[sea_orm(primary_key, auto_increment = false)]
    message_id: String,
    payload: Vec<u8>,
    stored_at: i64,
} }

entity! { "msg_secrets", msg_secrets {
    #[sea_orm(primary_key, auto_increment = false)]
    instance_pk: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    chat: String,
    #[sea_orm(primary_key, auto_increment = false)]
    sender: String,
    #[sea_orm(primary_key, auto_increment = false)]
    message_id: String,
    secret: Vec<u8>,
    expires_secs: i64,
    message_secs: i64,
} }

entity! { "pending_inbound", pending_inbound {
    #[sea_orm(primary_key, auto_increment = false)]
    instance_pk: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    chat: String,
    #[sea_orm(primary_key, auto_increment = false)]
    sender: String,
    #[sea_orm(primary_key, auto_increment = false)]
    message_id: String,
    message: Vec<u8>,
    stored_at: i64,
} }

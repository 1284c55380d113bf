//! The HTTP room: Kero's REST API with poem-openapi, and the OpenAPI documents generated from its handlers.
//!
//! This is the only crate that names poem. It talks to [`kero_gateway::Gateway`] and never to WhatsApp, Redis or
//! SQL. One file per tag holds the operations (`instances`, `pairing`, `messages`, …); `wire/` holds the objects that
//! travel; `stream` is what stays open (server-sent events, WebSocket); `frame` is what every request passes first and every answer last.
//!
//! A request: [`frame`] (request id, limits, CORS, problems) → router → [`auth::Caller`] → [`body::JsonBody`] →
//! handler → [`handle::Handle`] (checks what the key may see, gives the gateway) → answer or
//! [`problem::Failure`], which the frame writes as `application/problem+json`.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
#![allow(clippy::needless_borrows_for_generic_args, reason = "poem-openapi's macros produce them")]

mod accept;
mod auth;
mod body;
mod check;
mod config;
mod cors;
mod dead_letters;
mod deliveries;
mod docs;
mod endpoints;
mod events;
mod frame;
mod handle;
mod idempotency;
mod instances;
mod jobs;
mod limits;
mod messages;
mod page;
mod pairing;
mod plugin_form;
mod plugins;
mod problem;
mod qr;
mod queue;
mod request_id;
mod serve;
mod service;
mod spec;
mod stream;
mod system;
mod tags;
#[cfg(test)]
mod tests;
mod webhook;
mod webhooks;
mod wire;

pub use auth::hash_key;
pub use config::ApiConfig;
pub use serve::{Serving, serve};
pub use spec::{SpecVersion, operations, spec};

use kero_gateway::Gateway;
use poem::endpoint::BoxEndpoint;

/// The whole HTTP application: API, documents, Swagger UI.
pub fn app(gateway: Gateway, config: ApiConfig) -> BoxEndpoint<'static> {
    service::app(handle::Handle::new(gateway), config)
}

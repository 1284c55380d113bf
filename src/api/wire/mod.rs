//! The objects that travel over HTTP: one file per tag, made from the domain's and the store's types.
//!
//! `None` is left out, never `null`; lists are `[]`, never `null`. Further members may come: clients must ignore
//! members that they do not know.

pub(crate) mod delivery;
pub(crate) mod endpoint;
pub(crate) mod event;
pub(crate) mod instance;
pub(crate) mod job;
pub(crate) mod members;
pub(crate) mod message;
pub(crate) mod pairing;
pub(crate) mod payloads;
pub(crate) mod plugin;
pub(crate) mod queue;
pub(crate) mod recipient;
pub(crate) mod said;
pub(crate) mod secret;
pub(crate) mod slug;
pub(crate) mod socket;
pub(crate) mod system;
pub(crate) mod time;
pub(crate) mod url;
pub(crate) mod wait;
pub(crate) mod webhook;
pub(crate) mod word;
pub(crate) mod words;

use poem_openapi::Object;
use poem_openapi::types::{ParseFromJSON, ToJSON, Type};

/// One resource.
#[derive(Object)]
pub(crate) struct Data<T: Type + ParseFromJSON + ToJSON> {
    /// Always true.
    pub success: bool,
    pub data: T,
}

impl<T: Type + ParseFromJSON + ToJSON> Data<T> {
    pub fn new(data: impl Into<T>) -> Self {
        Self { success: true, data: data.into() }
    }
}

/// A part of a list.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct Page<T: Type + ParseFromJSON + ToJSON> {
    /// Always true.
    pub success: bool,
    pub data: Vec<T>,
    /// How many there are in all, where the list counts them.
    pub total: Option<u64>,
    /// Give it as `cursor` for the next part; absent at the end.
    pub next_cursor: Option<String>,
}

impl<T: Type + ParseFromJSON + ToJSON> Page<T> {
    pub fn new(data: Vec<T>, total: Option<u64>, next_cursor: Option<String>) -> Self {
        Self { success: true, data, total, next_cursor }
    }
}

/// It is done.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct Done {
    /// Always true.
    pub success: bool,
    /// What was done, for people.
    pub message: Option<String>,
}

impl Done {
    pub fn silent() -> Self {
        Self { success: true, message: None }
    }

    pub fn saying(message: &str) -> Self {
        Self { success: true, message: Some(message.to_owned()) }
    }
}

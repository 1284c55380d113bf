//! Hooks that misbehave, chains, artefacts, and the guests of `plugins/`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod abuse;
mod artefacts;
mod bounds;
mod chains;
mod effects;
mod guests;
mod misbehaving;
mod support;

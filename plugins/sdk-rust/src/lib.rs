//! Write hooks for the Kero gateway in Rust.
//!
//! ```ignore
//! use kero_plugin::{Body, Context, Event, Failure, Verdict};
//!
//! kero_plugin::transform!(handle);
//!
//! fn handle(event: Event, _context: Context) -> Result<Verdict, Failure> {
//!     Ok(match event.body {
//!         Body::Message(message) if message.from_me => Verdict::Drop("own message".into()),
//!         _ => Verdict::Pass,
//!     })
//! }
//! ```
//!
//! Build for `wasm32-unknown-unknown` as a `cdylib`; the gateway makes a component of it. There is no network, no file,
//! no environment and no clock of `std` in there (`SystemTime::now` panics): use [`clock`], [`random`], [`http`].
//! A panic is a trap: nothing that the call asked for happens, and the message is in the plugin's log.

#[cfg(all(feature = "transform", feature = "delivery"))]
compile_error!("a plugin is of one kind: choose the feature `transform` or `delivery`, not both");

#[cfg(all(feature = "transform", not(feature = "delivery")))]
#[doc(hidden)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit/0.1.0",
        world: "transform",
        pub_export_macro: true,
        default_bindings_module: "kero_plugin::bindings",
    });
}

#[cfg(all(feature = "delivery", not(feature = "transform")))]
#[doc(hidden)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit/0.1.0",
        world: "delivery",
        pub_export_macro: true,
        default_bindings_module: "kero_plugin::bindings",
    });
}

#[cfg(any(feature = "transform", feature = "delivery"))]
mod hook;
#[cfg(any(feature = "transform", feature = "delivery"))]
pub use hook::*;

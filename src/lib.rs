//! # Kero: the architecture
//!
//! A self-hosted WhatsApp gateway: REST in, signed webhooks out. This page is the place to start reading.
//!
//! ## Bird's eye
//!
//! ```text
//!   your program ──HTTP──▶ api ─▶ gateway/intake ─▶ gateway/queue ─▶ gateway/worker ─▶ whatsapp ──▶ WhatsApp
//!                                       │                 │                │              │
//!                                       ▼                 ▼                ▼              ▼
//!                                     store: one database, SQLite or Postgres; the row is the truth
//!                                       ▲                                                 │
//!   your program ◀─webhook─ gateway/delivery ◀──────────── gateway/events ◀───────────────┘
//! ```
//!
//! One process holds many WhatsApp accounts (*instances*). Each is a linked device, like WhatsApp Web, with its own
//! connection and its own encryption state. Everything that matters is a row in the database before it is promised to
//! anybody; whatever is in memory, or in Redis, can be thrown away and is rebuilt from the rows.
//!
//! Entry points: `src/main.rs` (the command), `src/run.rs` (what each command does), [`boot`] (start and stop; the only file
//! that knows every room), and in `src/api` one file per group of operations.
//!
//! ## The life of a message
//!
//! 1. **api** reads `POST /messages/text`, checks the key and the JSON, and gives it a request id that follows it into
//!    every log line and webhook.
//! 2. **gateway/intake** checks the recipient and the instance, mints the final WhatsApp message id, and commits a *job*
//!    row. Nothing has gone to WhatsApp yet. With `X-Async: true` the answer is `202` now; without, the request waits for
//!    the job's end. From here both take the same way.
//! 3. **gateway/queue** says which jobs are due. A synchronous send goes from its commit straight to its lane.
//! 4. **gateway/worker** runs one *lane* per chat and class: first in, first out, one message of a chat on its way at a
//!    time, parallel over chats and instances. It builds the protobuf, commits it with the *intent* (`sending`), and
//!    only then hands it to the link.
//! 5. **whatsapp** encrypts it for every device of the recipient and writes it to the socket.
//! 6. WhatsApp's server acknowledges it. Only that makes the job `sent`; result and `message_ack` event are one commit.
//!    The chat's next message need not wait for that commit, only for the acknowledgement.
//!    A temporary failure puts the job on hold until its retry is due; a permanent one makes it `failed`.
//!    A failed asynchronous job is a *dead letter*; retrying it is a new promise with an end of its own.
//! 7. When the process dies between intent and acknowledgement, the job is in doubt. After the restart it is repeated with
//!    the frozen protobuf under the same message id, which the recipient shows once. A receipt that names it meanwhile,
//!    or that came before the result was stored, stays on the job: such a message is sent, and not repeated.
//! 8. A recipient that could not read the message asks for it again. The frozen protobuf in the job's row is the only copy
//!    of what was sent; the client, which would keep its own, is answered from there.
//!
//! ## The life of an event
//!
//! 1. **whatsapp** decrypts an incoming message, turns it into the words of `domain`, and calls back *before* it is
//!    acknowledged to WhatsApp.
//! 2. **gateway/events** commits it to the journal. Only then is it acknowledged: what was not committed is delivered
//!    again by WhatsApp. Acknowledgements of sends, receipts and status changes enter the same journal.
//! 3. Where no transform has a say and nothing waits, that commit is the fan-out as well: the event gets its number and
//!    its deliveries at once. Otherwise it is pending, and everything of its instance waits behind it.
//!    The *fan-out* takes pending events in order per chat; the rows say which, and what was appended a moment ago is
//!    still in memory and not read back. Where the instance has transforms, **gateway/hooks** has them called outside of
//!    any transaction ([`kero_hooks`] runs the guests on threads of their own); a chat whose hook is slow holds up no
//!    other. Then verdict, changed data, one row for all calls of the chain, the hooks' staged writes and sends, the
//!    instance's next sequence number and one delivery row per endpoint that wants it are one commit. Rounds begin at
//!    least 5 ms apart, so that a stream of events shares commits; one that comes alone does not wait.
//! 4. **gateway/delivery** posts the deliveries of each chat in order: shaped once by delivery hooks where there are any
//!    (the bytes are stored), guarded against private addresses, signed (Kero-Kero's headers and Standard Webhooks),
//!    retried for days, then dead. A breaker leaves alone what only fails; slow endpoints use places of their own, and a name
//!    server that does not answer is the trouble of its own names, so that they hold up nobody else.
//! 5. `GET /instances/{id}/events?after={seq}` reads the same journal, for those who missed something; the streams
//!    (`…/events/stream`, `…/ws`) follow it. They are woken by the fan-out and read from the database, so a slow reader
//!    costs one part of memory and misses nothing.
//!
//! ## The rooms
//!
//! Each room is a crate in `src/`; its manifest says whom it may know, and the compiler holds it to that.
//!
//! | room | what it does | knows | the only one that names |
//! | --- | --- | --- | --- |
//! | `domain` | words and rules: ids, addresses, content, states, events, retry, faults; no I/O, no async | nobody | |
//! | `store` | the database: entities, queries by aggregate, the grouping writer, encryption at rest | domain | `sea-orm` |
//! | `whatsapp` | the client library behind our words: link, outbound, inbound, device store | domain, store | `whatsapp-rust` |
//! | `hooks` | runs WebAssembly guests: limits, grants, chains; capabilities are traits | domain | `wasmtime` |
//! | `gateway` | what Kero does, in the order of the data flow | domain, hooks, store, whatsapp | `redis` (in `queue`) |
//! | `api` | HTTP; the OpenAPI document is generated from its handlers | domain, store, gateway, telemetry | `poem` |
//! | `simulator` | a simulated WhatsApp that speaks the real protocol | nobody | |
//! | `telemetry` | log and metrics | nobody | `tracing-subscriber`, the exporter |
//! | root (`kero`) | configuration, commands, start and stop, the demo | all | `clap`, `figment`, `anyhow` |
//!
//! Who knows the layers of Kero's first sketch finds them here: Handlers → `api`, Services → `gateway`, Repositories →
//! `store`, WhatsApp Manager → `gateway/instances`, Queue Worker → `gateway/worker`.
//!
//! ## Invariants
//!
//! Many are about things that are deliberately absent.
//!
//! - **Accepted means accounted for.** Every `202` ends in exactly one of sent, failed or cancelled, and exactly one
//!   `message_ack` says which, whatever is killed, whenever. Retrying a dead letter is a new promise of that kind.
//! - **Intent before wire.** No message reaches the socket before its intent is committed, and a job has one message id
//!   and one protobuf for its whole life.
//! - **Success is WhatsApp's acknowledgement**, never the return of a call.
//! - **Acknowledged messages ⊆ committed events.** Nothing runs in the commit of an incoming message but the commit.
//!   (What the library acknowledges before we see it is best effort; the README lists it.)
//! - **Accepting a send does no WhatsApp I/O.** A `202` never waits for a network but the database's.
//! - **A delivery has one id and one body** over all its tries, replays included; it may arrive twice, never changed.
//! - **An endpoint that is down costs the others nothing**: no look-up, no shared place, and itself no try.
//! - **Redis holds nothing that is nowhere else.** Flushing it loses nothing.
//! - **An instance has one owner.** Every write for it carries the owner's epoch; a process that lost the instance cannot
//!   write for it. The data folder is locked as long as a process runs.
//! - **A store command that cannot succeed fails alone**, not the group that it was committed with.
//! - **A hook has no effect of its own.** What it writes and sends is committed with its verdict or not at all; each event
//!   has one stored verdict.
//! - **No sleeping retries.** A wait is a due time in a row; nothing is lost when the process ends meanwhile.
//! - **A phone number, a hidden id (LID) and a JID are different things** and never stand in for each other.
//! - **No panics, no `unwrap`** outside of tests; the lints of the workspace deny them.
//! - **One clock.** `domain::Timestamp::now` is the only reader of the wall clock.
//! - **A client never reads a source error's text**; it reads a fault out of one closed list, and the log has the rest
//!   under the request id.
//! - **No message text, phone number or secret in the log** at level info or above; no secret in `--print-config`.
//! - **No default secret, no phone home, no licence gate.** The first key is random, shown once, and stored as a hash.
//! - **A default binary cannot skip the certificate check.** Only the feature `simulator` compiles that in, and a binary
//!   with it talks to loopback addresses only.
//! - **Rooms have error types by what to do about them**; `anyhow` is for the root, the simulator, and where the client
//!   library's own traits demand it.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod boot;
pub mod cli;
pub mod config;
#[cfg(feature = "simulator")]
mod demo;
mod keys;
mod lock;
mod master_key;
mod plugin;
mod run;
mod shutdown;
mod simulation;

pub use run::run;

/// This build's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

//! What every test stands on: a simulated WhatsApp, a real `kero` process, a webhook sink.

mod foreign;
mod gateway;
pub mod hostile;
mod postgres;
mod proxy;
mod redis;
mod sink;
mod stream;

pub use foreign::Foreign;
pub use gateway::{Answer, KEY, Kero, Options, binary};
pub use postgres::database_url;
pub use proxy::Proxy;
pub use redis::Redis;
pub use sink::{Behaviour, Received, Sink};
pub use stream::{Socket, Sse};

use kero_simulator::{Config, Person, Script, Simulator};
use serde_json::json;
use std::future::Future;
use std::time::{Duration, Instant};

pub const WAIT: Duration = Duration::from_secs(30);

pub async fn simulator() -> Simulator {
    kero::boot::prepare_process();
    kero_simulator::start(Config::default()).await.expect("the simulator starts on a free loopback port")
}

/// A person with a script, and their number.
pub fn person(simulator: &Simulator, phone: &str, script: Script) -> String {
    simulator.add_person(Person { phone: phone.to_owned(), name: Some(format!("Person {phone}")), script });
    phone.to_owned()
}

/// Polls until `check` gives something; panics with `what` after [`WAIT`].
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, check: impl FnMut() -> F) -> T {
    eventually_within(WAIT, what, check).await
}

pub async fn eventually_within<T, F: Future<Output = Option<T>>>(
    wait: Duration,
    what: &str,
    mut check: impl FnMut() -> F,
) -> T {
    let until = Instant::now() + wait;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < until, "waited {wait:?} for: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A gateway with the instance `a` of this number, which is connected and tells a sink of its events.
pub async fn paired_with_sink(own: &str, options: Options) -> (Simulator, Kero, Sink) {
    let (simulator, sink) = (simulator().await, Sink::start().await);
    let kero = Kero::start_with(&simulator, options).await;
    kero.post("/instances", json!({ "instance_id": "a", "webhook_url": sink.url })).await.expect(201);
    kero.pair(&simulator, "a", own).await;
    (simulator, kero, sink)
}

/// A name of this machine that is not `localhost`, which is known without being resolved.
pub fn own_name() -> String {
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let own = std::fs::read_to_string("/etc/hostname").unwrap_or_default().trim().to_owned();
    let mut lines = hosts.lines().filter(|line| line.starts_with("127.") || line.starts_with("::1"));
    // the first word of a line is the address
    let name = lines.find_map(|line| line.split_whitespace().nth(1).filter(|name| !name.ends_with("localhost")));
    let name = name.map_or(own, str::to_owned);
    assert!(!name.is_empty(), "this machine has no name: give it one in /etc/hosts, beside 127.0.0.1");
    name
}

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

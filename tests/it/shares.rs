//! The window over `kero_processing`: an instance that cannot go on has its share of it, and holds up nobody else.

use crate::support::{Kero, Options, Redis, eventually, person, simulator};
use futures_util::StreamExt;
use kero_simulator::{Fault, FaultRule, Script, Simulator};
use std::time::Duration;

const CHATS: usize = 1_200;
/// What one instance may have in `kero_processing`.
const SHARE: i64 = 256;

struct Setup {
    simulator: Simulator,
    redis: Redis,
    kero: Kero,
}

async fn setup() -> Setup {
    let (simulator, redis) = (simulator().await, Redis::start().await);
    let options = Options::default()
        .redis(redis.url())
        .env("KERO_DURABILITY", "process")
        .env("KERO_SENDING__LANE_CONCURRENCY", "1")
        .env("KERO_SENDING__ACK_TIMEOUT", "10m");
    let kero = Kero::start_with(&simulator, options).await;
    for (id, phone) in [("y", "491528000001"), ("away", "491528000002")] {
        kero.paired(&simulator, id, phone).await;
    }
    kero.post_empty("/instances/away/disconnect").await.expect(200);
    Setup { simulator, redis, kero }
}

impl Setup {
    /// An instance whose one send at a time is never acknowledged, with 1,200 sends to as many chats behind it.
    async fn crowd(&self, id: &str, phone: &str, numbers: usize) {
        self.kero.paired(&self.simulator, id, phone).await;
        self.simulator.inject(FaultRule::new(Fault::AckMissing).phone(phone).count(1));
        // to a device that is away, so that no receipt stands for the acknowledgement
        let first = self.kero.send_async(id, "491528000002", "stuck").await["message_id"].clone();
        let first = self.simulator.wait_for(|line| first == line.id.as_str(), Duration::from_secs(20)).await;
        assert!(first.is_some(), "the first is on the wire");
        futures_util::stream::iter(0..CHATS)
            .for_each_concurrent(16, |n| async move {
                self.kero.send_async(id, &format!("4915281{:05}1", numbers + n), "behind").await;
            })
            .await;
    }

    async fn polled(&self) -> f64 {
        let metrics = self.kero.get("/metrics").await.text();
        let line = metrics.lines().find_map(|line| line.strip_prefix("kero_queue_polled_total "));
        line.and_then(|value| value.parse().ok()).unwrap_or(0.0)
    }

    /// A send of `y` goes out by its wake, not by the pass over due rows, which comes every five seconds.
    async fn others_go_on(&self, when: &str) {
        for n in 0..4 {
            let polled = self.polled().await;
            let recipient = person(&self.simulator, &format!("49152820{n:04}1"), Script::Silent);
            let sent = self.kero.send_async("y", &recipient, when).await["message_id"].clone();
            let line = self.simulator.wait_for(|line| sent == line.id.as_str(), Duration::from_secs(4)).await;
            assert!(line.is_some(), "{when}: held up");
            assert_eq!(self.polled().await, polled, "{when}: it was found late, by the rows");
        }
    }

    async fn in_hand(&self, what: &str, fits: impl Fn(i64) -> bool) {
        eventually(what, || async {
            let lengths = (self.redis.len("kero_message_queue").await, self.redis.len("kero_processing").await);
            (lengths.0 == 0 && fits(lengths.1)).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_stuck_or_gone_holds_up_nobody_and_leaves_nothing_behind() {
    let s = setup().await;
    s.crowd("x", "491528000003", 0).await;
    s.in_hand("its share, and the rest in the rows", |length| length == SHARE).await;
    s.others_go_on("stuck").await;
    s.kero.post_empty("/instances/x/disconnect").await.expect(200);
    s.in_hand("nothing of what is offline", |length| length == 0).await;
    s.others_go_on("offline").await;
    s.crowd("z", "491528000004", CHATS).await;
    s.in_hand("the share of another", |length| length == SHARE).await;
    s.kero.delete("/instances/z").await.expect(200);
    s.in_hand("nothing of what is deleted", |length| length == 0).await;
    s.others_go_on("deleted").await;
}

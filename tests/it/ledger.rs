//! The ledger of incoming messages over kill -9. Whatever was acknowledged to WhatsApp, which is never sent again, is at
//! the receiver or on its way there: looked up in the database of the dead process after each kill, and counted at the
//! receivers in the end: each once by `webhook-id`, in order per chat, with the same bytes in every try.

use crate::chaos::setting;
use crate::support::hostile::Hostile;
use crate::support::{Behaviour, Kero, Options, Sink, database_url, eventually, eventually_within, person, simulator};
use kero_simulator::{Script, Simulator};
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

/// Each point with the pass at which it kills.
const POINTS: [&str; 7] = [
    "before_event:2",
    "after_event:2",
    "before_fanout:2",
    "after_fanout:2",
    "before_post:2",
    "after_post:2",
    "after_attempt:2",
];

fn quick() -> Options {
    Options::default().env("KERO_DELIVERY__SCHEDULE", format!("[{}]", vec!["\"50ms\""; 100].join(",")))
}

/// What people wrote to one instance.
struct Book {
    instance: &'static str,
    phone: &'static str,
    people: Vec<String>,
    /// (message id, text) of each person, in the order in which they were sent.
    sent: BTreeMap<String, Vec<(String, String)>>,
}

impl Book {
    fn new(simulator: &Simulator, instance: &'static str, phone: &'static str, people: usize) -> Self {
        let name = |n: usize| format!("{}{n:02}", &phone[..phone.len() - 2].replace("49155200", "49155201"));
        let people = (0..people).map(|n| person(simulator, &name(n), Script::Silent)).collect();
        Self { instance, phone, people, sent: BTreeMap::new() }
    }

    async fn write(&mut self, simulator: &Simulator, who: usize) {
        let text = format!("n{}", self.total());
        let from = &self.people[who % self.people.len()];
        let id = simulator.send_text(from, self.phone, &text).await.unwrap();
        self.sent.entry(from.clone()).or_default().push((id, text));
    }

    fn total(&self) -> usize {
        self.sent.values().map(Vec::len).sum()
    }

    fn ids(&self) -> HashSet<String> {
        self.sent.values().flatten().map(|(id, _)| id.clone()).collect()
    }

    /// What WhatsApp will not send again.
    fn acknowledged(&self, simulator: &Simulator) -> HashSet<String> {
        let open = simulator.unacknowledged(self.phone);
        self.ids().into_iter().filter(|id| !open.contains(id)).collect()
    }
}

/// The messages that a sink took, by `webhook-id`, in the order of their first arrival.
fn taken(sink: &Sink) -> Vec<Value> {
    let mut seen = HashSet::new();
    let accepted = sink.received().into_iter().filter(|received| received.status == 200);
    accepted.map(|received| received.json()).filter(|event| seen.insert(event["id"].to_string())).collect()
}

fn message_ids(events: &[Value]) -> HashSet<String> {
    events.iter().map(|event| event["data"]["message_id"].as_str().unwrap().to_owned()).collect()
}

async fn texts(database: &str, sql: &str) -> HashSet<String> {
    kero_store::testing::texts(database, sql).await.unwrap().into_iter().collect()
}

/// The books against the database of a dead process and one receiver of each: acknowledged ⊆ taken ∪ on its way, and
/// delivered ⊆ taken.
async fn audit(database: &str, simulator: &Simulator, books: &[(&Book, &Sink)]) {
    let waiting = texts(database, "SELECT message_id FROM events WHERE fanout = 0 AND message_id IS NOT NULL").await;
    for (book, sink) in books {
        let deliveries = async |state: &str| {
            let sql = format!(
                "SELECT e.message_id FROM deliveries d JOIN events e ON e.pk = d.event_pk JOIN endpoints p
                 ON p.id = d.endpoint_id WHERE p.url = '{}' AND d.state = '{state}' AND e.message_id IS NOT NULL",
                sink.url
            );
            texts(database, &sql).await
        };
        let (pending, delivered) = (deliveries("pending").await, deliveries("delivered").await);
        let taken = message_ids(&taken(sink));
        for id in book.acknowledged(simulator) {
            let known = taken.contains(&id) || pending.contains(&id) || waiting.contains(&id);
            assert!(known, "{}: {id} was acknowledged to WhatsApp and is nowhere", book.instance);
        }
        let lost: Vec<_> = delivered.difference(&taken).collect();
        assert!(lost.is_empty(), "{}: recorded as delivered, and nobody has them: {lost:?}", book.instance);
    }
}

/// Everything in the book is at the sink: each once, in order per chat, one id and one body, signed anew each time.
fn settle(book: &Book, sink: &Sink) {
    let taken = taken(sink);
    assert_eq!(taken.len(), book.total(), "{}: each once", book.instance);
    for (from, expected) in &book.sent {
        let mine = taken.iter().filter(|event| event["data"]["sender"]["phone"] == **from);
        let mine: Vec<(String, String)> = mine
            .map(|event| {
                let text = |member: &str| event["data"][member].as_str().unwrap().to_owned();
                (text("message_id"), text("text"))
            })
            .collect();
        assert_eq!(&mine, expected, "{}: {from}, in order", book.instance);
    }
    let mut first: HashMap<String, (Vec<u8>, i64)> = HashMap::new();
    let mut old = 0;
    for received in sink.received() {
        let stamp: i64 = received.headers["webhook-timestamp"].parse().unwrap();
        let (body, _) = first
            .entry(received.headers["webhook-id"].clone())
            .and_modify(|(_, before)| {
                assert!(stamp >= *before, "a later try is not signed for an earlier time");
                *before = stamp;
            })
            .or_insert_with(|| (received.body.clone(), stamp));
        assert_eq!(*body, received.body, "the same bytes in every try");
        let age = received.at / 1000 - stamp;
        assert!(age >= -1, "signed {age} s before it arrived");
        old += usize::from(age > 5);
    }
    // but for what a busy machine lets lie about
    assert!(old * 10 <= sink.received().len(), "{old} of {} were signed long before", sink.received().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incoming_message_survives_a_crash_at_any_named_point() {
    let (simulator, sink) = (simulator().await, Sink::start().await);
    let mut kero = Kero::start_with(&simulator, quick()).await;
    let database = format!("sqlite://{}", kero.data.path().join("kero.db").display());
    let mut book = Book::new(&simulator, "a", "4915520000100", 2);
    kero.create("a").await;
    kero.post("/instances/a/webhook", json!({ "url": sink.url, "events": ["message"] })).await.expect(200);
    kero.pair(&simulator, "a", book.phone).await;
    for point in POINTS {
        kero.set_env("KERO_CRASH_AT", point);
        kero.restart().await;
        for n in 0..120 {
            if n >= 6 && kero.has_exited() {
                break;
            }
            book.write(&simulator, n).await;
            tokio::time::sleep(Duration::from_millis(if n < 20 { 30 } else { 250 })).await;
        }
        assert!(kero.has_exited(), "{point} did not kill it");
        audit(&database, &simulator, &[(&book, &sink)]).await;
        for n in 0..3 {
            book.write(&simulator, n).await;
        }
        kero.revive().await;
        let what = format!("all after {point}; log:\n{}", kero.log());
        eventually(&what, || async { (taken(&sink).len() >= book.total()).then_some(()) }).await;
    }
    settle(&book, &sink);
    println!("crash points: {} points, {} incoming messages: lost 0, doubled 0", POINTS.len(), book.total());
}

/// Endpoints of all sorts beside the one that counts: none of them, and no kill, loses or doubles anything, or holds up
/// another instance.
#[tokio::test(flavor = "multi_thread")]
async fn no_inbound_message_is_lost_over_kills() {
    over_kills(Options::default(), setting("KERO_CHAOS_KILLS", 20).min(200) / 2, setting("KERO_CHAOS_SEED", 7)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_inbound_message_is_lost_over_kills_on_postgres() {
    let options = Options::default().database(database_url().await);
    over_kills(options, setting("KERO_CHAOS_KILLS", 20).min(200) / 5, setting("KERO_CHAOS_SEED", 7) + 1).await;
}

async fn over_kills(options: Options, kills: u64, seed: u64) {
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let simulator = simulator().await;
    let mut options = options;
    options.env = quick().env("KERO_DELIVERY__BREAKER_LEAST", "1000000").env;
    let mut kero = Kero::start_with(&simulator, options.clone()).await;
    let file = format!("sqlite://{}", kero.data.path().join("kero.db").display());
    let database = options.database_url.unwrap_or(file);
    let phones = if database.starts_with("sqlite") {
        ("4915520000200", "4915520000300")
    } else {
        ("4915520000400", "4915520000500")
    };
    let mut books = [Book::new(&simulator, "a", phones.0, 3), Book::new(&simulator, "b", phones.1, 2)];
    let (flapping, slow, limited, leaving, neighbour) =
        (Sink::start().await, Sink::start().await, Sink::start().await, Sink::start().await, Sink::start().await);
    let hole = Hostile::black_hole().await;
    for book in &books {
        kero.create(book.instance).await;
    }
    let mut paths = HashMap::new();
    for (instance, name, url, more) in [
        ("a", "flapping", &flapping.url, json!({})),
        ("a", "slow", &slow.url, json!({})),
        ("a", "limited", &limited.url, json!({ "rate_limit": 5 })),
        ("a", "leaving", &leaving.url, json!({})),
        ("a", "hole", &hole.url, json!({ "timeout_seconds": 1 })),
        ("b", "neighbour", &neighbour.url, json!({})),
    ] {
        let mut body = json!({ "url": url, "events": ["message"] });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let made = kero.post(&format!("/instances/{instance}/endpoints"), body).await.expect(201);
        paths.insert(name, format!("/instances/{instance}/endpoints/{}", made["data"]["id"].as_str().unwrap()));
    }
    for book in &books {
        kero.pair(&simulator, book.instance, book.phone).await;
    }
    slow.behave(Behaviour::Late(Duration::from_secs(1)));
    let mut beside = 0;
    for kill in 0..kills {
        let refusing = random.random_range(0..3) == 0;
        flapping.behave(Behaviour::Status(if refusing { 500 } else { 200 }));
        if kill == kills / 2 {
            // it wants nothing any more, from here on
            leaving.behave(Behaviour::Status(410));
            books[0].write(&simulator, 0).await;
        }
        for _ in 0..random.random_range(1..12) {
            let (to, who) = (random.random_range(0..3) / 2, random.random_range(0..6));
            books[to].write(&simulator, who).await;
            tokio::time::sleep(Duration::from_millis(random.random_range(0..20))).await;
        }
        if kill % 3 == 2 {
            // all that the neighbour has to get, while the others are behind
            let what = format!("the neighbour's messages; log:\n{}", kero.log());
            eventually(&what, || async { (taken(&neighbour).len() >= books[1].total()).then_some(()) }).await;
            let pending = kero.get("/instances/a/deliveries?state=pending&limit=1000").await.expect(200);
            beside += pending["data"].as_array().unwrap().len();
        }
        kero.kill().await;
        audit(&database, &simulator, &[(&books[0], &flapping), (&books[0], &slow), (&books[1], &neighbour)]).await;
        for _ in 0..random.random_range(0..4) {
            books[0].write(&simulator, random.random_range(0..6)).await;
        }
        kero.launch().await;
    }
    eventually("the one that left to be let go", || async {
        (kero.get(&paths["leaving"]).await.expect(200)["data"]["enabled"] == false).then_some(())
    })
    .await;
    for sink in [&flapping, &slow, &leaving] {
        sink.behave(Behaviour::Status(200));
    }
    finish(&kero, &paths, &books, &leaving).await;
    let wait = Duration::from_secs(60 + kills * 4);
    for (book, sink) in [
        (&books[0], &flapping),
        (&books[0], &slow),
        (&books[0], &limited),
        (&books[0], &leaving),
        (&books[1], &neighbour),
    ] {
        let what = format!("{} messages, seed {seed}; log:\n{}", book.total(), kero.log());
        eventually_within(wait, &what, || async { (taken(sink).len() >= book.total()).then_some(()) }).await;
        settle(book, sink);
    }
    for book in &books {
        read_all(&kero, book).await;
    }
    let total: usize = books.iter().map(Book::total).sum();
    println!(
        "ledger: {kills} kills, {total} incoming messages, seed {seed}: lost 0, doubled 0, out of order 0; \
         {beside} deliveries were behind while the neighbour had everything"
    );
}

/// What the endpoint that left has missed goes there at last: exactly that.
async fn finish(kero: &Kero, paths: &HashMap<&str, String>, books: &[Book; 2], leaving: &Sink) {
    let path = &paths["leaving"];
    eventually("all of them in the journal", || async {
        let page = kero.get("/instances/a/events?events=message&limit=1000").await.expect(200);
        (page["data"].as_array().unwrap().len() == books[0].total()).then_some(())
    })
    .await;
    let endpoint = kero.get(path).await.expect(200)["data"].clone();
    assert_eq!(endpoint["disabled_reason"], "gone");
    let of = async |state: &str| {
        let query = format!("endpoint_id={}&state={state}&limit=1000", endpoint["id"].as_str().unwrap());
        let page = kero.get(&format!("/instances/a/deliveries?{query}")).await.expect(200);
        page["data"].as_array().unwrap().len()
    };
    let (kept, had) = (of("pending").await, of("delivered").await);
    kero.request(reqwest::Method::PATCH, path, &[], Some(br#"{"enabled":true}"#.to_vec())).await.expect(200);
    let done = kero.post(&format!("{path}/replay"), json!({})).await.expect(200);
    assert_eq!(done["replayed"], 0);
    assert_eq!(done["missed"], books[0].total() - kept - had, "exactly what was missed");
    eventually("all that it missed", || async { (taken(leaving).len() >= books[0].total()).then_some(()) }).await;
    // the one that never answers holds its own up to the last; it is no longer needed
    let hole = paths["hole"].rsplit('/').next().unwrap();
    let page = kero.get(&format!("/instances/a/deliveries?endpoint_id={hole}&limit=1000")).await.expect(200);
    let states = page["data"].as_array().unwrap().clone();
    assert_eq!(states.len(), books[0].total(), "accounted for, though nobody took it");
    assert!(states.iter().all(|delivery| delivery["state"] != "delivered"));
    kero.delete(&paths["hole"]).await.expect(200);
}

/// The API reads the same, densely numbered.
async fn read_all(kero: &Kero, book: &Book) {
    let (mut after, mut read) = (0, Vec::new());
    loop {
        let path = format!("/instances/{}/events?after={after}&limit=50", book.instance);
        let page = kero.get(&path).await.expect(200);
        let Some(events) = page["data"].as_array().filter(|events| !events.is_empty()) else { break };
        for event in events {
            assert_eq!(event["seq"], after + 1, "dense");
            after += 1;
            if event["event"] == "message" {
                read.push(event.clone());
            }
        }
    }
    assert_eq!((read.len(), message_ids(&read)), (book.total(), book.ids()));
}

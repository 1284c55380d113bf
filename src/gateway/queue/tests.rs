//! One suite for both queues: in process, and on a real `redis-server`.

use super::*;
use crate::queue::redis::{QueueKeys, Redis};
use kero_domain::{Content, CorrelationId, JobId, JobState, MessageId, Priority};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// A server of one test's own, on a socket in a temporary folder.
struct Server {
    child: Child,
    folder: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::TempDir::new().unwrap();
        let server = std::env::var("KERO_TEST_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let child = Command::new(&server)
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(folder.path().join("redis.sock"))
            .arg("--dir")
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{server} does not start ({error}); install the package redis-server"));
        Self { child, folder }
    }

    async fn queue(&self) -> Arc<dyn Queue> {
        let url = format!("unix://{}", self.folder.path().join("redis.sock").display());
        let queue = Redis::new(&url.into(), None, &QueueKeys::default()).unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while queue.health().await != RedisHealth::Ok {
            assert!(Instant::now() < until, "redis does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Arc::new(queue)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn job(chat: &str) -> Job {
    let now = Timestamp::now();
    Job {
        id: JobId::new(),
        instance_pk: 1,
        instance_id: "a".parse().unwrap(),
        correlation_id: CorrelationId::mint(),
        message_id: MessageId::mint(),
        chat: chat.to_owned(),
        priority: Priority::Bulk,
        content: Content::text("x"),
        proto: None,
        state: JobState::Queued,
        held: None,
        due_at: now,
        send_at: None,
        order_at: now,
        attempts: 0,
        attempts_before: 0,
        retries: 0,
        asynchronous: true,
        error_code: None,
        error: None,
        request_id: None,
        created_at: now,
        updated_at: now,
        ended_at: None,
        discarded_at: None,
        receipt: None,
    }
}

/// The chat that a taken job belongs to, and its element.
fn chat(taken: &Taken) -> (String, Option<Vec<u8>>) {
    match taken {
        Taken::Wake { instance_pk, key } => {
            assert_eq!((*instance_pk, key.priority), (1, Priority::Bulk));
            (key.chat.to_string(), None)
        }
        Taken::Element(bytes) | Taken::Stranger(bytes) => {
            let json: serde_json::Value = serde_json::from_slice(bytes).unwrap();
            assert_eq!((&json["instance_id"], &json["priority"]), (&"a".into(), &"bulk".into()));
            (json["payload"]["phone"].as_str().unwrap().to_owned(), Some(bytes.clone()))
        }
    }
}

/// `count` jobs, however many reads they take.
async fn take(queue: &Arc<dyn Queue>, count: usize) -> Vec<(String, Option<Vec<u8>>)> {
    let until = Instant::now() + Duration::from_secs(10);
    let mut taken = Vec::new();
    while taken.len() < count {
        assert!(Instant::now() < until, "only {} of {count}", taken.len());
        taken.extend(queue.next(Duration::from_millis(200)).await.iter().map(chat));
    }
    taken
}

async fn conforms(queue: Arc<dyn Queue>) {
    // nothing: a read ends within its wait
    let began = Instant::now();
    assert!(queue.next(Duration::from_millis(100)).await.is_empty());
    assert!(began.elapsed() < Duration::from_secs(5));
    // first in, first out, each once
    let chats: Vec<String> = (0..200).map(|n| format!("{n}@s.whatsapp.net")).collect();
    for chat in &chats {
        queue.push(&job(chat));
    }
    let taken = take(&queue, chats.len()).await;
    assert_eq!(taken.iter().map(|(chat, _)| chat.clone()).collect::<Vec<_>>(), chats);
    assert!(queue.next(Duration::from_millis(100)).await.is_empty(), "each once");
    // whatever becomes of them, the next one is taken
    let mut taken = taken.into_iter().enumerate();
    for (n, (chat, element)) in taken.by_ref().take(199) {
        let key = LaneKey { chat: chat.as_str().into(), priority: Priority::Bulk };
        match element {
            Some(element) if n % 3 == 0 => queue.finish(element),
            Some(element) if n % 3 == 1 => queue.reject(element),
            Some(element) => {
                queue.keep(1, key.clone(), element);
                queue.release(1, &key);
            }
            None => queue.release(1, &key),
        }
    }
    // a push ends a read that waits
    let reader = tokio::spawn({
        let queue = Arc::clone(&queue);
        async move { take(&queue, 1).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    queue.push(&job("late@s.whatsapp.net"));
    assert_eq!(reader.await.unwrap()[0].0, "late@s.whatsapp.net");
    // dead letters come and go without a word
    let letter = Job { state: JobState::Failed, error_code: Some("x".to_owned()), ..job("dead@s.whatsapp.net") };
    queue.dead(DeadLetter::of(&letter));
    queue.undead(DeadLetter::of(&letter));
    queue.recover().await;
    assert!(queue.next(Duration::from_millis(100)).await.is_empty(), "what was taken is not taken again");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_process() {
    let queue: Arc<dyn Queue> = Arc::new(local::Local::default());
    conforms(Arc::clone(&queue)).await;
    assert_eq!((queue.health().await, queue.lengths().await), (RedisHealth::Disabled, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn on_redis() {
    let server = Server::start();
    let queue = server.queue().await;
    conforms(Arc::clone(&queue)).await;
    let lengths = async |wanted: QueueLengths| {
        let until = Instant::now() + Duration::from_secs(10);
        while queue.lengths().await != Some(wanted) {
            assert!(Instant::now() < until, "{:?} instead of {wanted:?}", queue.lengths().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // a third was rejected; `recover` emptied what was in hand
    lengths(QueueLengths { message_queue: 0, processing: 0, dead_letters: 66 }).await;
    // a list is scanned from its oldest element, in parts that meet
    for n in 0..25 {
        queue.push(&job(&format!("{n}@s.whatsapp.net")));
    }
    lengths(QueueLengths { message_queue: 25, processing: 0, dead_letters: 66 }).await;
    let (mut scanned, mut from) = (Vec::new(), 0);
    loop {
        let part = queue.scan(List::MessageQueue, from, 10).await.unwrap();
        from += part.len() as u64;
        scanned.extend(part.iter().map(|bytes| chat(&Taken::Element(bytes.clone())).0));
        if part.len() < 10 {
            break;
        }
    }
    assert_eq!(scanned, (0..25).map(|n| format!("{n}@s.whatsapp.net")).collect::<Vec<_>>());
    // what is in hand is no orphan, and another process's elements are
    let taken = take(&queue, 2).await;
    let element = taken[0].1.clone().unwrap();
    queue.keep(1, LaneKey { chat: "0".into(), priority: Priority::Bulk }, element.clone());
    assert!(queue.kept().contains(&element));
    assert_eq!(queue.clear_wrong_types().await, Some(0));
}

/// A read that waits has its own connection: whatever else is asked is answered meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_waits_holds_up_nothing_else() {
    const WAIT: Duration = Duration::from_secs(8);
    let server = Server::start();
    let queue = server.queue().await;
    let reader = tokio::spawn({
        let queue = Arc::clone(&queue);
        async move { queue.next(WAIT).await.len() }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let asked = async {
        for _ in 0..10 {
            assert_eq!(queue.health().await, RedisHealth::Ok);
            assert_eq!(queue.lengths().await, Some(QueueLengths::default()));
            assert_eq!(queue.scan(List::MessageQueue, 0, 10).await, Some(Vec::new()));
        }
    };
    tokio::time::timeout(WAIT / 2, asked).await.expect("answers while a read waits");
    assert!(!reader.is_finished(), "the read still waits");
    queue.push(&job("late@s.whatsapp.net"));
    assert_eq!(tokio::time::timeout(WAIT / 2, reader).await.expect("a push ends it").unwrap(), 1);
}

/// One instance has its share of the window and all together have the window; what is over it leaves at once, and what
/// is released makes room again.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_bounded_for_one_and_for_all() {
    let server = Server::start();
    let queue = server.queue().await;
    let key = |n: usize| LaneKey { chat: n.to_string().into(), priority: Priority::Bulk };
    let element = |instance: i64, n: usize| format!("{instance}/{n}").into_bytes();
    for instance in 1..=6 {
        for n in 0..300 {
            queue.keep(instance, key(n), element(instance, n));
        }
    }
    let of = |instance: i64| {
        let prefix = format!("{instance}/").into_bytes();
        queue.kept().iter().filter(|element| element.starts_with(&prefix)).count()
    };
    assert_eq!((1..=6).map(of).collect::<Vec<_>>(), [256, 256, 256, 256, 0, 0]);
    for n in 0..300 {
        queue.release(1, &key(n));
        queue.release(9, &key(n));
    }
    queue.keep(5, key(0), element(5, 0));
    queue.keep(5, key(0), element(5, 1));
    assert_eq!((of(1), of(2), of(5)), (0, 256, 2));
    queue.release(5, &key(0));
    assert_eq!((of(5), queue.kept().len()), (0, 768));
}

/// A server that answers nothing holds up nobody, and what is meant for it takes no more memory than it may.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_silent_server_is_bounded() {
    const JOBS: u64 = 40_000;
    let server = Server::start();
    let queue = server.queue().await;
    let signal = |name: &str| {
        let status = Command::new("kill").args([name, &server.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    };
    signal("-STOP");
    let job = job("1@s.whatsapp.net");
    for _ in 0..JOBS {
        queue.push(&job);
    }
    signal("-CONT");
    let arrived = async || queue.lengths().await.map_or(0, |lengths| lengths.message_queue);
    let (mut last, until) = (0, Instant::now() + Duration::from_secs(20));
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = arrived().await;
        if now > 0 && now == last {
            break;
        }
        assert!(Instant::now() < until, "{now} arrived");
        last = now;
    }
    assert!((10_000..30_000).contains(&last), "{last} of {JOBS} arrived");
    queue.push(&job);
    assert_eq!(take(&queue, last as usize + 1).await.len() as u64, last + 1, "and it goes on");
}

//! Receivers that speak HTTP/2 frame by frame: what is sent again, how often, and what the gateway lets a connection hold.

use crate::hostile::test;
use crate::support::hostile::{Counts, Hostile, Wire};
use crate::support::{eventually, simulator};
use crate::tls::Authority;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const REFUSED_STREAM: u32 = 7;
/// `:status: 200`, packed.
const OK: &[u8] = &[0x88];

/// What the client says of itself when it connects.
#[derive(Default, Clone, Debug)]
struct Hello {
    settings: HashMap<u16, u32>,
    /// Bytes of bodies that may be on their way, of all streams.
    window: u32,
}

/// What is done about a request.
#[derive(Clone)]
enum Reply {
    /// These frames.
    Frames(Vec<u8>),
    /// These, and the connection is closed.
    Last(Vec<u8>),
    /// The first, and then the second for as long as somebody takes it.
    Endless(Vec<u8>, Vec<u8>),
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn answered(stream: u32) -> Reply {
    Reply::Frames(frame(HEADERS, END_HEADERS | END_STREAM, stream, OK))
}

/// The receiver stops, and has begun no request beyond `last`.
fn stopping(last: u32) -> Reply {
    Reply::Last(frame(GOAWAY, 0, 0, &[last.to_be_bytes(), [0; 4]].concat()))
}

/// An answer with a header of this size.
fn long(stream: u32, size: usize) -> Reply {
    let size_of = |mut rest: usize| {
        // an integer with a prefix of seven bits
        let mut bytes = vec![0x7f];
        rest -= 0x7f;
        while rest >= 0x80 {
            bytes.push(u8::try_from(rest % 0x80).unwrap() | 0x80);
            rest /= 0x80;
        }
        bytes.push(u8::try_from(rest).unwrap());
        bytes
    };
    let block = [OK, &[0, 6], b"x-long", &size_of(size), &vec![b'x'; size]].concat();
    let mut frames = Vec::new();
    let parts: Vec<&[u8]> = block.chunks(16_384).collect();
    for (n, part) in parts.iter().enumerate() {
        let (kind, ends) = if n == 0 { (HEADERS, END_STREAM) } else { (CONTINUATION, 0) };
        let flags = ends | if n + 1 == parts.len() { END_HEADERS } else { 0 };
        frames.extend(frame(kind, flags, stream, part));
    }
    Reply::Frames(frames)
}

async fn read(stream: &mut impl Wire) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let mut payload = vec![0; usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])];
    stream.read_exact(&mut payload).await.ok()?;
    Some((head[3], head[4], u32::from_be_bytes(head[5..].try_into().unwrap()) & 0x7fff_ffff, payload))
}

/// Serves a connection: each request gets the reply for its number, counted over all connections.
async fn serve(
    mut stream: impl Wire,
    counts: Arc<Counts>,
    hello: Arc<Mutex<Hello>>,
    reply: impl Fn(usize, u32) -> Reply,
) -> Option<()> {
    stream.read_exact(&mut [0; 24]).await.ok()?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.ok()?;
    loop {
        let (kind, flags, id, payload) = read(&mut stream).await?;
        match (kind, id) {
            (SETTINGS, 0) if flags == 0 => {
                for setting in payload.chunks_exact(6) {
                    let value = u32::from_be_bytes(setting[2..].try_into().unwrap());
                    hello.lock().unwrap().settings.insert(u16::from_be_bytes([setting[0], setting[1]]), value);
                }
                stream.write_all(&frame(SETTINGS, 1, 0, &[])).await.ok()?;
            }
            (WINDOW_UPDATE, 0) => {
                let more = u32::from_be_bytes(payload[..4].try_into().unwrap());
                let mut hello = hello.lock().unwrap();
                // 65,535 is what a connection begins with
                hello.window = hello.window.max(65_535) + more;
            }
            (HEADERS | DATA, _) if flags & END_STREAM != 0 => {
                match reply(counts.requests.fetch_add(1, Ordering::SeqCst), id) {
                    Reply::Frames(frames) => stream.write_all(&frames).await.ok()?,
                    Reply::Last(frames) => {
                        stream.write_all(&frames).await.ok()?;
                        return stream.shutdown().await.ok();
                    }
                    Reply::Endless(head, part) => {
                        stream.write_all(&head).await.ok()?;
                        loop {
                            stream.write_all(&part).await.ok()?;
                            counts.written.fetch_add(part.len(), Ordering::SeqCst);
                        }
                    }
                }
            }
            _ => {}
        }
    }
}

/// A receiver, its `https://` URL, and what it was told of the client.
async fn receiver(
    authority: &Authority,
    reply: impl Fn(usize, u32) -> Reply + Clone + Send + Sync + 'static,
) -> (Hostile, Arc<Mutex<Hello>>) {
    let (acceptor, hello) = (authority.http2(), Arc::<Mutex<Hello>>::default());
    let noting = hello.clone();
    let mut server = Hostile::start(move |stream, counts| {
        let (acceptor, hello, reply) = (acceptor.clone(), noting.clone(), reply.clone());
        Box::pin(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let _ = serve(stream, counts, hello, reply).await;
        })
    })
    .await;
    server.url = server.url.replace("http://127.0.0.1", "https://localhost");
    (server, hello)
}

fn failed(result: &Value) {
    assert!(result["delivered"] == false && result.get("status").is_none(), "{result}");
    assert!(result["error"].as_str().unwrap().contains("the exchange failed"), "{result}");
}

/// A receiver that closes its connection in good order says how far it got. What it has not begun goes out on another
/// connection within the same try; what it has begun may have been done, and fails.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_closing_connection_had_not_begun_goes_out_on_another() {
    let (simulator, authority) = (simulator().await, Authority::new());
    let kero = authority.trusted(&simulator).await;
    kero.create("a").await;
    for (begun, delivered, requests) in [(false, true, 2), (true, false, 1)] {
        let closing = move |n, stream| match n {
            0 => stopping(if begun { stream } else { 0 }),
            _ => answered(stream),
        };
        let (server, _) = receiver(&authority, closing).await;
        let result = test(&kero, &server.url).await;
        assert_eq!(result["delivered"], delivered, "begun: {begun}: {result}");
        assert_eq!(server.counts.requests.load(Ordering::SeqCst), requests, "begun: {begun}: {result}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_refuses_again_and_again_is_asked_three_times_in_a_try() {
    let (simulator, authority) = (simulator().await, Authority::new());
    let kero = authority.trusted(&simulator).await;
    kero.create("a").await;
    let refusing = |_, stream| Reply::Frames(frame(RST_STREAM, 0, stream, &REFUSED_STREAM.to_be_bytes()));
    let (server, _) = receiver(&authority, refusing).await;
    failed(&test(&kero, &server.url).await);
    assert_eq!(server.counts.requests.load(Ordering::SeqCst), 3);
}

/// How much of an answer may be on its way is said when the connection begins, and held.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_over_http_2_takes_no_more_room_than_it_is_given() {
    let (simulator, authority) = (simulator().await, Authority::new());
    let kero = authority.trusted(&simulator).await;
    kero.create("a").await;
    let (server, hello) = receiver(&authority, |_, stream| answered(stream)).await;
    assert_eq!(test(&kero, &server.url).await["delivered"], true);
    let hello = hello.lock().unwrap().clone();
    let (push, stream_window, headers) = (2, 4, 6);
    let given = [push, stream_window, headers].map(|name| hello.settings.get(&name).copied());
    assert_eq!((given, hello.window), ([Some(0), Some(32_768), Some(32_768)], 256 * 1024), "{hello:?}");

    // headers up to 32 KiB, and no longer ones
    let (server, _) = receiver(&authority, |_, stream| long(stream, 30_000)).await;
    assert_eq!(test(&kero, &server.url).await["delivered"], true);
    let (server, _) = receiver(&authority, |_, stream| long(stream, 40_000)).await;
    failed(&test(&kero, &server.url).await);

    // what does not end is given up: a body, also one that heeds no window, and headers
    let head = |stream| frame(HEADERS, END_HEADERS, stream, OK);
    let body = move |_, stream| Reply::Endless(head(stream), frame(DATA, 0, stream, &[b'x'; 16_384]));
    let headers = move |_, stream| {
        let begun = frame(HEADERS, 0, stream, OK);
        Reply::Endless(begun, frame(CONTINUATION, 0, stream, &[0, 1, b'x', 1, b'y'].repeat(1_000)))
    };
    let (with_body, _) = receiver(&authority, body).await;
    let result = test(&kero, &with_body.url).await;
    assert_eq!((&result["delivered"], &result["status"]), (&true.into(), &200.into()), "{result}");
    assert_eq!(result["response_head"].as_str().unwrap().len(), 16_384);
    let (with_headers, _) = receiver(&authority, headers).await;
    failed(&test(&kero, &with_headers.url).await);
    for server in [with_body, with_headers] {
        eventually("the connection is given up", || async {
            (server.counts.ended.load(Ordering::SeqCst) == 1).then_some(())
        })
        .await;
        // what lies in the sockets' buffers, no more
        let written = server.counts.written.load(Ordering::SeqCst);
        assert!(written < 16 * 1024 * 1024, "{written} bytes were taken");
    }
}

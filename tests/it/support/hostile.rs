//! A receiver that does what no receiver should: whatever is written down for it, byte by byte.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

pub type Served = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How many exchanges are under way, were at most, and ended.
#[derive(Default)]
pub struct Counts {
    pub now: AtomicUsize,
    pub most: AtomicUsize,
    pub ended: AtomicUsize,
    pub requests: AtomicUsize,
    /// Bytes that the peer took.
    pub written: AtomicUsize,
}

pub struct Hostile {
    pub url: String,
    pub counts: Arc<Counts>,
}

impl Hostile {
    /// Serves every connection with `serve`.
    pub async fn start(serve: impl Fn(TcpStream, Arc<Counts>) -> Served + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        let counts = Arc::new(Counts::default());
        let serving = counts.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let counts = serving.clone();
                let now = counts.now.fetch_add(1, Ordering::SeqCst) + 1;
                counts.most.fetch_max(now, Ordering::SeqCst);
                let served = serve(stream, counts.clone());
                tokio::spawn(async move {
                    served.await;
                    counts.now.fetch_sub(1, Ordering::SeqCst);
                    counts.ended.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Self { url, counts }
    }

    /// Reads a request, writes `answer`, and closes.
    pub async fn answering(answer: &'static str) -> Self {
        Self::start(move |mut stream, counts| {
            Box::pin(async move {
                request(&mut stream, &counts).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            })
        })
        .await
    }

    /// Writes `bytes` without having been asked, and closes.
    pub async fn saying(bytes: &'static [u8]) -> Self {
        Self::start(move |mut stream, _| {
            Box::pin(async move {
                let _ = stream.write_all(bytes).await;
                let _ = stream.shutdown().await;
                let mut rest = [0; 1024];
                while stream.read(&mut rest).await.is_ok_and(|count| count > 0) {}
            })
        })
        .await
    }

    /// Reads a request, writes `head`, then `part` again and again for as long as somebody takes it.
    pub async fn endless(head: &'static str, part: &'static [u8]) -> Self {
        Self::start(move |mut stream, counts| {
            Box::pin(async move {
                request(&mut stream, &counts).await;
                let _ = stream.write_all(head.as_bytes()).await;
                while stream.write_all(part).await.is_ok() {
                    counts.written.fetch_add(part.len(), Ordering::SeqCst);
                }
            })
        })
        .await
    }

    /// Takes the request and never answers; ends when the peer gives up.
    pub async fn black_hole() -> Self {
        Self::start(|mut stream, counts| {
            Box::pin(async move {
                request(&mut stream, &counts).await;
                let mut rest = [0; 1024];
                while stream.read(&mut rest).await.is_ok_and(|count| count > 0) {}
            })
        })
        .await
    }
}

/// Reads one request with its body; `false` when the peer closed.
pub async fn request(stream: &mut (impl Wire + ?Sized), counts: &Counts) -> bool {
    let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut part).await {
            Ok(count) if count > 0 => bytes.extend_from_slice(&part[..count]),
            _ => return false,
        }
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        if bytes.len() >= end + 4 + length.unwrap_or(0) {
            counts.requests.fetch_add(1, Ordering::SeqCst);
            return true;
        }
    }
}

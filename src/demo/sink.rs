//! A webhook receiver: just enough HTTP/1.1 to take a POST with a length and answer 200.

use anyhow::{Context, bail};
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tokio_util::task::AbortOnDropHandle;

/// Larger bodies are refused.
const MAX_BODY: usize = 4 * 1024 * 1024;

/// A webhook as it arrived.
#[derive(Debug, Clone)]
pub struct Received {
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The body as JSON.
    pub envelope: Value,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Listens until it is dropped.
pub struct Sink {
    address: SocketAddr,
    inbox: Mutex<mpsc::UnboundedReceiver<Received>>,
    _task: AbortOnDropHandle<()>,
}

impl Sink {
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no port for the webhook receiver")?;
        let address = listener.local_addr()?;
        let (outbox, inbox) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let outbox = outbox.clone();
                tokio::spawn(async move {
                    if let Err(error) = serve(stream, outbox).await {
                        tracing::warn!(%error, "the webhook receiver got something strange");
                    }
                });
            }
        });
        Ok(Self { address, inbox: Mutex::new(inbox), _task: AbortOnDropHandle::new(task) })
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// The next webhook.
    pub async fn next(&self) -> anyhow::Result<Received> {
        self.inbox.lock().await.recv().await.context("the webhook receiver ended")
    }
}

/// One connection: requests until the peer closes.
async fn serve(stream: TcpStream, outbox: mpsc::UnboundedSender<Received>) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(received) = read(&mut stream).await? {
        let _ = outbox.send(received);
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
    }
    Ok(())
}

async fn read(stream: &mut BufReader<TcpStream>) -> anyhow::Result<Option<Received>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).context("no request line")?.to_owned();
    let mut headers = Vec::new();
    loop {
        line.clear();
        stream.read_line(&mut line).await?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.trim().to_owned())),
            None if line.trim_end().is_empty() => break,
            None => bail!("a header without a colon"),
        }
    }
    let length = headers.iter().find(|(name, _)| name == "content-length").context("no content-length")?;
    let length: usize = length.1.parse().context("content-length")?;
    if length > MAX_BODY {
        bail!("a body of {length} bytes");
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let envelope = serde_json::from_slice(&body).context("the body is not JSON")?;
    Ok(Some(Received { path, headers, body, envelope }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn takes_two_posts_on_one_connection() {
        let sink = Sink::start().await.unwrap();
        let mut stream = TcpStream::connect(sink.address).await.unwrap();
        for n in [1, 2] {
            let request =
                format!("POST /hook HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\nWebhook-Id: {n}\r\n\r\n{{\"n\":{n}}}");
            stream.write_all(request.as_bytes()).await.unwrap();
            let received = sink.next().await.unwrap();
            assert_eq!(
                (received.path.as_str(), received.header("webhook-id")),
                ("/hook", Some(n.to_string().as_str()))
            );
            assert_eq!(received.envelope["n"], n);
        }
    }
}

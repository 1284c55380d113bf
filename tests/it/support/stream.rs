//! Clients of the event streams: server-sent events and the WebSocket.

use super::{KEY, Kero, WAIT};
use futures_util::StreamExt;
use serde_json::Value;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_websockets::{ClientBuilder, MaybeTlsStream, WebSocketStream};

/// A block of an event stream. A comment has none of the three.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Block {
    pub id: Option<i64>,
    pub event: Option<String>,
    pub data: Option<Value>,
}

pub struct Sse {
    response: reqwest::Response,
    text: String,
}

impl Sse {
    /// Opens a stream that must be answered 200.
    pub async fn open(kero: &Kero, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut request = reqwest::Client::builder().no_proxy().build().unwrap().get(format!("{}{path}", kero.url));
        if !path.contains("token=") && !headers.iter().any(|(name, _)| *name == "x-api-key") {
            request = request.header("x-api-key", KEY);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), 200, "{path}: {:?}", response.text().await);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Self { response, text: String::new() }
    }

    /// The next block, comments included; `None` when the gateway ended the stream.
    pub async fn block(&mut self) -> Option<Block> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let mut read = Block::default();
                for line in block.lines() {
                    match line.split_once(": ") {
                        Some(("id", id)) => read.id = Some(id.parse().expect("a number")),
                        Some(("event", event)) => read.event = Some(event.to_owned()),
                        Some(("data", data)) => read.data = Some(serde_json::from_str(data).expect("JSON")),
                        _ => {}
                    }
                }
                self.text = rest.to_owned();
                return Some(read);
            }
            let chunk = tokio::time::timeout(WAIT, self.response.chunk()).await.expect("the stream goes on or ends");
            let chunk = chunk.ok().flatten()?;
            self.text.push_str(std::str::from_utf8(&chunk).expect("text"));
        }
    }

    /// The next event; `None` when the gateway ended the stream.
    pub async fn event(&mut self) -> Option<Block> {
        loop {
            let block = self.block().await?;
            if block.data.is_some() {
                return Some(block);
            }
        }
    }

    /// The texts of the next messages.
    pub async fn texts(&mut self, count: usize) -> Vec<String> {
        let mut texts = Vec::new();
        // signs of life keep a stream going for ever
        let read = tokio::time::timeout(4 * WAIT, async {
            while texts.len() < count {
                let data = self.event().await.expect("the stream goes on").data.expect("data");
                if let Some(text) = data["data"]["text"].as_str() {
                    texts.push(text.to_owned());
                }
            }
        });
        if read.await.is_err() {
            panic!("{} of {count} messages came", texts.len());
        }
        texts
    }
}

pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Socket {
    pub async fn open(kero: &Kero, path: &str, key: Option<&str>) -> Result<Self, tokio_websockets::Error> {
        let url = format!("{}{path}", kero.url.replacen("http://", "ws://", 1));
        let mut builder = ClientBuilder::new().uri(&url).expect("a URL");
        if let Some(key) = key {
            builder = builder.add_header("x-api-key".parse().unwrap(), key.parse().unwrap()).expect("a header");
        }
        builder.connect().await.map(|(stream, _)| Self { stream })
    }

    pub async fn with_key(kero: &Kero, path: &str) -> Self {
        Self::open(kero, path, Some(KEY)).await.expect("a WebSocket")
    }

    /// The next frame, or the code that the gateway closed with.
    pub async fn frame(&mut self) -> Result<Value, u16> {
        loop {
            let message = tokio::time::timeout(WAIT, self.stream.next()).await.expect("a frame or the end");
            let message = message.ok_or(0u16)?.unwrap_or_else(|error| panic!("{error}"));
            if let Some((code, _)) = message.as_close() {
                return Err(code.into());
            }
            if let Some(text) = message.as_text() {
                return Ok(serde_json::from_str(text).expect("JSON"));
            }
        }
    }

    /// Frames up to one that fits.
    pub async fn until(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            let frame = self.frame().await.unwrap_or_else(|code| panic!("closed with {code} before: {what}"));
            if fits(&frame) {
                return frame;
            }
        }
    }

    /// Frames up to the gateway's close frame; its code.
    pub async fn closed(&mut self) -> u16 {
        loop {
            if let Err(code) = self.frame().await {
                return code;
            }
        }
    }

    /// Does nothing at all for a while, so that no ping is answered.
    pub async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

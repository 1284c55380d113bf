//! A caller that costs next to nothing, so that what is measured is the gateway: one keep-alive connection, requests
//! written as bytes, of the answer its status and its length read.

use crate::stage::KEY;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub struct Caller {
    stream: TcpStream,
    host: String,
    buffer: Vec<u8>,
}

impl Caller {
    /// Connects to `http://host:port`.
    pub async fn connect(url: &str) -> Self {
        let host = url.trim_start_matches("http://").to_owned();
        let stream = TcpStream::connect(&host).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, host, buffer: Vec::new() }
    }

    /// Posts a text asynchronously; it must be answered 202.
    pub async fn send(&mut self, instance: &str, phone: &str, text: &str) {
        let body = format!("{{\"phone\":\"{phone}\",\"message\":\"{text}\"}}");
        let request = format!(
            "POST /instances/{instance}/messages/text HTTP/1.1\r\nHost: {}\r\nX-API-Key: {KEY}\r\nX-Async: true\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await.unwrap();
        self.buffer.clear();
        let (head, length) = loop {
            assert!(self.stream.read_buf(&mut self.buffer).await.unwrap() > 0, "the gateway hung up");
            if let Some(end) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break (end + 4, content_length(&self.buffer[..end]));
            }
        };
        while self.buffer.len() < head + length {
            assert!(self.stream.read_buf(&mut self.buffer).await.unwrap() > 0, "the gateway hung up");
        }
        assert!(self.buffer.starts_with(b"HTTP/1.1 202"), "{}", String::from_utf8_lossy(&self.buffer));
    }
}

fn content_length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let line = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    line.and_then(|length| length.trim().parse().ok()).expect("an answer with its length")
}

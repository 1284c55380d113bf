//! Bounds on what a request may cost: the size of its body, the time it takes to arrive, the time it takes in all.

use futures_util::StreamExt;
use kero_domain::{Fault, FaultCode};
use poem::http::header;
use poem::{Request, RequestBody};
use std::time::Duration;

/// How much of a body that is too large is read and thrown away, so that the client gets to read the answer.
const DRAIN: usize = 16 * 1024 * 1024;

/// The limits; the frame puts them into every request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub max_body: usize,
    pub body_timeout: Duration,
}

impl Limits {
    /// Reads the whole body, or refuses it as too large or too slow.
    pub async fn read(self, request: &Request, body: &mut RequestBody) -> Result<Vec<u8>, Fault> {
        let announced = request.header(header::CONTENT_LENGTH).and_then(|text| text.parse::<usize>().ok());
        let drain = DRAIN.max(self.max_body);
        if announced.is_some_and(|length| length > drain) {
            return Err(self.too_large());
        }
        let body = body.take().map_err(|_| FaultCode::Internal)?;
        let mut chunks = Box::pin(body.into_bytes_stream());
        let collect = async {
            let (mut bytes, mut length) = (Vec::with_capacity(announced.unwrap_or(0).min(self.max_body)), 0);
            while let Some(chunk) = chunks.next().await {
                let chunk =
                    chunk.map_err(|_| Fault::new(FaultCode::BadRequest).with_detail("The body ended early."))?;
                length += chunk.len();
                if length > drain {
                    break;
                }
                if length <= self.max_body {
                    bytes.extend_from_slice(&chunk);
                }
            }
            if length > self.max_body { Err(self.too_large()) } else { Ok(bytes) }
        };
        match tokio::time::timeout(self.body_timeout, collect).await {
            Ok(read) => read,
            Err(_) => Err(FaultCode::RequestTimeout.into()),
        }
    }

    fn too_large(self) -> Fault {
        Fault::new(FaultCode::PayloadTooLarge).with_detail(format!("At most {} bytes are taken.", self.max_body))
    }
}

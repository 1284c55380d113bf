//! Frames over a WebSocket: three bytes of length, then the body. Frames and WebSocket messages need not coincide.

use anyhow::{Result, bail};
use bytes::BytesMut;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_websockets::{Message, Payload, WebSocketStream};
use wacore_noise::framing::FrameDecoder;

/// The reading half of a connection.
pub(crate) struct FrameReader<S> {
    stream: SplitStream<WebSocketStream<S>>,
    decoder: FrameDecoder,
}

impl<S: AsyncRead + AsyncWrite + Unpin> FrameReader<S> {
    /// The next binary message as it came, for the prologue.
    pub async fn next_message(&mut self) -> Result<Payload> {
        loop {
            match self.stream.next().await {
                Some(Ok(message)) if message.is_binary() => return Ok(message.into_payload()),
                Some(Ok(message)) if message.is_close() => bail!("closed by the client"),
                Some(Ok(_)) => {}
                Some(Err(e)) => return Err(e.into()),
                None => bail!("the connection ended"),
            }
        }
    }

    /// Hands over bytes that were read with [`Self::next_message`] and belong to a frame.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.decoder.feed(bytes);
    }

    /// The body of the next frame.
    pub async fn next(&mut self) -> Result<BytesMut> {
        loop {
            if let Some(frame) = self.decoder.decode_frame() {
                return Ok(frame);
            }
            let message = self.next_message().await?;
            self.decoder.feed(&message);
        }
    }
}

/// The writing half of a connection.
pub(crate) struct FrameWriter<S> {
    sink: SplitSink<WebSocketStream<S>, Message>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> FrameWriter<S> {
    /// Writes a frame and flushes.
    pub async fn send(&mut self, frame: Vec<u8>) -> Result<()> {
        Ok(self.sink.send(Message::binary(frame)).await?)
    }

    /// Writes a frame; a [`Self::flush`] follows.
    pub async fn feed(&mut self, frame: Vec<u8>) -> Result<()> {
        Ok(self.sink.feed(Message::binary(frame)).await?)
    }

    pub async fn flush(&mut self) -> Result<()> {
        Ok(self.sink.flush().await?)
    }

    /// Says goodbye; what the client still sends is not read.
    pub async fn close(&mut self) {
        let _ = self.sink.close().await;
    }
}

/// Splits an accepted WebSocket into its frame halves.
pub(crate) fn frames<S: AsyncRead + AsyncWrite + Unpin>(
    socket: WebSocketStream<S>,
) -> (FrameReader<S>, FrameWriter<S>) {
    let (sink, stream) = socket.split();
    (FrameReader { stream, decoder: FrameDecoder::new() }, FrameWriter { sink })
}

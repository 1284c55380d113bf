//! The listening socket: TLS or plain, WebSocket or HTTP, all on one port.

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_websockets::ServerBuilder;

use crate::tls::HANDSHAKE_RECORD;
use crate::world::World;
use crate::{control, session};

/// A request head is no longer than this.
const LONGEST_HEAD: usize = 64 * 1024;

/// A client that connects and says nothing is let go after this.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Accepts until the world stops.
pub(crate) async fn accept(world: Arc<World>, listener: TcpListener, tls: TlsAcceptor) {
    loop {
        let stream = tokio::select! {
            () = world.stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(e) => {
                    // Out of file descriptors, mostly: waiting is all that helps.
                    tracing::warn!("accept: {e}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let (connection, tls) = (world.clone(), tls.clone());
        world.spawn(async move {
            if let Err(e) = serve(connection, stream, tls).await {
                tracing::debug!("connection ended: {e:#}");
            }
        });
    }
}

async fn serve(world: Arc<World>, stream: TcpStream, tls: TlsAcceptor) -> Result<()> {
    // A client that waits for each ack would otherwise wait for the delayed acks of TCP.
    stream.set_nodelay(true)?;
    let mut first = [0];
    if tokio::time::timeout(HEAD_TIMEOUT, stream.peek(&mut first)).await?? == 0 {
        return Ok(());
    }
    if first[0] == HANDSHAKE_RECORD {
        let (reader, writer) = tokio::io::split(tls.accept(stream).await?);
        route(world, reader, writer).await
    } else {
        let (reader, writer) = stream.into_split();
        route(world, reader, writer).await
    }
}

/// Reads the request's head, then hands the connection, head included, to whom it is for.
async fn route<R, W>(world: Arc<World>, mut reader: R, writer: W) -> Result<()>
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let head = tokio::time::timeout(HEAD_TIMEOUT, read_head(&mut reader)).await??;
    let upgrade = is_websocket(&head);
    let stream = tokio::io::join(Cursor::new(head).chain(reader), writer);
    if upgrade {
        let (_, socket) = ServerBuilder::new().accept(stream).await?;
        return session::serve(world, socket).await;
    }
    let answer = service_fn(move |request| {
        let world = world.clone();
        async move { Ok::<_, std::convert::Infallible>(control::answer(world, request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
    connection.await.context("http")
}

async fn read_head<R: AsyncRead + Unpin>(reader: &mut R) -> Result<Vec<u8>> {
    let mut head = Vec::with_capacity(1024);
    loop {
        if reader.read_buf(&mut head).await? == 0 {
            bail!("the connection ended before a request");
        }
        // The end may lie across two reads; heads are short, so looking again from the start is cheap.
        if head.windows(4).any(|w| w == b"\r\n\r\n") {
            return Ok(head);
        }
        if head.len() > LONGEST_HEAD {
            bail!("the request's head is too long");
        }
    }
}

/// Whether the head asks for a WebSocket. Only the head counts, not a body that follows it.
fn is_websocket(head: &[u8]) -> bool {
    let end = head.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(head.len());
    let head = String::from_utf8_lossy(&head[..end]).to_ascii_lowercase();
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .any(|(name, value)| name.trim() == "upgrade" && value.trim() == "websocket")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_is_told_by_its_header() {
        assert!(is_websocket(b"GET /ws/chat HTTP/1.1\r\nUpgrade: WebSocket\r\n\r\n"));
        assert!(!is_websocket(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nupgrade: websocket\r\n"));
        assert!(!is_websocket(b"GET /?upgrade: websocket HTTP/1.1\r\n\r\n"));
    }
}

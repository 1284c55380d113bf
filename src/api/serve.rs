//! Serving over a socket.

use poem::endpoint::BoxEndpoint;
use poem::http::uri::Scheme;
use poem::listener::{Acceptor, TcpAcceptor};
use poem::web::{LocalAddr, RemoteAddr};
use poem::{Endpoint, Request, Response, Server};
use std::collections::HashMap;
use std::future::Future;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

/// A connection on which nothing moves for so long is closed; longer than any request takes.
const IDLE: Duration = Duration::from_secs(180);

/// How a server ends.
#[derive(Debug, Clone)]
pub struct Serving {
    /// A client that takes nothing of its answer for so long loses the connection.
    pub write_timeout: Duration,
    /// Cancelled: take no more connections.
    pub shutdown: CancellationToken,
    /// Then requests under way get so long to end.
    pub grace: Duration,
}

/// Serves until told to stop.
pub async fn serve(listener: TcpListener, app: BoxEndpoint<'static>, serving: Serving) -> Result<()> {
    listener.set_nonblocking(true)?;
    let callers = Callers::default();
    let inner = TcpAcceptor::from_std(listener)?;
    let acceptor = Bounded { inner, write_timeout: serving.write_timeout, callers: callers.clone() };
    let app = Told { inner: app, callers };
    Server::new_with_acceptor(acceptor)
        .name("kero")
        .idle_timeout(IDLE)
        .run_with_graceful_shutdown(app, async move { serving.shutdown.cancelled().await }, Some(serving.grace))
        .await
}

/// Of a request: cancelled when its client has closed the connection, and so may never read the answer. The request
/// itself goes on.
#[derive(Debug, Clone)]
pub(crate) struct HungUp(pub CancellationToken);

/// The open connections by their client's address.
#[derive(Clone, Default)]
struct Callers(Arc<Mutex<HashMap<SocketAddr, CancellationToken>>>);

impl Callers {
    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, CancellationToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells each request of its connection's end.
struct Told {
    inner: BoxEndpoint<'static>,
    callers: Callers,
}

impl Endpoint for Told {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let token =
            request.remote_addr().as_socket_addr().and_then(|address| self.callers.lock().get(address).cloned());
        if let Some(token) = token {
            request.set_data(HungUp(token));
        }
        self.inner.call(request).await
    }
}

/// A connection among those that are open; its end is told.
struct Caller {
    callers: Callers,
    address: Option<SocketAddr>,
    hung_up: CancellationToken,
}

impl Caller {
    fn new(callers: &Callers, address: Option<SocketAddr>) -> Self {
        let hung_up = CancellationToken::new();
        if let Some(address) = address {
            callers.lock().insert(address, hung_up.clone());
        }
        Self { callers: callers.clone(), address, hung_up }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.hung_up.cancel();
        if let Some(address) = self.address {
            self.callers.lock().remove(&address);
        }
    }
}

/// Accepts connections whose writes have an end, and whose end is told.
struct Bounded {
    inner: TcpAcceptor,
    write_timeout: Duration,
    callers: Callers,
}

impl Acceptor for Bounded {
    type Io = Patient<TcpStream>;

    fn local_addr(&self) -> Vec<LocalAddr> {
        self.inner.local_addr()
    }

    async fn accept(&mut self) -> Result<(Self::Io, LocalAddr, RemoteAddr, Scheme)> {
        let (socket, local, remote, scheme) = self.inner.accept().await?;
        // a stream's small parts must not wait for each other
        let _ = socket.set_nodelay(true);
        let caller = Caller::new(&self.callers, remote.as_socket_addr().copied());
        Ok((Patient { socket, limit: self.write_timeout, waiting: None, caller }, local, remote, scheme))
    }
}

/// A socket that gives up when its peer takes nothing for a while: a request has its time limit, an answer that streams
/// has none, and would be held for ever by a client that does not read.
struct Patient<S> {
    socket: S,
    limit: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
    caller: Caller,
}

impl<S> Patient<S> {
    fn bound<T>(&mut self, context: &mut Context<'_>, outcome: Poll<Result<T>>) -> Poll<Result<T>> {
        if outcome.is_ready() {
            self.waiting = None;
            return outcome;
        }
        let limit = self.limit;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(waiting.as_mut().poll(context));
        Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the peer takes nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let outcome = ready!(Pin::new(&mut this.socket).poll_read(context, buffer));
        if outcome.is_err() || (buffer.filled().len() == before && buffer.remaining() > 0) {
            this.caller.hung_up.cancel();
        }
        Poll::Ready(outcome)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.socket).poll_write(context, bytes);
        this.bound(context, outcome)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.socket).poll_write_vectored(context, parts);
        this.bound(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.socket).poll_flush(context);
        this.bound(context, outcome)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.socket).poll_shutdown(context);
        this.bound(context, outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_peer_that_takes_nothing_ends_the_connection_and_a_slow_one_does_not() {
        let caller = || Caller::new(&Callers::default(), None);
        let patient = |socket| Patient { socket, limit: Duration::from_millis(400), waiting: None, caller: caller() };
        let (socket, mut peer) = tokio::io::duplex(16);
        let mut slow = patient(socket);
        let reading = tokio::spawn(async move {
            let mut taken = 0;
            while taken < 64 {
                tokio::time::sleep(Duration::from_millis(150)).await;
                taken += peer.read(&mut [0; 16]).await.unwrap();
            }
        });
        slow.write_all(&[0; 64]).await.unwrap();
        reading.await.unwrap();

        let (socket, _peer) = tokio::io::duplex(16);
        let error = patient(socket).write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }
}

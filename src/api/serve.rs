//! Serving over a socket.

use poem::Server;
use poem::endpoint::BoxEndpoint;
use poem::listener::TcpAcceptor;
use std::net::TcpListener;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A connection on which nothing moves for so long is closed; longer than any request takes.
const IDLE: Duration = Duration::from_secs(180);

/// Serves until `shutdown` is cancelled; then takes no more connections and gives requests under way `grace` to end.
pub async fn serve(
    listener: TcpListener,
    app: BoxEndpoint<'static>,
    shutdown: CancellationToken,
    grace: Duration,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let acceptor = TcpAcceptor::from_std(listener)?;
    Server::new_with_acceptor(acceptor)
        .name("kero")
        .idle_timeout(IDLE)
        .run_with_graceful_shutdown(app, async move { shutdown.cancelled().await }, Some(grace))
        .await
}

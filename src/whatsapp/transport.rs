//! Our own sockets for the client. The library's transport never sets `TCP_NODELAY`: a sender that waits for acks then
//! gets about 30 of them a second.

use crate::guard::{SKIPS_CERTIFICATES, is_loopback_host};
use anyhow::{Context as _, anyhow, bail};
use async_trait::async_trait;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_websockets::ClientBuilder;
use wacore::net::{Transport, TransportEvent, TransportFactory, WHATSAPP_WEB_ORIGIN, WHATSAPP_WEB_WS_URL};
use whatsapp_rust_tokio_transport::{Connector, default_tls_connector, from_websocket};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// How the last dial went.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dial {
    pub(crate) failed: Option<String>,
    /// The failure was the TLS certificate's.
    pub(crate) certificate: bool,
}

struct Shared {
    dial: Mutex<Dial>,
    open: Mutex<Option<Arc<dyn Transport>>>,
}

/// Dials one address. Cheap to clone; the clones share what was dialled.
#[derive(Clone)]
pub(crate) struct Dialer {
    url: String,
    loopback_only: bool,
    shared: Arc<Shared>,
}

impl Dialer {
    /// The caller has checked `url` with [`crate::check_url`].
    pub(crate) fn new(url: Option<&str>) -> Self {
        Self {
            url: url.unwrap_or(WHATSAPP_WEB_WS_URL).to_owned(),
            loopback_only: url.is_some() || SKIPS_CERTIFICATES,
            shared: Arc::new(Shared { dial: Mutex::default(), open: Mutex::new(None) }),
        }
    }

    pub(crate) fn last(&self) -> Dial {
        self.shared.dial.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the socket that was opened last.
    pub(crate) fn take_open(&self) -> Option<Arc<dyn Transport>> {
        self.shared.open.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    async fn dial(&self) -> anyhow::Result<(Arc<dyn Transport>, async_channel::Receiver<TransportEvent>)> {
        let uri: ::http::Uri = self.url.parse().context("the address cannot be read")?;
        let host = uri.host().ok_or_else(|| anyhow!("the address has no host"))?.to_owned();
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = uri.scheme_str() == Some("wss");
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });

        let found: Vec<SocketAddr> =
            tokio::net::lookup_host((bare.as_str(), port)).await.context("the host's name was not found")?.collect();
        // the name was checked; what it resolves to is checked again, because a hosts file may say anything
        if self.loopback_only && !(is_loopback_host(&host) && found.iter().all(|address| address.ip().is_loopback())) {
            bail!("only loopback addresses may be dialled");
        }
        let stream = TcpStream::connect(found.as_slice()).await.context("no connection could be opened")?;
        stream.set_nodelay(true).context("TCP_NODELAY could not be set")?;
        let connector = if tls { tls_connector() } else { &Connector::Plain };
        let stream = connector.wrap(&bare, stream).await.context("the TLS handshake failed")?;

        let builder = ClientBuilder::from_uri(uri)
            .add_header(::http::header::ORIGIN, ::http::HeaderValue::from_static(WHATSAPP_WEB_ORIGIN))
            .context("the Origin header was refused")?;
        let (websocket, _) = builder.connect_on(stream).await.context("the WebSocket upgrade failed")?;
        Ok(from_websocket(websocket))
    }
}

fn tls_connector() -> &'static Connector {
    static CONNECTOR: OnceLock<Connector> = OnceLock::new();
    CONNECTOR.get_or_init(default_tls_connector)
}

#[async_trait]
impl TransportFactory for Dialer {
    async fn create_transport(&self) -> anyhow::Result<(Arc<dyn Transport>, async_channel::Receiver<TransportEvent>)> {
        let dialled = match tokio::time::timeout(CONNECT_TIMEOUT, self.dial()).await {
            Ok(dialled) => dialled,
            Err(_) => Err(anyhow!("no connection within {} seconds", CONNECT_TIMEOUT.as_secs())),
        };
        let dial = match &dialled {
            Ok(_) => Dial::default(),
            Err(error) => {
                let text = format!("{error:#}");
                Dial { certificate: text.contains("certificate"), failed: Some(text) }
            }
        };
        *self.shared.dial.lock().unwrap_or_else(PoisonError::into_inner) = dial;
        let (transport, events) = dialled?;
        *self.shared.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&transport));
        Ok((transport, events))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn sends_the_origin_and_reports_a_refused_upgrade() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/ws/chat", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            let mut buffer = [0u8; 512];
            while !request.windows(4).any(|window| window == b"\r\n\r\n") {
                match stream.read(&mut buffer).await.unwrap() {
                    0 => break,
                    n => request.extend_from_slice(&buffer[..n]),
                }
            }
            stream.write_all(b"HTTP/1.1 503 Busy\r\n\r\n").await.unwrap();
            String::from_utf8_lossy(&request).into_owned()
        });
        let dialer = Dialer::new(Some(&url));
        assert!(dialer.create_transport().await.is_err());
        assert!(server.await.unwrap().to_ascii_lowercase().contains("origin: https://web.whatsapp.com"));
        let dial = dialer.last();
        assert!(dial.failed.unwrap().contains("upgrade"));
        assert!(!dial.certificate);
    }

    #[tokio::test]
    async fn dials_loopback_only_when_an_address_is_configured() {
        let dialer = Dialer { loopback_only: true, ..Dialer::new(Some("ws://192.0.2.1:9/")) };
        let Err(error) = dialer.create_transport().await else { panic!("dialled") };
        assert!(format!("{error:#}").contains("loopback"), "{error:#}");
    }
}

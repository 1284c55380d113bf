//! Endpoints with TLS that is wrong in one way each, and with TLS that is right.

use crate::hostile::{endpoint, test};
use crate::support::hostile::{Hostile, request};
use crate::support::{Kero, Options, eventually, person, simulator};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kero_simulator::{Script, Simulator};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::ResolvesServerCertUsingSni;
use rustls::sign::CertifiedKey;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsAcceptor;

/// The answer of a server that knows nothing newer than TLS 1.0: a `ServerHello` of that version, with one of its suites.
const TLS_1_0: &[u8] = b"\x16\x03\x01\x00\x2a\x02\x00\x00\x26\x03\x01\
    0123456789abcdef0123456789abcdef\x00\x00\x2f\x00";

/// An authority of our own, and certificates that are wrong in one way each.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A gateway that trusts it.
    pub async fn trusted(&self, simulator: &Simulator) -> Kero {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &self.pem).unwrap();
        Kero::start_with(simulator, Options::default().env("SSL_CERT_FILE", file.path().to_str().unwrap())).await
    }

    /// For `localhost`, where nothing but HTTP/2 is spoken.
    pub fn http2(&self) -> TlsAcceptor {
        let (chain, key) = self.certificate("localhost", false, true);
        let mut config = builder().with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    /// A TLS server with a certificate for `name`; one that is `expired`, or that nobody `signed`.
    async fn serve(&self, name: &str, expired: bool, signed: bool) -> String {
        let (chain, key) = self.certificate(name, expired, signed);
        serve(builder().with_single_cert(chain, key).unwrap()).await
    }

    /// One that knows its certificate by the name that the client says it wants.
    async fn serve_by_name(&self, name: &str) -> String {
        let (chain, key) = self.certificate(name, false, true);
        let key = rustls::crypto::ring::default_provider().key_provider.load_private_key(key).unwrap();
        let mut names = ResolvesServerCertUsingSni::new();
        names.add(name, CertifiedKey::new(chain, key)).unwrap();
        serve(builder().with_cert_resolver(Arc::new(names))).await
    }

    fn certificate(&self, name: &str, expired: bool, signed: bool) -> Certified {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        if expired {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        }
        let certificate = if signed { params.signed_by(&key, &self.issuer) } else { params.self_signed(&key) }.unwrap();
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        (vec![certificate.der().clone()], der)
    }
}

type Certified = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn builder() -> rustls::ConfigBuilder<ServerConfig, rustls::server::WantsServerCert> {
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
}

async fn serve(config: ServerConfig) -> String {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let server = Hostile::start(move |stream, counts| {
        let acceptor = acceptor.clone();
        Box::pin(async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            request(&mut stream, &counts).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            let _ = stream.shutdown().await;
        })
    })
    .await;
    server.url.replace("http://127.0.0.1", "https://localhost")
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_checked() {
    let simulator = simulator().await;
    let authority = Authority::new();
    let kero = authority.trusted(&simulator).await;
    kero.create("a").await;
    let good = test(&kero, &authority.serve("localhost", false, true).await).await;
    assert!(good["delivered"] == true && good["connect_ms"].is_u64() && good["dns_ms"].is_u64(), "{good}");
    let named = test(&kero, &authority.serve_by_name("localhost").await).await;
    assert_eq!(named["delivered"], true, "the name is said in the handshake: {named}");
    for (url, why) in [
        (authority.serve("localhost", true, true).await, "certificate"),
        (authority.serve("example.org", false, true).await, "certificate"),
        (authority.serve("localhost", false, false).await, "certificate"),
        (Authority::new().serve("localhost", false, true).await, "certificate"),
        // nothing newer than TLS 1.0, which says so in either of two ways, and no TLS at all
        (Hostile::saying(TLS_1_0).await.url.replace("http:", "https:"), "no connection"),
        (Hostile::saying(b"\x15\x03\x01\x00\x02\x02\x46").await.url.replace("http:", "https:"), "no connection"),
        (Hostile::saying(b"HTTP/1.1 400 Bad\r\n\r\n").await.url.replace("http:", "https:"), "does not speak TLS"),
        // one that never shakes hands
        (Hostile::black_hole().await.url.replace("http:", "https:"), "in time"),
    ] {
        let result = test(&kero, &url).await;
        assert!(result["delivered"] == false && result["error"].as_str().unwrap().contains(why), "{url}: {result}");
    }
}

/// Over TLS an endpoint may speak HTTP/2: one connection, whatever is under way.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_may_speak_http_2() {
    let simulator = simulator().await;
    let authority = Authority::new();
    let kero = authority.trusted(&simulator).await;
    kero.paired(&simulator, "a", "491528500001").await;
    let acceptor = authority.http2();
    let seen: Arc<Mutex<Vec<(hyper::Version, String)>>> = Arc::default();
    let noting = seen.clone();
    let server = Hostile::start(move |stream, _| {
        let (acceptor, seen) = (acceptor.clone(), noting.clone());
        Box::pin(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let seen = seen.clone();
                async move {
                    let id = request.headers()["webhook-id"].to_str().unwrap().to_owned();
                    seen.lock().unwrap().push((request.version(), id));
                    let _ = request.into_body().collect().await;
                    Ok::<_, std::convert::Infallible>(hyper::Response::new(Full::<Bytes>::default()))
                }
            });
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = connection.serve_connection(TokioIo::new(stream), service).await;
        })
    })
    .await;
    endpoint(&kero, &server.url.replace("http://127.0.0.1", "https://localhost")).await;
    for n in 0..6 {
        let peer = person(&simulator, &format!("49152850000{}", 2 + n % 3), Script::Silent);
        simulator.send_text(&peer, "491528500001", &format!("n{n}")).await.unwrap();
    }
    eventually("all of them", || async {
        let page = kero.get("/instances/a/deliveries?state=delivered").await.expect(200);
        (page["data"].as_array().unwrap().len() == 6).then_some(())
    })
    .await;
    let seen = seen.lock().unwrap().clone();
    assert!(seen.iter().all(|(version, _)| *version == hyper::Version::HTTP_2), "{seen:?}");
    let ids: std::collections::HashSet<_> = seen.iter().map(|(_, id)| id).collect();
    assert_eq!((seen.len(), ids.len()), (6, 6), "each once");
    // those that began before it was known what the endpoint speaks may have connections of their own
    assert!(server.counts.most.load(Ordering::SeqCst) <= 3);
}

/// A stream that was refused was not begun: it is sent again, within the same try. One that is reset for another reason
/// may have done its work.
#[tokio::test(flavor = "multi_thread")]
async fn what_http_2_says_was_not_begun_is_sent_again() {
    let simulator = simulator().await;
    let authority = Authority::new();
    let kero = authority.trusted(&simulator).await;
    kero.create("a").await;
    for (reason, delivered) in [(h2::Reason::REFUSED_STREAM, true), (h2::Reason::INTERNAL_ERROR, false)] {
        let acceptor = authority.http2();
        let server = Hostile::start(move |stream, counts| {
            let acceptor = acceptor.clone();
            Box::pin(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    if counts.requests.fetch_add(1, Ordering::SeqCst) == 0 {
                        respond.send_reset(reason);
                    } else {
                        respond.send_response(hyper::Response::new(()), true).unwrap();
                    }
                }
            })
        })
        .await;
        let result = test(&kero, &server.url.replace("http://127.0.0.1", "https://localhost")).await;
        assert_eq!(result["delivered"], delivered, "{reason:?}: {result}");
        assert_eq!(server.counts.requests.load(Ordering::SeqCst), 1 + usize::from(delivered), "{reason:?}");
    }
}

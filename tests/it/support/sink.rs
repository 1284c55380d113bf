//! A webhook receiver that records what arrives and answers as told.

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct Received {
    /// Method, path and query.
    pub target: Option<String>,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
    /// How it was answered.
    pub status: u16,
    /// When it had arrived, in Unix milliseconds.
    pub at: i64,
}

impl Received {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }
}

/// How the sink answers.
#[derive(Debug, Clone, Copy)]
pub enum Behaviour {
    /// 302 to a private address.
    Redirect,
    Status(u16),
    /// 200, after this long.
    Late(Duration),
    /// 200, as soon as it shall behave otherwise.
    Held,
    /// 500 for a body with this text in it, 200 for any other.
    Refusing(&'static str),
}

#[derive(Clone)]
pub struct Sink {
    pub url: String,
    received: Arc<Mutex<Vec<Received>>>,
    behaviour: Arc<Mutex<Behaviour>>,
    connections: Arc<AtomicUsize>,
}

impl Sink {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        let behaviour = Arc::new(Mutex::new(Behaviour::Status(200)));
        let sink = Self { url, received: Arc::default(), behaviour, connections: Arc::default() };
        let serving = sink.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let sink = serving.clone();
                sink.connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let sink = sink.clone();
                        async move { Ok::<_, Infallible>(sink.answer(request).await) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        sink
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let target = Some(format!("{} {}", request.method(), request.uri()));
        let headers = request
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or("").to_owned()))
            .collect();
        let body = match request.into_body().collect().await {
            Ok(body) => body.to_bytes().to_vec(),
            Err(_) => return Response::default(),
        };
        let behaviour = *self.behaviour.lock().expect("behaviour");
        let (status, location) = match behaviour {
            Behaviour::Status(status) => (status, None),
            Behaviour::Redirect => (302, Some("http://10.1.2.3/")),
            Behaviour::Late(_) | Behaviour::Held => (200, None),
            Behaviour::Refusing(text) if String::from_utf8_lossy(&body).contains(text) => (500, None),
            Behaviour::Refusing(_) => (200, None),
        };
        let at = kero_domain::Timestamp::now().0;
        self.received.lock().expect("received").push(Received { target, headers, body, status, at });
        match behaviour {
            Behaviour::Late(wait) => tokio::time::sleep(wait).await,
            Behaviour::Held => {
                while matches!(*self.behaviour.lock().expect("behaviour"), Behaviour::Held) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            _ => {}
        }
        let mut answer = Response::builder().status(status);
        if let Some(location) = location {
            answer = answer.header("location", location);
        }
        answer.body(Full::default()).expect("an answer")
    }

    pub fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock().expect("behaviour") = behaviour;
    }

    /// Connections that were opened so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().expect("received").clone()
    }

    /// Later looks do not find what came before.
    pub fn forget(&self) {
        self.received.lock().expect("received").clear();
    }

    /// The envelopes of one event kind, in order of arrival.
    pub fn events(&self, kind: &str) -> Vec<Value> {
        let json = |it: &Received| serde_json::from_slice::<Value>(&it.body).unwrap_or_default();
        self.received().iter().map(json).filter(|envelope| envelope["event"] == kind).collect()
    }

    pub async fn wait_for(&self, what: &str, pick: impl Fn(&Value) -> bool) -> (Received, Value) {
        super::eventually(&format!("a webhook: {what}; so far {:#?}", self.kinds()), || async {
            self.received()
                .into_iter()
                .map(|received| (received.json(), received))
                .find(|(json, _)| pick(json))
                .map(|(json, received)| (received, json))
        })
        .await
    }

    pub fn kinds(&self) -> Vec<String> {
        self.received().iter().map(|received| received.json()["event"].to_string()).collect()
    }
}

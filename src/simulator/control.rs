//! HTTP: the control API under `/admin`, media, and an answer on `/` that says ready.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::prelude::*;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::faults::{Fault, FaultRule};
use crate::media::{DOWNLOADS, direct_path, upload_token};
use crate::phone::script::{Person, Script};
use crate::world::World;
use crate::{Refused, actions};

/// The largest body taken: media are held in memory.
const LARGEST_BODY: usize = 512 * 1024 * 1024;

type Answer = Response<Full<Bytes>>;

/// Why a request is refused: the status, and what the caller should do.
struct Refusal(StatusCode, String);

impl From<Refused> for Refusal {
    fn from(e: Refused) -> Self {
        let status = match e {
            Refused::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        Self(status, e.to_string())
    }
}

fn bad(what: impl Into<String>) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, what.into())
}

/// Answers a request; never fails.
pub(crate) async fn answer(world: Arc<World>, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let path = percent_decoded(parts.uri.path());
    let query = query_of(parts.uri.query().unwrap_or_default());
    let answered = match Limited::new(body, LARGEST_BODY).collect().await {
        Ok(body) => route(&world, &parts.method, &path, &query, body.to_bytes()).await,
        Err(e) => Err(bad(format!("the body cannot be read: {e}"))),
    };
    let answer = answered.unwrap_or_else(|Refusal(status, error)| json_answer(status, &json!({"error": error})));
    tracing::debug!("{} {path}: {}", parts.method, answer.status());
    answer
}

type Query = HashMap<String, String>;

async fn route(world: &Arc<World>, method: &Method, path: &str, query: &Query, body: Bytes) -> Result<Answer, Refusal> {
    let phone = query.get("phone").map(String::as_str);
    match (method, path) {
        (&Method::POST, "/admin/mock-phone/scan-qr") => {
            let paired = crate::pairing::scan(world, text(&body)?, phone)?;
            Ok(json_answer(StatusCode::OK, &json!(paired)))
        }
        (&Method::POST, "/admin/mock-phone/enter-code") => {
            let phone = phone.ok_or_else(|| bad("say whose phone: ?phone=<digits>"))?;
            crate::paircode::enter(world, phone, text(&body)?.trim())?;
            Ok(json_answer(StatusCode::OK, &json!({"phone": phone})))
        }
        (&Method::GET, "/admin/root-key") => Ok(plain(BASE64_STANDARD.encode(world.keys.root))),
        (&Method::GET, "/admin/ledger") => {
            Ok(content("application/x-ndjson", world.ledger.to_json_lines().into_bytes().into()))
        }
        (&Method::GET, "/admin/stats") => Ok(json_answer(StatusCode::OK, &json!(world.stats()))),
        (&Method::POST, "/admin/people") => {
            let new: NewPerson = read(&body, r#"{"phone":"15551234567","name":"Ann","script":"echo"}"#)?;
            let person = Person { phone: new.phone, name: new.name, script: new.script.unwrap_or_default() };
            let added = actions::add_person(world, person)?;
            Ok(json_answer(StatusCode::OK, &json!(added)))
        }
        (&Method::POST, "/admin/groups") => {
            let new: NewGroup = read(&body, r#"{"subject":"Friends","members":["15551234567","15557654321"]}"#)?;
            let members: Vec<&str> = new.members.iter().map(String::as_str).collect();
            let jid = actions::create_group(world, &new.subject, &members)?;
            Ok(json_answer(StatusCode::OK, &json!({"jid": jid})))
        }
        (&Method::POST, "/admin/faults") => {
            let given: NewFault = read(&body, r#"{"fault":"nack","phone":"15551234567","code":479,"count":3}"#)?;
            actions::inject(world, given.rule()?);
            Ok(json_answer(StatusCode::OK, &json!({"accepted": true})))
        }
        (&Method::DELETE, "/admin/faults") => {
            world.faults.clear();
            Ok(json_answer(StatusCode::OK, &json!({"cleared": true})))
        }
        (_, "/") => Ok(plain("ready\n")),
        _ => match path.strip_prefix("/admin/people/") {
            Some(rest) => person(world, method, rest, &body).await,
            None => files(world, method, path, query, body),
        },
    }
}

/// `/admin/people/{phone}/…`
async fn person(world: &Arc<World>, method: &Method, rest: &str, body: &Bytes) -> Result<Answer, Refusal> {
    let (phone, what) = rest.split_once('/').unwrap_or((rest, ""));
    match (method, what) {
        (&Method::POST, "messages") => {
            let new: NewMessage = read(body, r#"{"to":"15557654321","text":"Hello"}"#)?;
            let id = crate::phone::send::send_text(world, phone, &new.to, &new.text).await?;
            Ok(json_answer(StatusCode::OK, &json!({"id": id})))
        }
        (&Method::GET, "messages") => {
            let texts = actions::received_texts(world, phone).await;
            Ok(json_answer(StatusCode::OK, &json!(texts)))
        }
        (&Method::POST, "unlink") => {
            let which: Unlink = if body.is_empty() { Unlink { device: None } } else { read(body, r#"{"device":1}"#)? };
            actions::unlink(world, phone, which.device)?;
            Ok(json_answer(StatusCode::OK, &json!({"unlinked": true})))
        }
        _ => Err(not_found()),
    }
}

/// Uploads and downloads.
fn files(world: &Arc<World>, method: &Method, path: &str, query: &Query, body: Bytes) -> Result<Answer, Refusal> {
    if *method == Method::POST
        && let Some(token) = upload_token(path)
    {
        // A client asks for a partial upload before it sends a large file: there is none.
        if query.contains_key("resume") {
            return Err(Refusal(StatusCode::NOT_FOUND, "nothing to resume: upload the whole file".to_owned()));
        }
        world.media.put(token, body);
        let path = direct_path(token);
        let answer = json!({"url": format!("https://{}{path}", world.host()), "direct_path": path});
        return Ok(json_answer(StatusCode::OK, &answer));
    }
    if *method == Method::GET
        && let Some(token) = path.strip_prefix(DOWNLOADS)
    {
        let bytes = world.media.get(token).ok_or_else(not_found)?;
        return Ok(content("application/octet-stream", bytes));
    }
    Err(not_found())
}

fn not_found() -> Refusal {
    Refusal(StatusCode::NOT_FOUND, "no such path; the control API lies under /admin".to_owned())
}

#[derive(Deserialize)]
struct NewPerson {
    phone: String,
    name: Option<String>,
    script: Option<Script>,
}

#[derive(Deserialize)]
struct NewGroup {
    subject: String,
    members: Vec<String>,
}

#[derive(Deserialize)]
struct NewMessage {
    to: String,
    text: String,
}

#[derive(Deserialize)]
struct Unlink {
    device: Option<u16>,
}

#[derive(Deserialize)]
struct NewFault {
    fault: Fault,
    phone: Option<String>,
    code: Option<u16>,
    count: Option<u32>,
    delay_ms: Option<u64>,
}

impl NewFault {
    fn rule(self) -> Result<FaultRule, Refusal> {
        let count = self.count.unwrap_or(1);
        if count == 0 {
            return Err(bad("count must be at least 1; DELETE /admin/faults ends all faults"));
        }
        let phone = self.phone.map(|p| crate::world::directory::normal_phone(&p)).transpose()?;
        let delay = self.delay_ms.map(Duration::from_millis);
        Ok(FaultRule { fault: self.fault, phone, code: self.code, count, delay })
    }
}

/// Reads a JSON body; what is wrong with it, and how one looks, goes to the caller.
fn read<T: DeserializeOwned>(body: &Bytes, example: &str) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|e| bad(format!("{e}; send JSON like {example}")))
}

fn text(body: &Bytes) -> Result<&str, Refusal> {
    std::str::from_utf8(body).map_err(|_| bad("the body must be text"))
}

fn json_answer(status: StatusCode, body: &serde_json::Value) -> Answer {
    let mut answer = content("application/json", body.to_string().into_bytes().into());
    *answer.status_mut() = status;
    answer
}

fn plain(body: impl Into<String>) -> Answer {
    content("text/plain; charset=utf-8", body.into().into_bytes().into())
}

fn content(kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    answer.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    answer
}

fn query_of(query: &str) -> Query {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (percent_decoded(key), percent_decoded(&value.replace('+', "%20"))))
        .collect()
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let code = bytes.get(at + 1..at + 3).and_then(|h| std::str::from_utf8(h).ok());
        match code.filter(|_| byte == b'%').and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(decoded) => {
                out.push(decoded);
                at += 3;
            }
            None => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_codes_are_decoded() {
        assert_eq!(percent_decoded("a%2Bb%3D%zz%4"), "a+b=%zz%4");
        let query = query_of("phone=%2B1555&x&y=a+b");
        assert_eq!((query["phone"].as_str(), query["x"].as_str(), query["y"].as_str()), ("+1555", "", "a b"));
    }
}

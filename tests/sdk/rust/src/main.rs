//! The main job with the generated client: create, pair, send, send asynchronously, receive the acknowledgement by
//! webhook, read jobs page by page, handle a problem.

use hmac::{Hmac, Mac};
use kero_sdk::apis::configuration::{ApiKey, Configuration};
use kero_sdk::apis::{Error, ResponseContent, instances_api, jobs_api, messages_api, pairing_api, webhook_api};
use kero_sdk::models::*;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SECRET: &str = "a secret of this program";
const ID: &str = "rust";
const CONTACT: &str = "491514000501";

type Acks = Arc<Mutex<HashMap<String, MessageAckEvent>>>;

/// One request, read to the length that it announces: its head in lower case, and its body.
async fn request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).await.ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&chunk[..count]);
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let length: usize = header(&head, "content-length")?.parse().ok()?;
        if bytes.len() >= end + 4 + length {
            return Some((head, bytes.split_off(end + 4)));
        }
    }
}

fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

async fn sink(listener: TcpListener, acks: Acks) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let Some((head, body)) = request(&mut stream).await else { continue };
        let given = header(&head, "x-webhook-signature").unwrap_or_default();
        let given: Vec<u8> = (0..given.len() / 2)
            .filter_map(|i| u8::from_str_radix(&given[2 * i..2 * i + 2], 16).ok())
            .collect();
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length");
        mac.update(&body);
        let status = if mac.verify_slice(&given).is_ok() {
            let ack: MessageAckEvent = serde_json::from_slice(&body).expect("an acknowledgement");
            acks.lock().unwrap().insert(ack.data.correlation_id.clone(), ack);
            "204 No Content"
        } else {
            "401 Unauthorized"
        };
        let _ = stream.write_all(format!("HTTP/1.1 {status}\r\nconnection: close\r\n\r\n").as_bytes()).await;
    }
}

async fn simulator(configuration: &Configuration, path: &str, body: String) {
    let url = std::env::var("SIMULATOR_URL").expect("SIMULATOR_URL") + path;
    let answer = configuration.client.post(url).body(body).send().await.expect("the simulator");
    assert!(answer.status().is_success(), "{path}: {}", answer.status());
}

/// The code of the problem that a call ended in.
fn code<T, E>(result: Result<T, Error<E>>) -> String {
    match result {
        Err(Error::ResponseError(ResponseContent { status, content, .. })) => {
            let problem: Problem = serde_json::from_str(&content).expect("a problem");
            assert_eq!(problem.status, i32::from(status.as_u16()));
            problem.code
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it went well"),
    }
}

#[tokio::main]
async fn main() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let acks = Acks::default();
    tokio::spawn(sink(listener, acks.clone()));

    let configuration = &Configuration {
        base_path: std::env::var("KERO_URL").expect("KERO_URL"),
        api_key: Some(ApiKey { prefix: None, key: std::env::var("KERO_KEY").expect("KERO_KEY") }),
        ..Configuration::new()
    };
    simulator(configuration, "/admin/people", format!(r#"{{"phone":"{CONTACT}","name":"Ada"}}"#)).await;

    // create
    let wanted = CreateInstance { name: Some("SDK".to_owned()), ..CreateInstance::new(ID.to_owned()) };
    let created = instances_api::instance_create(configuration, wanted.clone()).await.unwrap();
    assert_eq!(created.data.status, InstanceStatus::Disconnected);
    let webhook = PutWebhook {
        secret: Some(SECRET.to_owned()),
        events: Some(vec![put_webhook::Events::MessageAck]),
        ..PutWebhook::new(url)
    };
    webhook_api::webhook_update(configuration, ID, webhook).await.unwrap();

    // provoke a problem and read its code
    assert_eq!(code(instances_api::instance_create(configuration, wanted).await), "instance-exists");
    let early = SendText::new(CONTACT.to_owned(), "too early".to_owned());
    let early = messages_api::message_send_text(configuration, ID, early, None, None, None).await;
    assert!(code(early).starts_with("instance-not-"));

    // pair
    instances_api::instance_connect(configuration, ID).await.unwrap();
    let qr = pairing_api::qr_get(configuration, ID).await.unwrap();
    simulator(configuration, "/admin/mock-phone/scan-qr?phone=491514000500", qr.code).await;
    let mut connected = false;
    for _ in 0..600 {
        let status = instances_api::instance_status_get(configuration, ID).await.unwrap().status;
        connected = status == InstanceStatus::Connected;
        if connected {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(connected);

    // send, and send asynchronously
    let hello = SendText::new(CONTACT.to_owned(), "Hello".to_owned());
    let sent = messages_api::message_send_text(configuration, ID, hello, None, None, None).await.unwrap();
    assert_eq!(sent.status, SendStatus::Sent);
    let mut queued = Vec::new();
    for n in 0..5 {
        let name = format!("rust-{n}");
        let text = SendText::new(CONTACT.to_owned(), format!("Number {n}"));
        let send = messages_api::message_send_text(configuration, ID, text, Some("true"), Some(&name), Some(&name));
        let result = send.await.unwrap();
        assert_eq!(result.status, SendStatus::Queued);
        queued.push(result);
    }

    // each ends in one acknowledgement, by webhook
    for result in &queued {
        let handle = result.correlation_id.clone().unwrap();
        let mut ack = None;
        for _ in 0..600 {
            ack = acks.lock().unwrap().get(&handle).cloned();
            if ack.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let ack = ack.expect("an acknowledgement");
        assert_eq!(ack.data.status, AckStatus::Sent);
        assert_eq!(ack.data.message_id.as_ref(), Some(&result.message_id));
    }

    // jobs, page by page
    let (mut seen, mut pages, mut cursor) = (HashSet::new(), 0, None::<String>);
    loop {
        let page = jobs_api::job_list(configuration, ID, None, Some(2), cursor.as_deref()).await.unwrap();
        seen.extend(page.data.iter().map(|job| job.id));
        pages += 1;
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 6);
    assert_eq!(jobs_api::job_get(configuration, ID, "rust-0").await.unwrap().data.r#type, "text");
    assert_eq!(code(jobs_api::job_get(configuration, ID, "nobody").await), "job-not-found");

    instances_api::instance_delete(configuration, ID).await.unwrap();
    println!("rust: 6 messages sent, {} acknowledgements verified, {pages} pages of jobs", acks.lock().unwrap().len());
}

//! Misbehaves as the message says.

use kero_plugin::{Body, Context, Event, Failure, Verdict, http, kv, log, send};

kero_plugin::transform!(handle);

fn handle(event: Event, _context: Context) -> Result<Verdict, Failure> {
    let Body::Message(message) = &event.body else { return Ok(Verdict::Pass) };
    let text = message.text.as_deref().unwrap_or_default();
    if text != "fine" && text != "denied" {
        // what a failed call asked for must not be seen
        let _ = kv::set("left", text.as_bytes(), None);
        let _ = send::text("+15557654321", "left", None);
    }
    match text {
        "loop" => loop {
            std::hint::black_box(());
        },
        "memory" => {
            let mut all = Vec::new();
            loop {
                all.push(vec![1u8; 1 << 20]);
                std::hint::black_box(&all);
            }
        }
        "panic" => panic!("a panic on purpose"),
        "recursion" => Ok(Verdict::Drop(deep(1).to_string())),
        "output" => Ok(Verdict::Replace("x".repeat(32 << 20))),
        "flood" => {
            for n in 0..1_000_000 {
                log::info(format!("line {n} {}", "x".repeat(100)));
            }
            Ok(Verdict::Pass)
        }
        "hang" => {
            http::fetch(&http::Request {
                method: "GET".to_owned(),
                url: "https://api.example/slow".to_owned(),
                headers: Vec::new(),
                body: Vec::new(),
                timeout_ms: None,
            })?;
            Ok(Verdict::Pass)
        }
        "denied" => {
            kv::get("key")?;
            Ok(Verdict::Pass)
        }
        "text" => Ok(Verdict::Replace("no JSON".to_owned())),
        _ => Ok(Verdict::Pass),
    }
}

#[allow(unconditional_recursion, reason = "it is told to")]
fn deep(n: u64) -> u64 {
    let here = std::hint::black_box([n; 64]);
    deep(n + 1) + std::hint::black_box(here)[0]
}

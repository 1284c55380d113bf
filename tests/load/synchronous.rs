//! Sequential synchronous sends.

use crate::stage::{self, Kero, cpu};
use crate::{Common, Rounds, bare};
use serde_json::json;
use std::time::Instant;
use tempfile::TempDir;

const RECIPIENT: &str = "491581000009";

pub async fn run(common: &Common) {
    let folder = TempDir::new().unwrap();
    let http = stage::http();
    let simulator = stage::simulator(&http).await;
    simulator.person(&http, RECIPIENT).await;
    let server = common.database.as_deref();
    let store = common.store(stage::database(server, &folder, "bare").await).await;
    let bare = bare::paired(&http, &simulator, &store, "bare", "491581000001", &[RECIPIENT.to_owned()]).await;
    let database = stage::database(server, &folder, "kero").await;
    let environment = [("KERO_DURABILITY", common.durability.clone())];
    let kero = stage::kero(&http, &simulator, &folder, database, &environment).await;
    kero.pair(&http, &simulator, "load", "491581000002").await;

    bare.send(0, 20).await;
    send(&http, &kero, 20).await;
    let mut rounds = Rounds::default();
    let sends = common.sends as f64;
    for _ in 0..common.rounds {
        let (cpu_before, started) = (cpu(std::process::id()), Instant::now());
        bare.send(0, common.sends).await;
        rounds.bare.push(sends / started.elapsed().as_secs_f64());
        rounds.bare_cpu.push((cpu(std::process::id()) - cpu_before).as_secs_f64() * 1e3 / sends);
        let (cpu_before, started) = (cpu(kero.pid), Instant::now());
        send(&http, &kero, common.sends).await;
        rounds.kero.push(sends / started.elapsed().as_secs_f64());
        rounds.kero_cpu.push((cpu(kero.pid) - cpu_before).as_secs_f64() * 1e3 / sends);
    }
    rounds.print(&format!("sync, {}, durability {}", common.database_name(), common.durability));
    store.close().await;
}

async fn send(http: &reqwest::Client, kero: &Kero, sends: usize) {
    for n in 0..sends {
        let body = json!({ "phone": RECIPIENT, "message": format!("load {n}") });
        kero.call(http, reqwest::Method::POST, "/instances/load/messages/text", &[], Some(body)).await;
    }
}

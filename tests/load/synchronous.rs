//! Sequential synchronous sends.

use crate::stage::{self, Kero};
use crate::{Common, Rounds, bare};
use serde_json::json;
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
    for _ in 0..common.rounds {
        let through_kero = send(&http, &kero, common.sends);
        rounds.run(common.sends, (&simulator, &kero), bare.send(0, common.sends), through_kero).await;
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

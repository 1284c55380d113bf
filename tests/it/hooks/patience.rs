//! Uploads whose compilation takes longer than `hooks.compile_timeout`.

use super::attacks::slow_to_compile;
use super::{install, module, options, upload, wasm_manifest};
use crate::support::{Kero, eventually, simulator};
use serde_json::json;

const RAW: &str = "on = [\"message\"]\non_error = \"raw\"";

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_compiles_too_long_is_refused_and_leaves_nothing() {
    let simulator = simulator().await;
    let kero = Kero::start_with(&simulator, options().env("KERO_HOOKS__COMPILE_TIMEOUT", "150ms")).await;
    let compiled = || std::fs::read_dir(kero.data.path().join("compiled-hooks")).unwrap().flatten().count();
    let large = slow_to_compile();
    for _ in 0..2 {
        let problem = upload(&kero, &wasm_manifest("large", RAW), &large).await.problem(422, "plugin-invalid");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("within 150ms (hooks.compile_timeout)"), "{problem}");
        kero.get("/plugins/large").await.problem(404, "plugin-not-found");
    }
    // others wait for what the compiler still does with it, and for no second time
    let small = module("", "i32.const 0");
    let small_is_there =
        || async { (upload(&kero, &wasm_manifest("small", RAW), &small).await.status == 201).then_some(()) };
    eventually("the compiler to be free", small_is_there).await;
    assert_eq!(kero.get("/plugins").await.expect(200)["data"].as_array().unwrap().len(), 1);
    assert_eq!(compiled(), 1, "nor is the code of what was refused kept");
    // the name is free
    install(&kero, &wasm_manifest("large", RAW), &small).await;
    let view = kero.get("/plugins/large").await.expect(200);
    assert_eq!((&view["data"]["state"], &view["data"]["active_version"]), (&json!("active"), &json!("1")));
}

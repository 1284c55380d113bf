//! `kero plugin push`: to a running gateway.

use crate::cli::Push;
use crate::run::print;
use anyhow::Context;
use serde_json::{Value, json};
use std::path::Path;

/// A form in `multipart/form-data`.
struct Form {
    boundary: String,
    body: Vec<u8>,
}

impl Form {
    fn new() -> Self {
        Self { boundary: format!("kero-{:032x}", rand::random::<u128>()), body: Vec::new() }
    }

    fn put(&mut self, name: &str, bytes: &[u8]) {
        let head = format!(
            "--{}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\n\r\n",
            self.boundary
        );
        self.body.extend_from_slice(head.as_bytes());
        self.body.extend_from_slice(bytes);
        self.body.extend_from_slice(b"\r\n");
    }

    fn end(mut self) -> (String, Vec<u8>) {
        self.body.extend_from_slice(format!("--{}--\r\n", self.boundary).as_bytes());
        (format!("multipart/form-data; boundary={}", self.boundary), self.body)
    }
}

pub(super) async fn run(flags: &Push) -> anyhow::Result<()> {
    crate::boot::prepare_process();
    let http = reqwest::Client::builder().no_proxy().build().context("the HTTP client cannot be built")?;
    let mut form = Form::new();
    match &flags.bundled {
        Some(name) => form.put("bundled", name.as_bytes()),
        None => fill(&mut form, &flags.folder)?,
    }
    let (kind, body) = form.end();
    let request = http.post(url(flags, "/plugins")).header("content-type", kind).body(body);
    let uploaded = answer(flags, request).await?;
    let data = &uploaded["data"];
    let text = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
    let (name, version) = (text("name"), text("version"));
    // those of a bundled plugin stay with its source
    let cases = match data["cases"].as_array().map_or(0, Vec::len) {
        0 => String::new(),
        cases => format!(", {cases} cases passed"),
    };
    print(&format!(
        "{name} {version}: uploaded, {} bytes, compiled in {:.0} ms{cases}\n  asks for {}\n  sha256 {}\n",
        data["bytes"],
        data["compile_ms"].as_f64().unwrap_or_default(),
        asked(&data["grants_asked"]),
        text("sha256"),
    ))?;
    if !flags.activate {
        return print("not active yet: add --activate, and --grant to give it what it asks for\n");
    }
    let mut body = json!({});
    if flags.grant {
        body["grants"] = data["grants_asked"].clone();
    }
    let path = format!("/plugins/{name}/versions/{version}/activate");
    answer(flags, http.post(url(flags, &path)).json(&body)).await?;
    print(&format!("{name} {version}: active\n"))
}

fn asked(grants: &Value) -> String {
    match grants.as_object() {
        Some(grants) if !grants.is_empty() => grants.keys().cloned().collect::<Vec<_>>().join(", "),
        _ => "nothing".to_owned(),
    }
}

fn url(flags: &Push, path: &str) -> String {
    format!("{}{path}", flags.url.trim_end_matches('/'))
}

/// The plugin's files as fields.
fn fill(form: &mut Form, folder: &Path) -> anyhow::Result<()> {
    let manifest = super::manifest(folder)?;
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()));
    form.put("manifest", &read(&folder.join("plugin.toml"))?);
    let entry = folder.join(&manifest.entry);
    let artefact = read(&entry).with_context(|| {
        if manifest.is_script() {
            manifest.name.to_string()
        } else {
            format!("run `kero plugin build {}` first", folder.display())
        }
    })?;
    form.put("artefact", &artefact);
    let Ok(cases) = std::fs::read_dir(folder.join("cases")) else { return Ok(()) };
    for case in cases.flatten().filter(|case| case.path().is_dir()) {
        for file in std::fs::read_dir(case.path())?.flatten().filter(|file| file.path().is_file()) {
            let name = format!("cases/{}/{}", case.file_name().to_string_lossy(), file.file_name().to_string_lossy());
            form.put(&name, &read(&file.path())?);
        }
    }
    Ok(())
}

/// The gateway's answer, or its problem as an error.
async fn answer(flags: &Push, request: reqwest::RequestBuilder) -> anyhow::Result<Value> {
    let response = request
        .header("x-api-key", &flags.key)
        .send()
        .await
        .with_context(|| format!("no gateway answers at {}; start one, or name another with --url", flags.url))?;
    let status = response.status();
    let body: Value = response.json().await.context("the answer is not JSON")?;
    if status.is_success() {
        return Ok(body);
    }
    let text = |name: &str| body[name].as_str().map(str::to_owned);
    let mut told = format!(
        "{} ({}): {}",
        status.as_u16(),
        body["code"].as_str().unwrap_or("?"),
        text("title").unwrap_or_default()
    );
    if let Some(detail) = text("detail") {
        told.push_str(&format!("\n{detail}"));
    }
    for error in body["errors"].as_array().into_iter().flatten() {
        told.push_str(&format!(
            "\n{}: {}",
            error["pointer"].as_str().unwrap_or_default(),
            error["detail"].as_str().unwrap_or_default()
        ));
    }
    for case in body["cases"].as_array().into_iter().flatten() {
        for failure in case["failures"].as_array().into_iter().flatten() {
            told.push_str(&format!(
                "\ncases/{}: {}",
                case["case"].as_str().unwrap_or_default(),
                failure.as_str().unwrap_or_default()
            ));
        }
    }
    if body["code"] == "plugin-grants-missing" {
        told.push_str(&format!("\nasked for: {}; give it with --grant", asked(&body["asked"])));
    }
    anyhow::bail!(told)
}

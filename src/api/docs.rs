//! The documents and Swagger UI, made once, served with ETag and gzip, without a request to anybody else's host.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use poem::http::{HeaderValue, StatusCode, header};
use poem::web::{Compress, CompressionAlgo};
use poem::{Body, Endpoint, IntoResponse, Request, Response};
use poem_openapi::OpenApiService;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use tokio::sync::OnceCell;

/// A text that does not change while the process runs.
pub(crate) struct Fixed {
    content_type: &'static str,
    content_security_policy: Option<String>,
    body: Bytes,
    gzip: OnceCell<Bytes>,
    tag: String,
}

impl Fixed {
    fn new(content_type: &'static str, text: String) -> Self {
        let hash = Sha256::digest(text.as_bytes());
        let tag = hash.iter().take(8).fold(String::new(), |mut tag, byte| {
            let _ = write!(tag, "{byte:02x}");
            tag
        });
        Self { content_type, content_security_policy: None, body: text.into(), gzip: OnceCell::new(), tag }
    }

    async fn zipped(&self) -> Bytes {
        let zip = async || {
            let response = Compress::new(Body::from(self.body.clone()), CompressionAlgo::GZIP).into_response();
            response.into_body().into_bytes().await.unwrap_or_default()
        };
        self.gzip.get_or_init(zip).await.clone()
    }
}

impl Endpoint for Fixed {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let wants = |name, found: &dyn Fn(&str) -> bool| {
            request.headers().get_all(name).iter().filter_map(|value| value.to_str().ok()).any(found)
        };
        let known = wants(header::IF_NONE_MATCH, &|text| text.contains(&self.tag) || text.trim() == "*");
        let gzip = wants(header::ACCEPT_ENCODING, &|text| {
            text.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("gzip"))
        });
        let mut response = Response::builder()
            .header(header::ETAG, format!("W/\"{}\"", self.tag))
            .header(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"))
            .header(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        if let Some(policy) = &self.content_security_policy {
            response = response
                .header(header::CONTENT_SECURITY_POLICY, policy)
                .header(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        }
        if known {
            return Ok(response.status(StatusCode::NOT_MODIFIED).finish());
        }
        response = response.header(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        let packed = if gzip { self.zipped().await } else { Bytes::new() };
        if packed.is_empty() {
            return Ok(response.body(self.body.clone()));
        }
        Ok(response.header(header::CONTENT_ENCODING, HeaderValue::from_static("gzip")).body(packed))
    }
}

/// An OpenAPI document.
pub(crate) fn json(document: String) -> Fixed {
    Fixed::new("application/json", document)
}

/// Swagger UI with the document in it.
pub(crate) fn swagger_ui(document: &str) -> Fixed {
    let page = page(document);
    let policy = policy(&page);
    Fixed { content_security_policy: Some(policy), ..Fixed::new("text/html; charset=utf-8", page) }
}

/// poem-openapi's bundle of Swagger UI in a page of ours: with the normalised document, for narrow screens too, and
/// keeping the key over a reload (in this browser, for this gateway's origin only).
fn page(document: &str) -> String {
    let bundle = OpenApiService::new((), "", "").swagger_ui_html();
    // the bundle's own texts have end tags, too
    let head = bundle.split_once("</script>\n</head>").map_or(bundle.as_str(), |(head, _)| head);
    let head = head.replacen("<html charset=\"UTF-8\">", "<html lang=\"en\">", 1);
    let head = head.replacen("<title>Swagger UI</title>", HEAD, 1);
    // the document stands in a script: nothing in it may end that
    let document = document.replace("</", "<\\/").replace("<!--", "<\\u0021--");
    format!(
        "<!DOCTYPE html>\n{}</script>\n{STYLE}</head>\n<body>\n<div id=\"ui\"></div>\n<script>\n    let spec = {document};\n{START}</script>\n</body>\n</html>\n",
        head.trim_start()
    )
}

const HEAD: &str = "<title>Kero API</title>\n    <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n    \
                    <link rel=\"icon\" href=\"data:,\">";

/// What the bundle's own style leaves over the edge of a narrow screen.
const STYLE: &str = "<style>
    body { margin: 0; }
    .swagger-ui pre { overflow-x: auto; }
    .swagger-ui .markdown table { display: block; overflow-x: auto; }
    .swagger-ui .opblock-summary-path { word-break: break-word; }
    @media (max-width: 640px) {
        .swagger-ui .wrapper { padding: 0 10px; }
        .swagger-ui .scheme-container { padding: 15px 0; }
        .swagger-ui .opblock .opblock-summary { flex-wrap: wrap; }
        .swagger-ui .opblock-summary-path-description-wrapper { min-width: 0; }
        .swagger-ui :is(table.parameters, table.responses-table),
        .swagger-ui :is(table.parameters, table.responses-table) > tbody,
        .swagger-ui :is(table.parameters, table.responses-table) > tbody > tr,
        .swagger-ui :is(table.parameters, table.responses-table) > tbody > tr > td {
            display: block; max-width: 100%; min-width: 0; width: auto;
        }
        .swagger-ui :is(table.parameters, table.responses-table) > thead { display: none; }
        .swagger-ui :is(table.parameters, table.responses-table) > tbody > tr > td { padding: 4px 0; }
        .swagger-ui .try-out .btn { margin: 0 0 0 6px; min-width: 0; padding: 5px 10px; }
        .swagger-ui .parameters-col_description input[type=text], .swagger-ui .parameters-col_description select { max-width: 100%; width: 100%; }
        .swagger-ui .dialog-ux .modal-ux { min-width: 0; width: 95%; }
    }
</style>
";

const START: &str = "
    SwaggerUIBundle({
        dom_id: '#ui',
        spec: spec,
        deepLinking: true,
        persistAuthorization: true,
        displayRequestDuration: true,
        defaultModelsExpandDepth: 0,
        validatorUrl: null,
    });
";

/// Only the page's own scripts run, and they reach this gateway only.
fn policy(page: &str) -> String {
    let mut hashes = String::new();
    let mut rest = page;
    // a script goes on to the first end tag, whatever start tags stand in its texts
    while let Some((script, behind)) =
        rest.split_once("<script").and_then(|(_, tag)| tag.split_once('>')?.1.split_once("</script>"))
    {
        let _ = write!(hashes, " 'sha256-{}'", STANDARD.encode(Sha256::digest(script.as_bytes())));
        rest = behind;
    }
    format!(
        "default-src 'none'; script-src{hashes}; style-src 'unsafe-inline'; img-src 'self' data:; font-src data:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

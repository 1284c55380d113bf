//! The client's HTTP side (media, and the version page): the library's own client behind the loopback rule.

use crate::guard::{SKIPS_CERTIFICATES, is_loopback_host};
use anyhow::{Result, bail};
use async_trait::async_trait;
use wacore::net::{HttpClient, HttpRequest, HttpResponse, StreamingHttpResponse, UploadBody};
use whatsapp_rust_ureq_http_client::UreqHttpClient;

pub(crate) struct Http {
    inner: UreqHttpClient,
    loopback_only: bool,
}

impl Http {
    /// With a configured WhatsApp address, media lie on this machine as well.
    pub(crate) fn new(url: Option<&str>) -> Self {
        Self { inner: UreqHttpClient::new(), loopback_only: url.is_some() || SKIPS_CERTIFICATES }
    }

    fn check(&self, request: &HttpRequest) -> Result<()> {
        if self.loopback_only {
            let host =
                request.url.parse::<::http::Uri>().ok().and_then(|uri| {
                    uri.authority().filter(|it| !it.as_str().contains('@')).map(|it| it.host().to_owned())
                });
            if !host.is_some_and(|host| is_loopback_host(&host)) {
                bail!("only loopback addresses may be requested");
            }
        }
        Ok(())
    }
}

#[async_trait]
impl HttpClient for Http {
    async fn execute(&self, request: HttpRequest) -> Result<HttpResponse> {
        self.check(&request)?;
        self.inner.execute(request).await
    }

    fn supports_streaming(&self) -> bool {
        self.inner.supports_streaming()
    }

    fn execute_streaming(&self, request: HttpRequest) -> Result<StreamingHttpResponse> {
        self.check(&request)?;
        self.inner.execute_streaming(request)
    }

    fn supports_upload_streaming(&self) -> bool {
        self.inner.supports_upload_streaming()
    }

    fn execute_upload(&self, request: HttpRequest, body: UploadBody, content_length: u64) -> Result<HttpResponse> {
        self.check(&request)?;
        self.inner.execute_upload(request, body, content_length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_other_machines_when_bound_to_loopback() {
        let http = Http::new(Some("ws://127.0.0.1/"));
        assert!(http.check(&HttpRequest::get("https://127.0.0.1:8443/mms/image/x")).is_ok());
        for url in ["https://mmg.whatsapp.net/x", "https://web.whatsapp.com/sw.js", "https://127.0.0.1@evil.com/"] {
            assert!(http.check(&HttpRequest::get(url)).is_err(), "{url}");
        }
    }
}

//! Pairing: the QR code in four forms, and the pair code.

use crate::accept;
use crate::auth::Caller;
use crate::body::JsonBody;
use crate::handle::Handle;
use crate::problem::{Failure, codes};
use crate::qr;
use crate::tags::Tag;
use crate::wire::pairing::{PairByPhone, PairCode, Qr};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kero_domain::{Address, Fault, FaultCode};
use poem::http::{HeaderMap, header};
use poem_openapi::param::Path;
use poem_openapi::payload::{Binary, Json, PlainText};
use poem_openapi::{ApiResponse, OpenApi, ResponseContent};

pub(crate) struct PairingApi {
    pub handle: Handle,
}

codes! {
    QrCodes = [QrNotAvailable, NotAcceptable, InstanceAlreadyPaired, WhatsAppUnreachable];
    PairCodeCodes = [InvalidRecipient, InstanceAlreadyPaired, WhatsAppUnreachable];
}

/// The forms of the code, the preferred one first.
const FORMS: [&str; 4] = ["application/json", "image/png", "image/svg+xml", "text/plain"];
/// A code is good for seconds only; nothing between may keep it.
const NO_CACHE: &str = "no-cache, no-store, must-revalidate";

#[derive(ResponseContent)]
enum QrForm {
    Json(Json<Qr>),
    #[oai(content_type = "image/png")]
    Png(Binary<Vec<u8>>),
    #[oai(content_type = "image/svg+xml")]
    Svg(PlainText<String>),
    #[oai(content_type = "text/plain")]
    Text(PlainText<String>),
}

#[derive(ApiResponse)]
enum QrReply {
    /// The code to scan now, in the form that `Accept` asks for.
    #[oai(status = 200)]
    Code(
        QrForm,
        /// Always `no-cache, no-store, must-revalidate`.
        #[oai(header = "Cache-Control")]
        String,
    ),
}

#[OpenApi(tag = "Tag::Pairing")]
impl PairingApi {
    /// Get the QR code
    ///
    /// Connects the instance where needed and gives the code to scan now. Codes change every 20 to 60 seconds: ask
    /// again after `expires_at`. As JSON with a PNG in base64, or with `Accept: image/png`, `image/svg+xml` or
    /// `text/plain` (the raw code).
    #[oai(path = "/instances/:instance_id/qr", method = "get", operation_id = "qr_get")]
    async fn qr(
        &self,
        caller: Caller,
        instance_id: Path<String>,
        headers: &HeaderMap,
    ) -> Result<QrReply, Failure<QrCodes>> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        let accepted: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
        let form = accept::choose(Some(&accepted.join(",")), &FORMS).ok_or_else(|| {
            Fault::new(FaultCode::NotAcceptable).with_detail(format!("Accept one of: {}.", FORMS.join(", ")))
        })?;
        let code = gateway.qr(&id).await?;
        let form = match form {
            1 => QrForm::Png(Binary(qr::png(&code.code)?)),
            2 => QrForm::Svg(PlainText(qr::svg(&code.code)?)),
            3 => QrForm::Text(PlainText(code.code)),
            _ => QrForm::Json(Json(Qr {
                success: true,
                instance_id: id.into(),
                qr_code: STANDARD.encode(qr::png(&code.code)?),
                code: code.code,
                format: "base64".to_owned(),
                image_type: "png".to_owned(),
                expires_at: code.expires_at.into(),
            })),
        };
        Ok(QrReply::Code(form, NO_CACHE.to_owned()))
    }

    /// Get a pair code
    ///
    /// For pairing without a camera: the code is entered on the phone under Linked devices → Link with phone number.
    #[oai(path = "/instances/:instance_id/pair-code", method = "post", operation_id = "pair_code_create")]
    async fn pair_code(
        &self,
        caller: Caller,
        instance_id: Path<String>,
        body: JsonBody<PairByPhone>,
    ) -> Result<Json<PairCode>, Failure<PairCodeCodes>> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        let pointer = body.pointer("phone");
        let wrong = |why: &str| Fault::new(FaultCode::InvalidRecipient).at(pointer.clone(), why);
        let phone = Address::parse(&body.value.phone.0).map_err(|why| wrong(&why.to_string()))?;
        if !matches!(phone, Address::Phone(_)) {
            return Err(wrong("must be the account's own phone number").into());
        }
        let code = gateway.pair_code(&id, &phone).await?;
        Ok(Json(PairCode {
            success: true,
            instance_id: id.into(),
            code: code.code,
            expires_at: code.expires_at.into(),
        }))
    }
}

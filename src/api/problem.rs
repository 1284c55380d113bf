//! Every failure as `application/problem+json` (RFC 9457), whatever part of the stack it came from.

use crate::request_id::RequestId;
use kero_domain::{Fault, FaultCode};
use poem::error::{
    MethodNotAllowedError, NotFoundError, ParsePathError as PoemPathError, ParseQueryError, ReadBodyError,
    ResponseError,
};
use poem::http::{HeaderValue, StatusCode, header};
use poem::{Response, ResponseBuilder};
use poem_openapi::error::{ContentTypeError, ParseParamError, ParsePathError, ParseRequestPayloadError};
use poem_openapi::registry::{MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::types::Type;
use poem_openapi::{ApiResponse, Object};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::marker::PhantomData;

pub(crate) const CONTENT_TYPE: &str = "application/problem+json";

/// A failure, as RFC 9457 has it.
///
/// Switch on `code`: it is stable. Some problems have further members, named in the list of problems.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct Problem {
    /// A URI of the problem's description, relative to this API.
    #[oai(rename = "type")]
    pub kind: String,
    /// What the code means, for people.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The stable code.
    pub code: String,
    /// What was wrong this time, for people.
    pub detail: Option<String>,
    /// The path of the request. (RFC 9457's word; it is not a WhatsApp instance.)
    pub instance: String,
    /// Where the body was wrong.
    pub errors: Option<Vec<FieldProblem>>,
    /// Seconds after which trying again makes sense; also in `Retry-After`.
    pub retry_after: Option<u32>,
    /// The id under which the gateway's log has this request; also in `X-Request-Id`.
    pub request_id: String,
    /// Always false: for clients that look for `success`.
    pub success: bool,
}

/// One wrong place in a body.
#[derive(Object)]
pub(crate) struct FieldProblem {
    /// A JSON pointer into the body (RFC 6901); empty for the body itself.
    pub pointer: String,
    /// What is wrong there.
    pub detail: String,
}

/// The faults that an operation names in the document.
pub(crate) trait Codes: 'static {
    const CODES: &'static [FaultCode];
}

/// Declares the faults of an operation or of a group of them.
macro_rules! codes {
    ($($name:ident = [$($code:ident),* $(,)?];)+) => {
        $(
            pub(crate) struct $name;
            impl $crate::problem::Codes for $name {
                const CODES: &'static [kero_domain::FaultCode] = &[$(kero_domain::FaultCode::$code,)*];
            }
        )+
    };
}
pub(crate) use codes;

codes! {
    // nothing beyond what every operation of its kind may answer (`spec::common`)
    NoCodes = [];
}

/// A handler's failure: a fault, with the codes that the document promises for it.
pub(crate) struct Failure<C = NoCodes>(pub Fault, PhantomData<fn() -> C>);

impl<C: Codes> From<Fault> for Failure<C> {
    fn from(fault: Fault) -> Self {
        if !C::CODES.contains(&fault.code) && !crate::spec::COMMON.contains(&fault.code) {
            tracing::warn!(code = fault.code.code(), "an operation gave a fault that its document does not name");
        }
        Self(fault, PhantomData)
    }
}

impl<C: Codes> From<FaultCode> for Failure<C> {
    fn from(code: FaultCode) -> Self {
        Fault::new(code).into()
    }
}

impl<C: Codes> From<Failure<C>> for poem::Error {
    fn from(failure: Failure<C>) -> Self {
        raise(failure.0)
    }
}

impl<C: Codes> ApiResponse for Failure<C> {
    fn meta() -> MetaResponses {
        let mut by_status: BTreeMap<u16, Vec<Value>> = BTreeMap::new();
        for code in C::CODES {
            by_status.entry(code.status()).or_default().push(code.code().into());
        }
        // `spec` turns the list of codes into the response's description and leaves the reference
        let responses = by_status.into_iter().map(|(status, codes)| MetaResponse {
            description: "",
            status: Some(status),
            status_range: None,
            content: vec![MetaMediaType {
                content_type: CONTENT_TYPE,
                schema: MetaSchemaRef::Inline(Box::new(MetaSchema {
                    all_of: vec![Problem::schema_ref()],
                    enum_items: codes,
                    ..MetaSchema::ANY
                })),
            }],
            headers: Vec::new(),
        });
        MetaResponses { responses: responses.collect() }
    }

    fn register(registry: &mut Registry) {
        Problem::register(registry);
    }
}

/// A fault on its way through poem.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(Fault);

impl ResponseError for Raised {
    fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

/// A fault as poem's error.
pub(crate) fn raise(fault: impl Into<Fault>) -> poem::Error {
    Raised(fault.into()).into()
}

/// The fault behind an error. Texts of poem's errors quote what the caller sent and never go out.
pub(crate) fn fault_of(error: poem::Error) -> Fault {
    let error = match error.downcast::<Raised>() {
        Ok(Raised(fault)) => return fault,
        Err(error) => error,
    };
    if let Some(wrong) = error.downcast_ref::<ParseParamError>() {
        return crate::page::parameter(wrong.name, "has a value that is not allowed.");
    }
    let code = if error.is::<NotFoundError>() {
        FaultCode::NotFound
    } else if error.is::<MethodNotAllowedError>() {
        FaultCode::MethodNotAllowed
    } else if error.is::<ContentTypeError>() {
        FaultCode::UnsupportedMediaType
    } else if matches!(error.downcast_ref(), Some(ReadBodyError::PayloadTooLarge)) {
        FaultCode::PayloadTooLarge
    } else if error.is::<ParseRequestPayloadError>()
        || error.is::<ParsePathError>()
        || error.is::<PoemPathError>()
        || error.is::<ParseQueryError>()
        || error.is::<ReadBodyError>()
    {
        FaultCode::BadRequest
    } else {
        by_status(error.status())
    };
    if code == FaultCode::Internal {
        tracing::error!(error = &error as &dyn std::error::Error, "an unexpected error reached the edge");
    }
    code.into()
}

fn by_status(status: StatusCode) -> FaultCode {
    match status.as_u16() {
        401 => FaultCode::Unauthorized,
        403 => FaultCode::Forbidden,
        404 => FaultCode::NotFound,
        405 => FaultCode::MethodNotAllowed,
        406 => FaultCode::NotAcceptable,
        413 => FaultCode::PayloadTooLarge,
        415 => FaultCode::UnsupportedMediaType,
        429 => FaultCode::TooManyRequests,
        400..=499 => FaultCode::BadRequest,
        _ => FaultCode::Internal,
    }
}

/// Writes a fault as the answer to the request on `path`.
pub(crate) fn respond(fault: &Fault, path: &str, request_id: &RequestId) -> Response {
    let code = fault.code;
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
    put("type", type_uri(code).into());
    put("title", code.title().into());
    put("status", code.status().into());
    put("code", code.code().into());
    if let Some(detail) = &fault.detail {
        put("detail", detail.as_str().into());
    }
    put("instance", path.into());
    if !fault.errors.is_empty() {
        let errors = fault
            .errors
            .iter()
            .map(|error| Value::from_iter([("pointer", error.pointer.as_str()), ("detail", error.detail.as_str())]));
        put("errors", errors.collect());
    }
    if let Some(secs) = fault.retry_after {
        put("retry_after", secs.into());
    }
    put("request_id", request_id.0.as_str().into());
    put("success", false.into());
    for (name, value) in fault.extra.iter() {
        put(name, value.clone());
    }
    headers(fault, Response::builder()).body(Value::Object(body).to_string())
}

fn headers(fault: &Fault, response: ResponseBuilder) -> ResponseBuilder {
    let status = StatusCode::from_u16(fault.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = response
        .status(status)
        .header(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE))
        .header(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if fault.code == FaultCode::Unauthorized {
        response = response.header(header::WWW_AUTHENTICATE, HeaderValue::from_static(r#"Bearer realm="kero""#));
    }
    if let Some(secs) = fault.retry_after {
        response = response.header(header::RETRY_AFTER, HeaderValue::from(secs));
    }
    response
}

/// Where a code is described.
pub(crate) fn type_uri(code: FaultCode) -> String {
    format!("/problems/{}", code.code())
}

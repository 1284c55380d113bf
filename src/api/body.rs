//! JSON bodies: read within the limits, parsed, and refused with the place that is wrong.
//!
//! Members that an operation does not know are ignored where clients of the API that Kero replaces may send some, and
//! refused elsewhere, where somebody would wait for what they should do.

use crate::check;
use crate::limits::Limits;
use crate::problem::raise;
use kero_domain::{Fault, FaultCode};
use poem::http::header;
use poem::{Request, RequestBody};
use poem_openapi::registry::{MetaMediaType, MetaRequest, Registry};
use poem_openapi::types::ParseFromJSON;
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use serde_json::Value;

/// An object that an operation takes as its body.
pub(crate) trait Body: ParseFromJSON + 'static {
    /// Other names that clients use: `(theirs, ours)`. Ours wins when both are there.
    const ALIASES: &'static [(&'static str, &'static str)] = &[];
    /// Members that it does not know are refused, some with a word of their own; `None`: they are ignored.
    const STRICT: Option<&'static [(&'static str, &'static str)]> = None;
}

/// The body, and the JSON that it was read from (ours in names), which idempotency compares.
pub(crate) struct JsonBody<T> {
    pub value: T,
    pub json: Value,
    renamed: Vec<(&'static str, &'static str)>,
}

impl<T> JsonBody<T> {
    /// The JSON pointer of a member, under the name that the caller used.
    pub fn pointer(&self, member: &str) -> String {
        pointer(&self.renamed, member)
    }
}

fn pointer(renamed: &[(&str, &str)], member: &str) -> String {
    let theirs = renamed.iter().find(|(_, ours)| *ours == member).map_or(member, |(theirs, _)| theirs);
    format!("/{theirs}")
}

impl<'a, T: Body> ApiExtractor<'a> for JsonBody<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        Some(MetaRequest {
            description: None,
            content: vec![MetaMediaType { content_type: "application/json", schema: T::schema_ref() }],
            required: true,
        })
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _options: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        check_headers(request).map_err(raise)?;
        let Some(limits) = request.data::<Limits>() else { return Err(raise(FaultCode::Internal)) };
        let bytes = limits.read(request, body).await.map_err(raise)?;
        parse(&bytes).map_err(raise)
    }
}

fn check_headers(request: &Request) -> Result<(), Fault> {
    // A missing Content-Type is taken as JSON; another one is refused, not guessed.
    if let Some(value) = request.headers().get(header::CONTENT_TYPE) {
        let json = value.to_str().is_ok_and(is_json);
        if !json {
            return Err(FaultCode::UnsupportedMediaType.into());
        }
    }
    match request.headers().get(header::CONTENT_ENCODING) {
        Some(coding) if !coding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            Err(Fault::new(FaultCode::UnsupportedMediaType).with_detail("Compressed bodies are not taken."))
        }
        _ => Ok(()),
    }
}

/// `application/json` or `application/…+json`, in UTF-8.
fn is_json(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let subtype = essence.strip_prefix("application/").unwrap_or_default();
    let utf8 = parts.all(|parameter| match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            let value = value.trim().trim_matches('"');
            value.eq_ignore_ascii_case("utf-8") || value.eq_ignore_ascii_case("utf8")
        }
        _ => true,
    });
    (subtype == "json" || subtype.ends_with("+json")) && utf8
}

fn parse<T: Body>(bytes: &[u8]) -> Result<JsonBody<T>, Fault> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Fault::new(FaultCode::InvalidJson).with_detail("The body is empty; a JSON object is needed."));
    }
    let mut json: Value = serde_json::from_slice(bytes).map_err(|error| {
        // only where, never what: the parser's text quotes the body
        Fault::new(FaultCode::InvalidJson).with_detail(format!("Line {}, column {}.", error.line(), error.column()))
    })?;
    whole(&mut json);
    let Value::Object(members) = &mut json else {
        return Err(Fault::new(FaultCode::ValidationFailed).at("", "must be a JSON object"));
    };
    let mut renamed = Vec::new();
    for (theirs, ours) in T::ALIASES {
        if members.get(*ours).is_none_or(Value::is_null)
            && let Some(value) = members.remove(*theirs)
        {
            members.insert((*ours).to_owned(), value);
            renamed.push((*theirs, *ours));
        }
    }
    // first, because the parser of texts takes numbers and booleans, too
    let mut errors = check::explain::<T>(&json);
    if let Some(said) = T::STRICT {
        errors.extend(check::unknown::<T>(&json, said));
    }
    if errors.is_empty()
        && let Ok(value) = T::parse_from_json(Some(json.clone()))
    {
        return Ok(JsonBody { value, json, renamed });
    }
    let mut fault = Fault::new(FaultCode::ValidationFailed);
    for error in errors {
        let top = error.pointer.trim_start_matches('/');
        let place = if renamed.iter().any(|(_, ours)| *ours == top) { pointer(&renamed, top) } else { error.pointer };
        fault = fault.at(place, error.detail);
    }
    Err(fault)
}

/// `1.0` and `1e3` are integers, in JSON Schema as in JavaScript.
fn whole(json: &mut Value) {
    match json {
        Value::Number(number) => {
            let float = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0);
            // beyond that, a float does not say which integer it is
            if let Some(float) = float.filter(|float| float.abs() < 9_007_199_254_740_992.0) {
                *json = Value::from(float as i64);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole),
        Value::Object(members) => members.values_mut().for_each(whole),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::SendText;

    fn refused(text: &str) -> Fault {
        parse::<SendText>(text.as_bytes()).err().unwrap()
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        assert_eq!(refused("").code, FaultCode::InvalidJson);
        assert_eq!(refused("{").code, FaultCode::InvalidJson);
        assert_eq!(refused("[]").errors[0].pointer, "");
        let fault = refused(r#"{"message": ["x"], "priority": "urgent"}"#);
        let places: Vec<_> = fault.errors.iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(places, ["/phone", "/message", "/priority"], "{fault:?}");
        let fault = refused(r#"{"jid": {"secret": 1}, "message": "x"}"#);
        assert_eq!(fault.errors[0].pointer, "/jid");
        assert!(!format!("{fault:?}").contains("secret"));
    }

    #[test]
    fn takes_other_names_and_ignores_what_it_does_not_know() {
        let body = parse::<SendText>(br#"{"jid": "1234567@lid", "message": "x", "to": 1}"#).ok().unwrap();
        assert_eq!(body.value.phone.0, "1234567@lid");
        assert_eq!(body.pointer("phone"), "/jid");
        let body = parse::<SendText>(br#"{"phone": 491701234567, "message": "x"}"#).ok().unwrap();
        assert_eq!(body.value.phone.0, "491701234567");
    }

    #[test]
    fn a_number_is_taken_for_a_phone_number_and_nothing_else_for_a_text() {
        let phone = |text: &str| parse::<SendText>(text.as_bytes()).ok().map(|body| body.value.phone.0);
        assert_eq!(phone(r#"{"phone": 491701234567.0, "message": "x"}"#).as_deref(), Some("491701234567"));
        for bad in ["1.5", "true", "null", "[]"] {
            assert_eq!(phone(&format!(r#"{{"phone": {bad}, "message": "x"}}"#)), None, "{bad}");
        }
        assert_eq!(refused(r#"{"phone": "491701234567", "message": 1}"#).errors[0].pointer, "/message");
    }

    #[test]
    fn content_types() {
        for good in [
            "application/json",
            "application/json; charset=utf-8",
            "Application/JSON;charset=\"UTF-8\"",
            "application/vnd.api+json",
        ] {
            assert!(is_json(good), "{good}");
        }
        for bad in
            ["", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1", "text/json"]
        {
            assert!(!is_json(bad), "{bad}");
        }
    }
}

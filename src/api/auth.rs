//! API keys: `X-API-Key: <key>`, `Authorization: Bearer <key>` or, as Kero-Kero took it, `Authorization: <key>`.
//!
//! A presented key is hashed and looked up; the plain key is neither stored nor compared. One extractor looks at every
//! place, because poem-openapi's own enum of schemes would try the next one after a failure.

use crate::handle::Handle;
use crate::problem::raise;
use kero_domain::{ApiKeyId, Fault, FaultCode, InstanceId};
use poem::http::{HeaderMap, header};
use poem::{Request, RequestBody};
use poem_openapi::registry::{MetaSecurityScheme, Registry};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// The hash that is stored of an API key, and looked up when a key is presented.
pub fn hash_key(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// What a key may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    Admin(ApiKeyId),
    /// One instance: its key's id, the instance's row and its id.
    Instance(ApiKeyId, i64, InstanceId),
}

/// Who asks. An operation with this parameter needs a key; it is checked before the body is read.
#[derive(Debug, Clone)]
pub struct Caller {
    pub scope: Scope,
}

impl Caller {
    /// The key's id, which scopes idempotency keys.
    pub fn key(&self) -> ApiKeyId {
        match self.scope {
            Scope::Admin(key) | Scope::Instance(key, ..) => key,
        }
    }

    /// The instance that the key belongs to.
    pub fn own_instance(&self) -> Option<&InstanceId> {
        match &self.scope {
            Scope::Admin(_) => None,
            Scope::Instance(_, _, id) => Some(id),
        }
    }

    /// Reads an instance id as the caller wrote it and checks that the key may see it.
    pub fn instance(&self, text: &str) -> Result<InstanceId, Fault> {
        let id: InstanceId =
            text.parse().map_err(|why| Fault::new(FaultCode::InvalidInstanceId).with_detail(sentence(&why)))?;
        match self.own_instance() {
            Some(own) if *own != id => {
                Err(Fault::new(FaultCode::Forbidden).with_detail("This API key belongs to another instance."))
            }
            _ => Ok(id),
        }
    }
}

/// An id error as a sentence: `instance_id must be ….`
pub(crate) fn sentence(error: &kero_domain::IdError) -> String {
    format!("{error}.")
}

/// What the look-up needs; the frame puts it into every request.
#[derive(Clone)]
pub(crate) struct Keys {
    pub handle: Handle,
    pub admin_key_hash: Option<[u8; 32]>,
    pub metrics_open: bool,
}

impl Keys {
    async fn caller(&self, headers: &HeaderMap) -> Result<Caller, Fault> {
        let key = presented(headers)?;
        let hash = hash_key(key);
        if self.admin_key_hash.is_some_and(|admin| same(&admin, &hash)) {
            return Ok(Caller { scope: Scope::Admin(ApiKeyId(Uuid::nil())) });
        }
        let found = self.handle.gateway()?.store().key_by_hash(&hash).await.map_err(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "API keys cannot be looked up");
            Fault::new(FaultCode::StorageUnavailable).retry_after(1)
        })?;
        let Some(found) = found else {
            return Err(Fault::new(FaultCode::Unauthorized).with_detail("The API key is not known, or was revoked."));
        };
        match (found.instance_pk, found.instance_id) {
            (Some(pk), Some(id)) => Ok(Caller { scope: Scope::Instance(found.id, pk, id) }),
            (None, None) => Ok(Caller { scope: Scope::Admin(found.id) }),
            _ => Err(FaultCode::Unauthorized.into()),
        }
    }
}

/// The key out of the headers. Two credentials that differ are refused: one of them would silently not count.
fn presented(headers: &HeaderMap) -> Result<&str, Fault> {
    let mut found: Option<&str> = None;
    let own = headers.get_all("x-api-key").iter().map(|value| value.to_str().map(str::trim));
    let standard = headers.get_all(header::AUTHORIZATION).iter().map(|value| value.to_str().map(bearer));
    for key in own.chain(standard) {
        let Ok(key) = key else { return Err(FaultCode::Unauthorized.into()) };
        if key.is_empty() {
            continue;
        }
        match found {
            Some(other) if other != key => {
                return Err(Fault::new(FaultCode::Unauthorized).with_detail("The request has two differing API keys."));
            }
            _ => found = Some(key),
        }
    }
    found.ok_or_else(|| FaultCode::Unauthorized.into())
}

/// `Bearer <key>` in any case of the word, or the bare key.
fn bearer(value: &str) -> &str {
    let value = value.trim();
    match value.split_once(' ') {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => key.trim(),
        _ if value.eq_ignore_ascii_case("bearer") => "",
        _ => value,
    }
}

/// Compares without an early end.
fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

/// The security schemes' names in the document.
pub(crate) const SCHEMES: [&str; 2] = ["ApiKey", "Bearer"];

impl<'a> ApiExtractor<'a> for Caller {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        let scheme = |ty, description| MetaSecurityScheme {
            ty,
            description: Some(description),
            name: None,
            key_in: None,
            scheme: None,
            bearer_format: None,
            flows: None,
            openid_connect_url: None,
        };
        registry.create_security_scheme(
            SCHEMES[0],
            MetaSecurityScheme {
                name: Some("X-API-Key"),
                key_in: Some("header"),
                ..scheme("apiKey", "An API key. A key of one instance sees only that instance.")
            },
        );
        registry.create_security_scheme(
            SCHEMES[1],
            MetaSecurityScheme {
                scheme: Some("bearer"),
                ..scheme("http", "The same API key as a bearer token; the bare key without `Bearer` is taken too.")
            },
        );
    }

    fn security_schemes() -> Vec<&'static str> {
        SCHEMES.to_vec()
    }

    async fn from_request(
        request: &'a Request,
        _body: &mut RequestBody,
        _options: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        let Some(keys) = request.data::<Keys>() else { return Err(raise(FaultCode::Internal)) };
        keys.caller(request.headers()).await.map_err(raise)
    }
}

/// Who asks for the metrics; nobody in particular where the configuration opens them.
pub(crate) struct MetricsCaller(pub Option<Caller>);

impl<'a> ApiExtractor<'a> for MetricsCaller {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        Caller::register(registry);
    }

    fn security_schemes() -> Vec<&'static str> {
        Caller::security_schemes()
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        options: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        if request.data::<Keys>().is_some_and(|keys| keys.metrics_open) {
            return Ok(Self(None));
        }
        Caller::from_request(request, body, options).await.map(|caller| Self(Some(caller)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn reads_every_place() {
        for pairs in [
            &[("x-api-key", "k")][..],
            &[("authorization", "Bearer k")],
            &[("authorization", "bearer  k ")],
            &[("authorization", "k")],
            &[("x-api-key", "k"), ("authorization", "Bearer k")],
        ] {
            assert_eq!(presented(&headers(pairs)).unwrap(), "k", "{pairs:?}");
        }
    }

    #[test]
    fn refuses_none_and_two() {
        for pairs in [
            &[][..],
            &[("x-api-key", "")],
            &[("authorization", "Bearer")],
            &[("x-api-key", "k"), ("authorization", "Bearer other")],
        ] {
            assert_eq!(presented(&headers(pairs)).unwrap_err().code, FaultCode::Unauthorized, "{pairs:?}");
        }
    }

    #[test]
    fn an_instances_key_sees_only_that_instance() {
        let caller = Caller { scope: Scope::Instance(ApiKeyId(Uuid::nil()), 1, "shop".parse().unwrap()) };
        assert!(caller.instance("shop").is_ok());
        assert_eq!(caller.instance("other").unwrap_err().code, FaultCode::Forbidden);
        assert_eq!(caller.instance("a b").unwrap_err().code, FaultCode::InvalidInstanceId);
    }
}

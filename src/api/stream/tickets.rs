//! Stream tokens: a browser's `EventSource` and `WebSocket` can send no header, and an API key does not belong into a
//! URL. A token opens one stream of one instance, once, within a minute; it is in memory only.

use crate::auth::{Caller, SCHEMES, hash_key};
use crate::handle::Handle;
use crate::problem::raise;
use kero_domain::{Fault, FaultCode, InstanceId, Timestamp};
use kero_gateway::Gateway;
use poem::{Request, RequestBody};
use poem_openapi::registry::{MetaSecurityScheme, Registry};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long a token may wait for its use.
const LIFE: Duration = Duration::from_secs(60);
/// Tokens that may wait at once.
const MOST: usize = 10_000;

struct Ticket {
    caller: Caller,
    instance: InstanceId,
    until: Instant,
}

/// The tokens that wait for their use, by their hash.
#[derive(Clone, Default)]
pub(crate) struct Tickets(Arc<Mutex<HashMap<[u8; 32], Ticket>>>);

impl Tickets {
    /// A new token, and until when it can be used.
    pub fn issue(&self, caller: Caller, instance: InstanceId) -> Result<(String, Timestamp), Fault> {
        let now = Instant::now();
        let mut tickets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tickets.len() >= MOST {
            tickets.retain(|_, ticket| ticket.until > now);
        }
        if tickets.len() >= MOST {
            return Err(Fault::new(FaultCode::TooManyRequests).retry_after(5));
        }
        // 244 bits of the system's randomness
        let token = format!("kst_{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        tickets.insert(hash_key(&token), Ticket { caller, instance, until: now + LIFE });
        Ok((token, Timestamp::now().after(LIFE)))
    }

    fn take(&self, token: &str) -> Option<Ticket> {
        let ticket = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&hash_key(token))?;
        (ticket.until > Instant::now()).then_some(ticket)
    }
}

/// Who opens a stream: a key in the headers, or a stream token.
pub(crate) struct StreamCaller {
    pub caller: Caller,
    /// The only instance that the token is good for.
    only: Option<InstanceId>,
}

impl StreamCaller {
    /// As [`Handle::at`].
    pub fn at<'a>(&self, handle: &'a Handle, instance_id: &str) -> Result<(&'a Gateway, InstanceId), Fault> {
        let (gateway, id) = handle.at(&self.caller, instance_id)?;
        match &self.only {
            Some(only) if *only != id => {
                Err(Fault::new(FaultCode::Forbidden).with_detail("This stream token is for another instance."))
            }
            _ => Ok((gateway, id)),
        }
    }
}

/// The name of the scheme in the document.
const SCHEME: &str = "StreamToken";

#[derive(Deserialize)]
struct Query {
    token: Option<String>,
}

impl<'a> ApiExtractor<'a> for StreamCaller {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        Caller::register(registry);
        registry.create_security_scheme(
            SCHEME,
            MetaSecurityScheme {
                ty: "apiKey",
                description: Some(
                    "A token of `POST /instances/{instance_id}/events/token`, for clients that cannot send headers. It \
                     opens one stream, once.",
                ),
                name: Some("token"),
                key_in: Some("query"),
                scheme: None,
                bearer_format: None,
                flows: None,
                openid_connect_url: None,
            },
        );
    }

    fn security_schemes() -> Vec<&'static str> {
        SCHEMES.into_iter().chain([SCHEME]).collect()
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        options: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        let Some(tickets) = request.data::<Tickets>() else { return Err(raise(FaultCode::Internal)) };
        match request.params::<Query>().map(|query| query.token) {
            Ok(Some(token)) => match tickets.take(&token) {
                Some(ticket) => Ok(Self { caller: ticket.caller, only: Some(ticket.instance) }),
                None => Err(raise(
                    Fault::new(FaultCode::Unauthorized).with_detail("The stream token is not known, or was used."),
                )),
            },
            _ => Caller::from_request(request, body, options).await.map(|caller| Self { caller, only: None }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Scope;
    use kero_domain::ApiKeyId;

    #[test]
    fn a_token_opens_once() {
        let tickets = Tickets::default();
        let caller = Caller { scope: Scope::Admin(ApiKeyId(Uuid::nil())) };
        let (token, _) = tickets.issue(caller.clone(), "shop".parse().unwrap()).unwrap();
        assert!(tickets.take("kst_other").is_none());
        assert_eq!(tickets.take(&token).unwrap().instance.as_str(), "shop");
        assert!(tickets.take(&token).is_none());

        let (token, _) = tickets.issue(caller.clone(), "shop".parse().unwrap()).unwrap();
        tickets.0.lock().unwrap().values_mut().for_each(|ticket| ticket.until = Instant::now());
        assert!(tickets.take(&token).is_none(), "too late");
        for _ in 0..MOST {
            tickets.issue(caller.clone(), "shop".parse().unwrap()).unwrap();
        }
        let full = tickets.issue(caller.clone(), "shop".parse().unwrap());
        assert_eq!(full.unwrap_err().code, FaultCode::TooManyRequests);
        tickets.0.lock().unwrap().values_mut().for_each(|ticket| ticket.until = Instant::now());
        assert!(tickets.issue(caller, "shop".parse().unwrap()).is_ok(), "those that expired make room");
    }
}

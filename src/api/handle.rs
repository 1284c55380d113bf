//! The only way from a handler to the gateway: it asks what the caller may see first.

use crate::auth::{Caller, Scope};
use kero_domain::{Fault, FaultCode, InstanceId};
use kero_gateway::Gateway;

/// The gateway, or nothing when only the document is made.
#[derive(Clone)]
pub(crate) struct Handle(Option<Gateway>);

impl Handle {
    pub fn new(gateway: Gateway) -> Self {
        Self(Some(gateway))
    }

    /// For the document and for tests of the frame: every operation answers 500.
    pub fn inert() -> Self {
        Self(None)
    }

    /// The gateway without a check, for public operations and the key look-up.
    pub fn gateway(&self) -> Result<&Gateway, Fault> {
        self.0.as_ref().ok_or_else(|| FaultCode::Internal.into())
    }

    /// For operations on the whole gateway: an instance's key may not.
    pub fn admin(&self, caller: &Caller) -> Result<&Gateway, Fault> {
        match caller.scope {
            Scope::Admin(_) => self.gateway(),
            Scope::Instance(..) => {
                Err(Fault::new(FaultCode::Forbidden).with_detail("This API key belongs to one instance."))
            }
        }
    }

    /// For operations on one instance: reads the id out of the path and checks that the key may see it.
    pub fn at(&self, caller: &Caller, instance_id: &str) -> Result<(&Gateway, InstanceId), Fault> {
        let id = caller.instance(instance_id)?;
        Ok((self.gateway()?, id))
    }
}

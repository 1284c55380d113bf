//! Store errors as faults. The client reads the fault; the log has the source.

use kero_domain::{Fault, FaultCode};
use kero_store::StoreError;

pub(crate) fn fault(error: StoreError) -> Fault {
    match error {
        StoreError::Full(_) => FaultCode::StorageFull.into(),
        StoreError::NotFound => FaultCode::InstanceNotFound.into(),
        error if error.class() == kero_domain::Class::Transient => {
            tracing::warn!(error = &error as &dyn std::error::Error, "the database does not answer");
            Fault::new(FaultCode::StorageUnavailable).retry_after(1)
        }
        error => {
            tracing::error!(error = &error as &dyn std::error::Error, "the database refused a statement");
            FaultCode::Internal.into()
        }
    }
}

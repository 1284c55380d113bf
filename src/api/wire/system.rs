//! Health and self-description on the wire.

use kero_domain::{Class, FaultCode};
use poem_openapi::{Enum, Object};

/// What this is.
#[derive(Object)]
pub(crate) struct About {
    /// Always `kero`.
    pub service: String,
    pub version: String,
    /// Always `running`.
    pub status: String,
}

/// How the gateway is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
pub(crate) enum HealthStatus {
    Healthy,
    /// It works, but Redis does not answer.
    Degraded,
    /// The database does not answer: nothing is accepted.
    Unhealthy,
}

/// How a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
pub(crate) enum PartHealth {
    Ok,
    Error,
    /// It is not used.
    Disabled,
}

/// The gateway's health.
#[derive(Object)]
pub(crate) struct Health {
    pub status: HealthStatus,
    pub database: PartHealth,
    pub redis: PartHealth,
}

/// A probe's answer.
#[derive(Object)]
pub(crate) struct Probe {
    /// `ok`, or `ready`.
    pub status: String,
}

/// Whose fault a problem is, and whether trying again helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
pub(crate) enum ProblemClass {
    /// The request is wrong; the same request fails again.
    Caller,
    /// It may work later.
    Transient,
    /// Too much; it works later.
    Throttled,
    /// It will not work without somebody doing something.
    Permanent,
    /// A mistake of the gateway.
    Bug,
}

impl From<Class> for ProblemClass {
    fn from(class: Class) -> Self {
        match class {
            Class::Caller => Self::Caller,
            Class::Transient => Self::Transient,
            Class::Throttled => Self::Throttled,
            Class::Permanent => Self::Permanent,
            Class::Bug => Self::Bug,
        }
    }
}

/// What a problem code means.
#[derive(Object)]
pub(crate) struct ProblemType {
    /// The URI that problems of this code have as `type`.
    #[oai(rename = "type")]
    pub kind: String,
    pub code: String,
    pub status: u16,
    pub title: String,
    pub class: ProblemClass,
    /// Whether the same request may work later.
    pub retryable: bool,
}

impl From<FaultCode> for ProblemType {
    fn from(code: FaultCode) -> Self {
        Self {
            kind: crate::problem::type_uri(code),
            code: code.code().to_owned(),
            status: code.status(),
            title: code.title().to_owned(),
            class: code.class().into(),
            retryable: matches!(code.class(), Class::Transient | Class::Throttled),
        }
    }
}

//! Self-description, health, metrics and the list of problems.

use crate::auth::MetricsCaller;
use crate::config::ApiConfig;
use crate::handle::Handle;
use crate::problem::{Failure, codes};
use crate::tags::Tag;
use crate::wire::system::{About, Health, HealthStatus, PartHealth, Probe, ProblemType};
use kero_domain::FaultCode;
use kero_gateway::RedisHealth;
use poem_openapi::param::Path;
use poem_openapi::payload::{Json, PlainText};
use poem_openapi::{ApiResponse, OpenApi};

pub(crate) struct SystemApi {
    pub handle: Handle,
    pub config: ApiConfig,
}

codes! {
    ReadyCodes = [NotReady];
    ProblemCodes = [NotFound];
}

#[derive(ApiResponse)]
enum HealthReply {
    /// It works; `degraded` says that Redis does not answer and the database stands in.
    #[oai(status = 200)]
    Works(Json<Health>),
    /// The database does not answer.
    #[oai(status = 503)]
    Broken(Json<Health>),
}

#[OpenApi(tag = "Tag::System")]
impl SystemApi {
    /// Say what this is
    ///
    /// And in which version. The version is that of this document.
    #[oai(path = "/", method = "get", operation_id = "service_get")]
    async fn service(&self) -> Json<About> {
        Json(About {
            service: "kero".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            status: "running".to_owned(),
        })
    }

    /// Get the health
    ///
    /// Of the gateway and of what it depends on. `degraded` is a 200: it still works.
    #[oai(path = "/health", method = "get", operation_id = "health_get")]
    async fn health(&self) -> HealthReply {
        let Ok(gateway) = self.handle.gateway() else {
            let (status, database, redis) = (HealthStatus::Unhealthy, PartHealth::Error, PartHealth::Disabled);
            return HealthReply::Broken(Json(Health { status, database, redis }));
        };
        let health = gateway.health().await;
        let database = if health.database_ok { PartHealth::Ok } else { PartHealth::Error };
        let redis = match health.redis {
            RedisHealth::Ok => PartHealth::Ok,
            RedisHealth::Error => PartHealth::Error,
            RedisHealth::Disabled => PartHealth::Disabled,
        };
        let status = match (database, redis) {
            (PartHealth::Error, _) => HealthStatus::Unhealthy,
            (_, PartHealth::Error) => HealthStatus::Degraded,
            _ => HealthStatus::Healthy,
        };
        let body = Json(Health { status, database, redis });
        if status == HealthStatus::Unhealthy { HealthReply::Broken(body) } else { HealthReply::Works(body) }
    }

    /// Say that the process lives
    ///
    /// For a liveness probe: it asks nothing else.
    #[oai(path = "/livez", method = "get", operation_id = "liveness_get")]
    async fn live(&self) -> Json<Probe> {
        Json(Probe { status: "ok".to_owned() })
    }

    /// Say whether requests are served
    ///
    /// For a readiness probe: not while starting or stopping.
    #[oai(path = "/readyz", method = "get", operation_id = "readiness_get")]
    async fn ready(&self) -> Result<Json<Probe>, Failure<ReadyCodes>> {
        let ready = !self.config.shutting_down.is_cancelled() && self.handle.gateway().is_ok_and(|g| g.ready());
        if ready { Ok(Json(Probe { status: "ready".to_owned() })) } else { Err(FaultCode::NotReady.into()) }
    }

    /// Get the metrics
    ///
    /// In Prometheus' text format. Needs a key for the whole gateway, unless the configuration opens it.
    #[oai(path = "/metrics", method = "get", operation_id = "metrics_get")]
    async fn metrics(&self, caller: MetricsCaller) -> Result<PlainText<String>, Failure> {
        if let Some(caller) = caller.0 {
            self.handle.admin(&caller)?;
        }
        if let Ok(gateway) = self.handle.gateway() {
            gateway.observe();
        }
        Ok(PlainText((self.config.metrics)()))
    }

    /// Explain a problem
    ///
    /// What the `type` of a problem points at.
    #[oai(path = "/problems/:code", method = "get", operation_id = "problem_get")]
    async fn problem(
        &self,
        /// The problem's code.
        code: Path<String>,
    ) -> Result<Json<ProblemType>, Failure<ProblemCodes>> {
        let known = FaultCode::ALL.iter().find(|known| known.code() == code.0);
        known.map(|code| Json((*code).into())).ok_or_else(|| FaultCode::NotFound.into())
    }
}

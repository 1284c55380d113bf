//! What `/health` reports.

use crate::Gateway;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisHealth {
    Ok,
    Error,
    /// No `KERO_REDIS_URL`.
    Disabled,
}

#[derive(Debug, Clone, Copy)]
pub struct Health {
    pub database_ok: bool,
    pub redis: RedisHealth,
}

impl Gateway {
    pub async fn health(&self) -> Health {
        let (database, redis) = tokio::join!(self.store().ping(), self.inner.queue.health());
        Health { database_ok: database.is_ok(), redis }
    }
}

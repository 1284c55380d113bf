//! What waits.

use crate::auth::Caller;
use crate::handle::Handle;
use crate::problem::Failure;
use crate::tags::Tag;
use crate::wire::queue::{Queue, QueueRow};
use poem_openapi::OpenApi;
use poem_openapi::payload::Json;

pub(crate) struct QueueApi {
    pub handle: Handle,
}

#[OpenApi(tag = "Tag::Queue")]
impl QueueApi {
    /// Count the jobs that have not ended
    ///
    /// By instance, state and reason. It counts the database's rows, which are the truth, not the elements in Redis.
    /// A key of one instance sees only that one's.
    #[oai(path = "/queue", method = "get", operation_id = "queue_get")]
    async fn get(&self, caller: Caller) -> Result<Json<Queue>, Failure> {
        let rows = self.handle.gateway()?.queue_counts().await?;
        let own = caller.own_instance();
        let data: Vec<QueueRow> = rows
            .into_iter()
            .filter(|row| own.is_none_or(|own| *own == row.instance_id) && !row.state.is_terminal())
            .map(QueueRow::from)
            .collect();
        let total = data.iter().map(|row| row.count).sum();
        Ok(Json(Queue { success: true, data, total }))
    }
}

//! What waits.

use crate::auth::Caller;
use crate::handle::Handle;
use crate::problem::Failure;
use crate::tags::Tag;
use crate::wire::queue::{InstanceQueue, Queue, QueueLists, QueueRow, QueueSwitch};
use poem_openapi::OpenApi;
use poem_openapi::payload::Json;

pub(crate) struct QueueApi {
    pub handle: Handle,
}

#[OpenApi(tag = "Tag::Queue")]
impl QueueApi {
    /// Count the jobs that have not ended
    ///
    /// By instance, state and reason, and for each instance how many wait, for what, how long, and how fast they go. It
    /// counts the database's rows, which are the truth, not the elements in Redis; the rates are of the last minute.
    /// A key of one instance sees only that one's.
    #[oai(path = "/queue", method = "get", operation_id = "queue_get")]
    async fn get(&self, caller: Caller) -> Result<Json<Queue>, Failure> {
        let gateway = self.handle.gateway()?;
        let view = gateway.queue_view().await?;
        let own = caller.own_instance();
        let data: Vec<QueueRow> = view
            .counts
            .into_iter()
            .filter(|row| own.is_none_or(|own| *own == row.instance_id) && !row.state.is_terminal())
            .map(QueueRow::from)
            .collect();
        let instances = view
            .instances
            .into_iter()
            .filter(|(id, _)| own.is_none_or(|own| own == id))
            .map(|(id, queue)| InstanceQueue::new(id, queue))
            .collect();
        let total = data.iter().map(|row| row.count).sum();
        let lists = match own {
            Some(_) => None,
            None => gateway.queue_lengths().await.map(QueueLists::from),
        };
        Ok(Json(Queue { success: true, data, instances, total, paused: gateway.queue_paused(), lists }))
    }

    /// Pause the queue
    ///
    /// While paused nothing leaves `kero_message_queue` and no asynchronous send begins; they are still accepted.
    /// Synchronous sends go on. Lasts until resumed or restarted; see `queue.paused`. Needs a key for the whole gateway.
    #[oai(path = "/queue/pause", method = "post", operation_id = "queue_pause")]
    async fn pause(&self, caller: Caller) -> Result<Json<QueueSwitch>, Failure> {
        self.handle.admin(&caller)?.pause_queue().await;
        Ok(Json(QueueSwitch { success: true, paused: true }))
    }

    /// Resume the queue
    ///
    /// Takes up what waited, in its order. Needs a key for the whole gateway.
    #[oai(path = "/queue/resume", method = "post", operation_id = "queue_resume")]
    async fn resume(&self, caller: Caller) -> Result<Json<QueueSwitch>, Failure> {
        self.handle.admin(&caller)?.resume_queue();
        Ok(Json(QueueSwitch { success: true, paused: false }))
    }
}

//! Named producers and their epochs. The column is called `incarnation`, as in PostgreSQL.

use rmom_core::{
    model::{ProducerId, QueueId},
    ports::{MAX_NAMED_PRODUCERS, Opened, StoreError},
};
use sqlx::query;

use super::super::SqliteStore;
use crate::store::{column, pool::End};

/// Gives the producer `?2` of the queue `?1` its next epoch, unless it is new and the queue has `?3` producers.
const OPEN: &str = "
INSERT INTO producer (queue_id, producer_id, incarnation)
SELECT id, ?2, 1 FROM queue
WHERE id = ?1 AND deleted = 0
  AND (EXISTS (SELECT 1 FROM producer WHERE queue_id = ?1 AND producer_id = ?2)
       OR (SELECT count(*) FROM (SELECT 1 FROM producer WHERE queue_id = ?1 LIMIT ?3)) < ?3)
ON CONFLICT (queue_id, producer_id) DO UPDATE SET incarnation = incarnation + 1
RETURNING incarnation";

/// [`Log::open_producer`](rmom_core::ports::Log::open_producer).
pub(super) async fn open(
    store: &SqliteStore,
    queue: QueueId,
    producer: ProducerId,
    most: u32,
) -> Result<Opened, StoreError> {
    store
        .transact(async |tx, _| {
            let statement =
                query(OPEN).bind(queue.as_i64()).bind(producer.uuid()).bind(i64::from(most.min(MAX_NAMED_PRODUCERS)));
            if let Some(row) = tx.row(statement).await? {
                return Ok(End::Commit(Opened::Given(column::producer_epoch(&row, "incarnation")?)));
            }
            let statement = query("SELECT 1 FROM queue WHERE id = ?1 AND deleted = 0").bind(queue.as_i64());
            let is_live = tx.row(statement).await?.is_some();
            Ok(End::Unchanged(if is_live { Opened::TooMany } else { Opened::Deleted }))
        })
        .await
}

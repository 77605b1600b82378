//! Named producers and their epochs. The column is called `incarnation`, as in the first schema: brokers of several versions use
//! the table side by side, so that it cannot be renamed.

use rmom_core::{
    model::{ProducerId, QueueId},
    ports::{MAX_NAMED_PRODUCERS, Opened, StoreError},
};
use sqlx::query;

use super::super::PostgresStore;
use crate::store::{
    column::{self, StoreRow as _},
    pool::End,
};

/// Nothing but the producer's row is locked: many producers that come one after the other keep nobody from moving the queue.
const OPEN_KNOWN_PRODUCER: &str = "
UPDATE producer SET incarnation = incarnation + 1
WHERE queue_id = $1 AND producer_id = $2 AND EXISTS (SELECT 1 FROM queue WHERE id = $1 AND NOT deleted)
RETURNING incarnation";

/// Enters the producer `$2` of the queue `$1`, unless the queue has `$3` producers. No row if the queue is deleted, a row
/// without an epoch if the queue has too many. The lock keeps the queue from being removed, so that no row of a producer
/// is left behind, and from nothing else. For a transaction that keeps others from entering producers at the same time.
const OPEN_NEW_PRODUCER: &str = "
WITH q AS MATERIALIZED (
    SELECT id FROM queue WHERE id = $1 AND NOT deleted FOR KEY SHARE
), given AS (
    INSERT INTO producer AS p (queue_id, producer_id, incarnation) SELECT id, $2, 1 FROM q
    WHERE EXISTS (SELECT 1 FROM producer WHERE queue_id = $1 AND producer_id = $2)
       OR (SELECT count(*) FROM (SELECT 1 FROM producer WHERE queue_id = $1 LIMIT $3) c) < $3
    ON CONFLICT (queue_id, producer_id) DO UPDATE SET incarnation = p.incarnation + 1
    RETURNING incarnation
)
SELECT given.incarnation FROM q LEFT JOIN given ON true";

/// [`Log::open_producer`](rmom_core::ports::Log::open_producer).
pub(super) async fn open(
    store: &PostgresStore,
    queue: QueueId,
    producer: ProducerId,
    most: u32,
) -> Result<Opened, StoreError> {
    // If the queue is deleted meanwhile, then as if it had been deleted just afterwards.
    let known = query(OPEN_KNOWN_PRODUCER).bind(queue.as_i64()).bind(producer.uuid());
    if let Some(row) = store.change(known).await? {
        return Ok(Opened::Given(column::producer_epoch(&row, "incarnation")?));
    }
    store
        .transact(async |tx| {
            // A statement of its own: the next one sees what others entered before.
            let lock = query("SELECT pg_advisory_xact_lock(hashtextextended('rmom producer', $1))");
            tx.rows(lock.bind(queue.as_i64())).await?;
            let enter = query(OPEN_NEW_PRODUCER)
                .bind(queue.as_i64())
                .bind(producer.uuid())
                .bind(i64::from(most.min(MAX_NAMED_PRODUCERS)));
            let Some(row) = tx.row(enter).await? else { return Ok(End::Confirm(Opened::Deleted)) };
            if row.optional_int("incarnation")?.is_none() {
                return Ok(End::Unchanged(Opened::TooMany));
            }
            Ok(End::Commit(Opened::Given(column::producer_epoch(&row, "incarnation")?)))
        })
        .await
}

//! Purging: what is left of deleted queues is removed a bounded number of batches at a time.

use rmom_core::ports::{MAX_TRIM_SPAN, Purged, StoreError};
use sqlx::query;

use super::super::PostgresStore;
use crate::store::{column::StoreRow as _, pool::End, rows, rules::MAX_PURGED_QUEUES};

/// Several managers may purge at once: each takes the tombstones that no other has.
const LOCK_DEAD: &str = "SELECT id FROM queue WHERE deleted ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED";

/// Removes the first `$2` batches of the deleted queues `$1`, and moves each queue's `trimmed_through` behind what went, or
/// on by `$3` where it found none and some is left: the next purge does not pass again what this one removed or passed.
const PURGE_BATCHES: &str = "
WITH gone AS MATERIALIZED (
    SELECT s.queue_id, b.first_offset FROM log_state s CROSS JOIN LATERAL (
        SELECT first_offset FROM batch
        WHERE batch.queue_id = s.queue_id AND batch.first_offset > s.trimmed_through
          AND batch.first_offset <= s.trimmed_through + $3
        ORDER BY first_offset LIMIT $2
    ) b
    WHERE s.queue_id = ANY($1::bigint[]) ORDER BY s.queue_id, b.first_offset LIMIT $2
), d AS (
    DELETE FROM batch USING gone WHERE batch.queue_id = gone.queue_id AND batch.first_offset = gone.first_offset
    RETURNING batch.queue_id, batch.last_offset
), removed AS (
    SELECT queue_id, count(*) AS n, max(last_offset) AS through FROM d GROUP BY queue_id
), total AS (
    SELECT coalesce(sum(n), 0)::bigint AS n FROM removed
), moved AS (
    UPDATE log_state s SET trimmed_through = coalesce(r.through, s.trimmed_through + $3)
    FROM unnest($1::bigint[]) AS q (id) LEFT JOIN removed r ON r.queue_id = q.id
    WHERE s.queue_id = q.id AND (r.through IS NOT NULL OR (
        (SELECT first_offset FROM batch WHERE batch.queue_id = s.queue_id AND batch.first_offset > s.trimmed_through
         ORDER BY first_offset DESC LIMIT 1) > s.trimmed_through + $3
        AND NOT EXISTS (SELECT 1 FROM batch WHERE batch.queue_id = s.queue_id
                        AND batch.first_offset > s.trimmed_through AND batch.first_offset <= s.trimmed_through + $3)))
)
SELECT n FROM total";

/// Removes what else is left of those of the deleted queues `$1` that have no batch any more.
const PURGE_EMPTY: &str = "
WITH e AS MATERIALIZED (
    SELECT id FROM unnest($1::bigint[]) AS d (id) LEFT JOIN log_state s ON s.queue_id = d.id
    LEFT JOIN LATERAL (
        SELECT 1 AS is_there FROM batch WHERE batch.queue_id = d.id AND batch.first_offset > s.trimmed_through
        ORDER BY first_offset DESC LIMIT 1
    ) b ON true
    WHERE b.is_there IS NULL
), p AS (DELETE FROM producer USING e WHERE queue_id = e.id),
s AS (DELETE FROM log_state USING e WHERE queue_id = e.id),
l AS (DELETE FROM log USING e WHERE queue_id = e.id)
DELETE FROM queue USING e WHERE queue.id = e.id RETURNING queue.id";

/// [`Log::purge_deleted`](rmom_core::ports::Log::purge_deleted).
pub(super) async fn purge_deleted(store: &PostgresStore, limit: u32) -> Result<Purged, StoreError> {
    store
        .transact(async |tx| {
            let dead = tx.rows(query(LOCK_DEAD).bind(MAX_PURGED_QUEUES)).await?;
            let dead = dead.iter().map(|row| row.int("id")).collect::<Result<Vec<i64>, StoreError>>()?;
            if dead.is_empty() {
                return Ok(End::Unchanged(Purged::default()));
            }
            let span = i64::try_from(MAX_TRIM_SPAN).unwrap_or(i64::MAX);
            let gone = tx.row(query(PURGE_BATCHES).bind(&dead).bind(i64::from(limit)).bind(span)).await?;
            let batches = rows::count(gone.as_ref())?;
            let empty = tx.rows(query(PURGE_EMPTY).bind(&dead)).await?;
            let found_all = i64::try_from(dead.len()).is_ok_and(|found| found < MAX_PURGED_QUEUES);
            Ok(End::Commit(Purged { batches, more: !found_all || empty.len() < dead.len() }))
        })
        .await
}

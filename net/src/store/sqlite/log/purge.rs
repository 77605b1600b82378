//! Purging: what is left of deleted queues is removed a bounded number of batches at a time.

use rmom_core::ports::{Purged, StoreError};
use sqlx::query;

use super::super::SqliteStore;
use crate::store::{column::StoreRow as _, pool::End, rules::MAX_PURGED_QUEUES};

const DEAD_BATCHES: &str = "
SELECT b.queue_id, b.first_offset, b.body FROM queue q JOIN batch b ON b.queue_id = q.id
WHERE q.deleted = 1
ORDER BY b.queue_id, b.first_offset LIMIT ?1";

const EMPTY: &str = "
SELECT id FROM queue q
WHERE deleted = 1 AND NOT EXISTS (SELECT 1 FROM batch WHERE queue_id = q.id)
ORDER BY id LIMIT ?1";

/// [`Log::purge_deleted`](rmom_core::ports::Log::purge_deleted).
pub(super) async fn purge_deleted(store: &SqliteStore, limit: u32) -> Result<Purged, StoreError> {
    store
        .transact(async |tx, _| {
            let batches = tx.rows(query(DEAD_BATCHES).bind(i64::from(limit))).await?;
            for row in &batches {
                tx.rows(query("DELETE FROM body WHERE id = ?1").bind(row.int("body")?)).await?;
                let statement = query("DELETE FROM batch WHERE queue_id = ?1 AND first_offset = ?2");
                tx.rows(statement.bind(row.int("queue_id")?).bind(row.int("first_offset")?)).await?;
            }
            for row in &tx.rows(query(EMPTY).bind(MAX_PURGED_QUEUES)).await? {
                let id = row.int("id")?;
                for statement in [
                    "DELETE FROM producer WHERE queue_id = ?1",
                    "DELETE FROM log_state WHERE queue_id = ?1",
                    "DELETE FROM log WHERE queue_id = ?1",
                    "DELETE FROM queue WHERE id = ?1",
                ] {
                    tx.rows(query(statement).bind(id)).await?;
                }
            }
            let left = tx.row(query("SELECT 1 FROM queue WHERE deleted = 1 LIMIT 1")).await?;
            Ok(End::Commit(Purged { batches: batches.len() as u64, more: left.is_some() }))
        })
        .await
}

//! Channels that nobody uses any more.

use std::time::Duration;

use rmom_core::{
    model::{BrokerId, ChannelId, QueueId, StoreTime},
    ports::{StoreError, check_lookup},
};
use sqlx::query;

use super::{SqliteStore, queues::bump};
use crate::store::{
    column::{StoreRow as _, millis},
    pool::End,
    rows,
};

const USE: &str = "
UPDATE channel SET used_at = iif(used_at <= ?2, ?3, used_at) WHERE id = ?1 RETURNING 1";

const DELETE: &str = "
DELETE FROM channel WHERE id IN (
    SELECT id FROM channel
    WHERE queue_id = ?1 AND used_at <= ?2
      AND EXISTS (SELECT 1 FROM queue WHERE id = ?1 AND assignee = ?3 AND deleted = 0)
    ORDER BY used_at, id LIMIT ?4
)
RETURNING id";

/// [`Catalog::use_channels`](rmom_core::ports::Catalog::use_channels).
pub(super) async fn use_channels(
    store: &SqliteStore,
    channels: &[ChannelId],
    fresh: Duration,
) -> Result<Vec<ChannelId>, StoreError> {
    check_lookup(channels)?;
    // Most were entered lately, and a reader does not wait for the one writer.
    let before = |now: StoreTime| now.as_i64().saturating_sub(millis(fresh));
    let (mut known, mut stale) = (Vec::new(), Vec::new());
    let mut session = store.readers.read().await?;
    for &channel in channels {
        let found = session.row(query("SELECT used_at FROM channel WHERE id = ?1").bind(channel.uuid())).await?;
        let Some(row) = found else { continue };
        match row.optional_int("used_at")? {
            Some(used_at) if used_at <= before(store.clock.now()) => stale.push(channel),
            _ => known.push(channel),
        }
    }
    session.done();
    if stale.is_empty() {
        return Ok(known);
    }
    store
        .transact(async |tx, now| {
            for channel in stale {
                let statement = query(USE).bind(channel.uuid()).bind(before(now)).bind(now.as_i64());
                known.extend(tx.row(statement).await?.map(|_| channel));
            }
            known.sort_unstable();
            Ok(End::Commit(known))
        })
        .await
}

/// [`Catalog::delete_idle_channels`](rmom_core::ports::Catalog::delete_idle_channels).
pub(super) async fn delete_idle_channels(
    store: &SqliteStore,
    broker: BrokerId,
    queues: &[QueueId],
    idle: Duration,
    seen: StoreTime,
    limit: u32,
) -> Result<Vec<ChannelId>, StoreError> {
    check_lookup(queues)?;
    store
        .transact(async |tx, now| {
            let before = now.min(seen).as_i64().saturating_sub(millis(idle));
            let mut gone = Vec::new();
            for queue in queues {
                let left = i64::from(limit) - i64::try_from(gone.len()).unwrap_or(i64::MAX);
                if left <= 0 {
                    break;
                }
                let statement = query(DELETE).bind(queue.as_i64()).bind(before).bind(broker.as_i64()).bind(left);
                for row in &tx.rows(statement).await? {
                    gone.push(rows::channel_id(row)?);
                }
            }
            if gone.is_empty() {
                return Ok(End::Unchanged(gone));
            }
            bump(tx, Some(broker)).await?;
            gone.sort_unstable();
            Ok(End::Commit(gone))
        })
        .await
}

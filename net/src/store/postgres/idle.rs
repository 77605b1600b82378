//! Channels that nobody uses any more.

use std::time::Duration;

use rmom_core::{
    model::{BrokerId, ChannelId, QueueId, StoreTime},
    ports::{StoreError, check_lookup},
};
use sqlx::query;
use uuid::Uuid;

use super::{PostgresStore, queues::commit_and_bump};
use crate::store::{
    column::{self, StoreRow as _, millis},
    pool::End,
    rows,
};

/// Rows that somebody else holds are left to [`USE_ONE`]: a statement that holds some rows waits for no others. `+ 0` keeps the
/// planner from reading all of the index of idle channels, which seems short while the table has no statistics.
const USE_SEVERAL: &str = "
WITH t AS MATERIALIZED (SELECT rmom_now() AS now),
k AS MATERIALIZED (
    SELECT id FROM channel WHERE id = ANY($1) AND used_at + 0 <= (SELECT now FROM t) - $2 FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE channel SET used_at = t.now FROM k, t WHERE channel.id = k.id";

const KNOWN: &str = "
WITH t AS MATERIALIZED (SELECT rmom_now() AS now)
SELECT id, coalesce(used_at <= t.now - $2, false) AS is_stale FROM channel, t WHERE id = ANY($1) ORDER BY id";

const USE_ONE: &str = "
UPDATE channel SET used_at = rmom_now() WHERE id = $1 RETURNING id";

/// Disposable channels of the queues `$1` that are assigned to the broker `$2` and were last used before, by `$3`, now and at
/// `$5`: `$4` at most. The queues come in order of their index, so that it stops at as many channels, whatever there are.
const IDLE: &str = "
WITH t AS MATERIALIZED (SELECT least(rmom_now(), $5) - $3 AS before)
SELECT c.id, c.queue_id, (SELECT before FROM t) AS before FROM queue q CROSS JOIN LATERAL (
    SELECT id, queue_id FROM channel WHERE queue_id = q.id AND used_at <= (SELECT before FROM t)
    ORDER BY used_at, id LIMIT $4
) c
WHERE q.id = ANY($1) AND q.assignee = $2 AND NOT q.deleted
ORDER BY q.id LIMIT $4";

/// A deletion of the queue, or of one of its channels, waits; a claim does not.
const HOLD_QUEUES: &str = "
SELECT id FROM queue WHERE id = ANY($1) AND assignee = $2 AND NOT deleted ORDER BY id FOR SHARE SKIP LOCKED";

/// While all are held, by clients that create channels, the first is waited for, with nothing in hand.
const HOLD_ONE: &str = "
SELECT id FROM queue WHERE id = $1 AND assignee = $2 AND NOT deleted FOR SHARE";

/// A channel that was used since it was found stays.
const DELETE: &str = "
DELETE FROM channel WHERE id = ANY($1) AND queue_id = ANY($2) AND used_at + 0 <= $3 RETURNING id";

/// [`Catalog::use_channels`](rmom_core::ports::Catalog::use_channels).
pub(super) async fn use_channels(
    store: &PostgresStore,
    channels: &[ChannelId],
    fresh: Duration,
) -> Result<Vec<ChannelId>, StoreError> {
    check_lookup(channels)?;
    let ids: Vec<Uuid> = channels.iter().map(|channel| channel.uuid()).collect();
    if ids.len() > 1 {
        store.change(query(USE_SEVERAL).bind(ids.clone()).bind(millis(fresh))).await?;
    }
    let mut known = Vec::new();
    for row in &store.select(query(KNOWN).bind(ids).bind(millis(fresh))).await? {
        let id = rows::channel_id(row)?;
        let is_there = match column::get(row, "is_stale")? {
            false => true,
            true => store.change(query(USE_ONE).bind(id.uuid())).await?.is_some(),
        };
        known.extend(is_there.then_some(id));
    }
    Ok(known)
}

/// [`Catalog::delete_idle_channels`](rmom_core::ports::Catalog::delete_idle_channels).
pub(super) async fn delete_idle_channels(
    store: &PostgresStore,
    broker: BrokerId,
    queues: &[QueueId],
    idle: Duration,
    seen: StoreTime,
    limit: u32,
) -> Result<Vec<ChannelId>, StoreError> {
    check_lookup(queues)?;
    let queues: Vec<i64> = queues.iter().map(|queue| queue.as_i64()).collect();
    let found =
        query(IDLE).bind(queues).bind(broker.as_i64()).bind(millis(idle)).bind(i64::from(limit)).bind(seen.as_i64());
    let found = store.select(found).await?;
    let Some(row) = found.first() else { return Ok(Vec::new()) };
    let before = row.int("before")?;
    let ids = found.iter().map(|row| row.uuid("id")).collect::<Result<Vec<Uuid>, StoreError>>()?;
    let mut of = found.iter().map(|row| row.int("queue_id")).collect::<Result<Vec<i64>, StoreError>>()?;
    of.dedup();
    store
        .transact(async |tx| {
            let first = of[0];
            let mut held = tx.rows(query(HOLD_QUEUES).bind(of).bind(broker.as_i64())).await?;
            if held.is_empty() {
                held = tx.rows(query(HOLD_ONE).bind(first).bind(broker.as_i64())).await?;
            }
            let held = held.iter().map(|row| row.int("id")).collect::<Result<Vec<i64>, StoreError>>()?;
            let gone = tx.rows(query(DELETE).bind(ids).bind(held).bind(before)).await?;
            let mut gone = gone.iter().map(rows::channel_id).collect::<Result<Vec<ChannelId>, StoreError>>()?;
            if gone.is_empty() {
                return Ok(End::Unchanged(gone));
            }
            gone.sort_unstable();
            Ok(commit_and_bump(gone, [broker.as_i64()]))
        })
        .await
}

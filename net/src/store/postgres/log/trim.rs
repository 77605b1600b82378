//! Trimming: what has expired is removed in the order in which it expires, a bounded number of batches at a time.

use rmom_core::{
    model::Offset,
    ports::{LogError, MAX_TRIM_SPAN, StoreError, Trim, Trimmed},
};
use sqlx::query;

use super::{super::PostgresStore, Tx};
use crate::store::{
    column::{self, StoreRow as _},
    pool::End,
    rows,
    rules::removed_by,
};

/// The state of a log, under a lock that keeps other trims out.
const LOCK_STATE: &str = "
SELECT trimmed_through, trimmed_messages, trimmed_bytes, producers_through, rmom_now() AS now
FROM log_state WHERE queue_id = $1 FOR NO KEY UPDATE";

/// The last batch, given `trimmed_through`; and the oldest, unless it lies further on than `$3`.
const ENDS: &str = "
SELECT l.first_offset AS last_first, l.last_offset, l.expires_at, l.bytes_through,
    o.first_offset AS oldest_first, o.stored_at AS oldest
FROM (SELECT first_offset, last_offset, expires_at, bytes_through FROM batch
      WHERE queue_id = $1 AND first_offset > $2 ORDER BY first_offset DESC LIMIT 1) l
LEFT JOIN LATERAL (SELECT first_offset, stored_at FROM batch
      WHERE queue_id = $1 AND first_offset > $2 AND first_offset <= $2 + $3 ORDER BY first_offset LIMIT 1) o ON true";

/// Removes what expires from `$2` on and has expired at `$3`, up to offset `$4`, `$5` batches at most; not the last batch. What
/// goes is named by its place: by offset, the planner may pass all batches of the queue (see [`READ`]). No row moves meanwhile:
/// batches are never updated, and the lock on the log's state keeps other trims out.
const REMOVE: &str = "
DELETE FROM batch WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM batch
    WHERE queue_id = $1 AND expires_at >= $2 AND expires_at <= $3 AND expires_at < 9223372036854775807
      AND last_offset <= $4 AND first_offset <> (
        SELECT first_offset FROM batch WHERE queue_id = $1 AND first_offset > $6 ORDER BY first_offset DESC LIMIT 1)
    ORDER BY expires_at, first_offset LIMIT $5))
RETURNING last_offset - first_offset + 1 AS messages, bytes";

/// When the next batch expires, from `$2` on; not the last one, `$3`.
const NEXT_EXPIRY: &str = "
SELECT expires_at FROM batch
WHERE queue_id = $1 AND expires_at >= $2 AND expires_at < 9223372036854775807 AND first_offset <> $3
ORDER BY expires_at LIMIT 1";

/// `$5`: when the next batch expires, as was found by a trim that knows of a save through `$6`, or null. One that lands after a
/// later save says nothing of that.
const UPDATE_STATE: &str = "
UPDATE log_state SET trimmed_through = $2, trimmed_messages = $3, trimmed_bytes = $4,
    next_expiry = CASE WHEN next_expiry_through = producers_through AND producers_through = $6::bigint THEN $5
                       ELSE next_expiry END
WHERE queue_id = $1";

const UPDATE_STATE_AND_PRODUCERS: &str = "
UPDATE log_state SET trimmed_through = $2, trimmed_messages = $3, trimmed_bytes = $4,
    producers = $5, producers_through = $6, next_expiry = $7, next_expiry_through = $6
WHERE queue_id = $1";

/// Removes expired batches up to `through`, those that expired first first, and takes note in `trimmed`. Returns the running
/// total of a log that is empty now.
async fn remove_expired(
    tx: &mut Tx<'_>,
    trim: &Trim,
    through: Offset,
    trimmed: &mut Trimmed,
) -> Result<Option<i64>, StoreError> {
    let (queue, floor, now) = (trim.queue.as_i64(), trim.none_expires_before.as_i64(), trimmed.store_time);
    if trim.limit > 0 && trim.none_expires_before <= now {
        let statement = query(REMOVE)
            .bind(queue)
            .bind(floor)
            .bind(now.as_i64())
            .bind(through.as_i64())
            .bind(i64::from(trim.limit))
            .bind(trimmed.trimmed_through.as_i64());
        for row in &tx.rows(statement).await? {
            trimmed.batches += 1;
            trimmed.messages += column::unsigned(row, "messages")?;
            trimmed.bytes += column::unsigned(row, "bytes")?;
        }
    }
    trimmed.more = trimmed.batches == u64::from(trim.limit) && trim.limit > 0;
    let span = i64::try_from(MAX_TRIM_SPAN).unwrap_or(i64::MAX);
    let ends = tx.row(query(ENDS).bind(queue).bind(trimmed.trimmed_through.as_i64()).bind(span)).await?;
    let Some(ends) = ends else { return Ok(None) };
    let last_first = column::offset(&ends, "last_first")?;
    let (last, expires_at) = (column::offset(&ends, "last_offset")?, column::time(&ends, "expires_at")?);
    let mut alone = false;
    if let Some(oldest) = ends.optional_int("oldest_first")? {
        trimmed.trimmed_through = Offset::new(u64::try_from(oldest).unwrap_or(1).saturating_sub(1));
        trimmed.oldest = column::optional_time(&ends, "oldest")?;
        // The last batch stays until all before it are gone: it holds the end of the log.
        alone = oldest == last_first.as_i64();
        let has_room = trimmed.batches < u64::from(trim.limit);
        if alone && has_room && expires_at <= now && last <= through {
            let statement = query("DELETE FROM batch WHERE queue_id = $1 AND first_offset = $2 RETURNING bytes");
            let gone = tx.row(statement.bind(queue).bind(last_first.as_i64())).await?;
            let gone = gone.ok_or_else(|| StoreError::Corrupt("a batch is there and cannot be removed".into()))?;
            trimmed.batches += 1;
            trimmed.messages += last.since(last_first) + 1;
            trimmed.bytes += column::unsigned(&gone, "bytes")?;
            trimmed.more = trimmed.batches == u64::from(trim.limit);
            trimmed.trimmed_through = last;
            trimmed.oldest = None;
            return Ok(Some(ends.int("bytes_through")?));
        }
    } else {
        trimmed.trimmed_through = trimmed.trimmed_through.plus(MAX_TRIM_SPAN);
        trimmed.more = true;
    }
    if alone {
        trimmed.next_expiry = expires_at;
    } else if trim.limit == 0 {
        trimmed.next_expiry = trim.none_expires_before;
    } else {
        let next = tx.row(query(NEXT_EXPIRY).bind(queue).bind(floor).bind(last_first.as_i64())).await?;
        if let Some(next) = next {
            trimmed.next_expiry = column::time(&next, "expires_at")?;
        }
    }
    Ok(None)
}

/// [`Log::trim`](rmom_core::ports::Log::trim).
pub(super) async fn trim(store: &PostgresStore, trim: &Trim) -> Result<Trimmed, LogError> {
    store.transact(async |tx| trim_in(tx, trim).await.map(End::Commit)).await
}

async fn trim_in(tx: &mut Tx<'_>, trim: &Trim) -> Result<Trimmed, LogError> {
    let fence = query("SELECT epoch FROM log WHERE queue_id = $1 AND NOT deleted FOR SHARE");
    let log = tx.row(fence.bind(trim.queue.as_i64())).await?.ok_or(LogError::Deleted)?;
    let epoch = column::epoch(&log, "epoch")?;
    if epoch != trim.epoch {
        return Err(LogError::Fenced { epoch });
    }
    let state = tx.row(query(LOCK_STATE).bind(trim.queue.as_i64())).await?;
    let state = state.ok_or_else(|| StoreError::Corrupt(format!("queue {} has no log_state", trim.queue)))?;
    let saved_through = column::offset(&state, "producers_through")?;
    let trimmed_before = column::offset(&state, "trimmed_through")?;
    let mut trimmed = rows::untrimmed(&state, trimmed_before, column::time(&state, "now")?)?;
    // What nobody would know the producers of is not removed.
    let through = trim.producers.as_ref().map_or(trim.through.min(saved_through), |_| trim.through);
    let total = remove_expired(tx, trim, through, &mut trimmed).await?;
    trimmed.removed = removed_by(&trimmed, total);
    let replaces = trim.producers.is_some() && saved_through <= trim.through;
    if replaces || trimmed.batches > 0 || trimmed.trimmed_through != trimmed_before {
        let update = if replaces { UPDATE_STATE_AND_PRODUCERS } else { UPDATE_STATE };
        let mut statement = query(update)
            .bind(trim.queue.as_i64())
            .bind(trimmed.trimmed_through.as_i64())
            .bind(trimmed.removed.messages)
            .bind(trimmed.removed.bytes);
        if let (true, Some(producers)) = (replaces, &trim.producers) {
            statement = statement.bind(&**producers).bind(trim.through.as_i64()).bind(trimmed.next_expiry.as_i64());
        } else {
            let knows = (trimmed.batches > 0).then_some(trim.through.as_i64());
            statement = statement.bind(trimmed.next_expiry.as_i64()).bind(knows);
        }
        tx.rows(statement).await?;
    }
    Ok(trimmed)
}

//! Trimming: what has expired is removed in the order in which it expires, a bounded number of batches at a time.

use rmom_core::{
    model::{Offset, QueueId, StoreTime},
    ports::{LogError, MAX_TRIM_SPAN, StoreError, Trim, Trimmed},
};
use sqlx::{query, sqlite::SqliteRow};

use super::{
    super::{SqliteStore, Tx},
    append::Fence,
};
use crate::store::{
    column::{self, StoreRow as _},
    pool::End,
    rows,
    rules::removed_by,
};

const STATE: &str = "SELECT trimmed_messages, trimmed_bytes, producers_through FROM log_state WHERE queue_id = ?1";

/// What expires from `?2` on and has expired at `?3`, up to offset `?4`, `?5` batches at most; not the last batch.
const EXPIRED: &str = "
SELECT first_offset, last_offset, bytes, body FROM batch
WHERE queue_id = ?1 AND expires_at >= ?2 AND expires_at <= ?3 AND expires_at < 9223372036854775807
  AND last_offset <= ?4 AND first_offset <> (SELECT max(first_offset) FROM batch WHERE queue_id = ?1)
ORDER BY expires_at, first_offset LIMIT ?5";

const LAST: &str = "
SELECT first_offset, last_offset, bytes, body, expires_at, bytes_through FROM batch
WHERE queue_id = ?1
ORDER BY first_offset DESC LIMIT 1";

const OLDEST: &str = "SELECT first_offset, stored_at FROM batch WHERE queue_id = ?1 ORDER BY first_offset LIMIT 1";

/// When the next batch expires, from `?2` on; not the last one, `?3`.
const NEXT_EXPIRY: &str = "
SELECT expires_at FROM batch
WHERE queue_id = ?1 AND expires_at >= ?2 AND expires_at < 9223372036854775807 AND first_offset <> ?3
ORDER BY expires_at LIMIT 1";

/// `?5`: when the next batch expires, as was found by a trim that knows of a save through `?6`, or null. One that lands after a
/// later save says nothing of that.
const UPDATE_STATE: &str = "
UPDATE log_state SET trimmed_through = ?2, trimmed_messages = ?3, trimmed_bytes = ?4,
    next_expiry = CASE WHEN next_expiry_through = producers_through AND producers_through = ?6 THEN ?5
                       ELSE next_expiry END
WHERE queue_id = ?1";

const UPDATE_PRODUCERS: &str = "
UPDATE log_state SET producers = ?2, producers_through = ?3, next_expiry = ?4, next_expiry_through = ?3
WHERE queue_id = ?1";

/// Removes a batch, and takes note in `trimmed`. Returns its last offset.
async fn remove(tx: &mut Tx<'_>, queue: QueueId, row: &SqliteRow, trimmed: &mut Trimmed) -> Result<Offset, StoreError> {
    let (first, last) = (column::offset(row, "first_offset")?, column::offset(row, "last_offset")?);
    tx.rows(query("DELETE FROM body WHERE id = ?1").bind(row.int("body")?)).await?;
    let statement = query("DELETE FROM batch WHERE queue_id = ?1 AND first_offset = ?2");
    tx.rows(statement.bind(queue.as_i64()).bind(first.as_i64())).await?;
    trimmed.batches += 1;
    trimmed.messages += last.since(first) + 1;
    trimmed.bytes += column::unsigned(row, "bytes")?;
    Ok(last)
}

/// Removes expired batches up to `through`, those that expired first first, and takes note in `trimmed`. Returns the running
/// total of a log that is empty now.
async fn remove_expired(
    tx: &mut Tx<'_>,
    trim: &Trim,
    through: Offset,
    trimmed: &mut Trimmed,
) -> Result<Option<i64>, StoreError> {
    let (queue, floor, now) = (trim.queue.as_i64(), trim.none_expires_before.as_i64(), trimmed.store_time);
    let statement =
        query(EXPIRED).bind(queue).bind(floor).bind(now.as_i64()).bind(through.as_i64()).bind(i64::from(trim.limit));
    for row in &tx.rows(statement).await? {
        remove(tx, trim.queue, row, trimmed).await?;
    }
    trimmed.more = trimmed.batches == u64::from(trim.limit) && trim.limit > 0;
    let last = tx.row(query(LAST).bind(queue)).await?;
    let oldest = tx.row(query(OLDEST).bind(queue)).await?;
    let (Some(last), Some(oldest)) = (last, oldest) else { return Ok(None) };
    let (last_first, oldest_first) = (column::offset(&last, "first_offset")?, column::offset(&oldest, "first_offset")?);
    let expires_at = column::time(&last, "expires_at")?;
    let mut alone = false;
    if oldest_first.since(trimmed.trimmed_through) <= MAX_TRIM_SPAN {
        trimmed.trimmed_through = Offset::new(oldest_first.get().saturating_sub(1));
        trimmed.oldest = Some(column::time(&oldest, "stored_at")?);
        // The last batch stays until all before it are gone: it holds the end of the log.
        alone = oldest_first == last_first;
        let has_room = trimmed.batches < u64::from(trim.limit);
        if alone && has_room && expires_at <= now && column::offset(&last, "last_offset")? <= through {
            trimmed.trimmed_through = remove(tx, trim.queue, &last, trimmed).await?;
            trimmed.more = trimmed.batches == u64::from(trim.limit);
            trimmed.oldest = None;
            return Ok(Some(last.int("bytes_through")?));
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
pub(super) async fn trim(store: &SqliteStore, trim: &Trim) -> Result<Trimmed, LogError> {
    store.transact(async |tx, now| trim_in(tx, trim, now).await.map(End::Commit)).await
}

async fn trim_in(tx: &mut Tx<'_>, trim: &Trim, now: StoreTime) -> Result<Trimmed, LogError> {
    let fence = Fence::read(tx, trim.queue).await?.filter(|fence| !fence.deleted).ok_or(LogError::Deleted)?;
    if fence.epoch != trim.epoch {
        return Err(LogError::Fenced { epoch: fence.epoch });
    }
    let state = tx.row(query(STATE).bind(trim.queue.as_i64())).await?;
    let state = state.ok_or_else(|| StoreError::Corrupt(format!("queue {} has no log_state", trim.queue)))?;
    let saved_through = column::offset(&state, "producers_through")?;
    let mut trimmed = rows::untrimmed(&state, fence.trimmed_through, now)?;
    // What nobody would know the producers of is not removed.
    let through = trim.producers.as_ref().map_or(trim.through.min(saved_through), |_| trim.through);
    let total = remove_expired(tx, trim, through, &mut trimmed).await?;
    trimmed.removed = removed_by(&trimmed, total);
    let statement = query(UPDATE_STATE)
        .bind(trim.queue.as_i64())
        .bind(trimmed.trimmed_through.as_i64())
        .bind(trimmed.removed.messages)
        .bind(trimmed.removed.bytes)
        .bind(trimmed.next_expiry.as_i64())
        .bind((trimmed.batches > 0).then_some(trim.through.as_i64()));
    tx.rows(statement).await?;
    if let Some(producers) = trim.producers.as_ref().filter(|_| saved_through <= trim.through) {
        let statement = query(UPDATE_PRODUCERS).bind(trim.queue.as_i64()).bind(&**producers);
        tx.rows(statement.bind(trim.through.as_i64()).bind(trimmed.next_expiry.as_i64())).await?;
    }
    Ok(trimmed)
}

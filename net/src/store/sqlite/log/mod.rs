//! The logs in SQLite.

mod append;
mod producers;
mod purge;
mod trim;

use async_trait::async_trait;
use rmom_core::{
    model::{Offset, ProducerId, QueueId},
    ports::{
        AppendBatch, Appended, BatchHeader, Claim, ClaimError, Claimed, Log, LogError, LogTail, MAX_NAMED_PRODUCERS,
        MAX_TRIM_SPAN, Opened, Page, Purged, StoreError, Trim, Trimmed,
    },
};
use sqlx::query;
use uuid::Uuid;

use self::append::Fence;
use super::{SqliteStore, Tx};
use crate::store::{
    column::{self, StoreRow as _},
    pool::End,
    rows,
    rules::MAX_READ_BATCHES,
};

/// `trimmed_through` and the end of a log that is there.
pub(super) async fn extent(tx: &mut Tx<'_>, queue: QueueId) -> Result<(Offset, Offset), StoreError> {
    let fence = Fence::read(tx, queue).await?;
    let fence = fence.ok_or_else(|| StoreError::Corrupt(format!("queue {queue} has no log")))?;
    Ok((fence.trimmed_through, fence.last.max(fence.trimmed_through)))
}

/// The end of a log, and its beginning. `?2` is [`MAX_TRIM_SPAN`].
const TAIL: &str = "
SELECT l.epoch, s.trimmed_through, s.trimmed_messages, s.trimmed_bytes, s.producers, s.producers_through,
    CASE WHEN s.next_expiry_through = s.producers_through THEN s.next_expiry ELSE 0 END AS none_expires_before,
    coalesce(b.first_offset, 0) AS first_offset, coalesce(b.last_offset, 0) AS last_offset,
    coalesce(b.epoch, 0) AS last_epoch, coalesce(b.stored_at, 0) AS stored_at,
    coalesce(b.expires_at, 9223372036854775807) AS expires_at,
    max(coalesce(b.last_offset - s.trimmed_messages, 0), 0) AS messages,
    max(coalesce(b.bytes_through - s.trimmed_bytes, 0), 0) AS bytes,
    (SELECT stored_at FROM batch WHERE queue_id = ?1 AND first_offset <= s.trimmed_through + ?2
     ORDER BY first_offset LIMIT 1) AS oldest
FROM log_state s JOIN log l ON l.queue_id = s.queue_id
LEFT JOIN batch b ON b.queue_id = s.queue_id
    AND b.first_offset = (SELECT max(first_offset) FROM batch WHERE queue_id = ?1)
WHERE s.queue_id = ?1";

const PRODUCER_EPOCHS: &str =
    "SELECT producer_id, incarnation FROM producer WHERE queue_id = ?1 ORDER BY producer_id LIMIT ?2";

/// `?3` batches at most that end beyond `?2`.
const HEADERS: &str = "
SELECT first_offset, last_offset, epoch, format, stored_at, expires_at, message_index FROM batch
WHERE queue_id = ?1 AND last_offset > ?2
  AND first_offset >= coalesce((SELECT max(first_offset) FROM batch WHERE queue_id = ?1 AND first_offset <= ?2), 0)
ORDER BY first_offset LIMIT ?3";

/// `?4` batches at most, and as many as fit `?3` bytes, of those that begin within `?5` offsets; a row without a batch if there
/// is none, which tells the end of the log.
const READ: &str = "
SELECT s.through,
    CASE WHEN w.first_offset IS NULL THEN coalesce((
        SELECT last_offset FROM batch WHERE queue_id = ?1 ORDER BY first_offset DESC LIMIT 1
    ), s.trimmed_through) END AS end_offset,
    batch.first_offset, batch.last_offset, batch.epoch, batch.stored_at, batch.expires_at, batch.format,
    batch.message_index, batch.checksum, body.frames
FROM (
    SELECT trimmed_through,
        max(trimmed_through, ?2) + min(?5, 9223372036854775807 - max(trimmed_through, ?2)) AS through
    FROM log_state WHERE queue_id = ?1
) s
LEFT JOIN (
    SELECT first_offset, sum(bytes) OVER w AS total, row_number() OVER w AS place FROM batch
    WHERE queue_id = ?1 AND last_offset > ?2
      AND first_offset >= coalesce((SELECT max(first_offset) FROM batch WHERE queue_id = ?1 AND first_offset <= ?2), 0)
    WINDOW w AS (ORDER BY first_offset ROWS UNBOUNDED PRECEDING)
    ORDER BY first_offset LIMIT ?4
) AS w ON w.first_offset <= s.through AND (w.total <= ?3 OR w.place = 1)
LEFT JOIN batch ON batch.queue_id = ?1 AND batch.first_offset = w.first_offset
LEFT JOIN body ON body.id = batch.body
ORDER BY w.first_offset";

const LOG_TO_CLAIM: &str = "
SELECT l.epoch, l.claim, q.assignee, b.incarnation
FROM queue q JOIN log l ON l.queue_id = q.id LEFT JOIN broker b ON b.id = ?2
WHERE q.id = ?1 AND q.deleted = 0";

#[async_trait]
impl Log for SqliteStore {
    async fn claim(&self, claim: &Claim) -> Result<Claimed, ClaimError> {
        self.transact(async |tx, store_time| {
            let statement = query(LOG_TO_CLAIM).bind(claim.queue.as_i64()).bind(claim.broker.as_i64());
            let row = tx.row(statement).await?.ok_or(ClaimError::Deleted)?;
            let epoch = column::epoch(&row, "epoch")?;
            // Made again, a claim that is still the latest answers as before, whatever has been assigned since.
            if column::get::<_, Option<Uuid>>(&row, "claim")? == Some(claim.claim.uuid()) {
                return Ok(End::Confirm(Claimed { epoch, store_time }));
            }
            if column::get::<_, Option<Uuid>>(&row, "incarnation")? != Some(claim.incarnation.uuid()) {
                return Err(ClaimError::Replaced);
            }
            if row.optional_int("assignee")? != Some(claim.broker.as_i64()) {
                return Err(ClaimError::NotAssignee);
            }
            let statement = query("UPDATE log SET epoch = ?2, claim = ?3 WHERE queue_id = ?1")
                .bind(claim.queue.as_i64())
                .bind(epoch.next().as_i64())
                .bind(claim.claim.uuid());
            tx.rows(statement).await?;
            Ok(End::Commit(Claimed { epoch: epoch.next(), store_time }))
        })
        .await
    }

    async fn tail(&self, queue: QueueId) -> Result<LogTail, StoreError> {
        let mut session = self.readers.read().await?;
        let span = i64::try_from(MAX_TRIM_SPAN).unwrap_or(i64::MAX);
        let row = session.row(query(TAIL).bind(queue.as_i64()).bind(span)).await?;
        let Some(row) = row else {
            session.done();
            return Ok(LogTail::default());
        };
        let statement = query(PRODUCER_EPOCHS).bind(queue.as_i64()).bind(i64::from(MAX_NAMED_PRODUCERS) + 1);
        let producers = session.rows(statement).await?;
        session.done();
        rows::tail(&row, &producers)
    }

    async fn headers(&self, queue: QueueId, after: Offset, limit: u32) -> Result<Vec<BatchHeader>, StoreError> {
        let statement = query(HEADERS).bind(queue.as_i64()).bind(after.as_i64()).bind(i64::from(limit));
        self.select(statement).await?.iter().map(rows::header).collect()
    }

    async fn read_within(
        &self,
        queue: QueueId,
        after: Offset,
        span: u64,
        max_bytes: usize,
    ) -> Result<Page, StoreError> {
        let statement = query(READ)
            .bind(queue.as_i64())
            .bind(after.as_i64())
            .bind(i64::try_from(max_bytes).unwrap_or(i64::MAX))
            .bind(MAX_READ_BATCHES)
            .bind(i64::try_from(span).unwrap_or(i64::MAX));
        rows::page(&self.select(statement).await?)
    }

    async fn append(&self, group: &[AppendBatch]) -> Result<Vec<Appended>, StoreError> {
        append::append(self, group).await
    }

    async fn trim(&self, trim: &Trim) -> Result<Trimmed, LogError> {
        trim::trim(self, trim).await
    }

    async fn open_producer(&self, queue: QueueId, producer: ProducerId, most: u32) -> Result<Opened, StoreError> {
        producers::open(self, queue, producer, most).await
    }

    async fn purge_deleted(&self, limit: u32) -> Result<Purged, StoreError> {
        purge::purge_deleted(self, limit).await
    }
}

//! The logs in PostgreSQL.
//!
//! An append is one statement that commits by itself. It locks the fencing rows of its queues in order of id, so that a
//! claim, which changes that row, waits for it, and it for the claim; what it then reads of those rows is what the claim
//! left. A subquery with `ORDER BY … FOR SHARE` keeps that order whatever the planner thinks. Everything else it reads is as
//! of its beginning, which is enough: only the owner of an epoch appends and trims, and it appends one batch at a time.
//!
//! A row that was deleted stays in the indexes until it is vacuumed, which takes as long as the oldest snapshot lives that
//! somebody holds (a dump, say), and each scan that passes it has to look at it. So nothing here looks for the end or the beginning of
//! a log, or for what expires next, without a bound that leaves out what was removed: `trimmed_through`, `next_expiry`, or how
//! many messages a batch can have.

mod append;
mod producers;
mod purge;
mod trim;

use async_trait::async_trait;
use rmom_core::{
    model::{Offset, ProducerId, QueueId, limits::MAX_BATCH_MESSAGES},
    ports::{
        AppendBatch, Appended, BatchHeader, Claim, ClaimError, Claimed, Log, LogError, LogTail, MAX_NAMED_PRODUCERS,
        MAX_TRIM_SPAN, Opened, Page, Purged, StoreError, Trim, Trimmed,
    },
};
use sqlx::query;
use uuid::Uuid;

use super::{PostgresStore, Tx};
use crate::store::{
    column::{self, StoreRow as _},
    pool::End,
    rows,
    rules::MAX_READ_BATCHES,
};

const EXTENT: &str = "
SELECT s.trimmed_through, coalesce(b.last_offset, s.trimmed_through) AS end_offset
FROM log_state s
LEFT JOIN LATERAL (
    SELECT last_offset FROM batch
    WHERE batch.queue_id = s.queue_id AND batch.first_offset > s.trimmed_through
    ORDER BY first_offset DESC LIMIT 1
) b ON true
WHERE s.queue_id = $1";

/// `trimmed_through` and the end of a log; zero if there is none.
pub(super) async fn extent(session: &mut Tx<'_>, queue: QueueId) -> Result<(Offset, Offset), StoreError> {
    let row = session.row(query(EXTENT).bind(queue.as_i64())).await?;
    row.map_or(Ok((Offset::ZERO, Offset::ZERO)), |row| {
        Ok((column::offset(&row, "trimmed_through")?, column::offset(&row, "end_offset")?))
    })
}

/// The end of a log, and its beginning. `$2` is [`MAX_TRIM_SPAN`].
const TAIL: &str = "
SELECT l.epoch, s.trimmed_through, s.trimmed_messages, s.trimmed_bytes, s.producers, s.producers_through,
    CASE WHEN s.next_expiry_through = s.producers_through THEN s.next_expiry ELSE 0 END AS none_expires_before,
    coalesce(b.first_offset, 0) AS first_offset, coalesce(b.last_offset, 0) AS last_offset,
    coalesce(b.epoch, 0) AS last_epoch, coalesce(b.stored_at, 0) AS stored_at,
    coalesce(b.expires_at, 9223372036854775807) AS expires_at,
    greatest(b.last_offset - s.trimmed_messages, 0) AS messages,
    greatest(b.bytes_through - s.trimmed_bytes, 0) AS bytes, o.stored_at AS oldest
FROM log_state s JOIN log l ON l.queue_id = s.queue_id
LEFT JOIN LATERAL (
    SELECT first_offset, last_offset, epoch, stored_at, expires_at, bytes_through FROM batch
    WHERE batch.queue_id = s.queue_id AND batch.first_offset > s.trimmed_through
    ORDER BY first_offset DESC LIMIT 1
) b ON true
LEFT JOIN LATERAL (
    SELECT stored_at FROM batch
    WHERE batch.queue_id = s.queue_id AND batch.first_offset > s.trimmed_through
      AND batch.first_offset <= s.trimmed_through + $2
    ORDER BY first_offset LIMIT 1
) o ON true
WHERE s.queue_id = $1";

const PRODUCER_EPOCHS: &str =
    "SELECT producer_id, incarnation FROM producer WHERE queue_id = $1 ORDER BY producer_id LIMIT $2";

/// From where to look for the batches that end beyond an offset, `$2`: one that begins before it has no more messages than
/// `$3`, the most that a batch can have. For a statement whose `s` is the log's state.
macro_rules! from {
    () => {
        "
    coalesce((
        SELECT first_offset FROM batch
        WHERE queue_id = $1 AND first_offset <= $2 AND first_offset > greatest(s.trimmed_through, $2 - $3)
        ORDER BY first_offset DESC LIMIT 1
    ), greatest(s.trimmed_through, $2) + 1)"
    };
}

/// `$4` batches at most.
const HEADERS: &str = concat!(
    "
SELECT b.* FROM (SELECT trimmed_through, ",
    from!(),
    " AS first
    FROM log_state s WHERE queue_id = $1 OFFSET 0
) s
CROSS JOIN LATERAL (
    SELECT first_offset, last_offset, epoch, format, stored_at, expires_at, message_index FROM batch
    WHERE queue_id = $1 AND first_offset >= s.first AND last_offset > $2
    ORDER BY first_offset LIMIT $4
) b
ORDER BY b.first_offset"
);

/// `$4` batches at most, and as many as fit `$5` bytes, of those that begin within `$6` offsets; a row without a batch if there is
/// none, which tells the end of the log. Each batch is looked up by itself:
/// a join of any other kind would pass all batches of the queue, if the planner takes them for few. The columns are named: a
/// migration that adds one would change what a prepared statement answers with, which PostgreSQL refuses.
const READ: &str = concat!(
    "
SELECT s.through,
    CASE WHEN w.first_offset IS NULL THEN coalesce((
        SELECT last_offset FROM batch
        WHERE queue_id = $1 AND first_offset > s.trimmed_through
        ORDER BY first_offset DESC LIMIT 1
    ), s.trimmed_through) END AS end_offset,
    b.*
FROM (SELECT trimmed_through,
    greatest(trimmed_through, $2) + least($6, 9223372036854775807 - greatest(trimmed_through, $2)) AS through, ",
    from!(),
    " AS first
    FROM log_state s WHERE queue_id = $1 OFFSET 0
) s
LEFT JOIN LATERAL (
    SELECT first_offset, sum(bytes) OVER w AS total, row_number() OVER w AS place FROM batch
    WHERE queue_id = $1 AND first_offset >= s.first AND first_offset <= s.through AND last_offset > $2
    WINDOW w AS (ORDER BY first_offset ROWS UNBOUNDED PRECEDING)
    ORDER BY first_offset LIMIT $4
) w ON w.total <= $5 OR w.place = 1
LEFT JOIN LATERAL (
    SELECT first_offset, last_offset, epoch, stored_at, expires_at, format, message_index, frames, checksum FROM batch
    WHERE queue_id = $1 AND first_offset = w.first_offset LIMIT 1
) b ON true
ORDER BY w.first_offset"
);

/// The assignment first, which then stands; then the log, for which appends under way are waited for.
const LOCK_LOG: &str = "
SELECT q.assignee, l.epoch, l.claim, l.now
FROM (SELECT id, assignee FROM queue WHERE id = $1 AND NOT deleted FOR SHARE) q,
LATERAL (
    SELECT epoch, claim, rmom_now() AS now FROM log WHERE queue_id = q.id AND NOT deleted FOR NO KEY UPDATE
) l";

/// The broker's row, which its lease renewals wait for, is read and not locked. That is enough, because this statement begins
/// once the log's row is locked. Another run of the broker is registered before it claims. Either this sees it, and the claim
/// fails; or it was registered later, its claim has yet to come, waits for the log's row, and fences whatever this one creates.
const CREATE_EPOCH: &str = "
UPDATE log SET epoch = $2, claim = $3
WHERE queue_id = $1 AND EXISTS (SELECT 1 FROM broker WHERE id = $4 AND incarnation = $5)
RETURNING epoch";

/// The most messages of a batch, for statements.
const MOST_MESSAGES: i64 = MAX_BATCH_MESSAGES as i64;

#[async_trait]
impl Log for PostgresStore {
    async fn claim(&self, claim: &Claim) -> Result<Claimed, ClaimError> {
        self.transact(async |tx| {
            let Some(row) = tx.row(query(LOCK_LOG).bind(claim.queue.as_i64())).await? else {
                // It ends subscribers for good.
                return Ok(End::Confirm(Err(ClaimError::Deleted)));
            };
            let (epoch, store_time) = (column::epoch(&row, "epoch")?, column::time(&row, "now")?);
            // Made again, a claim that is still the latest answers as before, whatever has been assigned since. Everybody
            // sees it, also if a standby that its commit was to wait for does not have it: what the new owner reads would
            // be lost with this machine.
            if column::get::<_, Option<Uuid>>(&row, "claim")? == Some(claim.claim.uuid()) {
                return Ok(End::Confirm(Ok(Claimed { epoch, store_time })));
            }
            if row.optional_int("assignee")? != Some(claim.broker.as_i64()) {
                // Nothing is written for a claim that is refused.
                let sql = "SELECT 1 FROM broker WHERE id = $1 AND incarnation = $2";
                let own = tx.row(query(sql).bind(claim.broker.as_i64()).bind(claim.incarnation.uuid())).await?;
                return Err(if own.is_some() { ClaimError::NotAssignee } else { ClaimError::Replaced });
            }
            let statement = query(CREATE_EPOCH)
                .bind(claim.queue.as_i64())
                .bind(epoch.next().as_i64())
                .bind(claim.claim.uuid())
                .bind(claim.broker.as_i64())
                .bind(claim.incarnation.uuid());
            tx.row(statement).await?.ok_or(ClaimError::Replaced)?;
            Ok(End::Commit(Ok(Claimed { epoch: epoch.next(), store_time })))
        })
        .await?
    }

    async fn tail(&self, queue: QueueId) -> Result<LogTail, StoreError> {
        let mut session = self.pool.read().await?;
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
        let statement = query(HEADERS).bind(queue.as_i64()).bind(after.as_i64()).bind(MOST_MESSAGES);
        self.select(statement.bind(i64::from(limit))).await?.iter().map(rows::header).collect()
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
            .bind(MOST_MESSAGES)
            .bind(MAX_READ_BATCHES)
            .bind(i64::try_from(max_bytes).unwrap_or(i64::MAX))
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

//! The logs in SQLite.

use async_trait::async_trait;
use rmom_core::{
    model::{Epoch, Offset, ProducerId, QueueId, StoreTime},
    ports::{
        AppendBatch, Appended, BatchHeader, Claim, ClaimError, Claimed, Log, LogError, LogTail, MAX_CLOCK_AHEAD_MILLIS,
        MAX_NAMED_PRODUCERS, MAX_TRIM_SPAN, Opened, Page, Purged, StoreError, StoredBatch, Trim, Trimmed,
    },
};
use sqlx::{query, sqlite::SqliteRow};
use uuid::Uuid;

use super::{SqliteStore, backend::SqliteBackend};
use crate::store::{MAX_PURGED_QUEUES, MAX_READ_BATCHES, check_group, column, pool::Session, removed_by};

type Tx<'a> = Session<'a, SqliteBackend>;

/// What a log says about its end, and who may write it.
struct Fence {
    epoch: Epoch,
    deleted: bool,
    trimmed_through: Offset,
    /// First and last offset of the last batch; zero if there is none.
    last_first: Offset,
    last: Offset,
}

impl Fence {
    async fn read(tx: &mut Tx<'_>, queue: QueueId) -> Result<Option<Self>, StoreError> {
        let row = tx
            .row(
                query(
                    "SELECT l.epoch, l.deleted, s.trimmed_through, coalesce(b.first_offset, 0) AS first_offset, \
                     coalesce(b.last_offset, 0) AS last_offset \
                     FROM log l JOIN log_state s ON s.queue_id = l.queue_id LEFT JOIN batch b ON \
                     b.queue_id = l.queue_id AND b.first_offset = \
                     (SELECT max(first_offset) FROM batch WHERE queue_id = ?1) \
                     WHERE l.queue_id = ?1",
                )
                .bind(queue.as_i64()),
            )
            .await?;
        row.map(|row| {
            Ok(Self {
                epoch: column::epoch(&row, "epoch")?,
                deleted: column::get(&row, "deleted")?,
                trimmed_through: column::offset(&row, "trimmed_through")?,
                last_first: column::offset(&row, "first_offset")?,
                last: column::offset(&row, "last_offset")?,
            })
        })
        .transpose()
    }

    /// Why a batch was not stored.
    fn refuses(&self, batch: &AppendBatch) -> Result<Appended, StoreError> {
        if self.deleted {
            return Ok(Appended::Deleted);
        }
        if self.epoch != batch.epoch || self.epoch == Epoch::ZERO {
            return Ok(Appended::Fenced { epoch: self.epoch });
        }
        if batch.first <= self.last.max(self.trimmed_through) {
            return Ok(Appended::Conflict);
        }
        let before = Offset::new(batch.first.get() - 1);
        let follows = self.last_first == batch.previous && self.last == before;
        if follows || self.trimmed_through >= before {
            return Err(StoreError::Corrupt(format!("a batch of queue {} could not be entered", batch.queue)));
        }
        Ok(Appended::WentBack)
    }
}

/// `trimmed_through` and the end of a log that is there.
pub(super) async fn extent(tx: &mut Tx<'_>, queue: QueueId) -> Result<(Offset, Offset), StoreError> {
    let fence = Fence::read(tx, queue).await?;
    let fence = fence.ok_or_else(|| StoreError::Corrupt(format!("queue {queue} has no log")))?;
    Ok((fence.trimmed_through, fence.last.max(fence.trimmed_through)))
}

fn header(row: &SqliteRow) -> Result<BatchHeader, StoreError> {
    Ok(BatchHeader {
        first: column::offset(row, "first_offset")?,
        last: column::offset(row, "last_offset")?,
        epoch: column::epoch(row, "epoch")?,
        stored_at: column::time(row, "stored_at")?,
        expires_at: column::time(row, "expires_at")?,
        format: column::format(row)?,
        index: column::bytes(row, "message_index")?,
    })
}

/// Stores a batch if [`Fence::refuses`] has nothing against it, and then answers with its time. Two statements that go to
/// SQLite's thread together, since each way there and back takes longer than most statements do.
macro_rules! store {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            "INSERT INTO body (frames) SELECT ?1 FROM log l JOIN log_state s ON s.queue_id = l.queue_id \
             LEFT JOIN batch b ON b.queue_id = l.queue_id AND b.first_offset = \
             (SELECT max(first_offset) FROM batch WHERE queue_id = ?2) \
             WHERE l.queue_id = ?2 AND l.deleted = 0 AND l.epoch = ?3 AND l.epoch <> 0 \
             AND ?4 > max(s.trimmed_through, coalesce(b.last_offset, 0)) AND (s.trimmed_through >= ?4 - 1 \
             OR (coalesce(b.first_offset, 0) = ?5 AND coalesce(b.last_offset, 0) = ?4 - 1)); \
             INSERT INTO batch (queue_id, first_offset, last_offset, epoch, format, stored_at, expires_at, bytes, \
             checksum, body, message_index, bytes_through) \
             SELECT ?2, ?4, ?6, ?3, ?7, t.stored_at, \
             CASE WHEN ?8 IS NULL OR ?8 > 9223372036854775807 - t.stored_at THEN 9223372036854775807 \
             ELSE t.stored_at + ?8 END, ?9, ?10, last_insert_rowid(), ?11, t.bytes_before + ?9 \
             FROM (SELECT CASE WHEN max(?13, coalesce(b.stored_at, 0)) <= ?12 + 60000 \
             THEN max(?12, ?13, coalesce(b.stored_at, 0)) ELSE ?12 END AS stored_at, \
             coalesce(b.bytes_through, s.trimmed_bytes) AS bytes_before \
             FROM log_state s LEFT JOIN batch b ON b.queue_id = s.queue_id AND b.first_offset = \
             (SELECT max(first_offset) FROM batch WHERE queue_id = ?2) WHERE s.queue_id = ?2) t \
             WHERE changes() = 1 RETURNING stored_at",
            $after
        )
    };
}

// The statements say so in figures.
const _: () = assert!(MAX_CLOCK_AHEAD_MILLIS == 60_000);

/// Within a transaction.
const STORE: &str = store!("", "");
/// As a transaction of its own, which commits also if there is nothing to store.
const STORE_ALONE: &str = store!("BEGIN IMMEDIATE; ", "; COMMIT");

/// None: it was not stored.
async fn store(
    session: &mut Tx<'_>,
    sql: &'static str,
    batch: &AppendBatch,
    now: StoreTime,
) -> Result<Option<Appended>, StoreError> {
    let statement = query(sql)
        .bind(&*batch.frames)
        .bind(batch.queue.as_i64())
        .bind(batch.epoch.as_i64())
        .bind(batch.first.as_i64())
        .bind(batch.previous.as_i64())
        .bind(batch.last.as_i64())
        .bind(i64::from(batch.format))
        .bind(batch.lifetime_millis.map(|millis| i64::try_from(millis).unwrap_or(i64::MAX)))
        .bind(i64::try_from(batch.frames.len()).unwrap_or(i64::MAX))
        .bind(i64::from(batch.checksum))
        .bind(&*batch.index)
        .bind(now.as_i64())
        .bind(batch.not_before.as_i64());
    let row = session.row(statement).await?;
    row.map(|row| Ok(Appended::Stored { stored_at: column::time(&row, "stored_at")? })).transpose()
}

async fn remove(tx: &mut Tx<'_>, queue: QueueId, row: &SqliteRow, trimmed: &mut Trimmed) -> Result<Offset, StoreError> {
    let (first, last) = (column::offset(row, "first_offset")?, column::offset(row, "last_offset")?);
    let body: i64 = column::get(row, "body")?;
    tx.rows(query("DELETE FROM body WHERE id = ?1").bind(body)).await?;
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
    let now = trimmed.store_time;
    let expired = tx
        .rows(
            query(
                "SELECT first_offset, last_offset, bytes, body FROM batch WHERE queue_id = ?1 \
                 AND expires_at >= ?2 AND expires_at <= ?3 AND expires_at < 9223372036854775807 AND last_offset <= ?4 \
                 AND first_offset <> (SELECT max(first_offset) FROM batch WHERE queue_id = ?1) \
                 ORDER BY expires_at, first_offset LIMIT ?5",
            )
            .bind(trim.queue.as_i64())
            .bind(trim.none_expires_before.as_i64())
            .bind(now.as_i64())
            .bind(through.as_i64())
            .bind(i64::from(trim.limit)),
        )
        .await?;
    for row in &expired {
        remove(tx, trim.queue, row, trimmed).await?;
    }
    trimmed.more = trimmed.batches == u64::from(trim.limit) && trim.limit > 0;
    let end = |sql| query(sql).bind(trim.queue.as_i64());
    let last = tx
        .row(end(
            "SELECT first_offset, last_offset, bytes, body, expires_at, bytes_through FROM batch WHERE queue_id = ?1 \
             ORDER BY first_offset DESC LIMIT 1",
        ))
        .await?;
    let oldest = tx
        .row(end("SELECT first_offset, stored_at FROM batch WHERE queue_id = ?1 ORDER BY first_offset LIMIT 1"))
        .await?;
    let (Some(last), Some(oldest)) = (last, oldest) else { return Ok(None) };
    let (last_first, oldest_first) = (column::offset(&last, "first_offset")?, column::offset(&oldest, "first_offset")?);
    let mut alone = false;
    if oldest_first.since(trimmed.trimmed_through) <= MAX_TRIM_SPAN {
        trimmed.trimmed_through = Offset::new(oldest_first.get().saturating_sub(1));
        trimmed.oldest = Some(column::time(&oldest, "stored_at")?);
        // The last batch stays until all before it are gone: it holds the end of the log.
        alone = oldest_first == last_first;
        let has_expired = column::time(&last, "expires_at")? <= now && column::offset(&last, "last_offset")? <= through;
        if alone && has_expired && trimmed.batches < u64::from(trim.limit) {
            trimmed.trimmed_through = remove(tx, trim.queue, &last, trimmed).await?;
            trimmed.more = trimmed.batches == u64::from(trim.limit);
            trimmed.oldest = None;
            return Ok(Some(column::get(&last, "bytes_through")?));
        }
    } else {
        trimmed.trimmed_through = trimmed.trimmed_through.plus(MAX_TRIM_SPAN);
        trimmed.more = true;
    }
    if alone {
        trimmed.next_expiry = column::time(&last, "expires_at")?;
        return Ok(None);
    }
    if trim.limit == 0 {
        trimmed.next_expiry = trim.none_expires_before;
        return Ok(None);
    }
    let next = tx
        .row(
            query(
                "SELECT expires_at FROM batch WHERE queue_id = ?1 AND expires_at >= ?2 \
                 AND expires_at < 9223372036854775807 AND first_offset <> ?3 ORDER BY expires_at LIMIT 1",
            )
            .bind(trim.queue.as_i64())
            .bind(trim.none_expires_before.as_i64())
            .bind(last_first.as_i64()),
        )
        .await?;
    if let Some(next) = next {
        trimmed.next_expiry = column::time(&next, "expires_at")?;
    }
    Ok(None)
}

#[async_trait]
impl Log for SqliteStore {
    async fn claim(&self, claim: &Claim) -> Result<Claimed, ClaimError> {
        let (mut tx, now) = self.begin().await?;
        let row = tx
            .row(
                query(
                    "SELECT l.epoch, l.claim, q.assignee, b.incarnation FROM queue q JOIN log l ON l.queue_id = q.id \
                     LEFT JOIN broker b ON b.id = ?2 WHERE q.id = ?1 AND q.deleted = 0",
                )
                .bind(claim.queue.as_i64())
                .bind(claim.broker.as_i64()),
            )
            .await?;
        let Some(row) = row else {
            tx.rollback().await?;
            return Err(ClaimError::Deleted);
        };
        let epoch = column::epoch(&row, "epoch")?;
        // Made again, a claim that is still the latest answers as before, whatever has been assigned since.
        if column::get::<_, Option<Uuid>>(&row, "claim")? == Some(claim.claim.uuid()) {
            tx.rollback().await?;
            return Ok(Claimed { epoch, store_time: now });
        }
        if column::get::<_, Option<Uuid>>(&row, "incarnation")? != Some(claim.incarnation.uuid()) {
            tx.rollback().await?;
            return Err(ClaimError::Replaced);
        }
        if column::get::<_, Option<i64>>(&row, "assignee")? != Some(claim.broker.as_i64()) {
            tx.rollback().await?;
            return Err(ClaimError::NotAssignee);
        }
        tx.rows(
            query("UPDATE log SET epoch = ?2, claim = ?3 WHERE queue_id = ?1")
                .bind(claim.queue.as_i64())
                .bind(epoch.next().as_i64())
                .bind(claim.claim.uuid()),
        )
        .await?;
        tx.commit().await?;
        Ok(Claimed { epoch: epoch.next(), store_time: now })
    }

    async fn tail(&self, queue: QueueId) -> Result<LogTail, StoreError> {
        let mut session = self.readers.read().await?;
        let row = session
            .row(
                query(
                    "SELECT l.epoch, s.trimmed_through, s.trimmed_messages, s.trimmed_bytes, s.producers, s.producers_through, \
                     CASE WHEN s.next_expiry_through = s.producers_through THEN s.next_expiry ELSE 0 END \
                     AS none_expires_before, coalesce(b.first_offset, 0) AS first_offset, \
                     coalesce(b.last_offset, 0) AS last_offset, coalesce(b.epoch, 0) AS last_epoch, \
                     coalesce(b.stored_at, 0) AS stored_at, coalesce(b.expires_at, 9223372036854775807) AS expires_at, \
                     max(coalesce(b.last_offset - s.trimmed_messages, 0), 0) AS messages, \
                     max(coalesce(b.bytes_through - s.trimmed_bytes, 0), 0) AS bytes, \
                     (SELECT stored_at FROM batch WHERE queue_id = ?1 AND first_offset <= s.trimmed_through + ?2 \
                     ORDER BY first_offset LIMIT 1) AS oldest \
                     FROM log_state s JOIN log l ON l.queue_id = s.queue_id \
                     LEFT JOIN batch b ON b.queue_id = s.queue_id AND b.first_offset = \
                     (SELECT max(first_offset) FROM batch WHERE queue_id = ?1) WHERE s.queue_id = ?1",
                )
                .bind(queue.as_i64())
                .bind(i64::try_from(MAX_TRIM_SPAN).unwrap_or(i64::MAX)),
            )
            .await?;
        let incarnations = session
            .rows(
                query(
                    "SELECT producer_id, incarnation FROM producer WHERE queue_id = ?1 ORDER BY producer_id LIMIT ?2",
                )
                .bind(queue.as_i64())
                .bind(i64::from(MAX_NAMED_PRODUCERS) + 1),
            )
            .await?;
        session.done();
        let Some(row) = row else { return Ok(LogTail::default()) };
        let trimmed_through = column::offset(&row, "trimmed_through")?;
        let producers = match column::get::<_, Option<Vec<u8>>>(&row, "producers")? {
            Some(snapshot) => Some((column::offset(&row, "producers_through")?, snapshot.into())),
            None => None,
        };
        let incarnation = |row: &SqliteRow| {
            Ok((ProducerId::new(column::get(row, "producer_id")?), column::unsigned(row, "incarnation")?))
        };
        Ok(LogTail {
            epoch: column::epoch(&row, "epoch")?,
            end: column::offset(&row, "last_offset")?.max(trimmed_through),
            last_first: column::offset(&row, "first_offset")?,
            last_epoch: column::epoch(&row, "last_epoch")?,
            last_stored_at: column::time(&row, "stored_at")?,
            last_expires_at: column::time(&row, "expires_at")?,
            trimmed_through,
            messages: column::unsigned(&row, "messages")?,
            bytes: column::unsigned(&row, "bytes")?,
            removed: column::removed(&row)?,
            oldest: column::optional_time(&row, "oldest")?,
            none_expires_before: column::time(&row, "none_expires_before")?,
            producers,
            incarnations: incarnations.iter().map(incarnation).collect::<Result<_, StoreError>>()?,
        })
    }

    async fn headers(&self, queue: QueueId, after: Offset, limit: u32) -> Result<Vec<BatchHeader>, StoreError> {
        let mut session = self.readers.read().await?;
        let rows = session
            .rows(
                query(
                    "SELECT first_offset, last_offset, epoch, format, stored_at, expires_at, message_index FROM batch \
                     WHERE queue_id = ?1 AND last_offset > ?2 AND first_offset >= coalesce( \
                     (SELECT max(first_offset) FROM batch WHERE queue_id = ?1 AND first_offset <= ?2), 0) \
                     ORDER BY first_offset LIMIT ?3",
                )
                .bind(queue.as_i64())
                .bind(after.as_i64())
                .bind(i64::from(limit)),
            )
            .await?;
        session.done();
        rows.iter().map(header).collect()
    }

    async fn read_within(
        &self,
        queue: QueueId,
        after: Offset,
        span: u64,
        max_bytes: usize,
    ) -> Result<Page, StoreError> {
        let mut session = self.readers.read().await?;
        let rows = session
            .rows(
                query(
                    "SELECT s.through, CASE WHEN w.first_offset IS NULL THEN coalesce((SELECT last_offset FROM batch \
                     WHERE queue_id = ?1 ORDER BY first_offset DESC LIMIT 1), s.trimmed_through) END AS end_offset, \
                     batch.first_offset, batch.last_offset, batch.epoch, batch.stored_at, \
                     batch.expires_at, batch.format, batch.message_index, batch.checksum, body.frames \
                     FROM (SELECT trimmed_through, max(trimmed_through, ?2) + \
                     min(?5, 9223372036854775807 - max(trimmed_through, ?2)) AS through \
                     FROM log_state WHERE queue_id = ?1) s LEFT JOIN \
                     (SELECT first_offset, sum(bytes) OVER w AS total, row_number() OVER w AS place FROM batch \
                     WHERE queue_id = ?1 AND last_offset > ?2 AND first_offset >= coalesce( \
                     (SELECT max(first_offset) FROM batch WHERE queue_id = ?1 AND first_offset <= ?2), 0) \
                     WINDOW w AS (ORDER BY first_offset ROWS UNBOUNDED PRECEDING) \
                     ORDER BY first_offset LIMIT ?4) AS w \
                     ON w.first_offset <= s.through AND (w.total <= ?3 OR w.place = 1) \
                     LEFT JOIN batch ON batch.queue_id = ?1 AND batch.first_offset = w.first_offset \
                     LEFT JOIN body ON body.id = batch.body \
                     ORDER BY w.first_offset",
                )
                .bind(queue.as_i64())
                .bind(after.as_i64())
                .bind(i64::try_from(max_bytes).unwrap_or(i64::MAX))
                .bind(MAX_READ_BATCHES)
                .bind(i64::try_from(span).unwrap_or(i64::MAX)),
            )
            .await?;
        session.done();
        let mut page = Page::default();
        for row in &rows {
            if column::get::<_, Option<i64>>(row, "first_offset")?.is_none() {
                page.looked_through = column::offset(row, "through")?.min(column::offset(row, "end_offset")?);
                continue;
            }
            let header = header(row)?;
            page.looked_through = header.last;
            let (frames, checksum) = (column::bytes(row, "frames")?, column::checksum(row)?);
            page.batches.push(StoredBatch { header, frames, checksum });
        }
        Ok(page)
    }

    async fn append(&self, group: &[AppendBatch]) -> Result<Vec<Appended>, StoreError> {
        check_group(group)?;
        if let [batch] = group {
            // Nobody else has a transaction meanwhile, so this is the time of this one.
            let mut session = self.writer.write().await?;
            if let Some(stored) = store(&mut session, STORE_ALONE, batch, self.clock.now()).await? {
                session.done();
                return Ok(vec![stored]);
            }
            session.done();
        }
        let (mut tx, now) = self.begin().await?;
        let mut answers = Vec::with_capacity(group.len());
        for batch in group {
            let answer = match store(&mut tx, STORE, batch, now).await? {
                Some(stored) => stored,
                None => Fence::read(&mut tx, batch.queue).await?.map_or(Ok(Appended::Deleted), |f| f.refuses(batch))?,
            };
            answers.push(answer);
        }
        tx.commit().await?;
        Ok(answers)
    }

    async fn trim(&self, trim: &Trim) -> Result<Trimmed, LogError> {
        let (mut tx, now) = self.begin().await?;
        let Some(fence) = Fence::read(&mut tx, trim.queue).await?.filter(|fence| !fence.deleted) else {
            tx.rollback().await?;
            return Err(LogError::Deleted);
        };
        if fence.epoch != trim.epoch {
            tx.rollback().await?;
            return Err(LogError::Fenced { epoch: fence.epoch });
        }
        let state = tx
            .row(
                query("SELECT trimmed_messages, trimmed_bytes, producers_through FROM log_state WHERE queue_id = ?1")
                    .bind(trim.queue.as_i64()),
            )
            .await?
            .ok_or_else(|| StoreError::Corrupt(format!("queue {} has no log_state", trim.queue)))?;
        let saved_through = column::offset(&state, "producers_through")?;
        let mut trimmed = Trimmed {
            trimmed_through: fence.trimmed_through,
            batches: 0,
            messages: 0,
            bytes: 0,
            removed: column::removed(&state)?,
            oldest: None,
            next_expiry: StoreTime::NEVER,
            more: false,
            store_time: now,
        };
        // What nobody would know the producers of is not removed.
        let through = trim.producers.as_ref().map_or(trim.through.min(saved_through), |_| trim.through);
        let total = remove_expired(&mut tx, trim, through, &mut trimmed).await?;
        trimmed.removed = removed_by(&trimmed, total);
        tx.rows(
            query(
                "UPDATE log_state SET trimmed_through = ?2, trimmed_messages = ?3, trimmed_bytes = ?4, \
                 next_expiry = CASE WHEN next_expiry_through = producers_through AND producers_through = ?6 THEN ?5 \
                 ELSE next_expiry END WHERE queue_id = ?1",
            )
            .bind(trim.queue.as_i64())
            .bind(trimmed.trimmed_through.as_i64())
            .bind(trimmed.removed.messages)
            .bind(trimmed.removed.bytes)
            .bind(trimmed.next_expiry.as_i64())
            // Of a save through here it knows. One that lands after a later save says nothing of that.
            .bind((trimmed.batches > 0).then_some(trim.through.as_i64())),
        )
        .await?;
        if let Some(producers) = trim.producers.as_ref().filter(|_| saved_through <= trim.through) {
            let statement = query(
                "UPDATE log_state SET producers = ?2, producers_through = ?3, next_expiry = ?4, \
                 next_expiry_through = ?3 WHERE queue_id = ?1",
            );
            let statement = statement.bind(trim.queue.as_i64()).bind(&**producers).bind(trim.through.as_i64());
            tx.rows(statement.bind(trimmed.next_expiry.as_i64())).await?;
        }
        tx.commit().await?;
        Ok(trimmed)
    }

    async fn open_producer(&self, queue: QueueId, producer: ProducerId, most: u32) -> Result<Opened, StoreError> {
        let (mut tx, _) = self.begin().await?;
        let row = tx
            .row(
                query(
                    "INSERT INTO producer (queue_id, producer_id, incarnation) \
                     SELECT id, ?2, 1 FROM queue WHERE id = ?1 AND deleted = 0 AND ( \
                     EXISTS (SELECT 1 FROM producer WHERE queue_id = ?1 AND producer_id = ?2) \
                     OR (SELECT count(*) FROM (SELECT 1 FROM producer WHERE queue_id = ?1 LIMIT ?3)) < ?3) \
                     ON CONFLICT (queue_id, producer_id) DO UPDATE SET incarnation = incarnation + 1 \
                     RETURNING incarnation",
                )
                .bind(queue.as_i64())
                .bind(producer.uuid())
                .bind(i64::from(most.min(MAX_NAMED_PRODUCERS))),
            )
            .await?;
        if let Some(row) = row {
            let incarnation = column::unsigned(&row, "incarnation")?;
            tx.commit().await?;
            return Ok(Opened::Given(incarnation));
        }
        let statement = query("SELECT 1 FROM queue WHERE id = ?1 AND deleted = 0").bind(queue.as_i64());
        let is_live = tx.row(statement).await?.is_some();
        tx.rollback().await?;
        Ok(if is_live { Opened::TooMany } else { Opened::Deleted })
    }

    async fn purge_deleted(&self, limit: u32) -> Result<Purged, StoreError> {
        let (mut tx, _) = self.begin().await?;
        let rows = tx
            .rows(
                query(
                    "SELECT b.queue_id, b.first_offset, b.body FROM queue q JOIN batch b ON b.queue_id = q.id \
                     WHERE q.deleted = 1 ORDER BY b.queue_id, b.first_offset LIMIT ?1",
                )
                .bind(i64::from(limit)),
            )
            .await?;
        for row in &rows {
            tx.rows(query("DELETE FROM body WHERE id = ?1").bind(column::get::<_, i64>(row, "body")?)).await?;
            tx.rows(
                query("DELETE FROM batch WHERE queue_id = ?1 AND first_offset = ?2")
                    .bind(column::get::<_, i64>(row, "queue_id")?)
                    .bind(column::get::<_, i64>(row, "first_offset")?),
            )
            .await?;
        }
        let empty = tx
            .rows(
                query(
                    "SELECT id FROM queue q WHERE deleted = 1 \
                     AND NOT EXISTS (SELECT 1 FROM batch WHERE queue_id = q.id) ORDER BY id LIMIT ?1",
                )
                .bind(MAX_PURGED_QUEUES),
            )
            .await?;
        for row in &empty {
            let id: i64 = column::get(row, "id")?;
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
        tx.commit().await?;
        Ok(Purged { batches: rows.len() as u64, more: left.is_some() })
    }
}

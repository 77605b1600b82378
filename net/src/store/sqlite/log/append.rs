//! Appending: a batch is stored if the log's state lets it be; otherwise that state says why not.

use rmom_core::{
    model::{Epoch, Offset, QueueId, StoreTime},
    ports::{AppendBatch, Appended, MAX_CLOCK_AHEAD_MILLIS, StoreError},
};
use sqlx::query;

use super::super::{SqliteStore, Tx};
use crate::store::{column, pool::End, rules::check_group};

/// What a log says about its end, and who may write it.
pub(super) struct Fence {
    pub(super) epoch: Epoch,
    pub(super) deleted: bool,
    pub(super) trimmed_through: Offset,
    /// First and last offset of the last batch; zero if there is none.
    last_first: Offset,
    pub(super) last: Offset,
}

const FENCE: &str = "
SELECT l.epoch, l.deleted, s.trimmed_through, coalesce(b.first_offset, 0) AS first_offset,
    coalesce(b.last_offset, 0) AS last_offset
FROM log l JOIN log_state s ON s.queue_id = l.queue_id
LEFT JOIN batch b ON b.queue_id = l.queue_id
    AND b.first_offset = (SELECT max(first_offset) FROM batch WHERE queue_id = ?1)
WHERE l.queue_id = ?1";

impl Fence {
    pub(super) async fn read(tx: &mut Tx<'_>, queue: QueueId) -> Result<Option<Self>, StoreError> {
        let Some(row) = tx.row(query(FENCE).bind(queue.as_i64())).await? else { return Ok(None) };
        Ok(Some(Self {
            epoch: column::epoch(&row, "epoch")?,
            deleted: column::get(&row, "deleted")?,
            trimmed_through: column::offset(&row, "trimmed_through")?,
            last_first: column::offset(&row, "first_offset")?,
            last: column::offset(&row, "last_offset")?,
        }))
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
        Ok(Appended::RolledBack)
    }
}

/// Stores a batch if [`Fence::refuses`] has nothing against it, and then answers with its time. Two statements that go to
/// SQLite's thread together, since each way there and back takes longer than most statements do.
macro_rules! store {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            "
INSERT INTO body (frames) SELECT ?1 FROM log l JOIN log_state s ON s.queue_id = l.queue_id
LEFT JOIN batch b ON b.queue_id = l.queue_id
    AND b.first_offset = (SELECT max(first_offset) FROM batch WHERE queue_id = ?2)
WHERE l.queue_id = ?2 AND l.deleted = 0 AND l.epoch = ?3 AND l.epoch <> 0
  AND ?4 > max(s.trimmed_through, coalesce(b.last_offset, 0))
  AND (s.trimmed_through >= ?4 - 1
       OR (coalesce(b.first_offset, 0) = ?5 AND coalesce(b.last_offset, 0) = ?4 - 1));
INSERT INTO batch (queue_id, first_offset, last_offset, epoch, format, stored_at, expires_at, bytes, checksum, body,
                   message_index, bytes_through)
SELECT ?2, ?4, ?6, ?3, ?7, t.stored_at,
    CASE WHEN ?8 IS NULL OR ?8 > 9223372036854775807 - t.stored_at THEN 9223372036854775807
         ELSE t.stored_at + ?8 END,
    ?9, ?10, last_insert_rowid(), ?11, t.bytes_before + ?9
FROM (
    SELECT CASE WHEN max(?13, coalesce(b.stored_at, 0)) <= ?12 + 60000
                THEN max(?12, ?13, coalesce(b.stored_at, 0)) ELSE ?12 END AS stored_at,
        coalesce(b.bytes_through, s.trimmed_bytes) AS bytes_before
    FROM log_state s
    LEFT JOIN batch b ON b.queue_id = s.queue_id
        AND b.first_offset = (SELECT max(first_offset) FROM batch WHERE queue_id = ?2)
    WHERE s.queue_id = ?2
) t
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
const STORE_ALONE: &str = store!("BEGIN IMMEDIATE;", "; COMMIT");

/// None: it was not stored.
async fn store_batch(
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

/// [`Log::append`](rmom_core::ports::Log::append).
pub(super) async fn append(store: &SqliteStore, group: &[AppendBatch]) -> Result<Vec<Appended>, StoreError> {
    check_group(group)?;
    if let [batch] = group {
        // Nobody else has a transaction meanwhile, so this is the time of this one.
        let mut session = store.writer.write().await?;
        let stored = store_batch(&mut session, STORE_ALONE, batch, store.clock.now()).await?;
        session.done();
        if let Some(stored) = stored {
            return Ok(vec![stored]);
        }
    }
    store
        .transact(async |tx, now| {
            let mut answers = Vec::with_capacity(group.len());
            for batch in group {
                let answer = match store_batch(tx, STORE, batch, now).await? {
                    Some(stored) => stored,
                    None => {
                        let fence = Fence::read(tx, batch.queue).await?;
                        fence.map_or(Ok(Appended::Deleted), |fence| fence.refuses(batch))?
                    }
                };
                answers.push(answer);
            }
            Ok(End::Commit(answers))
        })
        .await
}

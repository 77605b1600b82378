//! The logs in PostgreSQL.
//!
//! An append is one statement that commits by itself. It locks the fencing rows of its queues in order of id, so that a
//! claim, which changes that row, waits for it, and it for the claim; what it then reads of those rows is what the claim
//! left. A subquery with `ORDER BY … FOR SHARE` keeps that order whatever the planner thinks. Everything else it reads is as
//! of its beginning, which is enough: only the owner of an epoch appends and trims, and it appends one batch at a time.

use std::{collections::BTreeMap, num::TryFromIntError};

use async_trait::async_trait;
use bytes::Bytes;
use rmom_core::{
    model::{Offset, ProducerId, QueueId, StoreTime},
    ports::{
        AppendBatch, Appended, BatchHeader, Claim, ClaimError, Claimed, Log, LogError, LogStats, LogTail, StoreError,
        StoredBatch, Trim, Trimmed,
    },
};
use sqlx::{
    Encode, Postgres, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgArguments, PgRow, PgTypeInfo},
    query,
    query::Query,
};
use uuid::Uuid;

use super::{PostgresStore, backend::PostgresBackend};
use crate::store::{MAX_PURGED_QUEUES, MAX_READ_BATCHES, check_group, column, pool::Session};

type Tx<'a> = Session<'a, PostgresBackend>;

/// Stores the batches that may be stored, and answers with those. It says nothing about the others, which would make every
/// append a fifth dearer: [`REFUSED`] does.
macro_rules! append {
    (batches: $batches:literal, index: $index:literal, frames: $frames:literal) => {
        concat!(
            "
INSERT INTO batch (queue_id, first_offset, last_offset, epoch, stored_at, expires_at, bytes, checksum, format,
                   message_index, frames)
SELECT queue_id, first_offset, last_offset, epoch, stored_at,
    CASE WHEN lifetime IS NULL OR lifetime > 9223372036854775807 - stored_at THEN 9223372036854775807
         ELSE stored_at + lifetime END,
    frames_bytes, checksum, format,
    ", $index, ", ", $frames, "
FROM (
    SELECT lk.*, greatest(rmom_now(), lk.not_before, b.stored_at) AS stored_at
    FROM (
        SELECT u.*, l.epoch AS current, l.deleted
        FROM ", $batches, "
        JOIN log l ON l.queue_id = u.queue_id ORDER BY u.queue_id FOR SHARE OF l
    ) lk
    LEFT JOIN LATERAL (SELECT trimmed_through FROM log_state WHERE log_state.queue_id = lk.queue_id LIMIT 1) s ON true
    LEFT JOIN LATERAL (
        SELECT first_offset, last_offset, stored_at FROM batch WHERE batch.queue_id = lk.queue_id
        ORDER BY first_offset DESC LIMIT 1
    ) b ON true
    WHERE NOT lk.deleted AND lk.current = lk.epoch AND lk.current <> 0
      AND lk.first_offset > greatest(s.trimmed_through, b.last_offset)
      AND (s.trimmed_through >= lk.first_offset - 1
           OR (b.first_offset, b.last_offset) IS NOT DISTINCT FROM (lk.previous, lk.first_offset - 1))
) f
ON CONFLICT DO NOTHING RETURNING queue_id, stored_at"
        )
    };
}

/// One batch, as most of them come when there is little to do: without arrays it takes PostgreSQL a fifth less.
const APPEND_ONE: &str = append! {
    batches: "(SELECT $1::bigint AS queue_id, $2::bigint AS epoch, $3::bigint AS first_offset, $4::bigint AS last_offset,
                     $5::bigint AS previous, $6::bigint AS not_before, $7::bigint AS lifetime,
                     $8::bigint AS checksum, $9::bigint AS format, $10::int AS frames_bytes) u",
    index: "$11::bytea",
    frames: "$12::bytea"
};

/// Several. Parameters 1 to 13 are arrays of one length, the last two are all indexes and all frames, one after the other. What
/// is inserted is cut out of them behind the sort, which would otherwise copy all frames once more.
const APPEND: &str = append! {
    batches: "unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
                     $8::bigint[], $9::bigint[], $10::int[], $11::int[], $12::int[], $13::int[])
              AS u (queue_id, epoch, first_offset, last_offset, previous, not_before, lifetime,
                   checksum, format, index_at, index_bytes, frames_at, frames_bytes)",
    index: "substring($14::bytea FROM index_at FOR index_bytes)",
    frames: "substring($15::bytea FROM frames_at FOR frames_bytes)"
};

/// Why batches were not stored. What it finds has become true by now, and nothing of it becomes untrue later: epochs only
/// grow, and a batch that is there does not go away. A batch that could be stored by now was in conflict with something.
const REFUSED: &str = "
SELECT u.queue_id, l.epoch,
    CASE WHEN l.deleted THEN 1
         WHEN l.epoch <> u.epoch OR l.epoch = 0 THEN 2
         WHEN u.first_offset > greatest(s.trimmed_through, b.last_offset) AND s.trimmed_through < u.first_offset - 1
              AND (b.first_offset, b.last_offset) IS DISTINCT FROM (u.previous, u.first_offset - 1) THEN 4
         ELSE 3 END::bigint AS fate
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) AS u (queue_id, epoch, first_offset, previous)
JOIN log l ON l.queue_id = u.queue_id
LEFT JOIN log_state s ON s.queue_id = u.queue_id
LEFT JOIN LATERAL (
    SELECT first_offset, last_offset FROM batch WHERE batch.queue_id = u.queue_id ORDER BY first_offset DESC LIMIT 1
) b ON true";

const DELETED: i64 = 1;
const FENCED: i64 = 2;
const CONFLICT: i64 = 3;
const WENT_BACK: i64 = 4;

type Fates = BTreeMap<QueueId, Appended>;

type Statement = Query<'static, Postgres, PgArguments>;

/// More than PostgreSQL itself takes, which is 1 GiB.
fn too_large(_: TryFromIntError) -> StoreError {
    StoreError::Refused("more than 2 GiB cannot be stored at once".into())
}

fn lifetime(batch: &AppendBatch) -> Option<i64> {
    batch.lifetime_millis.map(|millis| i64::try_from(millis).unwrap_or(i64::MAX))
}

fn one(batch: &AppendBatch) -> Result<Statement, StoreError> {
    Ok(query(APPEND_ONE)
        .bind(batch.queue.as_i64())
        .bind(batch.epoch.as_i64())
        .bind(batch.first.as_i64())
        .bind(batch.last.as_i64())
        .bind(batch.previous.as_i64())
        .bind(batch.not_before.as_i64())
        .bind(lifetime(batch))
        .bind(i64::from(batch.checksum))
        .bind(i64::from(batch.format))
        .bind(i32::try_from(batch.frames.len()).map_err(too_large)?)
        .bind(&*batch.index)
        .bind(&*batch.frames))
}

fn several(group: &[AppendBatch]) -> Result<Statement, StoreError> {
    let numbers = |of: fn(&AppendBatch) -> i64| group.iter().map(of).collect::<Vec<_>>();
    let (mut indexes, mut frames) = (Joined::default(), Joined::default());
    for batch in group {
        indexes.push(&batch.index)?;
        frames.push(&batch.frames)?;
    }
    Ok(query(APPEND)
        .bind(numbers(|batch| batch.queue.as_i64()))
        .bind(numbers(|batch| batch.epoch.as_i64()))
        .bind(numbers(|batch| batch.first.as_i64()))
        .bind(numbers(|batch| batch.last.as_i64()))
        .bind(numbers(|batch| batch.previous.as_i64()))
        .bind(numbers(|batch| batch.not_before.as_i64()))
        .bind(group.iter().map(lifetime).collect::<Vec<_>>())
        .bind(numbers(|batch| i64::from(batch.checksum)))
        .bind(numbers(|batch| i64::from(batch.format)))
        .bind(indexes.at)
        .bind(indexes.length)
        .bind(frames.at)
        .bind(frames.length)
        .bind(indexes.bytes)
        .bind(frames.bytes))
}

fn stored(rows: &[PgRow]) -> Result<Fates, StoreError> {
    let stored =
        |row| Ok((column::queue_id(row, "queue_id")?, Appended::Stored { stored_at: column::time(row, "stored_at")? }));
    rows.iter().map(stored).collect()
}

fn refused(rows: &[PgRow]) -> Result<Fates, StoreError> {
    let fate = |row| {
        Ok(match column::get::<_, i64>(row, "fate")? {
            DELETED => Appended::Deleted,
            FENCED => Appended::Fenced { epoch: column::epoch(row, "epoch")? },
            CONFLICT => Appended::Conflict,
            WENT_BACK => Appended::WentBack,
            other => return Err(StoreError::Corrupt(format!("column fate holds {other}"))),
        })
    };
    rows.iter().map(|row| Ok((column::queue_id(row, "queue_id")?, fate(row)?))).collect()
}

/// Byte strings one after the other, and where each begins (from 1) and how long it is.
#[derive(Default)]
struct Joined {
    bytes: Parts,
    at: Vec<i32>,
    length: Vec<i32>,
}

impl Joined {
    fn push(&mut self, part: &Bytes) -> Result<(), StoreError> {
        self.at.push(i32::try_from(self.bytes.total + 1).map_err(too_large)?);
        self.length.push(i32::try_from(part.len()).map_err(too_large)?);
        self.bytes.total += part.len();
        self.bytes.parts.push(part.clone());
        Ok(())
    }
}

/// One `bytea` of many parts. They are copied from where they lie into the message to the server, and nowhere before.
#[derive(Default)]
struct Parts {
    parts: Vec<Bytes>,
    total: usize,
}

impl Type<Postgres> for Parts {
    fn type_info() -> PgTypeInfo {
        <[u8] as Type<Postgres>>::type_info()
    }
}

impl Encode<'_, Postgres> for Parts {
    fn encode_by_ref(&self, buf: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buf.reserve(self.total);
        self.parts.iter().for_each(|part| buf.extend_from_slice(part));
        Ok(IsNull::No)
    }

    fn size_hint(&self) -> usize {
        self.total
    }
}

fn header(row: &PgRow) -> Result<BatchHeader, StoreError> {
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

/// The end of a log, without the producers' incarnations.
pub(super) async fn end(session: &mut Tx<'_>, queue: QueueId) -> Result<LogTail, StoreError> {
    let row = session
        .row(
            query(
                "SELECT l.epoch, s.trimmed_through, s.producers, s.producers_through, \
                 coalesce(b.first_offset, 0) AS first_offset, coalesce(b.last_offset, 0) AS last_offset, \
                 coalesce(b.epoch, 0) AS last_epoch, coalesce(b.stored_at, 0) AS stored_at \
                 FROM log_state s JOIN log l ON l.queue_id = s.queue_id LEFT JOIN LATERAL (SELECT first_offset, last_offset, epoch, stored_at FROM batch \
                 WHERE batch.queue_id = s.queue_id ORDER BY first_offset DESC LIMIT 1) b ON true \
                 WHERE s.queue_id = $1",
            )
            .bind(queue.as_i64()),
        )
        .await?;
    let Some(row) = row else { return Ok(LogTail::default()) };
    let trimmed_through = column::offset(&row, "trimmed_through")?;
    let producers = match column::get::<_, Option<Vec<u8>>>(&row, "producers")? {
        Some(snapshot) => Some((column::offset(&row, "producers_through")?, snapshot.into())),
        None => None,
    };
    Ok(LogTail {
        epoch: column::epoch(&row, "epoch")?,
        end: column::offset(&row, "last_offset")?.max(trimmed_through),
        last_first: column::offset(&row, "first_offset")?,
        last_epoch: column::epoch(&row, "last_epoch")?,
        last_stored_at: column::time(&row, "stored_at")?,
        trimmed_through,
        producers,
        incarnations: Vec::new(),
    })
}

#[async_trait]
impl Log for PostgresStore {
    async fn claim(&self, claim: &Claim) -> Result<Claimed, ClaimError> {
        let mut tx = self.begin().await?;
        // The assignment first, which then stands; then the log, for which appends under way are waited for.
        let row = tx
            .row(
                query(
                    "SELECT q.assignee, l.epoch, l.claim, l.now FROM \
                     (SELECT id, assignee FROM queue WHERE id = $1 AND NOT deleted FOR SHARE) q, \
                     LATERAL (SELECT epoch, claim, rmom_now() AS now FROM log WHERE queue_id = q.id AND NOT deleted \
                     FOR NO KEY UPDATE) l",
                )
                .bind(claim.queue.as_i64()),
            )
            .await?;
        let Some(row) = row else {
            tx.rollback().await?;
            return Err(ClaimError::Deleted);
        };
        let (epoch, store_time) = (column::epoch(&row, "epoch")?, column::time(&row, "now")?);
        // Made again, a claim that is still the latest answers as before, whatever has been assigned since.
        if column::get::<_, Option<Uuid>>(&row, "claim")? == Some(claim.claim.uuid()) {
            tx.rollback().await?;
            return Ok(Claimed { epoch, store_time });
        }
        // The broker's row, which its lease renewals wait for, is read and not locked. That is enough, because this statement
        // begins once the log's row is locked. Another run of the broker is registered before it claims. Either this
        // sees it, and the claim fails; or it was registered later, its claim has yet to come, waits for the log's row, and
        // fences whatever this one creates.
        let updated = tx
            .row(
                query(
                    "UPDATE log SET epoch = $2, claim = $3 WHERE queue_id = $1 \
                     AND EXISTS (SELECT 1 FROM broker WHERE id = $4 AND incarnation = $5) RETURNING epoch",
                )
                .bind(claim.queue.as_i64())
                .bind(epoch.next().as_i64())
                .bind(claim.claim.uuid())
                .bind(claim.broker.as_i64())
                .bind(claim.incarnation.uuid()),
            )
            .await?;
        if updated.is_none() {
            tx.rollback().await?;
            return Err(ClaimError::Replaced);
        }
        if column::get::<_, Option<i64>>(&row, "assignee")? != Some(claim.broker.as_i64()) {
            tx.rollback().await?;
            return Err(ClaimError::NotAssignee);
        }
        tx.commit().await?;
        Ok(Claimed { epoch: epoch.next(), store_time })
    }

    async fn tail(&self, queue: QueueId) -> Result<LogTail, StoreError> {
        let mut session = self.pool.read().await?;
        let tail = end(&mut session, queue).await?;
        let rows = session
            .rows(
                query("SELECT producer_id, incarnation FROM producer WHERE queue_id = $1 ORDER BY producer_id")
                    .bind(queue.as_i64()),
            )
            .await?;
        session.done();
        let incarnation = |row: &PgRow| {
            Ok((ProducerId::new(column::get(row, "producer_id")?), column::unsigned(row, "incarnation")?))
        };
        let incarnations = rows.iter().map(incarnation).collect::<Result<_, StoreError>>()?;
        Ok(LogTail { incarnations, ..tail })
    }

    async fn headers(&self, queue: QueueId, after: Offset, limit: u32) -> Result<Vec<BatchHeader>, StoreError> {
        let mut session = self.pool.read().await?;
        let rows = session
            .rows(
                query(
                    "SELECT first_offset, last_offset, epoch, format, stored_at, expires_at, message_index FROM batch \
                     WHERE queue_id = $1 AND last_offset > $2 AND first_offset >= coalesce( \
                     (SELECT max(first_offset) FROM batch WHERE queue_id = $1 AND first_offset <= $2), 0) \
                     ORDER BY first_offset LIMIT $3",
                )
                .bind(queue.as_i64())
                .bind(after.as_i64())
                .bind(i64::from(limit)),
            )
            .await?;
        session.done();
        rows.iter().map(header).collect()
    }

    async fn read(&self, queue: QueueId, after: Offset, max_bytes: usize) -> Result<Vec<StoredBatch>, StoreError> {
        let mut session = self.pool.read().await?;
        let rows = session
            .rows(
                query(
                    "SELECT batch.* FROM (SELECT first_offset, sum(bytes) OVER w AS total, \
                     row_number() OVER w AS place FROM batch \
                     WHERE queue_id = $1 AND last_offset > $2 AND first_offset >= coalesce( \
                     (SELECT max(first_offset) FROM batch WHERE queue_id = $1 AND first_offset <= $2), 0) \
                     WINDOW w AS (ORDER BY first_offset ROWS UNBOUNDED PRECEDING) \
                     ORDER BY first_offset LIMIT $4) AS w \
                     JOIN batch ON batch.queue_id = $1 AND batch.first_offset = w.first_offset \
                     WHERE w.total <= $3 OR w.place = 1 ORDER BY w.first_offset",
                )
                .bind(queue.as_i64())
                .bind(after.as_i64())
                .bind(i64::try_from(max_bytes).unwrap_or(i64::MAX))
                .bind(MAX_READ_BATCHES),
            )
            .await?;
        session.done();
        let stored = |row: &PgRow| {
            Ok(StoredBatch {
                header: header(row)?,
                frames: column::bytes(row, "frames")?,
                checksum: column::checksum(row)?,
            })
        };
        rows.iter().map(stored).collect()
    }

    async fn append(&self, group: &[AppendBatch]) -> Result<Vec<Appended>, StoreError> {
        check_group(group)?;
        let statement = match group {
            [batch] => one(batch)?,
            _ => several(group)?,
        };
        let mut session = self.pool.write().await?;
        let mut fates = stored(&session.rows(statement).await?)?;
        let left: Vec<&AppendBatch> = group.iter().filter(|batch| !fates.contains_key(&batch.queue)).collect();
        if !left.is_empty() {
            let numbers = |of: fn(&AppendBatch) -> i64| left.iter().map(|batch| of(batch)).collect::<Vec<_>>();
            let statement = query(REFUSED)
                .bind(numbers(|batch| batch.queue.as_i64()))
                .bind(numbers(|batch| batch.epoch.as_i64()))
                .bind(numbers(|batch| batch.first.as_i64()))
                .bind(numbers(|batch| batch.previous.as_i64()));
            // What is stored is stored, and this says nothing of it.
            let rows = session.rows(statement).await.map_err(|error| StoreError::Unknown(error.to_string()))?;
            fates.append(&mut refused(&rows)?);
        }
        session.done();
        // Whose fencing row is gone was deleted, and purged.
        Ok(group.iter().map(|batch| fates.get(&batch.queue).copied().unwrap_or(Appended::Deleted)).collect())
    }

    async fn trim(&self, trim: &Trim) -> Result<Trimmed, LogError> {
        let mut tx = self.begin().await?;
        let log = tx
            .row(query("SELECT epoch FROM log WHERE queue_id = $1 AND NOT deleted FOR SHARE").bind(trim.queue.as_i64()))
            .await?;
        let Some(log) = log else {
            tx.rollback().await?;
            return Err(LogError::Deleted);
        };
        let epoch = column::epoch(&log, "epoch")?;
        if epoch != trim.epoch {
            tx.rollback().await?;
            return Err(LogError::Fenced { epoch });
        }
        let state = tx
            .row(
                query(
                    "UPDATE log_state SET producers = CASE WHEN producers_through <= $3 THEN $2 ELSE producers END, \
                     producers_through = GREATEST(producers_through, $3) WHERE queue_id = $1 \
                     RETURNING trimmed_through, rmom_now() AS now",
                )
                .bind(trim.queue.as_i64())
                .bind(&*trim.producers)
                .bind(trim.through.as_i64()),
            )
            .await?
            .ok_or_else(|| StoreError::Corrupt(format!("queue {} has no log_state", trim.queue)))?;
        let mut trimmed = Trimmed {
            trimmed_through: column::offset(&state, "trimmed_through")?,
            batches: 0,
            messages: 0,
            bytes: 0,
            oldest: None,
            next_expiry: StoreTime::NEVER,
            store_time: column::time(&state, "now")?,
        };
        // The last batch stays until all before it are gone: it holds the end of the log.
        let gone = tx
            .rows(
                query(
                    "WITH gone AS MATERIALIZED (SELECT first_offset FROM batch AS b WHERE queue_id = $1 \
                     AND expires_at <= $2 AND expires_at < 9223372036854775807 AND last_offset <= $3 \
                     AND (first_offset < (SELECT max(first_offset) FROM batch WHERE queue_id = $1) \
                          OR NOT EXISTS (SELECT 1 FROM batch AS e WHERE e.queue_id = $1 \
                                         AND e.first_offset < b.first_offset AND e.expires_at > $2)) \
                     ORDER BY first_offset LIMIT $4) \
                     DELETE FROM batch USING gone WHERE batch.queue_id = $1 AND batch.first_offset = gone.first_offset \
                     RETURNING batch.first_offset, batch.last_offset, batch.bytes",
                )
                .bind(trim.queue.as_i64())
                .bind(trimmed.store_time.as_i64())
                .bind(trim.through.as_i64())
                .bind(i64::from(trim.limit)),
            )
            .await?;
        let mut end = Offset::ZERO;
        for row in &gone {
            let last = column::offset(row, "last_offset")?;
            trimmed.batches += 1;
            trimmed.messages += last.since(column::offset(row, "first_offset")?) + 1;
            trimmed.bytes += column::unsigned(row, "bytes")?;
            end = end.max(last);
        }
        if trimmed.batches > 0 {
            let row = tx
                .row(
                    query(
                        "UPDATE log_state SET trimmed_through = coalesce((SELECT first_offset - 1 FROM batch \
                         WHERE queue_id = $1 ORDER BY first_offset LIMIT 1), $2) WHERE queue_id = $1 \
                         RETURNING trimmed_through",
                    )
                    .bind(trim.queue.as_i64())
                    .bind(end.as_i64()),
                )
                .await?
                .ok_or_else(|| StoreError::Corrupt(format!("queue {} has no log_state", trim.queue)))?;
            trimmed.trimmed_through = column::offset(&row, "trimmed_through")?;
        }
        let left = tx
            .row(
                query(
                    "SELECT (SELECT stored_at FROM batch WHERE queue_id = $1 ORDER BY first_offset LIMIT 1) AS oldest, \
                     (SELECT min(expires_at) FROM batch WHERE queue_id = $1 AND expires_at < 9223372036854775807) \
                     AS next_expiry",
                )
                .bind(trim.queue.as_i64()),
            )
            .await?;
        if let Some(left) = left {
            trimmed.oldest = column::optional_time(&left, "oldest")?;
            trimmed.next_expiry = column::optional_time(&left, "next_expiry")?.unwrap_or(StoreTime::NEVER);
        }
        tx.commit().await?;
        Ok(trimmed)
    }

    async fn stats(&self, queue: QueueId, through: Offset) -> Result<LogStats, StoreError> {
        let mut session = self.pool.read().await?;
        let row = session
            .row(
                query(
                    "SELECT coalesce(sum(last_offset - first_offset + 1), 0)::bigint AS messages, \
                     coalesce(sum(bytes), 0)::bigint AS bytes, min(stored_at) AS oldest, \
                     min(expires_at) AS next_expiry FROM batch WHERE queue_id = $1 AND last_offset <= $2",
                )
                .bind(queue.as_i64())
                .bind(through.as_i64()),
            )
            .await?;
        session.done();
        let Some(row) = row else { return Ok(LogStats::default()) };
        Ok(LogStats {
            messages: column::unsigned(&row, "messages")?,
            bytes: column::unsigned(&row, "bytes")?,
            oldest: column::optional_time(&row, "oldest")?,
            next_expiry: column::optional_time(&row, "next_expiry")?.unwrap_or(StoreTime::NEVER),
        })
    }

    async fn open_producer(&self, queue: QueueId, producer: ProducerId) -> Result<Option<u64>, StoreError> {
        let mut session = self.pool.write().await?;
        let row = session
            .row(
                query(
                    "WITH q AS MATERIALIZED (SELECT id FROM queue WHERE id = $1 AND NOT deleted FOR SHARE) \
                     INSERT INTO producer AS p (queue_id, producer_id, incarnation) SELECT id, $2, 1 FROM q \
                     ON CONFLICT (queue_id, producer_id) DO UPDATE SET incarnation = p.incarnation + 1 \
                     RETURNING incarnation",
                )
                .bind(queue.as_i64())
                .bind(producer.uuid()),
            )
            .await?;
        session.done();
        row.as_ref().map(|row| column::unsigned(row, "incarnation")).transpose()
    }

    async fn purge_deleted(&self, limit: u32) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        // Several managers may purge at once: each takes the tombstones that no other has.
        let dead = tx
            .rows(
                query("SELECT id FROM queue WHERE deleted ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED")
                    .bind(MAX_PURGED_QUEUES),
            )
            .await?;
        let dead: Vec<i64> = dead.iter().map(|row| column::get(row, "id")).collect::<Result<_, _>>()?;
        if dead.is_empty() {
            tx.rollback().await?;
            return Ok(0);
        }
        let gone = tx
            .row(
                query(
                    "WITH gone AS MATERIALIZED (SELECT queue_id, first_offset FROM batch WHERE queue_id = ANY($1) \
                     ORDER BY queue_id, first_offset LIMIT $2), d AS (DELETE FROM batch USING gone \
                     WHERE batch.queue_id = gone.queue_id AND batch.first_offset = gone.first_offset RETURNING 1) \
                     SELECT count(*) AS n FROM d",
                )
                .bind(&dead)
                .bind(i64::from(limit)),
            )
            .await?;
        let gone = gone.as_ref().map_or(Ok(0), |row| column::unsigned(row, "n"))?;
        tx.rows(
            query(
                "WITH e AS MATERIALIZED (SELECT id FROM unnest($1) AS d (id) \
                 WHERE NOT EXISTS (SELECT 1 FROM batch WHERE queue_id = d.id)), \
                 p AS (DELETE FROM producer USING e WHERE queue_id = e.id), \
                 s AS (DELETE FROM log_state USING e WHERE queue_id = e.id), \
                 l AS (DELETE FROM log USING e WHERE queue_id = e.id) \
                 DELETE FROM queue USING e WHERE queue.id = e.id",
            )
            .bind(&dead),
        )
        .await?;
        tx.commit().await?;
        Ok(gone)
    }
}

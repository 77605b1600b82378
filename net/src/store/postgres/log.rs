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

use std::{collections::BTreeMap, num::TryFromIntError};

use async_trait::async_trait;
use bytes::Bytes;
use rmom_core::{
    model::{Offset, ProducerId, QueueId, StoreTime, limits::MAX_BATCH_MESSAGES},
    ports::{
        AppendBatch, Appended, BatchHeader, Claim, ClaimError, Claimed, Log, LogError, LogTail, MAX_CLOCK_AHEAD_MILLIS,
        MAX_NAMED_PRODUCERS, MAX_TRIM_SPAN, Opened, Page, StoreError, StoredBatch, Trim, Trimmed,
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
                   message_index, frames, bytes_through)
SELECT queue_id, first_offset, last_offset, epoch, stored_at,
    CASE WHEN lifetime IS NULL OR lifetime > 9223372036854775807 - stored_at THEN 9223372036854775807
         ELSE stored_at + lifetime END,
    frames_bytes, checksum, format,
    ",
            $index,
            ", ",
            $frames,
            ", bytes_before + frames_bytes
FROM (
    SELECT lk.*, coalesce(b.bytes_through, s.trimmed_bytes) AS bytes_before,
        CASE WHEN greatest(lk.not_before, b.stored_at) <= rmom_now() + 60000
             THEN greatest(rmom_now(), lk.not_before, b.stored_at) ELSE rmom_now() END AS stored_at
    FROM (
        SELECT u.*, l.epoch AS current, l.deleted
        FROM ",
            $batches,
            "
        JOIN log l ON l.queue_id = u.queue_id ORDER BY u.queue_id FOR SHARE OF l
    ) lk
    LEFT JOIN LATERAL (
        SELECT trimmed_through, trimmed_bytes FROM log_state WHERE log_state.queue_id = lk.queue_id LIMIT 1
    ) s ON true
    LEFT JOIN LATERAL (
        SELECT first_offset, last_offset, stored_at, bytes_through FROM batch
        WHERE batch.queue_id = lk.queue_id AND batch.first_offset > s.trimmed_through
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
    SELECT first_offset, last_offset FROM batch
    WHERE batch.queue_id = u.queue_id AND batch.first_offset > s.trimmed_through
    ORDER BY first_offset DESC LIMIT 1
) b ON true";

// The statements say so in figures.
const _: () = assert!(MAX_CLOCK_AHEAD_MILLIS == 60_000);

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

/// `trimmed_through` and the end of a log; zero if there is none.
pub(super) async fn extent(session: &mut Tx<'_>, queue: QueueId) -> Result<(Offset, Offset), StoreError> {
    let row = session
        .row(
            query(
                "SELECT s.trimmed_through, coalesce(b.last_offset, s.trimmed_through) AS end_offset \
                 FROM log_state s LEFT JOIN LATERAL (SELECT last_offset FROM batch \
                 WHERE batch.queue_id = s.queue_id AND batch.first_offset > s.trimmed_through \
                 ORDER BY first_offset DESC LIMIT 1) b ON true WHERE s.queue_id = $1",
            )
            .bind(queue.as_i64()),
        )
        .await?;
    row.map_or(Ok((Offset::ZERO, Offset::ZERO)), |row| {
        Ok((column::offset(&row, "trimmed_through")?, column::offset(&row, "end_offset")?))
    })
}

/// The end of a log, and its beginning. `$2` is [`MAX_TRIM_SPAN`].
const TAIL: &str = "
SELECT l.epoch, s.trimmed_through, s.producers, s.producers_through,
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

/// From where to look for the batches that end beyond an offset, `$2`: one that begins before it has no more messages than
/// `$3`, the most that a batch can have. For a statement whose `s` is the log's state.
macro_rules! from {
    () => {
        "coalesce((SELECT first_offset FROM batch WHERE queue_id = $1 AND first_offset <= $2 \
         AND first_offset > greatest(s.trimmed_through, $2 - $3) ORDER BY first_offset DESC LIMIT 1), \
         greatest(s.trimmed_through, $2) + 1)"
    };
}

/// `$4` batches at most.
const HEADERS: &str = concat!(
    "SELECT b.* FROM (SELECT trimmed_through, ",
    from!(),
    " AS first FROM log_state s WHERE queue_id = $1 OFFSET 0) s CROSS JOIN LATERAL (\
     SELECT first_offset, last_offset, epoch, format, stored_at, expires_at, message_index FROM batch \
     WHERE queue_id = $1 AND first_offset >= s.first AND last_offset > $2 ORDER BY first_offset LIMIT $4) b \
     ORDER BY b.first_offset"
);

/// `$4` batches at most, and as many as fit `$5` bytes; a row without a batch if there is none. Each batch is looked up by itself:
/// a join of any other kind would pass all batches of the queue, if the planner takes them for few. The columns are named: a
/// migration that adds one would change what a prepared statement answers with, which PostgreSQL refuses.
const READ: &str = concat!(
    "SELECT s.trimmed_through, b.* FROM (SELECT trimmed_through, ",
    from!(),
    " AS first FROM log_state s WHERE queue_id = $1 OFFSET 0) s LEFT JOIN LATERAL (\
     SELECT first_offset, sum(bytes) OVER w AS total, row_number() OVER w AS place FROM batch \
     WHERE queue_id = $1 AND first_offset >= s.first AND last_offset > $2 \
     WINDOW w AS (ORDER BY first_offset ROWS UNBOUNDED PRECEDING) ORDER BY first_offset LIMIT $4) w \
     ON w.total <= $5 OR w.place = 1 \
     LEFT JOIN LATERAL (SELECT first_offset, last_offset, epoch, stored_at, expires_at, format, message_index, frames, \
     checksum FROM batch WHERE queue_id = $1 AND first_offset = w.first_offset LIMIT 1) b ON true \
     ORDER BY w.first_offset"
);

/// The state of a log, under a lock that keeps other trims out.
const LOCK_STATE: &str = "
SELECT trimmed_through, producers_through, rmom_now() AS now FROM log_state WHERE queue_id = $1 FOR NO KEY UPDATE";

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

/// `$5`: the total of a log that is empty now, which the counts begin anew from, or null. `$6`: when the next batch expires, as
/// was found by a trim that knows of a save through `$7`, or null. One that lands after a later save says nothing of that.
const UPDATE_STATE: &str = "
UPDATE log_state SET trimmed_through = $2,
    trimmed_messages = CASE WHEN $5::bigint IS NULL THEN trimmed_messages + $3 ELSE $2 END,
    trimmed_bytes = coalesce($5::bigint, trimmed_bytes + $4),
    next_expiry = CASE WHEN next_expiry_through = producers_through AND producers_through = $7::bigint THEN $6
                       ELSE next_expiry END
WHERE queue_id = $1";

const UPDATE_STATE_AND_PRODUCERS: &str = "
UPDATE log_state SET trimmed_through = $2,
    trimmed_messages = CASE WHEN $5::bigint IS NULL THEN trimmed_messages + $3 ELSE $2 END,
    trimmed_bytes = coalesce($5::bigint, trimmed_bytes + $4),
    producers = $6, producers_through = $7, next_expiry = $8, next_expiry_through = $7
WHERE queue_id = $1";

/// The most messages of a batch, for statements.
const MOST_MESSAGES: i64 = MAX_BATCH_MESSAGES as i64;

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
    if let Some(oldest) = column::get::<_, Option<i64>>(&ends, "oldest_first")? {
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
            return Ok(Some(column::get(&ends, "bytes_through")?));
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

/// Nothing but the producer's row is locked: many producers that come one after the other keep nobody from moving the queue.
const OPEN_KNOWN_PRODUCER: &str = "
UPDATE producer SET incarnation = incarnation + 1
WHERE queue_id = $1 AND producer_id = $2 AND EXISTS (SELECT 1 FROM queue WHERE id = $1 AND NOT deleted)
RETURNING incarnation";

/// Enters the producer `$2` of the queue `$1`, unless the queue has `$3` producers. No row if the queue is deleted, a row
/// without an incarnation if the queue has too many. The lock keeps the queue from being removed, so that no row of a producer
/// is left behind, and from nothing else. For a transaction that keeps others from entering producers at the same time.
const OPEN_NEW_PRODUCER: &str = "
WITH q AS MATERIALIZED (
    SELECT id FROM queue WHERE id = $1 AND NOT deleted FOR KEY SHARE
), given AS (
    INSERT INTO producer AS p (queue_id, producer_id, incarnation) SELECT id, $2, 1 FROM q
    WHERE EXISTS (SELECT 1 FROM producer WHERE queue_id = $1 AND producer_id = $2)
       OR (SELECT count(*) FROM (SELECT 1 FROM producer WHERE queue_id = $1 LIMIT $3) c) < $3
    ON CONFLICT (queue_id, producer_id) DO UPDATE SET incarnation = p.incarnation + 1
    RETURNING incarnation
)
SELECT given.incarnation FROM q LEFT JOIN given ON true";

/// Removes the first `$2` batches of the deleted queues `$1`, and moves each queue's `trimmed_through` behind what went, or
/// on by `$3` where it found none and some is left: the next purge does not pass again what this one removed or passed.
const PURGE_BATCHES: &str = "
WITH gone AS MATERIALIZED (
    SELECT s.queue_id, b.first_offset FROM log_state s CROSS JOIN LATERAL (
        SELECT first_offset FROM batch
        WHERE batch.queue_id = s.queue_id AND batch.first_offset > s.trimmed_through
          AND batch.first_offset <= s.trimmed_through + $3
        ORDER BY first_offset LIMIT $2
    ) b
    WHERE s.queue_id = ANY($1::bigint[]) ORDER BY s.queue_id, b.first_offset LIMIT $2
), d AS (
    DELETE FROM batch USING gone WHERE batch.queue_id = gone.queue_id AND batch.first_offset = gone.first_offset
    RETURNING batch.queue_id, batch.last_offset
), removed AS (
    SELECT queue_id, count(*) AS n, max(last_offset) AS through FROM d GROUP BY queue_id
), total AS (
    SELECT coalesce(sum(n), 0)::bigint AS n FROM removed
), moved AS (
    UPDATE log_state s SET trimmed_through = coalesce(r.through, s.trimmed_through + $3)
    FROM unnest($1::bigint[]) AS q (id) LEFT JOIN removed r ON r.queue_id = q.id
    WHERE s.queue_id = q.id AND (r.through IS NOT NULL OR (
        (SELECT first_offset FROM batch WHERE batch.queue_id = s.queue_id AND batch.first_offset > s.trimmed_through
         ORDER BY first_offset DESC LIMIT 1) > s.trimmed_through + $3
        AND NOT EXISTS (SELECT 1 FROM batch WHERE batch.queue_id = s.queue_id
                        AND batch.first_offset > s.trimmed_through AND batch.first_offset <= s.trimmed_through + $3)))
)
SELECT n FROM total";

/// Removes what else is left of those of the deleted queues `$1` that have no batch any more.
const PURGE_EMPTY: &str = "
WITH e AS MATERIALIZED (
    SELECT id FROM unnest($1::bigint[]) AS d (id) LEFT JOIN log_state s ON s.queue_id = d.id
    LEFT JOIN LATERAL (
        SELECT 1 AS is_there FROM batch WHERE batch.queue_id = d.id AND batch.first_offset > s.trimmed_through
        ORDER BY first_offset DESC LIMIT 1
    ) b ON true
    WHERE b.is_there IS NULL
), p AS (DELETE FROM producer USING e WHERE queue_id = e.id),
s AS (DELETE FROM log_state USING e WHERE queue_id = e.id),
l AS (DELETE FROM log USING e WHERE queue_id = e.id)
DELETE FROM queue USING e WHERE queue.id = e.id";

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
        if column::get::<_, Option<i64>>(&row, "assignee")? != Some(claim.broker.as_i64()) {
            // Nothing is written for a claim that is refused.
            let sql = "SELECT 1 FROM broker WHERE id = $1 AND incarnation = $2";
            let own = tx.row(query(sql).bind(claim.broker.as_i64()).bind(claim.incarnation.uuid())).await?;
            tx.rollback().await?;
            return Err(if own.is_some() { ClaimError::NotAssignee } else { ClaimError::Replaced });
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
        tx.commit().await?;
        Ok(Claimed { epoch: epoch.next(), store_time })
    }

    async fn tail(&self, queue: QueueId) -> Result<LogTail, StoreError> {
        let mut session = self.pool.read().await?;
        let span = i64::try_from(MAX_TRIM_SPAN).unwrap_or(i64::MAX);
        let row = session.row(query(TAIL).bind(queue.as_i64()).bind(span)).await?;
        let Some(row) = row else {
            session.done();
            return Ok(LogTail::default());
        };
        let rows = session
            .rows(
                query(
                    "SELECT producer_id, incarnation FROM producer WHERE queue_id = $1 ORDER BY producer_id LIMIT $2",
                )
                .bind(queue.as_i64())
                .bind(i64::from(MAX_NAMED_PRODUCERS) + 1),
            )
            .await?;
        session.done();
        let incarnation = |row: &PgRow| {
            Ok((ProducerId::new(column::get(row, "producer_id")?), column::unsigned(row, "incarnation")?))
        };
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
            last_expires_at: column::time(&row, "expires_at")?,
            trimmed_through,
            messages: column::unsigned(&row, "messages")?,
            bytes: column::unsigned(&row, "bytes")?,
            oldest: column::optional_time(&row, "oldest")?,
            none_expires_before: column::time(&row, "none_expires_before")?,
            producers,
            incarnations: rows.iter().map(incarnation).collect::<Result<_, StoreError>>()?,
        })
    }

    async fn headers(&self, queue: QueueId, after: Offset, limit: u32) -> Result<Vec<BatchHeader>, StoreError> {
        let mut session = self.pool.read().await?;
        let statement =
            query(HEADERS).bind(queue.as_i64()).bind(after.as_i64()).bind(MOST_MESSAGES).bind(i64::from(limit));
        let rows = session.rows(statement).await?;
        session.done();
        rows.iter().map(header).collect()
    }

    async fn read(&self, queue: QueueId, after: Offset, max_bytes: usize) -> Result<Page, StoreError> {
        let mut session = self.pool.read().await?;
        let statement = query(READ)
            .bind(queue.as_i64())
            .bind(after.as_i64())
            .bind(MOST_MESSAGES)
            .bind(MAX_READ_BATCHES)
            .bind(i64::try_from(max_bytes).unwrap_or(i64::MAX));
        let rows = session.rows(statement).await?;
        session.done();
        let mut page = Page::default();
        for row in &rows {
            page.trimmed_through = column::offset(row, "trimmed_through")?;
            if column::get::<_, Option<i64>>(row, "first_offset")?.is_some() {
                page.batches.push(StoredBatch {
                    header: header(row)?,
                    frames: column::bytes(row, "frames")?,
                    checksum: column::checksum(row)?,
                });
            }
        }
        Ok(page)
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
            .row(query(LOCK_STATE).bind(trim.queue.as_i64()))
            .await?
            .ok_or_else(|| StoreError::Corrupt(format!("queue {} has no log_state", trim.queue)))?;
        let saved_through = column::offset(&state, "producers_through")?;
        let now = column::time(&state, "now")?;
        let mut trimmed = Trimmed {
            trimmed_through: column::offset(&state, "trimmed_through")?,
            batches: 0,
            messages: 0,
            bytes: 0,
            oldest: None,
            next_expiry: StoreTime::NEVER,
            more: false,
            store_time: now,
        };
        // What nobody would know the producers of is not removed.
        let through = trim.producers.as_ref().map_or(trim.through.min(saved_through), |_| trim.through);
        let totals = remove_expired(&mut tx, trim, through, &mut trimmed).await?;
        let replaces = trim.producers.is_some() && saved_through <= trim.through;
        if replaces || trimmed.batches > 0 || trimmed.trimmed_through != column::offset(&state, "trimmed_through")? {
            let update = if replaces { UPDATE_STATE_AND_PRODUCERS } else { UPDATE_STATE };
            let mut statement = query(update)
                .bind(trim.queue.as_i64())
                .bind(trimmed.trimmed_through.as_i64())
                .bind(i64::try_from(trimmed.messages).unwrap_or(i64::MAX))
                .bind(i64::try_from(trimmed.bytes).unwrap_or(i64::MAX))
                .bind(totals);
            if let (true, Some(producers)) = (replaces, &trim.producers) {
                statement = statement.bind(&**producers).bind(trim.through.as_i64()).bind(trimmed.next_expiry.as_i64());
            } else {
                let knows = (trimmed.batches > 0).then_some(trim.through.as_i64());
                statement = statement.bind(trimmed.next_expiry.as_i64()).bind(knows);
            }
            tx.rows(statement).await?;
        }
        tx.commit().await?;
        Ok(trimmed)
    }

    async fn open_producer(&self, queue: QueueId, producer: ProducerId, most: u32) -> Result<Opened, StoreError> {
        // If the queue is deleted meanwhile, then as if it had been deleted just afterwards.
        let known = query(OPEN_KNOWN_PRODUCER).bind(queue.as_i64()).bind(producer.uuid());
        if let Some(row) = self.change(known).await? {
            return Ok(Opened::Given(column::unsigned(&row, "incarnation")?));
        }
        let mut tx = self.begin().await?;
        // A statement of its own: the next one sees what others entered before.
        tx.rows(query("SELECT pg_advisory_xact_lock(hashtextextended('rmom producer', $1))").bind(queue.as_i64()))
            .await?;
        let enter = query(OPEN_NEW_PRODUCER)
            .bind(queue.as_i64())
            .bind(producer.uuid())
            .bind(i64::from(most.min(MAX_NAMED_PRODUCERS)));
        let Some(row) = tx.row(enter).await? else {
            tx.rollback().await?;
            return Ok(Opened::Deleted);
        };
        let Some(incarnation) = column::get::<_, Option<i64>>(&row, "incarnation")? else {
            tx.rollback().await?;
            return Ok(Opened::TooMany);
        };
        tx.commit().await?;
        Ok(Opened::Given(incarnation.unsigned_abs()))
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
        let span = i64::try_from(MAX_TRIM_SPAN).unwrap_or(i64::MAX);
        let gone = tx.row(query(PURGE_BATCHES).bind(&dead).bind(i64::from(limit)).bind(span)).await?;
        let gone = gone.as_ref().map_or(Ok(0), |row| column::unsigned(row, "n"))?;
        tx.rows(query(PURGE_EMPTY).bind(&dead)).await?;
        tx.commit().await?;
        Ok(gone)
    }
}

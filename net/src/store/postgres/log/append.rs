//! Appending: one statement for a group of batches, and another one for those that were not stored.

use std::{collections::BTreeMap, num::TryFromIntError};

use bytes::Bytes;
use rmom_core::{
    model::QueueId,
    ports::{AppendBatch, Appended, MAX_CLOCK_AHEAD_MILLIS, StoreError},
};
use sqlx::{
    Encode, Postgres, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgRow, PgTypeInfo},
    query,
};

use super::super::{PostgresStore, Statement};
use crate::store::{
    column::{self, StoreRow as _},
    rules::check_group,
};

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
const ROLLED_BACK: i64 = 4;

type Fates = BTreeMap<QueueId, Appended>;

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
        Ok(match PgRow::int(row, "fate")? {
            DELETED => Appended::Deleted,
            FENCED => Appended::Fenced { epoch: column::epoch(row, "epoch")? },
            CONFLICT => Appended::Conflict,
            ROLLED_BACK => Appended::RolledBack,
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

/// [`Log::append`](rmom_core::ports::Log::append).
pub(super) async fn append(store: &PostgresStore, group: &[AppendBatch]) -> Result<Vec<Appended>, StoreError> {
    check_group(group)?;
    let statement = match group {
        [batch] => one(batch)?,
        _ => several(group)?,
    };
    let mut session = store.pool.write().await?;
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

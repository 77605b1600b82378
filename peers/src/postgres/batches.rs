//! A row for each batch, as rmom stores them, over one connection.

use std::time::Instant;

use sqlx::{Executor as _, PgConnection, Row as _, query};
use tokio::runtime;

use super::prepared;
use crate::load::{Clock, Error, Figures, Load, content};

/// As rmom's table of batches.
const BATCHES: &str = "
DROP TABLE IF EXISTS side_by_side_batch;
CREATE TABLE side_by_side_batch (queue_id bigint NOT NULL, first_offset bigint NOT NULL, last_offset bigint NOT NULL,
    expires_at bigint NOT NULL, message_index bytea NOT NULL, frames bytea NOT NULL, PRIMARY KEY (queue_id, first_offset));
ALTER TABLE side_by_side_batch ALTER frames SET STORAGE EXTERNAL, ALTER message_index SET STORAGE MAIN";
/// What rmom's index has for each message, about.
const INDEX_BYTES_PER_MESSAGE: usize = 2;
/// What rmom's frames have for each message beside its content: id, lengths, offset.
const FRAME_BYTES_PER_MESSAGE: usize = 52;
/// Bytes that are read at once, about, as rmom does.
const PAGE_BYTES: usize = 2 << 20;

/// Stores batches of `in_flight` messages, one after the other. One in flight is a bare commit.
pub(crate) fn store(url: &str, load: &Load) -> Result<Figures, Error> {
    block_on(async {
        let mut connection = prepared(url, BATCHES).await?;
        let mut figures = Figures::new(load);
        let clock = Clock::start(*load);
        let mut stored = 0;
        while !clock.is_over() {
            let sent = clock.now();
            append(&mut connection, load.size, stored + 1, load.in_flight, sent).await?;
            stored += load.in_flight;
            let now = clock.now();
            if clock.is_measured(now) {
                figures.stored += load.in_flight;
                figures.acknowledged_after.saturating_record(now - sent);
            }
        }
        let sum = "SELECT sum(last_offset - first_offset + 1)::bigint FROM side_by_side_batch";
        let found: i64 = connection.fetch_one(sum).await?.try_get(0)?;
        if found as u64 != stored {
            return Err(Error::Broken { wanted: stored, found: found as u64 });
        }
        connection.execute("DROP TABLE side_by_side_batch").await?;
        Ok(figures)
    })
}

/// Stores so many messages in batches of `in_flight`, and measures how fast their bytes can be read back.
pub(crate) fn read(url: &str, load: &Load, messages: u64) -> Result<Figures, Error> {
    block_on(async {
        let mut connection = prepared(url, BATCHES).await?;
        let mut stored = 0;
        while stored < messages {
            let some = load.in_flight.min(messages - stored);
            append(&mut connection, load.size, stored + 1, some, 0).await?;
            stored += some;
        }
        // Not to be done while it is measured.
        connection.execute("CHECKPOINT").await?;
        let batch_bytes = load.in_flight as usize * (load.size + FRAME_BYTES_PER_MESSAGE);
        let batches = (PAGE_BYTES / batch_bytes).max(1) as i64;
        let page = "SELECT last_offset, message_index, frames FROM side_by_side_batch \
                    WHERE queue_id = 1 AND first_offset > $1 ORDER BY first_offset LIMIT $2";
        let (mut last, mut bytes) = (0_i64, 0);
        let started = Instant::now();
        while (last as u64) < messages {
            let rows = query(page).bind(last).bind(batches).fetch_all(&mut connection).await?;
            let Some(newest) = rows.last() else {
                return Err(Error::Broken { wanted: messages, found: last as u64 });
            };
            last = newest.try_get("last_offset")?;
            for row in &rows {
                bytes += row.try_get::<&[u8], _>("frames")?.len();
            }
        }
        let took = started.elapsed();
        let wanted = messages * (load.size + FRAME_BYTES_PER_MESSAGE) as u64;
        if bytes as u64 != wanted {
            return Err(Error::Other(format!("{bytes} bytes came back of {wanted}")));
        }
        connection.execute("DROP TABLE side_by_side_batch").await?;
        Ok(Figures { delivered: messages, duration: took, ..Figures::new(load) })
    })
}

/// On this thread alone: one thing is done after the other, and handing it to another thread would only take time.
fn block_on<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// A row with `messages` messages, in a transaction of its own.
async fn append(connection: &mut PgConnection, size: usize, first: u64, messages: u64, due: u64) -> Result<(), Error> {
    let last = first + messages - 1;
    let mut frames = Vec::with_capacity(messages as usize * (size + FRAME_BYTES_PER_MESSAGE));
    for number in first..=last {
        frames.extend_from_slice(&content(number, due, size));
        frames.resize(frames.len() + FRAME_BYTES_PER_MESSAGE, b'x');
    }
    let index = vec![0_u8; messages as usize * INDEX_BYTES_PER_MESSAGE];
    let insert = query("INSERT INTO side_by_side_batch VALUES (1, $1, $2, $3, $4, $5)");
    insert.bind(first as i64).bind(last as i64).bind(i64::MAX).bind(index).bind(frames).execute(connection).await?;
    Ok(())
}

//! PostgreSQL without a broker.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use sqlx::{Connection as _, Executor as _, PgConnection, Row as _, query};
use tokio::runtime::Runtime;

use crate::load::{Clock, Error, Figures, Load, content, header};

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

/// As people build it.
const QUEUE: &str = "
DROP TABLE IF EXISTS side_by_side_queue;
CREATE TABLE side_by_side_queue (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, topic text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(), content bytea NOT NULL)";
/// Rows that a consumer takes at once.
const TAKEN_AT_ONCE: i64 = 100;
/// Connections that insert, at most: more are slower.
const MAX_INSERTERS: u64 = 32;
const IDLE_PAUSE: Duration = Duration::from_millis(1);

/// A row for each batch of `in_flight` messages, one after the other.
pub(crate) fn batches(url: &str, load: &Load) -> Result<Figures, Error> {
    Runtime::new()?.block_on(async {
        let mut connection = prepared(url, BATCHES).await?;
        let insert = "INSERT INTO side_by_side_batch VALUES (1, $1, $2, $3, $4, $5)";
        let mut figures = Figures::new(load);
        let clock = Clock::start(*load);
        let mut next = 1;
        while !clock.is_over() {
            let sent = clock.now();
            let last = next + load.in_flight - 1;
            let mut frames = Vec::with_capacity(load.in_flight as usize * (load.size + FRAME_BYTES_PER_MESSAGE));
            for number in next..=last {
                frames.extend_from_slice(&content(number, sent, load.size));
                frames.resize(frames.len() + FRAME_BYTES_PER_MESSAGE, b'x');
            }
            let index = vec![0_u8; load.in_flight as usize * INDEX_BYTES_PER_MESSAGE];
            let statement = query(insert).bind(next as i64).bind(last as i64).bind(i64::MAX).bind(index).bind(frames);
            statement.execute(&mut connection).await?;
            next = last + 1;
            let now = clock.now();
            if clock.is_measured(now) {
                figures.stored += load.in_flight;
                figures.acknowledged_after.saturating_record(now - sent);
            }
        }
        let sum = "SELECT sum(last_offset - first_offset + 1)::bigint FROM side_by_side_batch";
        let stored: i64 = connection.fetch_one(sum).await?.try_get(0)?;
        if stored as u64 != next - 1 {
            return Err(Error::Broken { wanted: next - 1, found: stored as u64 });
        }
        connection.execute("DROP TABLE side_by_side_batch").await?;
        Ok(figures)
    })
}

/// A row for each message, in a transaction of its own, over as many connections as messages are in flight.
pub(crate) fn queue(url: &str, load: &Load) -> Result<Figures, Error> {
    Runtime::new()?.block_on(async {
        let mut connection = prepared(url, QUEUE).await?;
        let clock = Clock::start(*load);
        let next = Arc::new(AtomicU64::new(0));
        let inserters: Vec<_> = (0..load.in_flight.min(MAX_INSERTERS))
            .map(|_| tokio::spawn(insert(url.to_owned(), clock, *load, Arc::clone(&next))))
            .collect();
        let done = Arc::new(AtomicBool::new(false));
        let taking = load.deliver.then(|| tokio::spawn(take(url.to_owned(), clock, *load, Arc::clone(&done))));
        let mut figures = Figures::new(load);
        let mut inserted = 0;
        for inserter in inserters {
            let (count, some) = inserter.await.map_err(|error| Error::Other(error.to_string()))??;
            inserted += count;
            figures.stored += some.stored;
            figures.acknowledged_after.add(some.acknowledged_after).map_err(|error| Error::Other(error.to_string()))?;
        }
        done.store(true, Relaxed);
        let left: i64 = match taking {
            Some(taking) => {
                let (taken, some) = taking.await.map_err(|error| Error::Other(error.to_string()))??;
                figures.delivered = some.delivered;
                figures.received_after = some.received_after;
                taken as i64
            }
            None => connection.fetch_one("SELECT count(*) FROM side_by_side_queue").await?.try_get(0)?,
        };
        if left as u64 != inserted {
            return Err(Error::Broken { wanted: inserted, found: left as u64 });
        }
        connection.execute("DROP TABLE side_by_side_queue").await?;
        Ok(figures)
    })
}

async fn prepared(url: &str, schema: &'static str) -> Result<PgConnection, Error> {
    let mut connection = PgConnection::connect(url).await?;
    connection.execute(schema).await?;
    connection.execute("CHECKPOINT").await?;
    Ok(connection)
}

async fn insert(url: String, clock: Clock, load: Load, next: Arc<AtomicU64>) -> Result<(u64, Figures), Error> {
    let mut connection = PgConnection::connect(&url).await?;
    let (mut count, mut figures) = (0, Figures::new(&load));
    while !clock.is_over() {
        let number = next.fetch_add(1, Relaxed);
        let mut sent = clock.now();
        if let Some(due) = load.due(number) {
            tokio::time::sleep(Duration::from_micros(due.saturating_sub(sent))).await;
            sent = due;
        }
        let insert = query("INSERT INTO side_by_side_queue (topic, content) VALUES ('', $1)");
        insert.bind(content(number, sent, load.size)).execute(&mut connection).await?;
        count += 1;
        let now = clock.now();
        if clock.is_measured(now) {
            figures.stored += 1;
            figures.acknowledged_after.saturating_record(now - sent);
        }
    }
    Ok((count, figures))
}

/// Deletes what it takes; each once, in no order that anybody could rely on.
async fn take(url: String, clock: Clock, load: Load, done: Arc<AtomicBool>) -> Result<(u64, Figures), Error> {
    let mut connection = PgConnection::connect(&url).await?;
    let (mut taken, mut figures) = (BTreeSet::new(), Figures::new(&load));
    loop {
        let was_done = done.load(Relaxed);
        let take = query(
            "DELETE FROM side_by_side_queue WHERE id IN (SELECT id FROM side_by_side_queue ORDER BY id LIMIT $1 \
             FOR UPDATE SKIP LOCKED) RETURNING content",
        );
        let rows = take.bind(TAKEN_AT_ONCE).fetch_all(&mut connection).await?;
        let now = clock.now();
        for row in &rows {
            let (number, due) = header(row.try_get::<&[u8], _>(0)?)?;
            if !taken.insert(number) {
                return Err(Error::Broken { wanted: taken.len() as u64, found: number });
            }
            if clock.is_measured(now) {
                figures.delivered += 1;
            }
            if clock.is_measured(due) {
                figures.received_after.saturating_record(now.saturating_sub(due));
            }
        }
        if rows.is_empty() {
            if was_done {
                return Ok((taken.len() as u64, figures));
            }
            tokio::time::sleep(IDLE_PAUSE).await;
        }
    }
}

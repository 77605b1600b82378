//! A queue as people build it by hand: a row and a transaction for each message, SKIP LOCKED.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use sqlx::{Connection as _, Executor as _, PgConnection, Row as _, query};

use super::prepared;
use crate::load::{Clock, Error, Figures, Load, content, header, runtime};

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

/// A row for each message, in a transaction of its own, over as many connections as messages are in flight.
pub(crate) fn run(url: &str, load: &Load) -> Result<Figures, Error> {
    runtime()?.block_on(async {
        let mut connection = prepared(url, QUEUE).await?;
        let clock = Clock::start(*load);
        let next = Arc::new(AtomicU64::new(0));
        let inserters: Vec<_> = (0..load.in_flight.min(MAX_INSERTERS))
            .map(|_| tokio::spawn(insert(url.to_owned(), clock, *load, Arc::clone(&next))))
            .collect();
        let done = Arc::new(AtomicBool::new(false));
        let taking =
            (load.subscribers > 0).then(|| tokio::spawn(take(url.to_owned(), clock, *load, Arc::clone(&done))));
        let mut figures = Figures::new(load);
        let mut inserted = 0;
        for inserter in inserters {
            let (count, some) = inserter.await.map_err(|error| Error::Other(error.to_string()))??;
            inserted += count;
            figures.add(&some)?;
        }
        done.store(true, Relaxed);
        let left: i64 = match taking {
            Some(taking) => {
                let (taken, some) = taking.await.map_err(|error| Error::Other(error.to_string()))??;
                figures.add(&some)?;
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

//! Rows that were removed and are not vacuumed yet, since somebody holds an old snapshot (a dump, a standby): nothing that
//! a failover or an append waits for may pass them.

use std::time::Duration;

use rmom_core::{
    model::{Offset, QueueId, StoreTime},
    ports::{Appended, Catalog, Log, MAX_TRIM_SPAN, Purged, Trim},
};
use rmom_net::store::PostgresStore;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use super::support::Bench;

/// Batches that were stored and removed. They fill some 1,500 pages of the table and its indexes.
const DEAD: u64 = 50_000;

/// Pages that a call may touch, whatever is stored or was.
const FEW: i64 = 200;

/// Pages of `batch` and its indexes that were touched so far, by sessions that have ended.
async fn touched(bench: &Bench) -> i64 {
    while bench.backends().await > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut conn = bench.database.connect().await;
    let sql = "SELECT (heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit)::bigint \
               FROM pg_statio_user_tables WHERE relname = 'batch'";
    let touched = sqlx::query_scalar(sql).fetch_one(&mut conn).await.unwrap();
    conn.close().await.unwrap();
    touched
}

/// Pages that a call touches, in a session of its own, and what it answers.
async fn cost<T>(bench: &Bench, call: impl AsyncFnOnce(PostgresStore) -> T) -> (i64, T) {
    let store = PostgresStore::connect(bench.direct()).await.unwrap();
    let before = touched_while(bench, &store).await;
    let result = call(store).await;
    (touched(bench).await - before, result)
}

/// Connecting touches no batch, so what was touched before is what all sessions but this one did.
async fn touched_while(bench: &Bench, _store: &PostgresStore) -> i64 {
    let mut conn = bench.database.connect().await;
    let sql = "SELECT (heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit)::bigint \
               FROM pg_statio_user_tables WHERE relname = 'batch'";
    sqlx::query_scalar(sql).fetch_one(&mut conn).await.unwrap()
}

/// Stores batches of one message each.
fn batches(queue: QueueId, first: u64, last: u64) -> AssertSqlSafe<String> {
    AssertSqlSafe(format!(
        "INSERT INTO batch (queue_id, first_offset, last_offset, epoch, stored_at, expires_at, bytes, checksum, format, \
         message_index, frames, bytes_through) \
         SELECT {queue}, n, n, 1, 0, n, 100, 0, 1, 'index', convert_to(repeat('x', 100), 'UTF8'), 100 * n \
         FROM generate_series({first}, {last}) n"
    ))
}

#[tokio::test]
async fn what_was_removed_costs_nothing_while_it_is_not_vacuumed() {
    let bench = Bench::start().await;
    let mut owner = bench.owner(bench.direct()).await;
    let (queue, claim, epoch): (QueueId, _, _) = (owner.queue, owner.new_claim(), owner.epoch);
    let mut conn = bench.database.connect().await;
    conn.execute(batches(queue, 1, DEAD)).await.unwrap();
    let mut snapshot = bench.database.connect().await;
    snapshot.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM queue").await.unwrap();
    conn.execute(AssertSqlSafe(format!(
        "DELETE FROM batch; UPDATE log_state SET trimmed_through = {DEAD}, trimmed_messages = {DEAD}, \
         trimmed_bytes = 100 * {DEAD}, producers = '', producers_through = {DEAD}, \
         next_expiry = {DEAD} + 1, next_expiry_through = {DEAD}"
    )))
    .await
    .unwrap();
    conn.execute("ANALYZE batch").await.unwrap();
    conn.close().await.unwrap();
    // The claim below makes the next epoch.
    (owner.epoch, owner.tail) = (epoch.next(), owner.store.tail(queue).await.unwrap());
    let trim = |from| Trim {
        queue,
        epoch: epoch.next(),
        producers: None,
        through: Offset::new(DEAD + 1),
        none_expires_before: StoreTime::from_millis(from),
        limit: 1_000,
    };
    let (tail, batch) = (owner.tail.clone(), owner.batch(100));
    drop(owner);

    let (pages, read) = cost(&bench, async |store| store.tail(queue).await.unwrap()).await;
    assert_eq!((read.end, read.messages, read.bytes), (Offset::new(DEAD), 0, 0));
    assert_eq!(read, tail);
    assert!(pages < FEW, "the end of the log took {pages} pages");
    let (pages, _) = cost(&bench, async |store| store.claim(&claim).await.unwrap()).await;
    assert!(pages < FEW, "a claim took {pages} pages");
    for after in [0, DEAD / 2, DEAD] {
        let after = Offset::new(after);
        let (pages, page) = cost(&bench, async |store| store.read(queue, after, 1 << 20).await.unwrap()).await;
        assert_eq!((page.batches.len(), page.looked_through), (0, Offset::new(DEAD)));
        assert!(pages < FEW, "a page after {after} took {pages} pages");
        let (pages, headers) = cost(&bench, async |store| store.headers(queue, after, 1_000).await.unwrap()).await;
        assert_eq!((headers.len(), pages < FEW), (0, true), "headers after {after} took {pages} pages");
    }
    let (pages, trimmed) = cost(&bench, async |store| store.trim(&trim(DEAD + 1)).await.unwrap()).await;
    assert_eq!((trimmed.batches, pages < FEW), (0, true), "a trim took {pages} pages");
    let (pages, appended) = cost(&bench, async |store| store.append(&[batch]).await.unwrap()).await;
    assert!(matches!(appended[..], [Appended::Stored { .. }]), "{appended:?}");
    assert!(pages < FEW, "an append took {pages} pages");
    // And what it means to pass them: a trim that does not know from where on to look.
    let (pages, _) = cost(&bench, async |store| store.trim(&trim(0)).await.unwrap()).await;
    assert!(pages > FEW, "{pages} pages");
    snapshot.close().await.unwrap();
}

/// Between batches that live on.
#[tokio::test]
async fn a_read_across_what_was_removed_passes_as_much_as_it_is_told_to() {
    let bench = Bench::start().await;
    let owner = bench.owner(bench.direct()).await;
    let queue = owner.queue;
    drop(owner);
    let mut conn = bench.database.connect().await;
    conn.execute(batches(queue, 1, DEAD)).await.unwrap();
    let mut snapshot = bench.database.connect().await;
    snapshot.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM queue").await.unwrap();
    let delete = format!("DELETE FROM batch WHERE first_offset NOT IN (1, {DEAD})");
    conn.execute(AssertSqlSafe(delete)).await.unwrap();
    conn.execute("ANALYZE batch").await.unwrap();
    conn.close().await.unwrap();
    let read = async |after, span| {
        let after = Offset::new(after);
        let call = async |store: PostgresStore| store.read_within(queue, after, span, 1 << 20).await.unwrap();
        let (pages, page) = cost(&bench, call).await;
        (pages, page.batches.len(), page.looked_through.get())
    };
    // A read looks back as well, for a batch that begins before and reaches beyond: as far as a batch can be long.
    let most = FEW + 8_192 / 20;
    let span = 1_000;
    for after in [1, 2, DEAD / 2] {
        let (pages, found, through) = read(after, span).await;
        assert_eq!((found, through), (0, after + span));
        assert!(pages < most, "a read after {after} took {pages} pages");
    }
    let (pages, found, through) = read(DEAD - span, span).await;
    assert_eq!((found, through, pages < most), (1, DEAD, true), "{pages} pages");
    // And what it means to pass them.
    let (pages, found, _) = read(2, DEAD).await;
    assert!(found == 1 && pages > most, "{pages} pages");
    snapshot.close().await.unwrap();
}

#[tokio::test]
async fn a_purge_does_not_pass_what_the_ones_before_removed() {
    let bench = Bench::start().await;
    let owner = bench.owner(bench.direct()).await;
    let queue = owner.queue;
    let mut conn = bench.database.connect().await;
    conn.execute(batches(queue, 1, DEAD)).await.unwrap();
    conn.execute("ANALYZE batch").await.unwrap();
    conn.close().await.unwrap();
    let mut snapshot = bench.database.connect().await;
    snapshot.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM queue").await.unwrap();
    assert!(owner.store.delete_queue(queue).await.unwrap());
    for _ in 0..8 {
        assert_eq!(owner.store.purge_deleted(5_000).await.unwrap().batches, 5_000);
    }
    drop(owner);
    let (pages, removed) = cost(&bench, async |store| store.purge_deleted(1).await.unwrap().batches).await;
    assert_eq!(removed, 1);
    assert!(pages < FEW, "a purge took {pages} pages");
    snapshot.close().await.unwrap();
}

#[tokio::test]
async fn a_purge_goes_on_behind_a_long_hole() {
    let bench = Bench::start().await;
    let owner = bench.owner(bench.direct()).await;
    let mut conn = bench.database.connect().await;
    let far = 2 * MAX_TRIM_SPAN + 5;
    conn.execute(batches(owner.queue, far, far + 1)).await.unwrap();
    assert!(owner.store.delete_queue(owner.queue).await.unwrap());
    for (batches, more) in [(0, true), (0, true), (2, false), (0, false)] {
        assert_eq!(owner.store.purge_deleted(10).await.unwrap(), Purged { batches, more });
    }
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM log_state").fetch_one(&mut conn).await.unwrap();
    assert_eq!(left, 0);
    conn.close().await.unwrap();
}

//! Channels that nobody uses any more: what it costs to find some, and to use others.

use std::time::Duration;

use rmom_core::{
    model::{ChannelId, QueueId, StoreTime},
    ports::Catalog,
};
use rmom_net::store::PostgresStore;
use sqlx::{AssertSqlSafe, Executor as _};
use tokio::time::timeout;
use uuid::Uuid;

use super::support::Bench;

const QUEUES: u32 = 200;
const CHANNELS_OF_EACH: u32 = 100;
const HOUR: Duration = Duration::from_secs(3_600);

/// Queues of the bench's broker with channels that were last used in 1970, on tables without statistics.
async fn abandoned(bench: &Bench) -> Vec<QueueId> {
    let mut conn = bench.database.connect().await;
    let sql = format!(
        "INSERT INTO queue (label, assignee, assignment, request) SELECT 'q' || n, id, 1, gen_random_uuid() FROM broker, generate_series(2, {QUEUES}) n;
         INSERT INTO channel (id, queue_id, topic, start_offset, used_at)
         SELECT gen_random_uuid(), queue.id, '', 0, n FROM queue, generate_series(1, {CHANNELS_OF_EACH}) n"
    );
    conn.execute(AssertSqlSafe(sql)).await.unwrap();
    let ids: Vec<i64> = sqlx::query_scalar("SELECT id FROM queue ORDER BY id").fetch_all(&mut conn).await.unwrap();
    ids.into_iter().map(|id| QueueId::new(u64::try_from(id).unwrap())).collect()
}

/// Pages of `channel` and its indexes that a call touches, in a session of its own.
async fn pages<T>(bench: &Bench, call: impl AsyncFnOnce(PostgresStore) -> T) -> (i64, T) {
    let touched = async || {
        while bench.backends().await > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut conn = bench.database.connect().await;
        let sql = "SELECT (heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit)::bigint \
                   FROM pg_statio_user_tables WHERE relname = 'channel'";
        sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut conn).await.unwrap()
    };
    let before = touched().await;
    let result = call(PostgresStore::connect(bench.direct()).await.unwrap()).await;
    (touched().await - before, result)
}

#[tokio::test]
async fn idle_channels_cost_as_much_as_there_is_to_do() {
    let bench = Bench::start().await;
    let broker = bench.owner(bench.direct()).await.broker;
    let queues = abandoned(&bench).await;
    let delete = async |store: PostgresStore| {
        store.delete_idle_channels(broker, &queues, HOUR, StoreTime::NEVER, 100).await.unwrap()
    };
    let (all, gone) = pages(&bench, delete).await;
    assert_eq!(gone.len(), 100);
    assert!(all < 4_000, "to delete 100 channels took {all} pages");

    let mut conn = bench.database.connect().await;
    let sql = "UPDATE channel SET used_at = rmom_now() WHERE id IN (SELECT id FROM channel ORDER BY id LIMIT 20)";
    conn.execute(sql).await.unwrap();
    let sql = "SELECT id FROM channel ORDER BY id LIMIT 20";
    let ids: Vec<Uuid> = sqlx::query_scalar(sql).fetch_all(&mut conn).await.unwrap();
    drop(conn);
    let ids: Vec<ChannelId> = ids.into_iter().map(ChannelId::new).collect();
    for fresh in [HOUR, Duration::ZERO] {
        let (all, known) = pages(&bench, async |store| store.use_channels(&ids, fresh).await.unwrap()).await;
        assert_eq!(known, ids);
        assert!(all < 800, "to use 20 channels took {all} pages");
        let (one, known) = pages(&bench, async |store| store.use_channels(&ids[..1], fresh).await.unwrap()).await;
        assert_eq!(known, ids[..1]);
        assert!(one < 60, "to use a channel took {one} pages");
    }
}

/// Clients whose queue is full of channels try again and again to create one, and each attempt holds the queue's row.
#[tokio::test]
async fn a_queue_whose_row_is_held_is_waited_for() {
    let bench = Bench::start().await;
    let owner = bench.owner(bench.direct()).await;
    let queues = abandoned(&bench).await;
    let mut creates = bench.database.connect().await;
    creates
        .execute(AssertSqlSafe(format!("BEGIN; SELECT 1 FROM queue WHERE id = {} FOR UPDATE", queues[0])))
        .await
        .unwrap();
    let mut delete =
        std::pin::pin!(owner.store.delete_idle_channels(owner.broker, &queues, HOUR, StoreTime::NEVER, 10));
    assert!(timeout(Duration::from_millis(200), &mut delete).await.is_err(), "the row is held");
    creates.execute("COMMIT").await.unwrap();
    assert_eq!(delete.await.unwrap().len(), 10);
}

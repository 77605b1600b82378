//! The cluster that a case measures, and the measurements shared by all cases.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use rmom_client::{Client, Consumer, NewMessage, Position, Uuid};
use rmom_core::manager::ManagerSettings;
use rmom_net::testing::{PgServer, TestDatabase};
use sqlx::{Connection as _, PgConnection};
use tokio::{runtime::Runtime, time::timeout};

use crate::support::{Cluster, ClusterOptions, PATIENCE, Server, eventually};

/// Limit on the time of 99 of 100 pushes, from docs/operations.md.
pub(crate) const PUSH_BOUND: Duration = Duration::from_secs(1);

/// The client's addition to a failover: the longest time after which it repeats a refused request.
const CLIENT_BACKOFF: Duration = Duration::from_secs(1);

/// Processes, and a PostgreSQL of their own.
pub(crate) struct System {
    // Dropped first: it uses the database.
    pub(crate) cluster: Cluster,
    pub(crate) database: TestDatabase,
    pub(crate) client: Client,
    pub(crate) runtime: Runtime,
}

impl System {
    /// Two brokers and a manager. `settings` changes their options.
    pub(crate) fn start(settings: impl FnOnce(&mut ClusterOptions)) -> Self {
        let runtime = Runtime::new().unwrap();
        let server = Arc::new(PgServer::start_with(&[("max_wal_size", "2GB")]));
        let database = runtime.block_on(server.create_database());
        let mut options = ClusterOptions::new(database.url());
        (options.brokers, options.managers) = (2, 1);
        // Rebalancing would cause a pause of its own.
        options.manager_settings.push_str("rebalance = false\n");
        settings(&mut options);
        let cluster = Cluster::start(&options);
        let client = Client::builder().managers(cluster.manager_urls()).build().unwrap();
        Self { cluster, database, client, runtime }
    }

    /// Creates a queue, and waits until it is served. Returns its id.
    pub(crate) fn create_queue(&self, label: &str) -> u64 {
        // Servers that were just started may not be ready.
        eventually("the queue is created", || self.runtime.block_on(self.client.admin().create_queue(label)).ok());
        self.served(label).0
    }

    /// Waits until a queue is served; returns its id, and the offset of its newest message.
    pub(crate) fn served(&self, label: &str) -> (u64, u64) {
        eventually("the queue is served", || {
            let queue = self.runtime.block_on(self.client.admin().queue(label)).ok()?;
            Some((queue.id, queue.live?.last_offset))
        })
    }

    /// Kills the broker of a queue, and pushes until a push succeeds at another broker. Returns how long that took; the
    /// broker is running again.
    pub(crate) fn failover(&mut self, label: &str) -> Duration {
        let host = eventually("a manager knows the queue's broker", || self.cluster.host_of(label));
        self.cluster.brokers[host].kill();
        let killed = Instant::now();
        self.push(label);
        let took = killed.elapsed();
        self.cluster.brokers[host].restart();
        self.cluster.brokers[host].wait_until_ready();
        took
    }

    /// Pages of a table and its indexes that brokers and managers touch from their start to the end of `act`. Everything is
    /// killed before and after it, since PostgreSQL has counted all pages only when the sessions have ended.
    pub(crate) fn pages_touched(&mut self, table: &str, act: impl FnOnce(&Self)) -> i64 {
        self.kill_all();
        let before = self.runtime.block_on(pages(&self.database, table));
        self.servers().for_each(Server::restart);
        act(self);
        self.kill_all();
        let after = self.runtime.block_on(pages(&self.database, table));
        self.servers().for_each(Server::restart);
        self.servers().for_each(|server| server.wait_until_ready());
        // The lease of the killed manager has to run out first, and the next measurement leaves that time out.
        eventually("a manager leads", || self.cluster.leader());
        after - before
    }

    fn kill_all(&mut self) {
        self.servers().for_each(Server::kill);
    }

    fn servers(&mut self) -> impl Iterator<Item = &mut Server> {
        self.cluster.managers.iter_mut().chain(&mut self.cluster.brokers)
    }

    /// Pushes a message, trying as often as necessary.
    pub(crate) fn push(&self, label: &str) {
        let pushed = self.runtime.block_on(async {
            let producer = self.client.producer(label).open().await?;
            producer.push("pushed").await?;
            producer.close().await
        });
        pushed.unwrap();
    }

    /// Latencies of pushes, each after the one before it, by several producers at once for a while.
    pub(crate) fn latencies(&self, label: &str, producers: usize, ttl: Duration, time: Duration) -> Latencies {
        let one = async || {
            let producer = self.client.producer(label).open().await.unwrap();
            let (began, mut times) = (Instant::now(), Vec::new());
            while began.elapsed() < time {
                let pushed = Instant::now();
                producer.push(NewMessage::new("pushed").ttl(ttl)).await.unwrap();
                times.push(pushed.elapsed());
            }
            producer.close().await.unwrap();
            times
        };
        let times = self.runtime.block_on(join_all((0..producers).map(|_| one())));
        Latencies::of(times.concat())
    }

    /// The message at an offset, delivered to a new subscription that begins there.
    pub(crate) fn deliver(&self, channel: Uuid, queue: u64, offset: u64) -> rmom_client::Message {
        let position = Position { queue_id: queue, epoch: 1, offset: offset - 1 };
        let mut consumer: Consumer = self.client.subscribe(channel).resume_from(position).build();
        let delivered = self.runtime.block_on(async { timeout(PATIENCE, consumer.next()).await });
        let message = delivered.expect("it is delivered in time").unwrap();
        assert_eq!(message.offset, offset);
        message
    }

    /// A session beside the cluster's own.
    pub(crate) fn session(&self) -> PgConnection {
        self.runtime.block_on(self.database.connect())
    }
}

/// Latencies of pushes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latencies {
    pub(crate) pushes: usize,
    /// 99 of 100 took no longer than this.
    pub(crate) p99: Duration,
    pub(crate) slowest: Duration,
}

impl Latencies {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let slowest = *times.last().expect("something was pushed");
        Self { pushes: times.len(), p99: times[times.len() * 99 / 100], slowest }
    }
}

/// The documented limit (docs/operations.md) on the time from a broker's death to a push at another broker, if the broker
/// had this many queues and a round trip to the database with a commit takes `trip`. All queues go to one broker.
pub(crate) fn failover_bound(queues: u32, trip: Duration) -> Duration {
    let settings = ManagerSettings::default();
    let probes = settings.probe_deadline * (settings.life_probe_max_retries + 1)
        + settings.life_probe_retry_delay * settings.life_probe_max_retries;
    // The cycle set in `ClusterOptions`.
    let noticed = Duration::from_millis(500) + probes;
    noticed + trip * 6 * queues.div_ceil(100) + trip * 9 * queues.div_ceil(4) + CLIENT_BACKOFF
}

/// Pages of a table and its indexes touched so far, once the cluster's sessions have ended.
async fn pages(database: &TestDatabase, table: &str) -> i64 {
    let mut session = database.connect().await;
    let left = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'rmom'";
    while sqlx::query_scalar::<_, i64>(left).fetch_one(&mut session).await.unwrap() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let sql = "SELECT (heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit)::bigint \
               FROM pg_statio_user_tables WHERE relname = $1";
    let pages = sqlx::query_scalar(sql).bind(table).fetch_one(&mut session).await.unwrap();
    session.close().await.unwrap();
    pages
}

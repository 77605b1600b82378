//! What the tests have in common: a store with a queue that a broker claimed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rmom_core::{
    model::{BrokerAddr, BrokerId, ClaimId, Epoch, Incarnation, Offset, QueueId, QueueLabel, StoreTime},
    ports::{
        AppendBatch, Appended, Catalog, Claim, ClaimError, Claimed, CreateQueue, Log, LogTail, Register, StoreError,
    },
};
use rmom_net::{
    store::{PostgresOptions, PostgresStore},
    testing::{PgServer, TcpProxy, TestDatabase},
};
use uuid::Uuid;

pub(crate) const LEASE: Duration = Duration::from_secs(3);

/// A broker with a store of its own, and its queue.
pub(crate) struct Owner {
    pub(crate) store: Arc<PostgresStore>,
    pub(crate) broker: BrokerId,
    pub(crate) incarnation: Incarnation,
    pub(crate) queue: QueueId,
    pub(crate) epoch: Epoch,
    pub(crate) tail: LogTail,
}

/// A fresh database, and a proxy in front of it.
pub(crate) struct Bench {
    pub(crate) database: TestDatabase,
    pub(crate) proxy: TcpProxy,
}

impl Bench {
    pub(crate) async fn start() -> Self {
        Self::on(PgServer::shared()).await
    }

    pub(crate) async fn on(server: Arc<PgServer>) -> Self {
        let proxy = TcpProxy::start(server.authority()).await;
        Self { database: server.create_database().await, proxy }
    }

    /// Options that go straight to the server.
    pub(crate) fn direct(&self) -> PostgresOptions {
        PostgresOptions::new(self.database.url())
    }

    /// Options by way of the proxy.
    pub(crate) fn proxied(&self) -> PostgresOptions {
        PostgresOptions::new(self.database.url_through(&self.proxy.authority()))
    }

    /// A broker that claimed a queue.
    pub(crate) async fn owner(&self, options: PostgresOptions) -> Owner {
        let store = Arc::new(PostgresStore::connect(options).await.unwrap());
        let addr = BrokerAddr { host: "localhost".into(), port: 1 };
        let incarnation = Incarnation::new(Uuid::from_u128(1));
        let register = Register { addr, incarnation, replaces: None, lease: LEASE };
        let broker = store.register_broker(&register).await.unwrap().broker;
        let label = QueueLabel::parse("queue").unwrap();
        let create = CreateQueue { label, assignee: Some(broker), request: Uuid::from_u128(2) };
        let queue = store.create_queue(&create).await.unwrap().id;
        let mut owner = Owner { store, broker, incarnation, queue, epoch: Epoch::ZERO, tail: LogTail::default() };
        owner.take_over().await;
        owner
    }

    /// How many connections the server has from stores on this database.
    pub(crate) async fn backends(&self) -> i64 {
        let mut conn = self.database.connect().await;
        let sql =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'rmom'";
        sqlx::query_scalar(sql).fetch_one(&mut conn).await.unwrap()
    }

    /// Waits until some statement waits for a lock.
    pub(crate) async fn until_somebody_waits(&self) {
        self.until_waiting(1).await;
    }

    /// Waits until so many statements wait for a lock.
    pub(crate) async fn until_waiting(&self, statements: i64) {
        let mut conn = self.database.connect().await;
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                       AND wait_event_type = 'Lock'";
            let waiting: i64 = sqlx::query_scalar(sql).fetch_one(&mut conn).await.unwrap();
            if waiting >= statements {
                return;
            }
            assert!(Instant::now() < deadline, "{waiting} statements wait");
        }
    }
}

impl Owner {
    pub(crate) fn new_claim(&self) -> Claim {
        // The next epoch serves as a number that was not used before.
        let claim = ClaimId::new(Uuid::new_v5(&Uuid::NAMESPACE_OID, &self.epoch.get().to_be_bytes()));
        Claim { queue: self.queue, broker: self.broker, incarnation: self.incarnation, claim }
    }

    /// Claims, and reads the end of the log.
    pub(crate) async fn take_over(&mut self) {
        self.epoch = self.store.claim(&self.new_claim()).await.unwrap().epoch;
        self.tail = self.store.tail(self.queue).await.unwrap();
    }

    pub(crate) async fn claim(&self) -> Result<Claimed, ClaimError> {
        self.store.claim(&self.new_claim()).await
    }

    /// The next batch of one message.
    pub(crate) fn batch(&self, bytes: usize) -> AppendBatch {
        let next = self.tail.end.next();
        AppendBatch {
            queue: self.queue,
            epoch: self.epoch,
            first: next,
            last: next,
            previous: self.tail.last_first,
            not_before: StoreTime::default(),
            lifetime_millis: None,
            format: 1,
            index: Bytes::from_static(b"index"),
            frames: vec![b'x'; bytes].into(),
            checksum: 0,
        }
    }

    /// Appends a batch of one message and, if that succeeds, goes on behind it.
    pub(crate) async fn append(&mut self) -> Result<Appended, StoreError> {
        let batch = self.batch(100);
        let answer = self.store.append(std::slice::from_ref(&batch)).await?.remove(0);
        if matches!(answer, Appended::Stored { .. }) {
            self.tail.end = batch.last;
            self.tail.last_first = batch.first;
        }
        Ok(answer)
    }

    /// As [`Owner::append`]; it has to succeed.
    pub(crate) async fn stored(&mut self) {
        let answer = self.append().await.unwrap();
        assert!(matches!(answer, Appended::Stored { .. }), "{answer:?}");
    }

    /// All offsets that the store holds; there may be no gap between them.
    pub(crate) async fn check_log(&self) -> Offset {
        let headers = self.store.headers(self.queue, Offset::ZERO, u32::MAX).await.unwrap();
        let mut end = Offset::ZERO;
        for header in headers {
            assert_eq!(header.first, end.next());
            end = header.last;
        }
        end
    }
}

//! Brokers that share a store.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Buf as _;
use parking_lot::Mutex;
use prost::Message as _;
use rand::{RngCore as _, SeedableRng as _, rngs::StdRng};
use rmom_core::{
    access::Call,
    broker::{Broker, BrokerError, BrokerExit, BrokerSettings, SubscribeRequest, Subscription},
    model::{BrokerAddr, ChannelId, Offset, Position, QueueLabel, StoreTime, Topic},
    ports::{AssignError, Catalog as _, Clock, Entropy, Log as _, Uptime},
    store::faulty::FaultyStore,
};
use rmom_proto::messages::Message;
use tokio::time::Instant;

/// The store's clock: simulated time.
#[derive(Debug)]
struct TokioClock {
    started: Instant,
    /// How far the clock was set forward, or back if negative, in milliseconds.
    ahead: AtomicI64,
    /// How long the brokers' machine was asleep, in milliseconds.
    asleep: AtomicU64,
}

impl Uptime for TokioClock {
    fn uptime(&self) -> Duration {
        self.started.elapsed() + Duration::from_millis(self.asleep.load(SeqCst))
    }
}

impl Clock for TokioClock {
    fn now(&self) -> StoreTime {
        let shows = 1_000_000 + u64::try_from(self.started.elapsed().as_millis()).unwrap();
        StoreTime::from_millis(shows.checked_add_signed(self.ahead.load(SeqCst)).unwrap())
    }
}

#[derive(Debug)]
struct Seeded(Mutex<StdRng>);

impl Entropy for Seeded {
    fn bits(&self) -> u128 {
        let mut bytes = [0; 16];
        self.0.lock().fill_bytes(&mut bytes);
        u128::from_ne_bytes(bytes)
    }
}

pub(super) fn addr(n: u16) -> BrokerAddr {
    BrokerAddr { host: "127.0.0.1".into(), port: 50_050 + n }
}

pub(super) struct World {
    pub(super) store: Arc<FaultyStore>,
    clock: Arc<TokioClock>,
    entropy: Arc<Seeded>,
}

impl World {
    pub(super) fn new() -> Self {
        let clock =
            Arc::new(TokioClock { started: Instant::now(), ahead: AtomicI64::new(0), asleep: AtomicU64::new(0) });
        let entropy = Arc::new(Seeded(Mutex::new(StdRng::seed_from_u64(1))));
        Self { store: FaultyStore::new(clock.clone()), clock, entropy }
    }

    pub(super) fn spawn(
        &self,
        n: u16,
        change: impl FnOnce(&mut BrokerSettings),
    ) -> (Broker<Call>, tokio::task::JoinHandle<BrokerExit>) {
        let mut settings = BrokerSettings::new(addr(n));
        change(&mut settings);
        let (broker, task) = Broker::spawn(settings, self.store.clone(), self.entropy.clone(), self.clock.clone());
        (broker.on_behalf_of(Call::of_process()), task)
    }

    pub(super) async fn broker(&self, n: u16) -> Broker<Call> {
        self.broker_with(n, |_| {}).await
    }

    pub(super) async fn broker_with(&self, n: u16, change: impl FnOnce(&mut BrokerSettings)) -> Broker<Call> {
        let (broker, _) = self.spawn(n, change);
        while broker.heartbeat().is_err() {
            self.settle().await;
        }
        broker
    }

    /// Sets the store's clock back.
    pub(super) fn set_clock_back(&self, by: Duration) {
        self.clock.ahead.fetch_sub(i64::try_from(by.as_millis()).unwrap(), SeqCst);
    }

    /// Sets the store's clock forward.
    pub(super) fn set_clock_forward(&self, by: Duration) {
        self.clock.ahead.fetch_add(i64::try_from(by.as_millis()).unwrap(), SeqCst);
    }

    /// Suspends the brokers' machine: the store's clock goes on, theirs stands still.
    pub(super) fn suspend(&self, by: Duration) {
        self.set_clock_forward(by);
        self.clock.asleep.fetch_add(u64::try_from(by.as_millis()).unwrap(), SeqCst);
    }

    /// Lets all tasks do the work that is due now.
    pub(super) async fn settle(&self) {
        self.sleep(Duration::from_millis(1)).await;
    }

    pub(super) async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    pub(super) async fn assign(&self, label: &str, n: u16) -> Result<(), AssignError> {
        let record = self.store.queue(&QueueLabel::parse(label).unwrap()).await?.unwrap();
        let brokers = self.store.brokers().await?;
        let to = brokers.iter().find(|broker| broker.addr == addr(n)).unwrap();
        self.store.assign_queue(record.id, record.assignment, to.id).await.map(drop)
    }

    pub(super) async fn subscribe(
        &self,
        broker: &Broker<Call>,
        channel: ChannelId,
        position: Option<Position>,
    ) -> Result<Subscription, BrokerError> {
        broker.subscribe(SubscribeRequest { channel, position }).await
    }

    /// All stored messages of a queue, expired or not.
    pub(super) async fn log(&self, label: &str) -> Vec<(u64, String)> {
        let record = self.store.queue(&QueueLabel::parse(label).unwrap()).await.unwrap().unwrap();
        let mut found = Vec::new();
        for stored in self.store.read(record.id, Offset::ZERO, usize::MAX).await.unwrap().batches {
            let batch = rmom_core::frame::Batch::decode(&stored).unwrap();
            let mut frames = batch.chunk(Offset::ZERO, &Topic::NONE, StoreTime::default()).frames;
            while frames.has_remaining() {
                frames.advance(1);
                let length = frames.get_u32() as usize;
                let message = Message::decode(frames.split_to(length)).unwrap();
                found.push((message.offset, String::from_utf8(message.content.to_vec()).unwrap()));
            }
        }
        found
    }
}

//! A store under test and the model, side by side.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc, time::Duration};

use bytes::Bytes;
use proptest::test_runner::TestCaseError;
use uuid::Uuid;

use super::operation::{Append, From, HOSTS, IDS, Knowledge, LABELS, Nth, Operation, Place, STEP_MILLIS};
use crate::{
    model::{
        Assignment, BrokerAddr, BrokerId, ChannelId, ClaimId, Epoch, Generation, Incarnation, ManagerId, Offset,
        ProducerId, QueueId, QueueLabel, Start, StoreTime, Topic,
    },
    ports::{
        AppendBatch, Catalog, ChannelRecord, Claim, CreateChannel, CreateQueue, Log, QueueRecord, Register, Store, Trim,
    },
    store::{
        MemoryStore,
        conformance::{
            Harness, ManualClock, START,
            support::{addr, batch, label, nothing},
        },
    },
};

/// What nobody ever created or registered.
const UNKNOWN: u64 = 1_000_000;

type Same = Result<(), TestCaseError>;

fn same<T: PartialEq + Debug>(what: impl Debug, model: &T, store: &T) -> Same {
    if model == store {
        return Ok(());
    }
    Err(TestCaseError::fail(format!("{what:?}\n model: {model:?}\n store: {store:?}")))
}

/// A host, by the ids that the two stores gave it.
struct Host {
    model: BrokerId,
    store: BrokerId,
    runs: Vec<Incarnation>,
    /// The generations last seen.
    generations: (Generation, Generation),
}

/// A queue, by the ids that the two stores gave it.
struct Created {
    model: QueueId,
    store: QueueId,
    epoch: Epoch,
    claims: Vec<ClaimId>,
}

pub(super) struct Pair<'a> {
    harness: &'a dyn Harness,
    clock: Arc<ManualClock>,
    model: Arc<MemoryStore>,
    store: Arc<dyn Store>,
    hosts: Vec<Host>,
    queues: Vec<Created>,
    /// The request that was made last for a label.
    requests: BTreeMap<u8, Uuid>,
    drawn: u128,
}

fn queue_label(number: u8) -> QueueLabel {
    label(&format!("queue {number}"))
}

fn lease(steps: u64) -> Duration {
    Duration::from_millis(steps * STEP_MILLIS)
}

fn id(kind: u8, number: u8) -> Uuid {
    Uuid::from_u128(u128::from(kind) << 96 | u128::from(number))
}

fn channel_id(number: u8) -> ChannelId {
    ChannelId::new(id(1, number))
}

fn manager_id(number: u8) -> ManagerId {
    ManagerId::new(id(3, number))
}

impl<'a> Pair<'a> {
    /// Begins with all hosts registered and each queue created and claimed, so that most operations find something.
    pub(super) async fn start(harness: &'a dyn Harness) -> Result<Self, TestCaseError> {
        let clock = Arc::new(ManualClock::new(START));
        let model = MemoryStore::new(Arc::clone(&clock) as _);
        let store = harness.fresh().await;
        let mut pair = Self {
            harness,
            clock,
            model,
            store,
            hosts: Vec::new(),
            queues: Vec::new(),
            requests: BTreeMap::new(),
            drawn: 0,
        };
        for host in 0..HOSTS {
            pair.apply(&Operation::Register { host, replaces: Knowledge::NeverWas, again: false }).await?;
        }
        for label in 0..LABELS {
            let host = label % HOSTS;
            pair.apply(&Operation::Create { label, assignee: Some(host), again: false }).await?;
            pair.apply(&Operation::Claim { queue: 0, by: None, run: Knowledge::Latest, again: false }).await?;
        }
        Ok(pair)
    }

    fn uuid(&mut self) -> Uuid {
        self.drawn += 1;
        Uuid::from_u128(9 << 96 | self.drawn)
    }

    fn created(&mut self, nth: Nth) -> Option<&mut Created> {
        self.queues.iter_mut().rev().nth(usize::from(nth))
    }

    /// A queue's ids in the model and in the store.
    fn queue_ids(&mut self, nth: Nth) -> (QueueId, QueueId) {
        let unknown = QueueId::new(UNKNOWN);
        self.created(nth).map_or((unknown, unknown), |created| (created.model, created.store))
    }

    /// A host's ids in the model and in the store.
    fn host_ids(&self, host: u8) -> (BrokerId, BrokerId) {
        let unknown = BrokerId::new(UNKNOWN);
        self.hosts.get(usize::from(host)).map_or((unknown, unknown), |host| (host.model, host.store))
    }

    fn run(&self, host: u8, run: Knowledge) -> Incarnation {
        let runs = self.hosts.get(usize::from(host)).map_or(&[][..], |host| &host.runs);
        let known = match run {
            Knowledge::Latest => runs.last(),
            Knowledge::Stale => runs.first(),
            Knowledge::NeverWas => None,
        };
        known.copied().unwrap_or(Incarnation::new(id(4, 0)))
    }

    // The store's ids as the model's.

    fn model_broker(&self, store: BrokerId) -> BrokerId {
        self.hosts.iter().find(|host| host.store == store).map_or(store.plus(UNKNOWN), |host| host.model)
    }

    fn model_queue(&self, store: QueueId) -> QueueId {
        self.queues.iter().find(|queue| queue.store == store).map_or(store.plus(UNKNOWN), |queue| queue.model)
    }

    fn model_assignee(&self, store: Option<(BrokerId, BrokerAddr)>) -> Option<(BrokerId, BrokerAddr)> {
        store.map(|(broker, addr)| (self.model_broker(broker), addr))
    }

    fn model_record(&self, store: QueueRecord) -> QueueRecord {
        QueueRecord { id: self.model_queue(store.id), assignee: self.model_assignee(store.assignee.clone()), ..store }
    }

    fn model_channel(&self, store: ChannelRecord) -> ChannelRecord {
        let assignee = self.model_assignee(store.assignee.clone());
        ChannelRecord { queue: self.model_queue(store.queue), assignee, ..store }
    }

    pub(super) async fn apply(&mut self, operation: &Operation) -> Same {
        match *operation {
            Operation::Clock(steps) => {
                let now = START.plus_millis(steps * STEP_MILLIS);
                self.clock.set(now);
                self.harness.set_clock(now).await;
                same(operation, &self.model.now().await, &self.store.now().await)
            }
            Operation::Register { host, replaces, again } => self.register(host, replaces, again).await,
            Operation::Renew { host, run, lease: steps } => self.renew(host, run, lease(steps)).await,
            Operation::Retire { host, run } => {
                let ((model, store), run) = (self.host_ids(host), self.run(host, run));
                let model = self.model.retire_broker(model, run).await;
                same(operation, &model, &self.store.retire_broker(store, run).await)
            }
            Operation::Drain { host, draining } => {
                let (model, store) = self.host_ids(host);
                let model = self.model.set_draining(model, draining).await;
                same(operation, &model, &self.store.set_draining(store, draining).await)
            }
            Operation::Forget { host, gone_for: steps } => {
                let (model, store) = self.host_ids(host);
                let model = self.model.forget_broker(model, lease(steps)).await;
                if model == Ok(true) {
                    let known = &mut self.hosts[usize::from(host)];
                    (known.model, known.store) = (BrokerId::new(UNKNOWN), BrokerId::new(UNKNOWN));
                }
                same(operation, &model, &self.store.forget_broker(store, lease(steps)).await)
            }
            Operation::Create { label, assignee, again } => self.create(label, assignee, again).await,
            Operation::Assign { queue, assignment, to } => {
                let (model, store) = self.queue_ids(queue);
                let (model_to, store_to) = self.host_ids(to);
                let latest =
                    self.model.queue_by_id(model).await.unwrap().map_or(Assignment::ZERO, |record| record.assignment);
                let expected = match assignment {
                    Knowledge::Latest => latest,
                    Knowledge::Stale => Assignment::new(latest.get().saturating_sub(1)),
                    Knowledge::NeverWas => latest.next(),
                };
                let model = self.model.assign_queue(model, expected, model_to).await;
                let store = self.store.assign_queue(store, expected, store_to).await;
                // Where it is refused since nobody knows the broker, both name it by the same id.
                same(operation, &model, &store.map(|record| self.model_record(record)))
            }
            Operation::Delete { queue } => {
                let (model, store) = self.queue_ids(queue);
                same(operation, &self.model.delete_queue(model).await, &self.store.delete_queue(store).await)
            }
            Operation::Claim { queue, by, run, again } => self.claim(queue, by, run, again).await,
            Operation::Append(ref group) => self.append(group).await,
            Operation::Trim { queue, epoch, short_of_end, saves, from, limit } => {
                self.trim(queue, epoch, short_of_end, saves, from, limit).await
            }
            Operation::OpenProducer { queue, producer } => {
                let ((model, store), producer) = (self.queue_ids(queue), ProducerId::new(id(2, producer)));
                let model = self.model.open_producer(model, producer, 2).await;
                same(operation, &model, &self.store.open_producer(store, producer, 2).await)
            }
            Operation::Purge { limit } => {
                same(operation, &self.model.purge_deleted(limit).await, &self.store.purge_deleted(limit).await)
            }
            Operation::CreateChannel { id, queue, topic, from } => self.create_channel(id, queue, topic, from).await,
            Operation::DeleteChannel { id } => {
                let model = self.model.delete_channel(channel_id(id)).await;
                same(operation, &model, &self.store.delete_channel(channel_id(id)).await)
            }
            Operation::Lead { manager, lease: steps } => {
                let model = self.model.lead(manager_id(manager), lease(steps)).await;
                same(operation, &model, &self.store.lead(manager_id(manager), lease(steps)).await)
            }
            Operation::Resign { manager } => {
                let model = self.model.resign(manager_id(manager)).await;
                same(operation, &model, &self.store.resign(manager_id(manager)).await)
            }
            Operation::Headers { queue, after, limit } => {
                let Some((model, store)) = self.live(queue).await else { return Ok(()) };
                let model = self.model.headers(model, Offset::new(after), limit).await;
                same(operation, &model, &self.store.headers(store, Offset::new(after), limit).await)
            }
            Operation::Read { queue, after, max_bytes } => {
                let Some((model, store)) = self.live(queue).await else { return Ok(()) };
                let (after, span) = (Offset::new(after), 1 + max_bytes as u64 % 16);
                let model = self.model.read_within(model, after, span, max_bytes).await;
                let store = self.store.read_within(store, after, span, max_bytes).await;
                same(operation, &model, &store)
            }
            Operation::Reopen => {
                self.store = nothing();
                self.store = self.harness.reopen().await;
                Ok(())
            }
            Operation::LookAtEverything => {
                self.look_at_the_catalog().await?;
                self.look_at_the_logs().await
            }
        }
    }

    /// The ids of a queue, if it lives: what is left of a deleted one is nobody's business.
    async fn live(&mut self, queue: Nth) -> Option<(QueueId, QueueId)> {
        let (model, store) = self.queue_ids(queue);
        self.model.queue_by_id(model).await.unwrap().map(|_| (model, store))
    }

    async fn register(&mut self, host: u8, replaces: Knowledge, again: bool) -> Same {
        let new = Incarnation::new(self.uuid());
        let earlier = self.hosts.get(usize::from(host)).and_then(|host| host.runs.last().copied());
        let incarnation = earlier.filter(|_| again).unwrap_or(new);
        let replaces = Some(self.run(host, replaces));
        let register = Register { addr: addr(&format!("host {host}")), incarnation, replaces, lease: lease(6) };
        let (model, store) = (self.model.register_broker(&register).await, self.store.register_broker(&register).await);
        let (Ok(model), Ok(store)) = (&model, &store) else { return same("register", &model, &store) };
        same("register: time", &model.store_time, &store.store_time)?;
        if usize::from(host) == self.hosts.len() {
            let generations = (model.generation, store.generation);
            self.hosts.push(Host { model: model.broker, store: store.broker, runs: vec![incarnation], generations });
            return Ok(());
        }
        let known = &mut self.hosts[usize::from(host)];
        if known.model == BrokerId::new(UNKNOWN) {
            // It was forgotten, and is a new one.
            (known.model, known.store) = (model.broker, store.broker);
            known.generations = (model.generation, store.generation);
        }
        same("register: id", &model.broker, &self.model_broker(store.broker))?;
        if incarnation == new {
            self.hosts[usize::from(host)].runs.push(new);
        }
        self.generations(host, (model.generation, store.generation))
    }

    /// Generations need not be equal; but where the model's grew, the store's has to.
    fn generations(&mut self, host: u8, now: (Generation, Generation)) -> Same {
        let seen = std::mem::replace(&mut self.hosts[usize::from(host)].generations, now);
        if now.1 < seen.1 || (now.0 > seen.0 && now.1 == seen.1) {
            let text =
                format!("generation of host {host}: model {} to {}, store {} to {}", seen.0, now.0, seen.1, now.1);
            return Err(TestCaseError::fail(text));
        }
        Ok(())
    }

    async fn renew(&mut self, host: u8, run: Knowledge, lease: Duration) -> Same {
        let ((model, store), run) = (self.host_ids(host), self.run(host, run));
        let model = self.model.renew_broker(model, run, lease).await;
        let store = self.store.renew_broker(store, run, lease).await;
        if let (Ok(model), Ok(store)) = (&model, &store) {
            self.generations(host, (model.generation, store.generation))?;
        }
        let comparable = |renewal: crate::ports::Renewal| (renewal.renewals, renewal.draining, renewal.store_time);
        same("renew", &model.map(comparable), &store.map(comparable))
    }

    async fn create(&mut self, label: u8, assignee: Option<u8>, again: bool) -> Same {
        let request = match self.requests.get(&label) {
            Some(&made) if again => made,
            _ => self.uuid(),
        };
        let (for_model, for_store) = assignee.map(|host| self.host_ids(host)).unzip();
        let create = CreateQueue { label: queue_label(label), assignee: for_model, request };
        let model = self.model.create_queue(&create).await;
        let store = self.store.create_queue(&CreateQueue { assignee: for_store, ..create }).await;
        if let (Ok(model), Ok(store)) = (&model, &store)
            && !self.queues.iter().any(|known| known.model == model.id || known.store == store.id)
        {
            let (model, store) = (model.id, store.id);
            self.queues.push(Created { model, store, epoch: Epoch::ZERO, claims: Vec::new() });
            self.requests.insert(label, request);
        }
        same(format!("create {label}"), &model, &store.map(|record| self.model_record(record)))
    }

    async fn claim(&mut self, queue: Nth, by: Option<u8>, run: Knowledge, again: bool) -> Same {
        let (for_model, for_store) = self.queue_ids(queue);
        let record = self.model.queue_by_id(for_model).await.unwrap();
        let assignee = record.and_then(|record| record.assignee).map(|(assignee, _)| assignee);
        let hosting =
            self.hosts.iter().zip(0_u8..).find(|(host, _)| Some(host.model) == assignee).map(|(_, host)| host);
        let host = by.or(hosting).unwrap_or(0);
        let ((model, store), incarnation) = (self.host_ids(host), self.run(host, run));
        let new = ClaimId::new(self.uuid());
        let earlier = self.created(queue).and_then(|created| created.claims.last().copied());
        let claim = earlier.filter(|_| again).unwrap_or(new);
        let claim = Claim { queue: for_model, broker: model, incarnation, claim };
        let model = self.model.claim(&claim).await;
        let store = self.store.claim(&Claim { queue: for_store, broker: store, ..claim }).await;
        if let (Ok(claimed), Some(created)) = (&model, self.created(queue)) {
            created.epoch = claimed.epoch;
            created.claims.push(claim.claim);
        }
        same(format!("claim {queue} by {host}"), &model, &store)
    }

    fn epoch(&mut self, queue: Nth, knowledge: Knowledge) -> Epoch {
        let latest = self.created(queue).map_or(Epoch::ZERO, |created| created.epoch);
        match knowledge {
            Knowledge::Latest => latest,
            Knowledge::Stale => Epoch::new(latest.get().saturating_sub(1)),
            Knowledge::NeverWas => latest.next(),
        }
    }

    async fn batch(&mut self, append: &Append) -> (AppendBatch, QueueId) {
        let (model, store) = self.queue_ids(append.queue);
        let epoch = self.epoch(append.queue, append.epoch);
        let tail = self.model.tail(model).await.unwrap();
        let at_least_one = |offset: Offset| offset.max(Offset::new(1));
        let (first, previous) = match append.place {
            Place::Next => (tail.end.next(), tail.last_first),
            Place::OfTheLast => (at_least_one(tail.last_first), tail.last_first),
            Place::EndOfTheLast => (at_least_one(tail.end), tail.last_first),
            Place::First => (Offset::new(1), Offset::ZERO),
            Place::Beyond => (tail.end.plus(2), tail.last_first),
            Place::AfterAnother => (tail.end.next(), tail.last_first.next()),
        };
        let lifetime_millis = append.lifetime.map(|steps| steps * STEP_MILLIS);
        let batch = batch(model, epoch, first, append.count, previous, tail.last_stored_at);
        (AppendBatch { lifetime_millis, ..batch }, store)
    }

    async fn append(&mut self, group: &[Append]) -> Same {
        // By the model's id, which has the same order as the store's: both grow.
        let mut batches = BTreeMap::new();
        for append in group {
            let (batch, store) = self.batch(append).await;
            batches.insert(batch.queue, (batch, store));
        }
        let (model, store): (Vec<_>, Vec<_>) =
            batches.into_values().map(|(batch, store)| (batch.clone(), AppendBatch { queue: store, ..batch })).unzip();
        same(&model, &self.model.append(&model).await, &self.store.append(&store).await)
    }

    async fn trim(
        &mut self,
        queue: Nth,
        epoch: Knowledge,
        short_of_end: u64,
        saves: bool,
        from: Option<u64>,
        limit: u32,
    ) -> Same {
        let ((model, store), epoch) = (self.queue_ids(queue), self.epoch(queue, epoch));
        let end = self.model.tail(model).await.unwrap().end;
        let through = Offset::new(end.get().saturating_sub(short_of_end));
        let producers = Bytes::from(self.uuid().to_string());
        let producers = saves.then_some(producers);
        let none_expires_before = from.map_or(StoreTime::default(), |steps| START.plus_millis(steps * STEP_MILLIS));
        let trim = Trim { queue: model, epoch, producers, through, none_expires_before, limit };
        let model = self.model.trim(&trim).await;
        let store = self.store.trim(&Trim { queue: store, ..trim.clone() }).await;
        same(trim, &model, &store)
    }

    async fn create_channel(&mut self, id: u8, queue: Nth, topic: u8, from: From) -> Same {
        let (model, store) = self.queue_ids(queue);
        let topic = if topic == 0 { Topic::NONE } else { Topic::parse(&format!("topic {topic}")).unwrap() };
        let start = match from {
            From::Earliest => Start::Earliest,
            From::Latest => Start::Latest,
            From::At(beyond_first) => Start::At(Offset::new(1 + beyond_first)),
        };
        let create = CreateChannel { id: channel_id(id), queue: model, topic, start, disposable: false };
        let model = self.model.create_channel(&create).await;
        let store = self.store.create_channel(&CreateChannel { queue: store, ..create.clone() }).await;
        same(create, &model, &store.map(|channel| self.model_channel(channel)))
    }

    async fn look_at_the_catalog(&mut self) -> Same {
        let now = self.model.now().await.unwrap();
        let mut model = self.model.brokers().await;
        let mut store = self.store.brokers().await;
        for broker in store.iter_mut().flatten() {
            broker.id = self.model_broker(broker.id);
        }
        for broker in model.iter_mut().chain(&mut store).flatten() {
            // When a lease ended does not matter once it has.
            broker.lease_until = broker.lease_until.max(now);
        }
        same("brokers", &model, &store)?;
        let records = |records: Vec<QueueRecord>| records.into_iter().map(|record| self.model_record(record)).collect();
        same("queues", &self.model.queues().await, &self.store.queues().await.map(records))?;
        for host in &self.hosts {
            let store = self.store.assigned_queues(host.store).await.map(records);
            same("assigned queues", &self.model.assigned_queues(host.model).await, &store)?;
        }
        let record = |record: Option<QueueRecord>| record.map(|record| self.model_record(record));
        for number in 0..LABELS {
            let label = queue_label(number);
            same("queue", &self.model.queue(&label).await, &self.store.queue(&label).await.map(record))?;
        }
        let channels = |channels: Vec<ChannelRecord>| -> Vec<_> {
            channels.into_iter().map(|channel| self.model_channel(channel)).collect()
        };
        for queue in &self.queues {
            let store = self.store.queue_by_id(queue.store).await.map(record);
            same("queue by id", &self.model.queue_by_id(queue.model).await, &store)?;
            let store = self.store.channels(Some(queue.store)).await.map(channels);
            same("channels of a queue", &self.model.channels(Some(queue.model)).await, &store)?;
        }
        same("channels", &self.model.channels(None).await, &self.store.channels(None).await.map(channels))?;
        for number in 0..IDS {
            let channel = channel_id(number);
            let store = self.store.channel(channel).await.map(|found| found.map(|found| self.model_channel(found)));
            same("channel", &self.model.channel(channel).await, &store)?;
        }
        Ok(())
    }

    async fn look_at_the_logs(&mut self) -> Same {
        for queue in &self.queues {
            if self.model.queue_by_id(queue.model).await.unwrap().is_none() {
                continue;
            }
            let model = self.model.tail(queue.model).await;
            let mut store = self.store.tail(queue.store).await;
            if let Ok(tail) = &mut store {
                tail.producer_epochs.sort_unstable();
            }
            same("tail", &model, &store)?;
            let (all, limit, max_bytes) = (Offset::ZERO, 10_000, 1 << 24);
            let model = self.model.headers(queue.model, all, limit).await;
            same("headers", &model, &self.store.headers(queue.store, all, limit).await)?;
            let model = self.model.read(queue.model, all, max_bytes).await;
            same("read", &model, &self.store.read(queue.store, all, max_bytes).await)?;
        }
        same("now", &self.model.now().await, &self.store.now().await)
    }
}

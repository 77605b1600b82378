//! Three brokers that take queues from each other while their connections are killed: the fence has to hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use rand::{Rng, SeedableRng, rngs::StdRng};
use rmom_core::{
    model::{BrokerAddr, BrokerId, ClaimId, Epoch, Incarnation, Offset, QueueId, QueueLabel, StoreTime},
    ports::{AppendBatch, Appended, AssignError, Catalog, Claim, CreateQueue, Log, Register, StoreError},
};
use rmom_net::store::PostgresStore;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::support::{Bench, LEASE};

const BROKERS: usize = 3;
const QUEUES: usize = 4;
const DURATION: Duration = Duration::from_secs(4);
/// Each batch has a number of its own in its frames.
const DELAYS: &str = "
CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN IF random() < 0.5 THEN PERFORM pg_sleep(random() * 0.004); END IF; RETURN NULL; END';
CREATE TRIGGER dawdle AFTER INSERT ON batch FOR EACH STATEMENT EXECUTE FUNCTION dawdle()";

/// What happened, as the brokers saw it.
#[derive(Default)]
struct Record {
    acknowledged: BTreeSet<u64>,
    refused: BTreeSet<u64>,
    unknown: BTreeSet<u64>,
    /// Queue, epoch, and the end of the log read after the claim.
    claims: Vec<(QueueId, Epoch, Offset)>,
}

#[derive(Default)]
struct Shared {
    record: Mutex<Record>,
    numbers: AtomicU64,
    stop: AtomicBool,
}

/// What a broker believes of a queue that it claimed.
struct Belief {
    epoch: Epoch,
    end: Offset,
    previous: Offset,
    not_before: StoreTime,
}

struct Broker {
    store: PostgresStore,
    id: BrokerId,
    incarnation: Incarnation,
    queues: Vec<QueueId>,
    owned: BTreeMap<QueueId, Belief>,
    rng: StdRng,
    shared: Arc<Shared>,
}

impl Broker {
    async fn run(mut self) {
        while !self.shared.stop.load(Ordering::SeqCst) {
            if self.owned.is_empty() || self.rng.random_bool(0.12) {
                let queue = self.queues[self.rng.random_range(0..self.queues.len())];
                self.take(queue).await;
            }
            self.append().await;
        }
    }

    /// Has a queue assigned to itself, and claims it. Whatever fails is left for another time.
    async fn take(&mut self, queue: QueueId) {
        self.owned.remove(&queue);
        let Ok(Some(found)) = self.store.queue_by_id(queue).await else { return };
        match self.store.assign_queue(queue, found.assignment, self.id).await {
            Ok(_) | Err(AssignError::Changed | AssignError::Store(_)) => {}
            Err(error) => panic!("{error}"),
        }
        let claim = ClaimId::new(Uuid::from_u128(self.rng.random()));
        let claim = Claim { queue, broker: self.id, incarnation: self.incarnation, claim };
        let Ok(claimed) = self.store.claim(&claim).await else { return };
        let Ok(tail) = self.store.tail(queue).await else { return };
        self.shared.record.lock().unwrap().claims.push((queue, claimed.epoch, tail.end));
        let belief =
            Belief { epoch: claimed.epoch, end: tail.end, previous: tail.last_first, not_before: tail.last_stored_at };
        self.owned.insert(queue, belief);
    }

    async fn append(&mut self) {
        let mut group = Vec::new();
        let mut numbers = Vec::new();
        for (&queue, belief) in &self.owned {
            if self.rng.random_bool(0.3) {
                continue;
            }
            let number = self.shared.numbers.fetch_add(1, Ordering::SeqCst);
            numbers.push(number);
            group.push(AppendBatch {
                queue,
                epoch: belief.epoch,
                first: belief.end.next(),
                last: belief.end.plus(self.rng.random_range(1..=5)),
                previous: belief.previous,
                not_before: belief.not_before,
                lifetime_millis: None,
                format: 1,
                index: Bytes::from_static(b"index"),
                frames: number.to_be_bytes().to_vec().into(),
                checksum: 0,
            });
        }
        if group.is_empty() {
            return;
        }
        // Sometimes nobody waits for the answer, as after a cut network; the statement goes on by itself.
        let patience = if self.rng.random_bool(0.03) { self.rng.random_range(0..3_000) } else { 60_000_000 };
        let answer = timeout(Duration::from_micros(patience), self.store.append(&group)).await;
        let answer = answer.unwrap_or_else(|_| Err(StoreError::Unknown("given up".into())));
        let mut record = self.shared.record.lock().unwrap();
        match answer {
            Ok(answers) => {
                for ((batch, number), answer) in group.iter().zip(numbers).zip(answers) {
                    match answer {
                        Appended::Stored { stored_at } => {
                            record.acknowledged.insert(number);
                            let belief = self.owned.get_mut(&batch.queue).unwrap();
                            assert!(stored_at >= belief.not_before);
                            belief.end = batch.last;
                            belief.previous = batch.first;
                            belief.not_before = stored_at;
                        }
                        Appended::Fenced { epoch } => {
                            assert!(epoch > batch.epoch);
                            record.refused.insert(number);
                            self.owned.remove(&batch.queue);
                        }
                        // The owner of an epoch is alone with its log.
                        other => panic!("{other:?}: {batch:?}"),
                    }
                }
            }
            Err(StoreError::Unknown(_)) => {
                record.unknown.extend(numbers);
                for batch in &group {
                    self.owned.remove(&batch.queue);
                }
            }
            Err(StoreError::Unavailable(_)) => record.refused.extend(numbers),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Terminates one backend after another.
async fn kill(bench: &Bench, shared: &Shared, mut rng: StdRng) {
    let mut conn = bench.database.connect().await;
    while !shared.stop.load(Ordering::SeqCst) {
        sleep(Duration::from_millis(rng.random_range(5..60))).await;
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rmom' \
                   AND datname = current_database() ORDER BY random() LIMIT 1";
        sqlx::query(sql).execute(&mut conn).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::print_stdout)] // shown when it fails
async fn the_fence_holds() {
    let seed = std::env::var("RMOM_STRESS_SEED").map_or(1, |seed| seed.parse().unwrap());
    println!("RMOM_STRESS_SEED={seed}");
    let bench = Bench::start().await;
    let admin = PostgresStore::connect(bench.direct()).await.unwrap();
    bench.database.execute(DELAYS).await;
    let mut queues = Vec::new();
    for n in 0..QUEUES {
        let label = QueueLabel::parse(&format!("queue-{n}")).unwrap();
        let create = CreateQueue { label, assignee: None, request: Uuid::from_u128(n as u128) };
        queues.push(admin.create_queue(&create).await.unwrap().id);
    }
    let shared = Arc::new(Shared::default());
    let mut brokers = Vec::new();
    for n in 0..BROKERS {
        let store = PostgresStore::connect(bench.direct()).await.unwrap();
        let addr = BrokerAddr { host: format!("broker-{n}"), port: 1 };
        let incarnation = Incarnation::new(Uuid::from_u128(n as u128));
        let register = Register { addr, incarnation, replaces: None, lease: LEASE };
        let id = store.register_broker(&register).await.unwrap().broker;
        let rng = StdRng::seed_from_u64(seed * 100 + n as u64);
        let (queues, owned, shared) = (queues.clone(), BTreeMap::new(), Arc::clone(&shared));
        brokers.push(tokio::spawn(Broker { store, id, incarnation, queues, owned, rng, shared }.run()));
    }
    let killing = kill(&bench, &shared, StdRng::seed_from_u64(seed * 100 + 99));
    tokio::join!(killing, async {
        sleep(DURATION).await;
        shared.stop.store(true, Ordering::SeqCst);
    });
    for broker in brokers {
        broker.await.unwrap();
    }
    // One more claim each: behind it, nothing of what was given up can land any more.
    let mut conn = bench.database.connect().await;
    for queue in &queues {
        sqlx::query("UPDATE log SET epoch = epoch + 1 WHERE queue_id = $1")
            .bind(queue.as_i64())
            .execute(&mut conn)
            .await
            .unwrap();
    }
    let record = std::mem::take(&mut *shared.record.lock().unwrap());
    judge(&admin, &queues, &record).await;
}

#[allow(clippy::print_stdout)] // shown when it fails
async fn judge(store: &PostgresStore, queues: &[QueueId], record: &Record) {
    let mut stored = BTreeSet::new();
    let (mut gaps, mut disorders, mut stale) = (0, 0, 0);
    for &queue in queues {
        let mut log = Vec::new();
        let mut after = Offset::ZERO;
        loop {
            let batches = store.read(queue, after, usize::MAX).await.unwrap().batches;
            let Some(last) = batches.last() else { break };
            after = last.header.last;
            log.extend(batches);
        }
        let (mut end, mut epoch) = (Offset::ZERO, Epoch::ZERO);
        for batch in &log {
            gaps += usize::from(batch.header.first != end.next());
            disorders += usize::from(batch.header.epoch < epoch);
            (end, epoch) = (batch.header.last, batch.header.epoch);
            stored.insert(u64::from_be_bytes(batch.frames[..].try_into().unwrap()));
        }
        for &(_, claimed, end) in record.claims.iter().filter(|(of, ..)| *of == queue) {
            // What earlier epochs stored is exactly what the claimant read.
            let before = log.iter().filter(|batch| batch.header.epoch < claimed).map(|batch| batch.header.last).max();
            stale += usize::from(before.unwrap_or_default() != end);
        }
    }
    let lost = record.acknowledged.difference(&stored).count();
    let ghosts = record.refused.intersection(&stored).count();
    println!(
        "{} acknowledged, {} refused, {} unknown ({} of them stored), {} claims; {stale} stale, {gaps} gaps, \
         {disorders} out of order, {lost} lost, {ghosts} ghosts",
        record.acknowledged.len(),
        record.refused.len(),
        record.unknown.len(),
        record.unknown.intersection(&stored).count(),
        record.claims.len(),
    );
    assert_eq!((stale, gaps, disorders, lost, ghosts), (0, 0, 0, 0, 0));
    assert!(record.claims.len() > BROKERS && record.acknowledged.len() > QUEUES, "nothing happened");
    assert!(!record.unknown.is_empty(), "nothing was in doubt");
}

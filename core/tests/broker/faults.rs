//! A store that fails as it is told to.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use rmom_core::{
    frame::READS_UP_TO,
    model::{BrokerId, ChannelId, Incarnation, ManagerId, Offset, ProducerId, QueueId, QueueLabel, StoreTime},
    ports::{
        AppendBatch, Appended, Assign, Assigned, BatchHeader, BrokerLife, BrokerRecord, Catalog, ChannelRecord, Claim,
        ClaimError, Claimed, Clock, CreateChannel, CreateChannelError, CreateQueue, CreateQueueError, ForgetError,
        Leadership, Log, LogError, LogTail, Opened, Page, Purged, QueueRecord, Register, RegisterError, Registration,
        RenewError, Renewal, StoreError, Trim, Trimmed,
    },
    store::{MemoryStore, memory::State},
};

/// What happens to one append.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// The request is lost: nothing is stored, and the caller cannot know.
    LoseBefore,
    /// The answer is lost: it is stored, and the caller cannot know.
    LoseAfter,
    /// The answer is lost at once, and the request arrives much later.
    LandLate(Duration),
    /// The disk is full.
    Refuse,
    /// The same, after a while.
    RefuseLate(Duration),
    /// It takes its time.
    Slow(Duration),
}

pub(super) struct Faulty {
    clock: Arc<dyn Clock>,
    store: Mutex<Arc<MemoryStore>>,
    next_append: Mutex<Option<Fault>>,
    down: AtomicBool,
    hangs: AtomicBool,
    lookup_time: Mutex<Duration>,
    appends_fail: AtomicBool,
    claims_fail: AtomicBool,
    uses_fail: AtomicBool,
    looks_fail: AtomicBool,
    claim_time: Mutex<Duration>,
    tail_time: Mutex<Duration>,
    asking_tail_time: Mutex<Duration>,
    trim_time: Mutex<Duration>,
    opening_time: Mutex<Duration>,
    channel_time: Mutex<Duration>,
    look_time: Mutex<Duration>,
    /// Claims and trims under way, and the most there were.
    claiming: Crowd,
    trimming: Crowd,
    opening: Crowd,
    asked_for_channels: Mutex<Vec<ChannelId>>,
    asked_for_queues: Mutex<Vec<Vec<QueueId>>>,
    lose_renewal: AtomicBool,
    stale: AtomicBool,
    tails_from: Mutex<Option<State>>,
    corrupt: AtomicBool,
    newer: AtomicBool,
    trims_fail: AtomicBool,
    trims_lost: AtomicBool,
    removals_fail: AtomicBool,
    saves: AtomicU64,
    landed_late: Arc<AtomicU64>,
}

/// How many do something, and how many did at most.
#[derive(Default)]
struct Crowd(Mutex<(usize, usize)>);

impl Crowd {
    fn enter(&self) -> Member<'_> {
        let mut crowd = self.0.lock();
        crowd.0 += 1;
        crowd.1 = crowd.1.max(crowd.0);
        Member(self)
    }

    fn take_most(&self) -> usize {
        let mut crowd = self.0.lock();
        let now = crowd.0;
        std::mem::replace(&mut crowd.1, now)
    }
}

struct Member<'a>(&'a Crowd);

impl Drop for Member<'_> {
    fn drop(&mut self) {
        self.0.0.lock().0 -= 1;
    }
}

impl Faulty {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            store: Mutex::new(MemoryStore::new(clock.clone())),
            clock,
            next_append: Mutex::new(None),
            down: AtomicBool::new(false),
            hangs: AtomicBool::new(false),
            lookup_time: Mutex::default(),
            appends_fail: AtomicBool::new(false),
            claims_fail: AtomicBool::new(false),
            uses_fail: AtomicBool::new(false),
            looks_fail: AtomicBool::new(false),
            claim_time: Mutex::default(),
            tail_time: Mutex::default(),
            asking_tail_time: Mutex::default(),
            trim_time: Mutex::default(),
            opening_time: Mutex::default(),
            channel_time: Mutex::default(),
            look_time: Mutex::default(),
            claiming: Crowd::default(),
            trimming: Crowd::default(),
            opening: Crowd::default(),
            asked_for_channels: Mutex::default(),
            asked_for_queues: Mutex::default(),
            lose_renewal: AtomicBool::new(false),
            stale: AtomicBool::new(false),
            tails_from: Mutex::default(),
            corrupt: AtomicBool::new(false),
            newer: AtomicBool::new(false),
            trims_fail: AtomicBool::new(false),
            trims_lost: AtomicBool::new(false),
            removals_fail: AtomicBool::new(false),
            saves: AtomicU64::new(0),
            landed_late: Arc::default(),
        })
    }

    pub(super) fn next_append(&self, fault: Fault) {
        *self.next_append.lock() = Some(fault);
    }

    pub(super) fn down(&self, down: bool) {
        self.down.store(down, SeqCst);
    }

    /// No call is answered.
    pub(super) fn hangs(&self, hangs: bool) {
        self.hangs.store(hangs, SeqCst);
    }

    /// How long look-ups of queues by id take from now on.
    pub(super) fn lookup_time(&self, time: Duration) {
        *self.lookup_time.lock() = time;
    }

    /// Every append is rolled back, as while somebody else holds a lock; all else goes well.
    pub(super) fn appends_fail(&self, fail: bool) {
        self.appends_fail.store(fail, SeqCst);
    }

    pub(super) fn claims_fail(&self, fail: bool) {
        self.claims_fail.store(fail, SeqCst);
    }

    /// The use of channels cannot be entered.
    pub(super) fn uses_fail(&self, fail: bool) {
        self.uses_fail.store(fail, SeqCst);
    }

    /// Pages and headers come from a standby that has nothing yet.
    pub(super) fn stale(&self, stale: bool) {
        self.stale.store(stale, SeqCst);
    }

    /// Whether trims are carried out from now on, and their answers are lost.
    pub(super) fn trims_lost(&self, lost: bool) {
        self.trims_lost.store(lost, SeqCst);
    }

    /// The ends of logs, and what is known of a queue by its id, come from this older copy.
    pub(super) fn tails_from(&self, copy: Option<State>) {
        *self.tails_from.lock() = copy;
    }

    pub(super) fn trims_fail(&self, fail: bool) {
        self.trims_fail.store(fail, SeqCst);
    }

    /// Batches are damaged as they are read.
    pub(super) fn corrupt(&self, corrupt: bool) {
        self.corrupt.store(corrupt, SeqCst);
    }

    /// All batches are of a format that this version does not read.
    pub(super) fn newer(&self, newer: bool) {
        self.newer.store(newer, SeqCst);
    }

    /// Trims that may remove something fail.
    pub(super) fn removals_fail(&self, fail: bool) {
        self.removals_fail.store(fail, SeqCst);
    }

    /// Trims that saved the producers.
    pub(super) fn saves(&self) -> u64 {
        self.saves.load(SeqCst)
    }

    /// Brokers cannot see what is assigned to them.
    pub(super) fn looks_fail(&self, fail: bool) {
        self.looks_fail.store(fail, SeqCst);
    }

    /// The next renewal of a lease gets no answer.
    pub(super) fn lose_renewal(&self) {
        self.lose_renewal.store(true, SeqCst);
    }

    /// The most claims that were under way at once since this was last asked, and the most trims.
    pub(super) fn most_at_once(&self) -> (usize, usize) {
        (self.claiming.take_most(), self.trimming.take_most())
    }

    /// How long a look at what is assigned takes from now on.
    pub(super) fn look_time(&self, time: Duration) {
        *self.look_time.lock() = time;
    }

    /// The channels that brokers asked for since this was last asked.
    pub(super) fn asked_for_channels(&self) -> Vec<ChannelId> {
        std::mem::take(&mut self.asked_for_channels.lock())
    }

    /// The queues that brokers asked for by id since this was last asked, call by call.
    pub(super) fn asked_for_queues(&self) -> Vec<Vec<QueueId>> {
        std::mem::take(&mut self.asked_for_queues.lock())
    }

    /// How long claims are under way from now on, before they are carried out.
    pub(super) fn claim_time(&self, time: Duration) {
        *self.claim_time.lock() = time;
    }

    /// How long the ends of logs are under way from now on. They say how it was before.
    pub(super) fn tail_time(&self, time: Duration) {
        *self.tail_time.lock() = time;
    }

    /// How long questions for the ends of logs are under way from now on.
    pub(super) fn asking_tail_time(&self, time: Duration) {
        *self.asking_tail_time.lock() = time;
    }

    /// How long the opening of a named producer takes from now on; returns how many were opened at once at most.
    pub(super) fn opening_time(&self, time: Duration) -> usize {
        *self.opening_time.lock() = time;
        self.opening.take_most()
    }

    /// How long trims take from now on.
    pub(super) fn trim_time(&self, time: Duration) {
        *self.trim_time.lock() = time;
    }

    /// How long answers about channels are under way from now on. They say how it was before.
    pub(super) fn channel_time(&self, time: Duration) {
        *self.channel_time.lock() = time;
    }

    async fn answer_of_channels<T>(&self, answer: T) -> T {
        let time = *self.channel_time.lock();
        tokio::time::sleep(time).await;
        answer
    }

    /// Late appends that were carried out (and should have changed nothing).
    pub(super) fn landed_late(&self) -> u64 {
        self.landed_late.load(SeqCst)
    }

    pub(super) fn backup(&self) -> State {
        self.store.lock().state()
    }

    pub(super) fn restore(&self, backup: State) {
        *self.store.lock() = MemoryStore::with_state(self.clock.clone(), backup);
    }

    /// The store, one simulated round trip away.
    async fn store(&self) -> Result<Arc<MemoryStore>, StoreError> {
        tokio::time::sleep(Duration::from_micros(100)).await;
        if self.hangs.load(SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.down.load(SeqCst) {
            return Err(StoreError::Unavailable("it is down".into()));
        }
        Ok(self.store.lock().clone())
    }
}

macro_rules! pass {
    ($trait:ident { $(fn $name:ident($($arg:ident: $type:ty),*) -> $result:ty;)* } $($rest:item)*) => {
        #[async_trait]
        impl $trait for Faulty {
            $(async fn $name(&self, $($arg: $type),*) -> $result {
                self.store().await?.$name($($arg),*).await
            })*
            $($rest)*
        }
    };
}

pass! {
    Catalog {
        fn now() -> Result<StoreTime, StoreError>;
        fn register_broker(register: &Register) -> Result<Registration, RegisterError>;
        fn retire_broker(broker: BrokerId, run: Incarnation) -> Result<(), RenewError>;
        fn set_draining(broker: BrokerId, draining: bool) -> Result<bool, StoreError>;
        fn forget_broker(broker: BrokerId, gone_for: Duration) -> Result<bool, ForgetError>;
        fn brokers() -> Result<Vec<BrokerRecord>, StoreError>;
        fn broker_life(broker: BrokerId) -> Result<Option<BrokerLife>, StoreError>;
        fn queue_page(after: Option<QueueLabel>, limit: u32) -> Result<Vec<QueueRecord>, StoreError>;
        fn channel_page(
            queue: Option<QueueId>,
            after: Option<ChannelId>,
            limit: u32
        ) -> Result<Vec<ChannelRecord>, StoreError>;
        fn create_queue(create: &CreateQueue) -> Result<QueueRecord, CreateQueueError>;
        fn queue(label: &QueueLabel) -> Result<Option<QueueRecord>, StoreError>;
        fn queues() -> Result<Vec<QueueRecord>, StoreError>;
        fn queues_after(after: QueueId, limit: u32) -> Result<Vec<QueueRecord>, StoreError>;
        fn assign_queues(group: &[Assign]) -> Result<Vec<Assigned>, StoreError>;
        fn delete_queue(queue: QueueId) -> Result<bool, StoreError>;
        fn create_channel(create: &CreateChannel) -> Result<ChannelRecord, CreateChannelError>;
        fn delete_channel(channel: ChannelId) -> Result<bool, StoreError>;
        fn delete_idle_channels(
            broker: BrokerId,
            queues: &[QueueId],
            idle: Duration,
            limit: u32
        ) -> Result<Vec<ChannelId>, StoreError>;
        fn lead(manager: ManagerId, lease: Duration) -> Result<Leadership, StoreError>;
        fn resign(manager: ManagerId) -> Result<(), StoreError>;
    }

    async fn use_channels(&self, channels: &[ChannelId], fresh: Duration) -> Result<Vec<ChannelId>, StoreError> {
        if self.uses_fail.load(SeqCst) {
            return Err(StoreError::Refused("no room".into()));
        }
        self.store().await?.use_channels(channels, fresh).await
    }

    async fn assigned_queues(&self, broker: BrokerId) -> Result<Vec<QueueRecord>, StoreError> {
        if self.looks_fail.load(SeqCst) {
            return Err(StoreError::Unavailable("no look at what is assigned".into()));
        }
        let time = *self.look_time.lock();
        tokio::time::sleep(time).await;
        self.store().await?.assigned_queues(broker).await
    }

    async fn channel(&self, channel: ChannelId) -> Result<Option<ChannelRecord>, StoreError> {
        let answer = self.store().await?.channel(channel).await;
        self.answer_of_channels(answer).await
    }

    async fn channels(&self, queue: Option<QueueId>) -> Result<Vec<ChannelRecord>, StoreError> {
        let answer = self.store().await?.channels(queue).await;
        self.answer_of_channels(answer).await
    }

    async fn known_channels(&self, channels: &[ChannelId]) -> Result<Vec<ChannelId>, StoreError> {
        self.asked_for_channels.lock().extend(channels);
        let answer = self.store().await?.known_channels(channels).await;
        self.answer_of_channels(answer).await
    }

    async fn queue_by_id(&self, queue: QueueId) -> Result<Option<QueueRecord>, StoreError> {
        let copy = self.tails_from.lock().as_ref().map(|copy| copy.queue_by_id(queue));
        match copy {
            Some(record) => Ok(record),
            None => Ok(self.queues_by_ids(&[queue]).await?.pop()),
        }
    }

    async fn queues_by_ids(&self, queues: &[QueueId]) -> Result<Vec<QueueRecord>, StoreError> {
        self.asked_for_queues.lock().push(queues.to_vec());
        let time = *self.lookup_time.lock();
        tokio::time::sleep(time).await;
        self.store().await?.queues_by_ids(queues).await
    }

    async fn renew_broker(&self, broker: BrokerId, run: Incarnation, lease: Duration) -> Result<Renewal, RenewError> {
        if self.lose_renewal.swap(false, SeqCst) {
            std::future::pending::<()>().await;
        }
        self.store().await?.renew_broker(broker, run, lease).await
    }
}

pass! {
    Log {
        fn purge_deleted(limit: u32) -> Result<Purged, StoreError>;
    }

    async fn open_producer(&self, queue: QueueId, producer: ProducerId, most: u32) -> Result<Opened, StoreError> {
        let _opening = self.opening.enter();
        let time = *self.opening_time.lock();
        tokio::time::sleep(time).await;
        self.store().await?.open_producer(queue, producer, most).await
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed, ClaimError> {
        if self.claims_fail.load(SeqCst) {
            return Err(StoreError::Unavailable("claims are to fail".into()).into());
        }
        let _claiming = self.claiming.enter();
        let time = *self.claim_time.lock();
        tokio::time::sleep(time).await;
        self.store().await?.claim(claim).await
    }

    async fn tail(&self, queue: QueueId) -> Result<LogTail, StoreError> {
        let (asking, time) = (*self.asking_tail_time.lock(), *self.tail_time.lock());
        tokio::time::sleep(asking).await;
        let store = self.store().await?;
        let copy = self.tails_from.lock().as_ref().map(|copy| copy.tail(queue));
        let tail = match copy {
            Some(tail) => Ok(tail),
            None => store.tail(queue).await,
        };
        tokio::time::sleep(time).await;
        tail
    }

    async fn headers(&self, queue: QueueId, after: Offset, limit: u32) -> Result<Vec<BatchHeader>, StoreError> {
        let store = self.store().await?;
        if self.stale.load(SeqCst) {
            return Ok(Vec::new());
        }
        let mut headers = store.headers(queue, after, limit).await?;
        if self.newer.load(SeqCst) {
            headers.iter_mut().for_each(|header| header.format = READS_UP_TO + 1);
        }
        Ok(headers)
    }

    async fn read_within(
        &self,
        queue: QueueId,
        after: Offset,
        span: u64,
        max_bytes: usize,
    ) -> Result<Page, StoreError> {
        let store = self.store().await?;
        if self.stale.load(SeqCst) {
            return Ok(Page::default());
        }
        let mut page = store.read_within(queue, after, span, max_bytes).await?;
        if self.corrupt.load(SeqCst) {
            page.batches.iter_mut().for_each(|batch| batch.checksum ^= 1);
        }
        if self.newer.load(SeqCst) {
            page.batches.iter_mut().for_each(|batch| batch.header.format = READS_UP_TO + 1);
        }
        Ok(page)
    }

    async fn trim(&self, trim: &Trim) -> Result<Trimmed, LogError> {
        let _trimming = self.trimming.enter();
        let store = self.store().await?;
        if self.trims_fail.load(SeqCst) || (trim.limit > 0 && self.removals_fail.load(SeqCst)) {
            return Err(StoreError::Unavailable("trims are to fail".into()).into());
        }
        self.saves.fetch_add(u64::from(trim.producers.is_some()), SeqCst);
        let time = *self.trim_time.lock();
        tokio::time::sleep(time).await;
        let trimmed = store.trim(trim).await?;
        if self.trims_lost.load(SeqCst) {
            return Err(StoreError::Unknown("the answer to a trim was lost".into()).into());
        }
        Ok(trimmed)
    }

    async fn append(&self, group: &[AppendBatch]) -> Result<Vec<Appended>, StoreError> {
        let store = self.store().await?;
        let unknown = || Err(StoreError::Unknown("the answer was lost".into()));
        if self.appends_fail.load(SeqCst) {
            return Err(StoreError::Unavailable("appends are to fail".into()));
        }
        let fault = self.next_append.lock().take();
        match fault {
            None => store.append(group).await,
            Some(Fault::Slow(duration)) => {
                tokio::time::sleep(duration).await;
                store.append(group).await
            }
            Some(Fault::Refuse) => Err(StoreError::Refused("the disk is full".into())),
            Some(Fault::RefuseLate(late)) => {
                tokio::time::sleep(late).await;
                Err(StoreError::Refused("the disk is full".into()))
            }
            Some(Fault::LoseBefore) => unknown(),
            Some(Fault::LoseAfter) => {
                store.append(group).await?;
                unknown()
            }
            Some(Fault::LandLate(late)) => {
                let (group, landed) = (group.to_vec(), self.landed_late.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(late).await;
                    let outcomes = store.append(&group).await;
                    assert!(matches!(outcomes.as_deref(), Ok([Appended::Fenced { .. }])), "{outcomes:?}");
                    landed.fetch_add(1, SeqCst);
                });
                unknown()
            }
        }
    }
}

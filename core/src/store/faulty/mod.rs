//! A store in memory that fails as tests tell it to.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::sleep;

pub use super::memory::Kind;
use super::{
    MemoryStore,
    memory::{Call, METHODS, State, StateStore},
};
use crate::{
    frame::READS_UP_TO,
    model::{ChannelId, Offset, QueueId, StoreTime},
    ports::{
        AppendBatch, Appended, Assign, Assigned, BatchHeader, Clock, LogError, LogTail, Page, QueueRecord, StoreError,
        Trim, Trimmed,
    },
};

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The store is down: nothing is done, and the caller knows.
    Unavailable,
    /// The store is read-only: nothing is done, and the caller knows. For [`Calls::Writes`].
    ReadOnly,
    /// The disk is full: nothing is done, and the caller knows.
    Refused,
    /// As [`Fault::Refused`], after a while.
    RefusedLate(Duration),
    /// It takes so long on its way.
    Slow(Duration),
    /// It waits for ever.
    Hangs,
    /// It makes the caller panic.
    Panics,
    /// The request is lost: nothing is done, and the caller cannot know.
    RequestLost,
    /// The answer is lost: the call is carried out, and the caller cannot know.
    AnswerLost,
    /// The caller is told at once that the outcome is unknown. The request arrives so much later.
    Late(Duration),
}

/// The calls that a fault is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// All.
    All,
    /// Those that change something.
    Writes,
    /// Those that administer brokers, queues and channels, and change something.
    Administration,
    /// Those of a kind.
    Kind(Kind),
    /// Those of methods with these names.
    Of(&'static [&'static str]),
}

impl Calls {
    fn contain(self, call: Call) -> bool {
        match self {
            Self::All => true,
            Self::Writes => !call.kind.only_reads(),
            Self::Administration => {
                call.kind == Kind::Write && !["open_producer", "purge_deleted"].contains(&call.method)
            }
            Self::Kind(kind) => call.kind == kind,
            Self::Of(methods) => methods.contains(&call.method),
        }
    }

    fn check(self) {
        if let Self::Of(methods) = self {
            methods.iter().for_each(|method| check(method));
        }
    }
}

/// A name that no method has would match nothing, and a test would pass without its fault.
fn check(method: &str) {
    assert!(METHODS.contains(&method), "the store has no method {method}");
}

impl From<Kind> for Calls {
    fn from(kind: Kind) -> Self {
        Self::Kind(kind)
    }
}

/// A fault, and the calls that it befalls.
#[derive(Debug)]
struct Rule {
    calls: Calls,
    fault: Fault,
    /// So many more calls; `None` means all.
    left: Option<u32>,
}

/// How long some calls take.
#[derive(Debug)]
struct Delay {
    calls: Calls,
    request: Duration,
    answer: Duration,
}

/// How many calls of a method there are at once.
#[derive(Debug, Default)]
struct Crowd {
    now: usize,
    most: usize,
}

/// What the store was asked.
#[derive(Debug, Default)]
struct Asked {
    calls: BTreeMap<&'static str, u64>,
    crowds: BTreeMap<&'static str, Crowd>,
    channels: Vec<ChannelId>,
    queues: Vec<Vec<QueueId>>,
}

/// A call under way.
struct Underway<'a> {
    store: &'a FaultyStore,
    method: &'static str,
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        self.store.asked.lock().crowds.entry(self.method).or_default().now -= 1;
    }
}

/// A store in memory whose calls fail, or take their time, as tests tell it.
pub struct FaultyStore {
    memory: Arc<MemoryStore>,
    latency: Mutex<Duration>,
    rules: Mutex<Vec<Rule>>,
    delays: Mutex<Vec<Delay>>,
    asked: Mutex<Asked>,
    /// The ends of logs, and queues looked up by id, come from this older copy.
    outdated: Mutex<Option<State>>,
    stale: AtomicBool,
    corrupt: AtomicBool,
    newer: AtomicBool,
    removals_fail: AtomicBool,
    locked: Mutex<BTreeSet<QueueId>>,
    saves: Arc<AtomicU64>,
    fenced: Arc<AtomicU64>,
}

/// Faults.
impl FaultyStore {
    /// An empty store that goes by `clock`, one short round trip away. Nothing fails yet.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            memory: MemoryStore::new(clock),
            latency: Mutex::new(Duration::from_micros(100)),
            rules: Mutex::default(),
            delays: Mutex::default(),
            asked: Mutex::default(),
            outdated: Mutex::default(),
            stale: AtomicBool::new(false),
            corrupt: AtomicBool::new(false),
            newer: AtomicBool::new(false),
            removals_fail: AtomicBool::new(false),
            locked: Mutex::default(),
            saves: Arc::default(),
            fenced: Arc::default(),
        })
    }

    /// From now on a fault befalls these calls. It replaces another fault of the same calls; of faults of different calls
    /// that contain the same one, the newest befalls it.
    pub fn fail(&self, calls: impl Into<Calls>, fault: Fault) {
        self.add(calls.into(), fault, None);
    }

    /// As [`FaultyStore::fail`], for the next so many of these calls.
    pub fn fail_next(&self, count: u32, calls: impl Into<Calls>, fault: Fault) {
        self.add(calls.into(), fault, Some(count));
    }

    fn add(&self, calls: Calls, fault: Fault, left: Option<u32>) {
        calls.check();
        let mut rules = self.rules.lock();
        rules.retain(|rule| rule.calls != calls);
        rules.push(Rule { calls, fault, left });
    }

    /// Ends the fault of these calls. [`Calls::All`] ends all faults.
    pub fn repair(&self, calls: impl Into<Calls>) {
        let calls = calls.into();
        self.rules.lock().retain(|rule| calls != Calls::All && rule.calls != calls);
    }

    /// How long every request takes to reach the store.
    pub fn set_latency(&self, latency: Duration) {
        *self.latency.lock() = latency;
    }

    /// How much longer the requests of these calls are on their way from now on.
    pub fn slow_requests(&self, calls: impl Into<Calls>, by: Duration) {
        self.delay(calls.into(), |delay| delay.request = by);
    }

    /// How long the answers of these calls are on their way from now on. They say how it was before.
    pub fn slow_answers(&self, calls: impl Into<Calls>, by: Duration) {
        self.delay(calls.into(), |delay| delay.answer = by);
    }

    fn delay(&self, calls: Calls, change: impl Fn(&mut Delay)) {
        calls.check();
        let mut delays = self.delays.lock();
        if !delays.iter().any(|delay| delay.calls == calls) {
            delays.push(Delay { calls, request: Duration::ZERO, answer: Duration::ZERO });
        }
        delays.iter_mut().filter(|delay| delay.calls == calls).for_each(change);
    }

    /// Whether trims that may remove something fail.
    pub fn removals_fail(&self, fail: bool) {
        self.removals_fail.store(fail, SeqCst);
    }

    /// From now on a group of assignments with this queue among them fails, as while somebody else holds its row.
    pub fn lock_queue(&self, queue: QueueId) {
        self.locked.lock().insert(queue);
    }

    /// Whether batches and headers come from a standby that has none yet.
    pub fn stale(&self, stale: bool) {
        self.stale.store(stale, SeqCst);
    }

    /// Whether batches are damaged as they are read.
    pub fn corrupt(&self, corrupt: bool) {
        self.corrupt.store(corrupt, SeqCst);
    }

    /// Whether all batches are of a format that this version does not read.
    pub fn newer(&self, newer: bool) {
        self.newer.store(newer, SeqCst);
    }

    /// The ends of logs, and queues looked up by id, come from this older copy.
    pub fn outdated(&self, copy: Option<State>) {
        *self.outdated.lock() = copy;
    }

    /// A copy of all that is stored.
    #[must_use]
    pub fn backup(&self) -> State {
        self.memory.state()
    }

    /// Goes back to a copy.
    pub fn restore(&self, backup: State) {
        self.memory.restore(backup);
    }
}

/// What the store was asked.
impl FaultyStore {
    /// How often each method was called since the last call of this one.
    pub fn take_calls(&self) -> BTreeMap<&'static str, u64> {
        std::mem::take(&mut self.asked.lock().calls)
    }

    /// The most calls of a method that were under way at once since the last call of this one.
    pub fn take_most_at_once(&self, method: &'static str) -> usize {
        check(method);
        let mut asked = self.asked.lock();
        let crowd = asked.crowds.entry(method).or_default();
        std::mem::replace(&mut crowd.most, crowd.now)
    }

    /// The channels that brokers asked for by id since the last call of this.
    pub fn take_known_channels(&self) -> Vec<ChannelId> {
        std::mem::take(&mut self.asked.lock().channels)
    }

    /// The queues that brokers asked for by id since the last call of this, call by call.
    pub fn take_queues_by_ids(&self) -> Vec<Vec<QueueId>> {
        std::mem::take(&mut self.asked.lock().queues)
    }

    /// How many trims saved the producers.
    pub fn saves(&self) -> u64 {
        self.saves.load(SeqCst)
    }

    /// How many batches that arrived were fenced.
    pub fn fenced(&self) -> u64 {
        self.fenced.load(SeqCst)
    }

    fn enter(&self, call: Call) -> Underway<'_> {
        let mut asked = self.asked.lock();
        *asked.calls.entry(call.method).or_default() += 1;
        let crowd = asked.crowds.entry(call.method).or_default();
        crowd.now += 1;
        crowd.most = crowd.most.max(crowd.now);
        Underway { store: self, method: call.method }
    }

    /// What befalls a call that arrives now.
    fn fault_of(&self, call: Call) -> Option<Fault> {
        let mut rules = self.rules.lock();
        let at = rules.iter().rposition(|rule| rule.calls.contain(call))?;
        let rule = &mut rules[at];
        let fault = rule.fault;
        if let Some(left) = &mut rule.left {
            *left -= 1;
            if *left == 0 {
                rules.remove(at);
            }
        }
        Some(fault)
    }

    /// How much longer the request of a call takes, and its answer.
    fn delay_of(&self, call: Call) -> (Duration, Duration) {
        let delays = self.delays.lock();
        let of_call = delays.iter().filter(|delay| delay.calls.contain(call));
        of_call.fold((Duration::ZERO, Duration::ZERO), |sum, delay| (sum.0 + delay.request, sum.1 + delay.answer))
    }
}

fn refused() -> StoreError {
    StoreError::Refused("no room".to_owned())
}

fn unknown() -> StoreError {
    StoreError::Unknown("the answer was lost".to_owned())
}

impl StateStore for FaultyStore {
    async fn execute<T: Send + 'static, E: From<StoreError> + Send + 'static>(
        &self,
        call: Call,
        step: impl FnOnce(&mut State, StoreTime) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let _underway = self.enter(call);
        let latency = *self.latency.lock();
        let (request, answer) = self.delay_of(call);
        sleep(request + latency).await;
        let result = match self.fault_of(call) {
            None => self.memory.execute(call, step).await,
            Some(Fault::Unavailable) => return Err(StoreError::Unavailable("it is down".to_owned()).into()),
            Some(Fault::ReadOnly) => {
                return Err(StoreError::Unavailable("the database is read-only".to_owned()).into());
            }
            Some(Fault::Refused) => return Err(refused().into()),
            Some(Fault::RefusedLate(late)) => {
                sleep(late).await;
                return Err(refused().into());
            }
            Some(Fault::Slow(by)) => {
                sleep(by).await;
                self.memory.execute(call, step).await
            }
            Some(Fault::Hangs) => std::future::pending().await,
            Some(Fault::Panics) => panic!("the store was told to panic"),
            Some(Fault::RequestLost) => return Err(unknown().into()),
            Some(Fault::AnswerLost) => {
                let _ = self.memory.execute(call, step).await;
                return Err(unknown().into());
            }
            Some(Fault::Late(late)) => {
                let memory = self.memory.clone();
                tokio::spawn(async move {
                    sleep(late).await;
                    let _ = memory.execute(call, step).await;
                });
                return Err(unknown().into());
            }
        };
        if !answer.is_zero() {
            sleep(answer).await;
        }
        result
    }

    async fn queues_by_ids(&self, queues: &[QueueId]) -> Result<Vec<QueueRecord>, StoreError> {
        self.asked.lock().queues.push(queues.to_vec());
        let (queues, outdated) = (queues.to_vec(), self.outdated.lock().clone());
        let call = Call { kind: Kind::Look, method: "queues_by_ids" };
        self.query(call, move |state, _| outdated.as_ref().unwrap_or(state).queues_by_ids(&queues)).await
    }

    async fn known_channels(&self, channels: &[ChannelId]) -> Result<Vec<ChannelId>, StoreError> {
        self.asked.lock().channels.extend(channels);
        let channels = channels.to_vec();
        let call = Call { kind: Kind::Look, method: "known_channels" };
        self.query(call, move |state, _| state.known_channels(&channels)).await
    }

    async fn assign_queues(&self, group: &[Assign]) -> Result<Vec<Assigned>, StoreError> {
        let (group, locked) = (group.to_vec(), self.locked.lock().clone());
        let call = Call { kind: Kind::Write, method: "assign_queues" };
        self.execute(call, move |state, _| {
            if group.iter().any(|assign| locked.contains(&assign.queue)) {
                return Err(StoreError::Unavailable("a lock was not granted in time".to_owned()));
            }
            state.assign_queues(&group)
        })
        .await
    }

    async fn tail(&self, queue: QueueId) -> Result<LogTail, StoreError> {
        let outdated = self.outdated.lock().clone();
        let call = Call { kind: Kind::Tail, method: "tail" };
        self.query(call, move |state, _| Ok(outdated.as_ref().unwrap_or(state).tail(queue))).await
    }

    async fn headers(&self, queue: QueueId, after: Offset, limit: u32) -> Result<Vec<BatchHeader>, StoreError> {
        let call = Call { kind: Kind::Tail, method: "headers" };
        let mut headers = self.query(call, move |state, _| Ok(state.headers(queue, after, limit))).await?;
        if self.stale.load(SeqCst) {
            headers.clear();
        }
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
        let call = Call { kind: Kind::Read, method: "read_within" };
        let page = self.query(call, move |state, _| Ok(state.read_within(queue, after, span, max_bytes))).await?;
        if self.stale.load(SeqCst) {
            return Ok(Page::default());
        }
        let mut page = page;
        if self.corrupt.load(SeqCst) {
            page.batches.iter_mut().for_each(|batch| batch.checksum ^= 1);
        }
        if self.newer.load(SeqCst) {
            page.batches.iter_mut().for_each(|batch| batch.header.format = READS_UP_TO + 1);
        }
        Ok(page)
    }

    async fn append(&self, group: &[AppendBatch]) -> Result<Vec<Appended>, StoreError> {
        let (group, fenced) = (group.to_vec(), self.fenced.clone());
        let call = Call { kind: Kind::Append, method: "append" };
        self.execute(call, move |state, now| {
            let outcomes = state.append(now, &group)?;
            let count = outcomes.iter().filter(|outcome| matches!(outcome, Appended::Fenced { .. })).count();
            fenced.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), SeqCst);
            Ok(outcomes)
        })
        .await
    }

    async fn trim(&self, trim: &Trim) -> Result<Trimmed, LogError> {
        let fails = trim.limit > 0 && self.removals_fail.load(SeqCst);
        let (trim, saves) = (trim.clone(), self.saves.clone());
        self.execute(Call { kind: Kind::Trim, method: "trim" }, move |state, now| {
            if fails {
                return Err(StoreError::Unavailable("trims are to fail".to_owned()).into());
            }
            saves.fetch_add(u64::from(trim.producers.is_some()), SeqCst);
            state.trim(now, &trim)
        })
        .await
    }
}

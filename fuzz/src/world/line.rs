//! A broker's link to the store, on which calls and answers are lost or delayed.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rmom_core::{
    model::{BrokerId, Incarnation, QueueId, StoreTime},
    ports::{AppendBatch, Appended, Claim, ClaimError, Claimed, LogError, RenewError, StoreError, Trim, Trimmed},
    store::memory::{Call, Kind, State, StateStore},
};
use tokio::time::{Instant, sleep};

use super::Database;

/// The error of a call whose answer was lost. The outcome of a read is never unknown.
fn unanswered(kind: Kind) -> StoreError {
    let reason = format!("the answer of {kind:?} was lost");
    if kind.only_reads() { StoreError::Unavailable(reason) } else { StoreError::Unknown(reason) }
}

/// The fault of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No fault: the next fault in the queue is for a later call.
    None,
    /// It is rolled back.
    Unavailable,
    /// It is refused permanently.
    Refused,
    /// It never arrives, and the caller cannot know.
    Lost,
    /// It is carried out, and the caller cannot know.
    Unanswered,
    /// It fails at once, and is carried out after this time.
    Late(Duration),
    /// The call is delayed by the first time, and its answer by the second.
    Slow(Duration, Duration),
}

/// When a reading of the store's time was requested, and when it arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) kind: Kind,
    pub(crate) asked: Instant,
    pub(crate) came: Instant,
}

/// See the module's description.
pub(crate) struct Line {
    database: Arc<Database>,
    faults: Mutex<BTreeMap<Kind, VecDeque<Fault>>>,
    cut: AtomicBool,
    readings: Mutex<Vec<Reading>>,
}

/// The most faults that are queued for a kind of call.
const WAITING: usize = 4;

impl Line {
    pub(crate) fn new(database: Arc<Database>) -> Arc<Self> {
        Arc::new(Self { database, faults: Mutex::default(), cut: AtomicBool::new(false), readings: Mutex::default() })
    }

    /// Queues a fault for a call of a kind.
    pub(crate) fn befall(&self, kind: Kind, fault: Fault) {
        let mut faults = self.faults.lock();
        let waiting = faults.entry(kind).or_default();
        if waiting.len() < WAITING {
            waiting.push_back(fault);
        }
    }

    /// Cuts or repairs the link. While it is cut, every call fails at once.
    pub(crate) fn cut(&self, cut: bool) {
        self.cut.store(cut, SeqCst);
    }

    /// Ends all faults.
    pub(crate) fn repair(&self) {
        self.faults.lock().clear();
        self.cut(false);
    }

    /// The answers that told the store's time.
    pub(crate) fn readings(&self) -> Vec<Reading> {
        self.readings.lock().clone()
    }

    async fn call<T, E>(
        &self,
        kind: Kind,
        carry_out: impl FnOnce(&Database) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let asked = Instant::now();
        let fault = if self.cut.load(SeqCst) {
            Fault::Unavailable
        } else {
            self.faults.lock().get_mut(&kind).and_then(VecDeque::pop_front).unwrap_or(Fault::None)
        };
        let database = &self.database;
        let answer = match fault {
            Fault::None => carry_out(database),
            Fault::Unavailable => Err(StoreError::Unavailable(format!("{kind:?} was rolled back")).into()),
            Fault::Refused => Err(StoreError::Refused(format!("{kind:?} was refused")).into()),
            Fault::Lost => Err(unanswered(kind).into()),
            Fault::Unanswered => {
                let _ = carry_out(database);
                Err(unanswered(kind).into())
            }
            Fault::Late(late) => {
                let database = database.clone();
                tokio::spawn(async move {
                    sleep(late).await;
                    let _ = carry_out(&database);
                });
                Err(unanswered(kind).into())
            }
            Fault::Slow(there, back) => {
                sleep(there).await;
                let answer = carry_out(database);
                sleep(back).await;
                answer
            }
        };
        if answer.is_ok() && matches!(kind, Kind::Append | Kind::Claim | Kind::Trim | Kind::Lease) {
            self.readings.lock().push(Reading { kind, asked, came: Instant::now() });
        }
        answer
    }
}

impl StateStore for Line {
    async fn execute<T: Send + 'static, E: From<StoreError> + Send + 'static>(
        &self,
        call: Call,
        step: impl FnOnce(&mut State, StoreTime) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        self.call(call.kind, |database| database.transact(step)).await
    }

    /// Like other writes, it returns no time.
    async fn retire_broker(&self, broker: BrokerId, incarnation: Incarnation) -> Result<(), RenewError> {
        let retire = move |state: &mut State, now| state.retire_broker(now, broker, incarnation);
        self.call(Kind::Write, move |database| database.transact(retire)).await
    }

    async fn delete_queue(&self, queue: QueueId) -> Result<bool, StoreError> {
        self.call(Kind::Write, move |database| Ok(database.delete_queue(queue))).await
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed, ClaimError> {
        let claim = *claim;
        self.call(Kind::Claim, move |database| database.claim(&claim)).await
    }

    async fn append(&self, group: &[AppendBatch]) -> Result<Vec<Appended>, StoreError> {
        let (group, sent) = (group.to_vec(), Instant::now());
        self.call(Kind::Append, move |database| database.append(&group, sent)).await
    }

    async fn trim(&self, trim: &Trim) -> Result<Trimmed, LogError> {
        let trim = trim.clone();
        self.call(Kind::Trim, move |database| database.trim(&trim)).await
    }
}

//! A broker's line to the store, on which calls and answers get lost, or take their time.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use rmom_core::{
    model::{BrokerId, ChannelId, Incarnation, ManagerId, Offset, ProducerId, QueueId, QueueLabel, StoreTime},
    ports::{
        AppendBatch, Appended, Assign, Assigned, BatchHeader, BrokerLife, BrokerRecord, Catalog, ChannelRecord, Claim,
        ClaimError, Claimed, CreateChannel, CreateChannelError, CreateQueue, CreateQueueError, ForgetError, Leadership,
        Log, LogError, LogTail, Opened, Page, Purged, QueueRecord, Register, RegisterError, Registration, RenewError,
        Renewal, StoreError, Trim, Trimmed,
    },
};
use tokio::time::{Instant, sleep};

use super::Database;

/// The calls that faults tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Call {
    Append,
    Claim,
    /// The end of a log, its headers and its statistics.
    Tail,
    Trim,
    /// Entering a broker and extending its lease.
    Lease,
    /// What is assigned, and where queues and channels are.
    Look,
    Read,
    Write,
}

impl Call {
    pub(crate) const ALL: [Self; 8] =
        [Self::Append, Self::Claim, Self::Tail, Self::Trim, Self::Lease, Self::Look, Self::Read, Self::Write];

    /// What is said of a call whose answer was lost. Reads are never unknown.
    fn unanswered(self) -> StoreError {
        let reason = format!("the answer of {self:?} was lost");
        match self {
            Self::Tail | Self::Look | Self::Read => StoreError::Unavailable(reason),
            _ => StoreError::Unknown(reason),
        }
    }
}

/// What befalls a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing: the call before which the next fault waits.
    None,
    /// It is rolled back.
    Unavailable,
    /// It is refused for good.
    Refused,
    /// It never arrives, and who called cannot know.
    Lost,
    /// It is carried out, and who called cannot know.
    Unanswered,
    /// It is given up at once, and carried out so much later.
    Late(Duration),
    /// So long on its way, and its answer so long on the way back.
    Slow(Duration, Duration),
}

/// When an answer that tells the store's time was asked for, and when it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) call: Call,
    pub(crate) asked: Instant,
    pub(crate) came: Instant,
}

/// See the module.
pub(crate) struct Line {
    database: Arc<Database>,
    faults: Mutex<BTreeMap<Call, VecDeque<Fault>>>,
    cut: AtomicBool,
    readings: Mutex<Vec<Reading>>,
}

/// Most faults that wait for calls of a kind.
const WAITING: usize = 4;

impl Line {
    pub(crate) fn new(database: Arc<Database>) -> Arc<Self> {
        Arc::new(Self { database, faults: Mutex::default(), cut: AtomicBool::new(false), readings: Mutex::default() })
    }

    /// Has a fault befall the next call of a kind, after those that wait already.
    pub(crate) fn befall(&self, call: Call, fault: Fault) {
        let mut faults = self.faults.lock();
        let waiting = faults.entry(call).or_default();
        if waiting.len() < WAITING {
            waiting.push_back(fault);
        }
    }

    /// While it is cut, every call fails at once.
    pub(crate) fn cut(&self, cut: bool) {
        self.cut.store(cut, SeqCst);
    }

    /// From here on all goes well.
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
        call: Call,
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
            self.faults.lock().get_mut(&call).and_then(VecDeque::pop_front).unwrap_or(Fault::None)
        };
        let database = &self.database;
        let answer = match fault {
            Fault::None => carry_out(database),
            Fault::Unavailable => Err(StoreError::Unavailable(format!("{call:?} was rolled back")).into()),
            Fault::Refused => Err(StoreError::Refused(format!("{call:?} was refused")).into()),
            Fault::Lost => Err(call.unanswered().into()),
            Fault::Unanswered => {
                let _ = carry_out(database);
                Err(call.unanswered().into())
            }
            Fault::Late(late) => {
                let database = database.clone();
                tokio::spawn(async move {
                    sleep(late).await;
                    let _ = carry_out(&database);
                });
                Err(call.unanswered().into())
            }
            Fault::Slow(there, back) => {
                sleep(there).await;
                let answer = carry_out(database);
                sleep(back).await;
                answer
            }
        };
        if answer.is_ok() && matches!(call, Call::Append | Call::Claim | Call::Trim | Call::Lease) {
            self.readings.lock().push(Reading { call, asked, came: Instant::now() });
        }
        answer
    }
}

/// Methods of the store that are one call each.
macro_rules! calls {
    ($trait:ident {
        $($call:ident $name:ident($($arg:ident: $type:ty),*) -> $ok:ty, $err:ty = $work:expr;)*
    }) => {
        #[async_trait]
        impl $trait for Line {
            $(async fn $name(&self, $($arg: $type),*) -> Result<$ok, $err> {
                // What arrives late must not borrow from who called.
                $(#[allow(clippy::implicit_clone)] let $arg = $arg.to_owned();)*
                self.call(Call::$call, $work).await
            })*
        }
    };
}

calls!(Catalog {
    Look now() -> StoreTime, StoreError = move |db| Ok(db.now());
    Lease register_broker(register: &Register) -> Registration, RegisterError =
        move |db| db.transact(|state, now| state.register_broker(now, &register));
    Lease renew_broker(broker: BrokerId, run: Incarnation, lease: Duration) -> Renewal, RenewError =
        move |db| db.transact(|state, now| state.renew_broker(now, broker, run, lease));
    Write retire_broker(broker: BrokerId, run: Incarnation) -> (), RenewError =
        move |db| db.transact(|state, now| state.retire_broker(now, broker, run));
    Write set_draining(broker: BrokerId, draining: bool) -> bool, StoreError =
        move |db| Ok(db.transact(|state, _| state.set_draining(broker, draining)));
    Write forget_broker(broker: BrokerId, gone_for: Duration) -> bool, ForgetError =
        move |db| db.transact(|state, now| state.forget_broker(now, broker, gone_for));
    Look brokers() -> Vec<BrokerRecord>, StoreError = move |db| Ok(db.transact(|state, _| state.brokers()));
    Look broker_life(broker: BrokerId) -> Option<BrokerLife>, StoreError =
        move |db| Ok(db.transact(|state, now| state.broker_life(now, broker)));
    Write create_queue(create: &CreateQueue) -> QueueRecord, CreateQueueError =
        move |db| db.transact(|state, _| state.create_queue(&create));
    Look queue(label: &QueueLabel) -> Option<QueueRecord>, StoreError =
        move |db| Ok(db.transact(|state, _| state.queue(&label)));
    Look queues_by_ids(queues: &[QueueId]) -> Vec<QueueRecord>, StoreError =
        move |db| Ok(db.transact(|state, _| queues.iter().filter_map(|&queue| state.queue_by_id(queue)).collect()));
    Look queues_after(after: QueueId, limit: u32) -> Vec<QueueRecord>, StoreError =
        move |db| Ok(db.transact(|state, _| state.queues_after(after, limit)));
    Look queues() -> Vec<QueueRecord>, StoreError = move |db| Ok(db.transact(|state, _| state.queues()));
    Look queue_page(after: Option<QueueLabel>, limit: u32) -> Vec<QueueRecord>, StoreError =
        move |db| Ok(db.transact(|state, _| state.queue_page(after.clone(), limit)));
    Look assigned_queues(broker: BrokerId) -> Vec<QueueRecord>, StoreError =
        move |db| Ok(db.transact(|state, _| state.assigned_queues(broker)));
    Write assign_queues(group: &[Assign]) -> Vec<Assigned>, StoreError =
        move |db| db.transact(|state, _| state.assign_queues(&group));
    Write delete_queue(queue: QueueId) -> bool, StoreError = move |db| Ok(db.delete_queue(queue));
    Write create_channel(create: &CreateChannel) -> ChannelRecord, CreateChannelError =
        move |db| db.transact(|state, now| state.create_channel(now, &create));
    Look channel(channel: ChannelId) -> Option<ChannelRecord>, StoreError =
        move |db| Ok(db.transact(|state, _| state.channel(channel)));
    Look channel_page(queue: Option<QueueId>, after: Option<ChannelId>, limit: u32) -> Vec<ChannelRecord>, StoreError =
        move |db| Ok(db.transact(|state, _| state.channel_page(queue, after, limit)));
    Look channels(queue: Option<QueueId>) -> Vec<ChannelRecord>, StoreError =
        move |db| Ok(db.transact(|state, _| state.channels(queue)));
    Look known_channels(channels: &[ChannelId]) -> Vec<ChannelId>, StoreError =
        move |db| Ok(db.transact(|state, _| channels.into_iter().filter(|&id| state.channel(id).is_some()).collect()));
    Write delete_channel(channel: ChannelId) -> bool, StoreError =
        move |db| Ok(db.transact(|state, _| state.delete_channel(channel)));
    Write use_channels(channels: &[ChannelId], fresh: Duration) -> Vec<ChannelId>, StoreError =
        move |db| db.transact(|state, now| state.use_channels(now, &channels, fresh));
    Write delete_idle_channels(broker: BrokerId, queues: &[QueueId], idle: Duration, limit: u32) -> Vec<ChannelId>, StoreError =
        move |db| db.transact(|state, now| state.delete_idle_channels(now, broker, &queues, idle, limit));
    Write lead(manager: ManagerId, lease: Duration) -> Leadership, StoreError =
        move |db| Ok(db.transact(|state, now| state.lead(now, manager, lease)));
    Write resign(manager: ManagerId) -> (), StoreError =
        move |db| {
            db.transact(|state, _| state.resign(manager));
            Ok(())
        };
});

calls!(Log {
    Claim claim(claim: &Claim) -> Claimed, ClaimError = move |db| db.claim(&claim);
    Append append(group: &[AppendBatch]) -> Vec<Appended>, StoreError = {
        let sent = Instant::now();
        move |db| db.append(&group, sent)
    };
    Tail tail(queue: QueueId) -> LogTail, StoreError = move |db| Ok(db.transact(|state, _| state.tail(queue)));
    Tail headers(queue: QueueId, after: Offset, limit: u32) -> Vec<BatchHeader>, StoreError =
        move |db| Ok(db.transact(|state, _| state.headers(queue, after, limit)));
    Read read_within(queue: QueueId, after: Offset, span: u64, max_bytes: usize) -> Page, StoreError =
        move |db| Ok(db.transact(|state, _| state.read_within(queue, after, span, max_bytes)));
    Trim trim(trim: &Trim) -> Trimmed, LogError = move |db| db.trim(&trim);
    Write open_producer(queue: QueueId, producer: ProducerId, most: u32) -> Opened, StoreError =
        move |db| Ok(db.transact(|state, _| state.open_producer(queue, producer, most)));
    Write purge_deleted(limit: u32) -> Purged, StoreError = move |db| Ok(db.transact(|state, _| state.purge_deleted(limit)));
});

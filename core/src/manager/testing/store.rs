//! A store that fails as it is told to.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::{
    model::{BrokerId, ChannelId, Incarnation, ManagerId, Offset, ProducerId, QueueId, QueueLabel, StoreTime},
    ports::{
        AppendBatch, Appended, Assign, Assigned, BatchHeader, BrokerLife, BrokerRecord, Catalog, ChannelRecord, Claim,
        ClaimError, Claimed, CreateChannel, CreateChannelError, CreateQueue, CreateQueueError, ForgetError, Leadership,
        Log, LogError, LogTail, Opened, Page, Purged, QueueRecord, Register, RegisterError, Registration, RenewError,
        Renewal, Store, StoreError, Trim, Trimmed,
    },
};

/// What happens to calls of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Each is refused a connection.
    Down,
    /// Each waits for ever.
    Hangs,
    /// The next so many administrative writes are made, and their answers lost.
    LoseAnswers(u32),
    /// The next so many administrative writes are lost on their way.
    LoseRequests(u32),
    /// Administrative writes are refused for lack of room.
    Full,
    /// Reads are answered; nothing can be written, the leases included.
    ReadOnly,
    /// Each makes the caller panic.
    Panics,
}

/// A store around another.
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    fault: Mutex<Option<Fault>>,
    latency: Mutex<Duration>,
    purges_hang: AtomicBool,
    calls: Mutex<BTreeMap<&'static str, u64>>,
    stuck: Mutex<Option<QueueId>>,
}

/// What is to become of a write.
enum Fate {
    Done,
    AnswerLost,
}

impl FaultyStore {
    /// Works as `inner` does, to begin with.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            fault: Mutex::new(None),
            latency: Mutex::new(Duration::from_micros(100)),
            purges_hang: AtomicBool::new(false),
            calls: Mutex::default(),
            stuck: Mutex::new(None),
        }
    }

    /// How long every request takes to reach it.
    pub fn set_latency(&self, latency: Duration) {
        *self.latency.lock() = latency;
    }

    /// From now on removing what deleted queues left behind never ends.
    pub fn purges_hang(&self, hang: bool) {
        self.purges_hang.store(hang, SeqCst);
    }

    /// From now on a group of assignments with this queue among them fails.
    pub fn set_stuck(&self, queue: QueueId) {
        *self.stuck.lock() = Some(queue);
    }

    /// Fails so from now on; none: works again.
    pub fn set(&self, fault: Option<Fault>) {
        *self.fault.lock() = fault;
    }

    /// How often each of the reads was called since this was last asked.
    pub fn take_reads(&self) -> BTreeMap<&'static str, u64> {
        std::mem::take(&mut *self.calls.lock())
    }

    /// What goes wrong at present.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        *self.fault.lock()
    }

    async fn reach(&self) -> Result<&dyn Store, StoreError> {
        let latency = *self.latency.lock();
        tokio::time::sleep(latency).await;
        match self.fault() {
            Some(Fault::Down) => Err(StoreError::Unavailable("it is down".to_owned())),
            Some(Fault::Hangs) => std::future::pending().await,
            Some(Fault::Panics) => panic!("the store was told to panic"),
            _ => Ok(&*self.inner),
        }
    }

    async fn reach_to_write(&self) -> Result<(&dyn Store, Fate), StoreError> {
        let store = self.reach().await?;
        let mut fault = self.fault.lock();
        match &mut *fault {
            Some(Fault::LoseAnswers(left)) if *left > 0 => {
                *left -= 1;
                Ok((store, Fate::AnswerLost))
            }
            Some(Fault::LoseRequests(left)) if *left > 0 => {
                *left -= 1;
                Err(lost())
            }
            Some(Fault::Full) => Err(StoreError::Refused("no room".to_owned())),
            Some(Fault::ReadOnly) => Err(read_only()),
            _ => Ok((store, Fate::Done)),
        }
    }
}

fn read_only() -> StoreError {
    StoreError::Unavailable("the database is read-only".to_owned())
}

fn lost() -> StoreError {
    StoreError::Unknown("the answer was lost".to_owned())
}

macro_rules! through {
    ($trait:ident {
        read { $(fn $read:ident($($read_arg:ident: $read_type:ty),*) -> $read_result:ty;)* }
        lease { $(fn $lease:ident($($lease_arg:ident: $lease_type:ty),*) -> $lease_result:ty;)* }
        write { $(fn $write:ident($($arg:ident: $type:ty),*) -> $result:ty;)* }
        $($rest:item)*
    }) => {
        #[async_trait]
        impl $trait for FaultyStore {
            $(async fn $read(&self, $($read_arg: $read_type),*) -> $read_result {
                *self.calls.lock().entry(stringify!($read)).or_default() += 1;
                self.reach().await?.$read($($read_arg),*).await
            })*
            $(async fn $lease(&self, $($lease_arg: $lease_type),*) -> $lease_result {
                let store = self.reach().await?;
                if self.fault() == Some(Fault::ReadOnly) {
                    return Err(read_only().into());
                }
                store.$lease($($lease_arg),*).await
            })*
            $(async fn $write(&self, $($arg: $type),*) -> $result {
                let (store, fate) = self.reach_to_write().await?;
                let result = store.$write($($arg),*).await;
                match fate {
                    Fate::Done => result,
                    Fate::AnswerLost => Err(lost().into()),
                }
            })*
            $($rest)*
        }
    };
}

through! {
    Catalog {
        read {
            fn now() -> Result<StoreTime, StoreError>;
            fn brokers() -> Result<Vec<BrokerRecord>, StoreError>;
            fn broker_life(broker: BrokerId) -> Result<Option<BrokerLife>, StoreError>;
            fn queue_page(after: Option<QueueLabel>, limit: u32) -> Result<Vec<QueueRecord>, StoreError>;
            fn channel_page(
                queue: Option<QueueId>,
                after: Option<ChannelId>,
                limit: u32
            ) -> Result<Vec<ChannelRecord>, StoreError>;
            fn queue(label: &QueueLabel) -> Result<Option<QueueRecord>, StoreError>;
            fn queues_by_ids(queues: &[QueueId]) -> Result<Vec<QueueRecord>, StoreError>;
            fn queues_after(after: QueueId, limit: u32) -> Result<Vec<QueueRecord>, StoreError>;
            fn known_channels(channels: &[ChannelId]) -> Result<Vec<ChannelId>, StoreError>;
            fn queues() -> Result<Vec<QueueRecord>, StoreError>;
            fn assigned_queues(broker: BrokerId) -> Result<Vec<QueueRecord>, StoreError>;
            fn channel(channel: ChannelId) -> Result<Option<ChannelRecord>, StoreError>;
            fn channels(queue: Option<QueueId>) -> Result<Vec<ChannelRecord>, StoreError>;
        }
        lease {
            fn register_broker(register: &Register) -> Result<Registration, RegisterError>;
            fn renew_broker(broker: BrokerId, i: Incarnation, lease: Duration) -> Result<Renewal, RenewError>;
            fn retire_broker(broker: BrokerId, i: Incarnation) -> Result<(), RenewError>;
            fn lead(manager: ManagerId, lease: Duration) -> Result<Leadership, StoreError>;
            fn resign(manager: ManagerId) -> Result<(), StoreError>;
        }
        write {
            fn set_draining(broker: BrokerId, draining: bool) -> Result<bool, StoreError>;
            fn forget_broker(broker: BrokerId, gone_for: Duration) -> Result<bool, ForgetError>;
            fn create_queue(create: &CreateQueue) -> Result<QueueRecord, CreateQueueError>;
            fn delete_queue(queue: QueueId) -> Result<bool, StoreError>;
            fn create_channel(create: &CreateChannel) -> Result<ChannelRecord, CreateChannelError>;
            fn delete_channel(channel: ChannelId) -> Result<bool, StoreError>;
            fn use_channels(channels: &[ChannelId], fresh: Duration) -> Result<Vec<ChannelId>, StoreError>;
            fn delete_idle_channels(
                broker: BrokerId,
                queues: &[QueueId],
                idle: Duration,
                limit: u32
            ) -> Result<Vec<ChannelId>, StoreError>;
        }

        async fn assign_queues(&self, group: &[Assign]) -> Result<Vec<Assigned>, StoreError> {
            let (store, fate) = self.reach_to_write().await?;
            let stuck = *self.stuck.lock();
            if group.iter().any(|assign| Some(assign.queue) == stuck) {
                return Err(StoreError::Unavailable("a lock was not granted in time".to_owned()));
            }
            let result = store.assign_queues(group).await;
            match fate {
                Fate::Done => result,
                Fate::AnswerLost => Err(lost()),
            }
        }
    }
}

through! {
    Log {
        read {
            fn claim(claim: &Claim) -> Result<Claimed, ClaimError>;
            fn tail(queue: QueueId) -> Result<LogTail, StoreError>;
            fn headers(queue: QueueId, after: Offset, limit: u32) -> Result<Vec<BatchHeader>, StoreError>;
            fn read_within(queue: QueueId, after: Offset, span: u64, max_bytes: usize) -> Result<Page, StoreError>;
            fn append(group: &[AppendBatch]) -> Result<Vec<Appended>, StoreError>;
            fn trim(trim: &Trim) -> Result<Trimmed, LogError>;
            fn open_producer(queue: QueueId, producer: ProducerId, most: u32) -> Result<Opened, StoreError>;
        }
        lease {}
        write {}

        async fn purge_deleted(&self, limit: u32) -> Result<Purged, StoreError> {
            if self.purges_hang.load(SeqCst) {
                std::future::pending::<()>().await;
            }
            self.reach().await?.purge_deleted(limit).await
        }
    }
}

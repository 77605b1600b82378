//! The store in memory: the model that the databases are compared with, and what the simulated database runs.
//!
//! [`State`] is the model: plain data and plain methods, each of them one transaction, given the time by its caller.
//! [`MemoryStore`] is the shell that makes a [`Catalog`] and a [`Log`] of it.

mod catalog;
mod log;
mod state;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;

pub use state::State;

use crate::{
    model::{BrokerId, ChannelId, Incarnation, ManagerId, Offset, ProducerId, QueueId, QueueLabel, StoreTime},
    ports::{
        AppendBatch, Appended, Assign, Assigned, BatchHeader, BrokerLife, BrokerRecord, Catalog, ChannelRecord, Claim,
        ClaimError, Claimed, Clock, CreateChannel, CreateChannelError, CreateQueue, CreateQueueError, ForgetError,
        Leadership, Log, LogError, LogTail, Opened, Page, Purged, QueueRecord, Register, RegisterError, Registration,
        RenewError, Renewal, StoreError, Trim, Trimmed, check_lookup,
    },
};

/// A store that lives as long as its process. Every call is one atomic step; none ever waits or fails.
#[derive(Debug)]
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

impl MemoryStore {
    /// An empty store that goes by `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Self::with_state(clock, State::default())
    }

    /// A store that goes on from `state`.
    #[must_use]
    pub fn with_state(clock: Arc<dyn Clock>, state: State) -> Arc<Self> {
        Arc::new(Self { clock, state: Mutex::new(state) })
    }

    /// A copy of all that is stored. Cheap: payloads are shared.
    #[must_use]
    pub fn state(&self) -> State {
        self.state.lock().clone()
    }
}

#[async_trait]
impl Catalog for MemoryStore {
    async fn now(&self) -> Result<StoreTime, StoreError> {
        Ok(self.clock.now())
    }

    async fn register_broker(&self, register: &Register) -> Result<Registration, RegisterError> {
        self.state.lock().register_broker(self.clock.now(), register)
    }

    async fn renew_broker(
        &self,
        broker: BrokerId,
        incarnation: Incarnation,
        lease: Duration,
    ) -> Result<Renewal, RenewError> {
        self.state.lock().renew_broker(self.clock.now(), broker, incarnation, lease)
    }

    async fn retire_broker(&self, broker: BrokerId, incarnation: Incarnation) -> Result<(), RenewError> {
        self.state.lock().retire_broker(self.clock.now(), broker, incarnation)
    }

    async fn set_draining(&self, broker: BrokerId, draining: bool) -> Result<bool, StoreError> {
        Ok(self.state.lock().set_draining(broker, draining))
    }

    async fn forget_broker(&self, broker: BrokerId, gone_for: Duration) -> Result<bool, ForgetError> {
        self.state.lock().forget_broker(self.clock.now(), broker, gone_for)
    }

    async fn brokers(&self) -> Result<Vec<BrokerRecord>, StoreError> {
        Ok(self.state.lock().brokers())
    }

    async fn broker_life(&self, broker: BrokerId) -> Result<Option<BrokerLife>, StoreError> {
        Ok(self.state.lock().broker_life(self.clock.now(), broker))
    }

    async fn create_queue(&self, create: &CreateQueue) -> Result<QueueRecord, CreateQueueError> {
        self.state.lock().create_queue(create)
    }

    async fn queue(&self, label: &QueueLabel) -> Result<Option<QueueRecord>, StoreError> {
        Ok(self.state.lock().queue(label))
    }

    async fn queues_by_ids(&self, queues: &[QueueId]) -> Result<Vec<QueueRecord>, StoreError> {
        check_lookup(queues)?;
        let state = self.state.lock();
        Ok(queues.iter().filter_map(|&queue| state.queue_by_id(queue)).collect())
    }

    async fn queues_after(&self, after: QueueId, limit: u32) -> Result<Vec<QueueRecord>, StoreError> {
        Ok(self.state.lock().queues_after(after, limit))
    }

    async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError> {
        Ok(self.state.lock().queues())
    }

    async fn queue_page(&self, after: Option<QueueLabel>, limit: u32) -> Result<Vec<QueueRecord>, StoreError> {
        Ok(self.state.lock().queue_page(after, limit))
    }

    async fn assigned_queues(&self, broker: BrokerId) -> Result<Vec<QueueRecord>, StoreError> {
        Ok(self.state.lock().assigned_queues(broker))
    }

    async fn assign_queues(&self, group: &[Assign]) -> Result<Vec<Assigned>, StoreError> {
        self.state.lock().assign_queues(group)
    }

    async fn delete_queue(&self, queue: QueueId) -> Result<bool, StoreError> {
        Ok(self.state.lock().delete_queue(self.clock.now(), queue))
    }

    async fn create_channel(&self, create: &CreateChannel) -> Result<ChannelRecord, CreateChannelError> {
        self.state.lock().create_channel(self.clock.now(), create)
    }

    async fn channel(&self, channel: ChannelId) -> Result<Option<ChannelRecord>, StoreError> {
        Ok(self.state.lock().channel(channel))
    }

    async fn channels(&self, queue: Option<QueueId>) -> Result<Vec<ChannelRecord>, StoreError> {
        Ok(self.state.lock().channels(queue))
    }

    async fn known_channels(&self, channels: &[ChannelId]) -> Result<Vec<ChannelId>, StoreError> {
        check_lookup(channels)?;
        let state = self.state.lock();
        Ok(channels.iter().copied().filter(|&channel| state.channel(channel).is_some()).collect())
    }

    async fn channel_page(
        &self,
        queue: Option<QueueId>,
        after: Option<ChannelId>,
        limit: u32,
    ) -> Result<Vec<ChannelRecord>, StoreError> {
        Ok(self.state.lock().channel_page(queue, after, limit))
    }

    async fn delete_channel(&self, channel: ChannelId) -> Result<bool, StoreError> {
        Ok(self.state.lock().delete_channel(channel))
    }

    async fn use_channels(&self, channels: &[ChannelId], fresh: Duration) -> Result<Vec<ChannelId>, StoreError> {
        self.state.lock().use_channels(self.clock.now(), channels, fresh)
    }

    async fn delete_idle_channels(
        &self,
        broker: BrokerId,
        queues: &[QueueId],
        idle: Duration,
        limit: u32,
    ) -> Result<Vec<ChannelId>, StoreError> {
        self.state.lock().delete_idle_channels(self.clock.now(), broker, queues, idle, limit)
    }

    async fn lead(&self, manager: ManagerId, lease: Duration) -> Result<Leadership, StoreError> {
        Ok(self.state.lock().lead(self.clock.now(), manager, lease))
    }

    async fn resign(&self, manager: ManagerId) -> Result<(), StoreError> {
        self.state.lock().resign(manager);
        Ok(())
    }
}

#[async_trait]
impl Log for MemoryStore {
    async fn claim(&self, claim: &Claim) -> Result<Claimed, ClaimError> {
        self.state.lock().claim(self.clock.now(), claim)
    }

    async fn tail(&self, queue: QueueId) -> Result<LogTail, StoreError> {
        Ok(self.state.lock().tail(queue))
    }

    async fn headers(&self, queue: QueueId, after: Offset, limit: u32) -> Result<Vec<BatchHeader>, StoreError> {
        Ok(self.state.lock().headers(queue, after, limit))
    }

    async fn read_within(
        &self,
        queue: QueueId,
        after: Offset,
        span: u64,
        max_bytes: usize,
    ) -> Result<Page, StoreError> {
        Ok(self.state.lock().read_within(queue, after, span, max_bytes))
    }

    async fn append(&self, group: &[AppendBatch]) -> Result<Vec<Appended>, StoreError> {
        self.state.lock().append(self.clock.now(), group)
    }

    async fn trim(&self, trim: &Trim) -> Result<Trimmed, LogError> {
        self.state.lock().trim(self.clock.now(), trim)
    }

    async fn open_producer(&self, queue: QueueId, producer: ProducerId, most: u32) -> Result<Opened, StoreError> {
        Ok(self.state.lock().open_producer(queue, producer, most))
    }

    async fn purge_deleted(&self, limit: u32) -> Result<Purged, StoreError> {
        Ok(self.state.lock().purge_deleted(limit))
    }
}

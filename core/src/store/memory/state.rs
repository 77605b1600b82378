//! What a store holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use uuid::Uuid;

use crate::{
    model::{
        Assignment, BrokerAddr, BrokerId, ChannelId, ClaimId, Epoch, Generation, Incarnation, ManagerId, Offset,
        ProducerEpoch, ProducerId, QueueId, QueueLabel, Renewals, StoreTime, Term, Topic,
    },
    ports::{BrokerState, Removed, StoredBatch},
};

/// All that a store holds. Each method is one transaction and does what the method of that name in
/// [`Catalog`](crate::ports::Catalog) or [`Log`](crate::ports::Log) says; the caller brings the time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub(super) brokers: BTreeMap<BrokerId, Broker>,
    pub(super) broker_ids: BTreeMap<BrokerAddr, BrokerId>,
    /// Live queues only.
    pub(super) queues: BTreeMap<QueueId, Queue>,
    pub(super) queue_ids: BTreeMap<QueueLabel, QueueId>,
    /// The requests by which queues were created that were deleted since, and when they were.
    pub(super) deleted_requests: BTreeMap<Uuid, StoreTime>,
    /// The newest id given out to a broker.
    pub(super) last_broker: BrokerId,
    /// The newest id given out to a queue.
    pub(super) last_queue: QueueId,
    /// Channels of live queues only.
    pub(super) channels: BTreeMap<ChannelId, Channel>,
    pub(super) leader: Leader,
    /// The log of each live queue, and of each deleted one until it is purged. A queue without one was deleted.
    pub(super) logs: BTreeMap<QueueId, QueueLog>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broker {
    pub(super) addr: BrokerAddr,
    pub(super) incarnation: Incarnation,
    pub(super) state: BrokerState,
    pub(super) lease_until: StoreTime,
    /// How long that lease is.
    pub(super) lease: Duration,
    pub(super) renewals: Renewals,
    pub(super) generation: Generation,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Queue {
    pub(super) label: QueueLabel,
    pub(super) assignee: Option<BrokerId>,
    pub(super) assignment: Assignment,
    /// The request that created it.
    pub(super) request: Uuid,
    pub(super) channels: BTreeSet<ChannelId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Channel {
    pub(super) queue: QueueId,
    pub(super) topic: Topic,
    pub(super) start: Offset,
    /// Of a disposable one: when it was created, or last in use.
    pub(super) used_at: Option<StoreTime>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Leader {
    /// None before the first, and after one that resigned.
    pub(super) manager: Option<ManagerId>,
    pub(super) term: Term,
    pub(super) lease_until: StoreTime,
    /// How long that lease is.
    pub(super) lease: Duration,
}

impl Leader {
    /// When the lease was given; later than now, if the clock was set back since.
    pub(super) fn begun(&self) -> StoreTime {
        let lease = u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX);
        StoreTime::from_millis(self.lease_until.millis().saturating_sub(lease))
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct QueueLog {
    pub(super) deleted: bool,
    pub(super) epoch: Epoch,
    /// The claim that created the epoch.
    pub(super) claim: Option<ClaimId>,
    pub(super) trimmed_through: Offset,
    pub(super) producers: Option<(Offset, Bytes)>,
    pub(super) producer_epochs: BTreeMap<ProducerId, ProducerEpoch>,
    /// Messages and frame bytes in `batches`.
    pub(super) messages: u64,
    pub(super) bytes: u64,
    /// What is not in `batches` any more.
    pub(super) removed: Removed,
    /// No batch that ends before the snapshot's offset expires before this; none: nobody said so yet, and there is none.
    pub(super) none_expires_before: Option<StoreTime>,
    /// By first offset.
    pub(super) batches: BTreeMap<Offset, StoredBatch>,
}

impl QueueLog {
    /// The offset of the newest message ever stored.
    pub(super) fn end(&self) -> Offset {
        self.batches.last_key_value().map_or(self.trimmed_through, |(_, batch)| batch.header.last)
    }
}

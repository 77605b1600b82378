//! The catalog: which brokers, queues and channels there are, who is to host what, and which manager leads.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::StoreError;
use crate::model::{
    Assignment, BrokerAddr, BrokerId, ChannelId, Generation, Incarnation, ManagerId, Offset, QueueId, QueueLabel,
    Renewals, Start, StoreTime, Term, Topic,
    limits::{MAX_ASSIGNED_QUEUES, MAX_CHANNELS_PER_QUEUE, MAX_LOOKED_UP, MAX_QUEUES},
};

/// A run of a broker, to be entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Register {
    /// Where the broker is reached.
    pub addr: BrokerAddr,
    /// This run.
    pub incarnation: Incarnation,
    /// The run that it takes the place of, as far as it knows. A request that comes late, from a process that died
    /// meanwhile, thus does not put its own successor out.
    pub replaces: Option<Incarnation>,
    /// How long the lease is, from the store's now.
    pub lease: Duration,
}

/// What a broker is told when it registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The id of its host and port, the same at every registration.
    pub broker: BrokerId,
    /// As in [`Renewal::generation`].
    pub generation: Generation,
    /// The store's clock at the time.
    pub store_time: StoreTime,
}

/// What a broker is told when it renews its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// Greater than before if something changed that this broker should look at.
    pub generation: Generation,
    /// This renewal's number: the first after a registration is 1.
    pub renewals: Renewals,
    /// True if an operator asked that this broker's queues go elsewhere.
    pub draining: bool,
    /// The store's clock at the time.
    pub store_time: StoreTime,
}

/// Whether a broker takes queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerState {
    /// Yes, while its lease is current.
    Up,
    /// No: an operator drains it; its queues are moved away while it serves them.
    Draining,
    /// No: it stopped in good order.
    Stopped,
}

/// A broker as the catalog knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerRecord {
    /// Its id.
    pub id: BrokerId,
    /// Where to reach it.
    pub addr: BrokerAddr,
    /// The run that registered last.
    pub incarnation: Incarnation,
    /// Whether it takes queues.
    pub state: BrokerState,
    /// When its lease runs out, on the store's clock.
    pub lease_until: StoreTime,
    /// How long that lease is.
    pub lease: Duration,
    /// How many live queues are assigned to it.
    pub queues: u64,
}

impl BrokerRecord {
    /// True while its lease has not run out. One that lies further ahead than a lease that was given just now, and as much
    /// again for what the store took to answer, is from before the store's clock was set back: it says nothing.
    #[must_use]
    pub fn is_leased(&self, now: StoreTime) -> bool {
        is_leased(self.lease_until, self.lease, now)
    }
}

/// Whether a broker lives, as far as the catalog knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerLife {
    /// Where to reach it.
    pub addr: BrokerAddr,
    /// Whether it takes queues.
    pub state: BrokerState,
    /// When its lease runs out, on the store's clock.
    pub lease_until: StoreTime,
    /// How long that lease is.
    pub lease: Duration,
    /// The store's clock at the time.
    pub store_time: StoreTime,
}

impl BrokerLife {
    /// As [`BrokerRecord::is_leased`].
    #[must_use]
    pub fn is_leased(&self) -> bool {
        is_leased(self.lease_until, self.lease, self.store_time)
    }
}

fn is_leased(lease_until: StoreTime, lease: Duration, now: StoreTime) -> bool {
    let twice = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX).saturating_mul(2);
    lease_until > now && lease_until <= now.plus_millis(twice)
}

/// A live queue as the catalog knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueRecord {
    /// Its id, never used again.
    pub id: QueueId,
    /// Its label.
    pub label: QueueLabel,
    /// The broker that is to host it, and where that is.
    pub assignee: Option<(BrokerId, BrokerAddr)>,
    /// The number of its assignment to this broker.
    pub assignment: Assignment,
}

/// How long a store remembers by which request a queue was created that was deleted since: longer than any request is made
/// again.
pub const REQUEST_MEMORY: Duration = Duration::from_secs(600);

/// A queue to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateQueue {
    /// Its label; no live queue may have it.
    pub label: QueueLabel,
    /// Who is to host it; none: whoever the next reconciliation picks.
    pub assignee: Option<BrokerId>,
    /// Names this request: the same request again, after an unknown outcome, finds its own queue, or that it was deleted
    /// meanwhile (for [`REQUEST_MEMORY`]).
    pub request: Uuid,
}

/// A channel as the catalog knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelRecord {
    /// Its id.
    pub id: ChannelId,
    /// The queue it reads.
    pub queue: QueueId,
    /// That queue's label.
    pub label: QueueLabel,
    /// What it lets through.
    pub topic: Topic,
    /// The first offset that a subscription without a position is given (or the first live one beyond it).
    pub start: Offset,
    /// Who is to host the queue, and where that is.
    pub assignee: Option<(BrokerId, BrokerAddr)>,
}

/// A channel to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateChannel {
    /// Its id, drawn by whoever creates it; the same request again is answered alike.
    pub id: ChannelId,
    /// The queue it reads.
    pub queue: QueueId,
    /// What it lets through.
    pub topic: Topic,
    /// Where it starts; fixed as an offset by the transaction that creates it.
    pub start: Start,
    /// Its client makes another one after each break and never comes back to this one, so that a broker may delete it once
    /// nobody has subscribed to it for long ([`Catalog::delete_idle_channels`]).
    pub disposable: bool,
}

/// Who leads the managers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// The manager that holds the lease.
    pub leader: ManagerId,
    /// The number of its leadership.
    pub term: Term,
    /// The store's clock at the time.
    pub store_time: StoreTime,
}

/// Why a broker could not register.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// The host and port are those of a run that is neither this one nor the one to be replaced.
    #[error("run {by} is registered there")]
    Taken {
        /// That run.
        by: Incarnation,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a lease was not renewed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenewError {
    /// Another run registered under this broker's host and port, or the broker is not there at all.
    #[error("another process registered as this broker")]
    Replaced,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a queue was not created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateQueueError {
    /// A live queue has the label.
    #[error("a queue with this label exists")]
    Exists,
    /// This very request created a queue before, which was deleted since.
    #[error("the queue was created by this request before, and deleted since")]
    DeletedSince,
    /// There are [`MAX_QUEUES`] already.
    #[error("there are {MAX_QUEUES} queues already, which is the limit")]
    TooMany,
    /// The assignee is not registered.
    #[error("no broker {0} is registered")]
    NoSuchBroker(BrokerId),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A queue to be assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assign {
    /// Which.
    pub queue: QueueId,
    /// The number of the assignment that this one follows.
    pub expected: Assignment,
    /// Who is to host it.
    pub to: BrokerId,
}

/// What became of one assignment of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assigned {
    /// It was made.
    Done(QueueRecord),
    /// Somebody else assigned the queue meanwhile, deleted it, or is changing it just now: read it again.
    Changed,
    /// The assignee is not registered.
    NoSuchBroker,
}

/// Why a queue was not assigned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssignError {
    /// Somebody else assigned it meanwhile, deleted it, or is changing it just now: read it again.
    #[error("the assignment changed meanwhile")]
    Changed,
    /// The assignee is not registered.
    #[error("no broker {0} is registered")]
    NoSuchBroker(BrokerId),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a broker was not forgotten.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForgetError {
    /// Its lease runs, or ended too short a time ago.
    #[error("the broker's lease runs, or ended just now")]
    Alive,
    /// Queues are assigned to it.
    #[error("{0} queues are assigned to the broker")]
    HasQueues(u64),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a channel was not created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateChannelError {
    /// No live queue has this id.
    #[error("the queue does not exist")]
    NoSuchQueue,
    /// The queue has [`MAX_CHANNELS_PER_QUEUE`] already.
    #[error("the queue has {MAX_CHANNELS_PER_QUEUE} channels already, which is the limit")]
    TooMany,
    /// [`Start::At`] more than one beyond the newest message.
    #[error("start offset {start} is beyond the end of the queue, which is {end}")]
    BeyondEnd {
        /// What was asked for.
        start: Offset,
        /// The newest message's offset.
        end: Offset,
    },
    /// The id names another channel.
    #[error("the channel id is taken")]
    IdTaken,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Refuses a group that breaks the rules of [`Catalog::assign_queues`].
///
/// # Errors
/// [`StoreError::Refused`].
pub fn check_assignments(group: &[Assign]) -> Result<(), StoreError> {
    if group.len() > MAX_ASSIGNED_QUEUES {
        let (found, limit) = (group.len(), MAX_ASSIGNED_QUEUES);
        return Err(StoreError::Refused(format!("{found} assignments at once are more than {limit}")));
    }
    if !group.is_sorted_by(|a, b| a.queue < b.queue) {
        return Err(StoreError::Refused("the assignments of a group are not in order of queue id".into()));
    }
    Ok(())
}

/// Refuses to look up more than [`MAX_LOOKED_UP`] ids, or ids out of order.
///
/// # Errors
/// [`StoreError::Refused`].
pub fn check_lookup<T: Ord>(ids: &[T]) -> Result<(), StoreError> {
    if ids.len() > MAX_LOOKED_UP || !ids.is_sorted_by(|a, b| a < b) {
        let text = format!("a look-up asks for {MAX_LOOKED_UP} ids at most, in order, each once");
        return Err(StoreError::Refused(text));
    }
    Ok(())
}

/// Brokers, queues, channels and leadership. Every write is one transaction, and may be made again after an unknown
/// outcome: it finds what it did the first time.
#[async_trait]
pub trait Catalog: Send + Sync + 'static {
    /// The store's clock; also the cheapest proof that the store answers.
    async fn now(&self) -> Result<StoreTime, StoreError>;

    /// Enters a broker, or a new run of a known one, in place of [`Register::replaces`]. State becomes
    /// [`BrokerState::Up`]; renewals start again at 0. For a run that is entered already only the lease changes.
    async fn register_broker(&self, register: &Register) -> Result<Registration, RegisterError>;

    /// Extends the lease to `lease` from the store's now.
    async fn renew_broker(
        &self,
        broker: BrokerId,
        incarnation: Incarnation,
        lease: Duration,
    ) -> Result<Renewal, RenewError>;

    /// Ends the lease at once, in good order: state becomes [`BrokerState::Stopped`].
    async fn retire_broker(&self, broker: BrokerId, incarnation: Incarnation) -> Result<(), RenewError>;

    /// Sets or clears [`BrokerState::Draining`] (a stopped broker stays stopped); false if there is no such broker.
    async fn set_draining(&self, broker: BrokerId, draining: bool) -> Result<bool, StoreError>;

    /// Removes a broker whose lease has been over for `gone_for` at least and to which no queue is assigned. If it comes
    /// back it registers as a new one, under another id. False if there is no such broker.
    async fn forget_broker(&self, broker: BrokerId, gone_for: Duration) -> Result<bool, ForgetError>;

    /// All brokers that registered and were not forgotten, by id.
    async fn brokers(&self) -> Result<Vec<BrokerRecord>, StoreError>;

    /// Whether a broker lives; none if there is no such broker. Costs the same however many brokers and queues there are.
    async fn broker_life(&self, broker: BrokerId) -> Result<Option<BrokerLife>, StoreError>;

    /// Creates a queue with an empty log, and bumps the assignee's generation.
    async fn create_queue(&self, create: &CreateQueue) -> Result<QueueRecord, CreateQueueError>;

    /// A live queue by its label.
    async fn queue(&self, label: &QueueLabel) -> Result<Option<QueueRecord>, StoreError>;

    /// A live queue by its id.
    async fn queue_by_id(&self, queue: QueueId) -> Result<Option<QueueRecord>, StoreError> {
        Ok(self.queues_by_ids(&[queue]).await?.pop())
    }

    /// Those of these queues that are live, by id. Asks for [`MAX_LOOKED_UP`] at most, in order of id, each once.
    async fn queues_by_ids(&self, queues: &[QueueId]) -> Result<Vec<QueueRecord>, StoreError>;

    /// All live queues, by label.
    async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError>;

    /// The live queues behind an id, by id, `limit` at most: all of them, page by page.
    async fn queues_after(&self, after: QueueId, limit: u32) -> Result<Vec<QueueRecord>, StoreError>;

    /// The live queues whose labels come after `after` (none: from the first on), by label, `limit` at most.
    async fn queue_page(&self, after: Option<QueueLabel>, limit: u32) -> Result<Vec<QueueRecord>, StoreError>;

    /// The live queues assigned to a broker, by id.
    async fn assigned_queues(&self, broker: BrokerId) -> Result<Vec<QueueRecord>, StoreError>;

    /// Assigns a queue if its assignment is still number `expected`, and bumps the generations of both brokers.
    /// Confers nothing on the assignee but the right to claim.
    async fn assign_queue(
        &self,
        queue: QueueId,
        expected: Assignment,
        to: BrokerId,
    ) -> Result<QueueRecord, AssignError> {
        match self.assign_queues(&[Assign { queue, expected, to }]).await?.pop() {
            Some(Assigned::Done(record)) => Ok(record),
            Some(Assigned::NoSuchBroker) => Err(AssignError::NoSuchBroker(to)),
            Some(Assigned::Changed) | None => Err(AssignError::Changed),
        }
    }

    /// Assigns queues, each by itself as [`Catalog::assign_queue`] does: the answers are in the order of the group, which is
    /// in order of queue id, names each queue once, and [`MAX_ASSIGNED_QUEUES`] at most. One transaction: after
    /// [`StoreError::Unknown`] either all that could be made were, or none. Each broker that it concerns is bumped once.
    /// No queue waits for another: where somebody else holds one, its answer is [`Assigned::Changed`].
    async fn assign_queues(&self, group: &[Assign]) -> Result<Vec<Assigned>, StoreError>;

    /// Turns a queue into a tombstone: no claim and no append succeeds any more; its channels go with it; the assignee's
    /// generation is bumped. False if no live queue has the id.
    async fn delete_queue(&self, queue: QueueId) -> Result<bool, StoreError>;

    /// Creates a channel.
    async fn create_channel(&self, create: &CreateChannel) -> Result<ChannelRecord, CreateChannelError>;

    /// A channel of a live queue by its id.
    async fn channel(&self, channel: ChannelId) -> Result<Option<ChannelRecord>, StoreError>;

    /// The channels of one live queue, or of all, by id.
    async fn channels(&self, queue: Option<QueueId>) -> Result<Vec<ChannelRecord>, StoreError>;

    /// Those of these channels that exist, by id. Asks for [`MAX_LOOKED_UP`] at most, in order of id, each once.
    async fn known_channels(&self, channels: &[ChannelId]) -> Result<Vec<ChannelId>, StoreError>;

    /// The channels of one live queue, or of all, whose ids come after `after` (none: from the first on), by id, `limit` at
    /// most.
    async fn channel_page(
        &self,
        queue: Option<QueueId>,
        after: Option<ChannelId>,
        limit: u32,
    ) -> Result<Vec<ChannelRecord>, StoreError>;

    /// Deletes a channel and bumps the generation of its queue's assignee. False if there is none.
    async fn delete_channel(&self, channel: ChannelId) -> Result<bool, StoreError>;

    /// Enters that these channels are in use now, those for which that was entered within `fresh` excepted. Only
    /// disposable channels are entered. Returns those of all that exist, by id; a disposable one among them is not idle for
    /// longer than `fresh`. Asks for [`MAX_LOOKED_UP`] at most, in order of id, each once.
    async fn use_channels(&self, channels: &[ChannelId], fresh: Duration) -> Result<Vec<ChannelId>, StoreError>;

    /// Deletes disposable channels that were created, and last in use, at least `idle` before the store's clock, and before
    /// `seen`, which the caller read from it: nothing becomes idle because the clock is set forward in between. It deletes
    /// `limit` at most, of those of these queues that are assigned to `broker`, and bumps its generation. Returns them, by id. Those of the first queues
    /// go first, and of a queue those that are idle for longest. The queues are [`MAX_LOOKED_UP`] at most, in order of id,
    /// each once.
    async fn delete_idle_channels(
        &self,
        broker: BrokerId,
        queues: &[QueueId],
        idle: Duration,
        seen: StoreTime,
        limit: u32,
    ) -> Result<Vec<ChannelId>, StoreError>;

    /// Takes or extends the managers' leader lease, if it is free, run out, or this manager's own, or if it was given at a
    /// time that is still to come, which is before the store's clock was set back; says who holds it.
    async fn lead(&self, manager: ManagerId, lease: Duration) -> Result<Leadership, StoreError>;

    /// Gives the leader lease up, if this manager holds it: the next one takes it, whatever the store's clock shows.
    async fn resign(&self, manager: ManagerId) -> Result<(), StoreError>;
}

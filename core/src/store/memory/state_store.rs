//! Stores that run their calls on a [`State`]: the list of all methods is here, once.

use std::{future::Future, time::Duration};

use async_trait::async_trait;

use super::{Rows, State};
use crate::{
    model::{BrokerId, ChannelId, Incarnation, ManagerId, Offset, ProducerId, QueueId, QueueLabel, StoreTime},
    ports::{
        AppendBatch, Appended, Assign, Assigned, BatchHeader, BrokerLife, BrokerRecord, Catalog, ChannelRecord, Claim,
        ClaimError, Claimed, CreateChannel, CreateChannelError, CreateQueue, CreateQueueError, ForgetError, Leadership,
        Log, LogError, LogTail, Opened, Page, Purged, QueueRecord, Register, RegisterError, Registration, RenewError,
        Renewal, StoreError, Trim, Trimmed,
    },
};

/// What a call of the store is about. Faults tell calls apart by it. The inputs of fuzzers number the kinds: a new one goes
/// last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It appends batches.
    Append,
    /// It claims a queue.
    Claim,
    /// It reads the end of a log, or headers of its batches.
    Tail,
    /// It trims a log.
    Trim,
    /// It registers a broker, or extends or ends a lease.
    Lease,
    /// It reads the catalog.
    Look,
    /// It reads batches.
    Read,
    /// It changes the catalog, opens a producer, or purges.
    Write,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 8] =
        [Self::Append, Self::Claim, Self::Tail, Self::Trim, Self::Lease, Self::Look, Self::Read, Self::Write];

    /// True if such a call changes nothing.
    #[must_use]
    pub const fn only_reads(self) -> bool {
        matches!(self, Self::Tail | Self::Look | Self::Read)
    }
}

/// A call of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// What it is about.
    pub kind: Kind,
    /// The name of the method of [`Catalog`] or [`Log`].
    pub method: &'static str,
}

/// Defines [`StateStore`], and implements the ports for each [`StateStore`]. One line is one method of the port:
///
/// ```text
/// hook Kind signature = |the state, the time of the call| the answer;
/// ```
///
/// The line
///
/// ```text
/// query Look queue(label: &QueueLabel) -> Result<Option<QueueRecord>, StoreError> = |state, _| Ok(state.queue(&label));
/// ```
///
/// becomes a method of [`StateStore`], which an implementation may replace by its own,
///
/// ```text
/// fn queue(&self, label: &QueueLabel) -> impl Future<Output = Result<Option<QueueRecord>, StoreError>> + Send {
///     let label = label.to_owned();
///     self.query(Call { kind: Kind::Look, method: "queue" }, move |state, _| Ok(state.queue(&label)))
/// }
/// ```
///
/// and the method of [`Catalog`], which calls it:
///
/// ```text
/// async fn queue(&self, label: &QueueLabel) -> Result<Option<QueueRecord>, StoreError> {
///     StateStore::queue(self, label).await
/// }
/// ```
macro_rules! store_methods {
    ($($port:ident {
        $($hook:ident $kind:ident $method:ident($($arg:ident: $type:ty),*) -> Result<$ok:ty, $error:ty> =
            |$state:pat_param, $now:pat_param| $answer:expr;)*
    })*) => {
        /// The names of all methods.
        pub const METHODS: &[&str] = &[$($(stringify!($method)),*),*];

        /// A store that runs each of its calls as one step on a [`State`]. This makes it a [`Catalog`] and a [`Log`].
        ///
        /// All calls pass through two hooks, [`StateStore::query`] and [`StateStore::execute`]. An implementation needs
        /// only `execute`. It writes out the methods that it treats specially.
        pub trait StateStore: Send + Sync + 'static {
            /// Makes a call that may change the state.
            fn execute<T: Send + 'static, E: From<StoreError> + Send + 'static>(
                &self,
                call: Call,
                step: impl FnOnce(&mut State, StoreTime) -> Result<T, E> + Send + 'static,
            ) -> impl Future<Output = Result<T, E>> + Send;

            /// Makes a call that only reads.
            fn query<T: Rows + Send + 'static>(
                &self,
                call: Call,
                step: impl FnOnce(&State, StoreTime) -> Result<T, StoreError> + Send + 'static,
            ) -> impl Future<Output = Result<T, StoreError>> + Send {
                self.execute(call, move |state, now| step(state, now))
            }

            $($(
                #[doc = concat!("As [`", stringify!($port), "::", stringify!($method), "`].")]
                fn $method(&self, $($arg: $type),*) -> impl Future<Output = Result<$ok, $error>> + Send {
                    $(#[allow(clippy::implicit_clone)] // The types of a line are borrowed or owned.
                    let $arg = $arg.to_owned();)*
                    let call = Call { kind: Kind::$kind, method: stringify!($method) };
                    self.$hook(call, move |$state, $now| $answer)
                }
            )*)*
        }

        $(
            #[async_trait]
            impl<S: StateStore> $port for S {
                $(async fn $method(&self, $($arg: $type),*) -> Result<$ok, $error> {
                    StateStore::$method(self, $($arg),*).await
                })*
            }
        )*
    };
}

store_methods! {
    Catalog {
        query Look now() -> Result<StoreTime, StoreError> = |_, now| Ok(now);
        execute Lease register_broker(register: &Register) -> Result<Registration, RegisterError> =
            |state, now| state.register_broker(now, &register);
        execute Lease renew_broker(
            broker: BrokerId, incarnation: Incarnation, lease: Duration
        ) -> Result<Renewal, RenewError> = |state, now| state.renew_broker(now, broker, incarnation, lease);
        execute Lease retire_broker(broker: BrokerId, incarnation: Incarnation) -> Result<(), RenewError> =
            |state, now| state.retire_broker(now, broker, incarnation);
        execute Write set_draining(broker: BrokerId, draining: bool) -> Result<bool, StoreError> =
            |state, _| Ok(state.set_draining(broker, draining));
        execute Write forget_broker(broker: BrokerId, gone_for: Duration) -> Result<bool, ForgetError> =
            |state, now| state.forget_broker(now, broker, gone_for);
        query Look brokers() -> Result<Vec<BrokerRecord>, StoreError> = |state, _| Ok(state.brokers());
        query Look broker_life(broker: BrokerId) -> Result<Option<BrokerLife>, StoreError> =
            |state, now| Ok(state.broker_life(now, broker));

        execute Write create_queue(create: &CreateQueue) -> Result<QueueRecord, CreateQueueError> =
            |state, _| state.create_queue(&create);
        query Look queue(label: &QueueLabel) -> Result<Option<QueueRecord>, StoreError> =
            |state, _| Ok(state.queue(&label));
        query Look queues_by_ids(queues: &[QueueId]) -> Result<Vec<QueueRecord>, StoreError> =
            |state, _| state.queues_by_ids(&queues);
        query Look queues() -> Result<Vec<QueueRecord>, StoreError> = |state, _| Ok(state.queues());
        query Look queues_after(after: QueueId, limit: u32) -> Result<Vec<QueueRecord>, StoreError> =
            |state, _| Ok(state.queues_after(after, limit));
        query Look queue_page(after: Option<QueueLabel>, limit: u32) -> Result<Vec<QueueRecord>, StoreError> =
            |state, _| Ok(state.queue_page(after, limit));
        query Look assigned_queues(broker: BrokerId) -> Result<Vec<QueueRecord>, StoreError> =
            |state, _| Ok(state.assigned_queues(broker));
        execute Write assign_queues(group: &[Assign]) -> Result<Vec<Assigned>, StoreError> =
            |state, _| state.assign_queues(&group);
        execute Write delete_queue(queue: QueueId) -> Result<bool, StoreError> =
            |state, now| Ok(state.delete_queue(now, queue));

        execute Write create_channel(create: &CreateChannel) -> Result<ChannelRecord, CreateChannelError> =
            |state, now| state.create_channel(now, &create);
        query Look channel(channel: ChannelId) -> Result<Option<ChannelRecord>, StoreError> =
            |state, _| Ok(state.channel(channel));
        query Look channels(queue: Option<QueueId>) -> Result<Vec<ChannelRecord>, StoreError> =
            |state, _| Ok(state.channels(queue));
        query Look known_channels(channels: &[ChannelId]) -> Result<Vec<ChannelId>, StoreError> =
            |state, _| state.known_channels(&channels);
        query Look channel_page(
            queue: Option<QueueId>, after: Option<ChannelId>, limit: u32
        ) -> Result<Vec<ChannelRecord>, StoreError> = |state, _| Ok(state.channel_page(queue, after, limit));
        execute Write delete_channel(channel: ChannelId) -> Result<bool, StoreError> =
            |state, _| Ok(state.delete_channel(channel));
        execute Write use_channels(channels: &[ChannelId], fresh: Duration) -> Result<Vec<ChannelId>, StoreError> =
            |state, now| state.use_channels(now, &channels, fresh);
        execute Write delete_idle_channels(
            broker: BrokerId, queues: &[QueueId], idle: Duration, seen: StoreTime, limit: u32
        ) -> Result<Vec<ChannelId>, StoreError> =
            |state, now| state.delete_idle_channels(now, broker, &queues, idle, seen, limit);

        execute Lease lead(manager: ManagerId, lease: Duration) -> Result<Leadership, StoreError> =
            |state, now| Ok(state.lead(now, manager, lease));
        execute Lease resign(manager: ManagerId) -> Result<(), StoreError> = |state, _| {
            state.resign(manager);
            Ok(())
        };
    }

    Log {
        execute Claim claim(claim: &Claim) -> Result<Claimed, ClaimError> = |state, now| state.claim(now, &claim);
        query Tail tail(queue: QueueId) -> Result<LogTail, StoreError> = |state, _| Ok(state.tail(queue));
        query Tail headers(queue: QueueId, after: Offset, limit: u32) -> Result<Vec<BatchHeader>, StoreError> =
            |state, _| Ok(state.headers(queue, after, limit));
        query Read read_within(
            queue: QueueId, after: Offset, span: u64, max_bytes: usize
        ) -> Result<Page, StoreError> = |state, _| Ok(state.read_within(queue, after, span, max_bytes));
        execute Append append(group: &[AppendBatch]) -> Result<Vec<Appended>, StoreError> =
            |state, now| state.append(now, &group);
        execute Trim trim(trim: &Trim) -> Result<Trimmed, LogError> = |state, now| state.trim(now, &trim);
        execute Write open_producer(
            queue: QueueId, producer: ProducerId, most: u32
        ) -> Result<Opened, StoreError> = |state, _| Ok(state.open_producer(queue, producer, most));
        execute Write purge_deleted(limit: u32) -> Result<Purged, StoreError> =
            |state, _| Ok(state.purge_deleted(limit));
    }
}

//! The operations of a manager, each with the action that its caller has to be allowed.

use super::{
    ListedQueue, ManagerError, Page, PlacedChannel, PlacedQueue, QueueDetails,
    handle::Manager,
    problems::{self, Health},
    rebalance::Rebalanced,
    settings::ManagerSettings,
    status::{BrokerView, ManagerStatus},
};
use crate::{
    access::{Action, Call, Right},
    model::{BrokerId, ChannelId, QueueLabel, Start, Topic},
    ports::{ChannelRecord, QueueRecord},
};

/// To look at one queue, or at all.
fn inspect(label: Option<&QueueLabel>) -> Action {
    label.map_or_else(|| Right::Inspect.on_cluster(), |label| Right::Inspect.on_queue(label))
}

impl Manager<Call> {
    /// Creates a queue on the live broker with the fewest queues, and waits until it is served there.
    ///
    /// # Errors
    /// [`ManagerError::NoBroker`] if no live broker is known: nothing is created. [`ManagerError::NotServedYet`] at
    /// `create_deadline`: the queue exists.
    pub async fn create_queue(&self, label: &QueueLabel) -> Result<PlacedQueue, ManagerError> {
        let deadline = |settings: &ManagerSettings| settings.create_deadline;
        self.call(Right::Create.on_queue(label), deadline, |inner, by| inner.create_queue(label, by)).await
    }

    /// Deletes a queue with its messages and channels, for good.
    ///
    /// # Errors
    /// [`ManagerError::QueueNotFound`], also if it has already been deleted.
    pub async fn delete_queue(&self, label: &QueueLabel) -> Result<(), ManagerError> {
        self.admin(Right::Delete.on_queue(label), |inner, by| inner.delete_queue(label, by)).await
    }

    /// The broker that serves a queue.
    ///
    /// # Errors
    /// [`ManagerError::QueueNotFound`], [`ManagerError::NoBrokerFor`].
    pub async fn queue(&self, label: &QueueLabel) -> Result<PlacedQueue, ManagerError> {
        self.admin(Right::Inspect.on_queue(label), |inner, by| inner.placed_queue(label, by)).await
    }

    /// A queue's record, and its broker's description.
    ///
    /// # Errors
    /// [`ManagerError::QueueNotFound`]. A broker that cannot be asked is not an error.
    pub async fn describe_queue(&self, label: &QueueLabel) -> Result<QueueDetails, ManagerError> {
        self.admin(Right::Inspect.on_queue(label), |inner, by| inner.describe_queue(label, by)).await
    }

    /// Some queues, by label: at most `limit` of those that come after `after`.
    ///
    /// # Errors
    /// The store's errors.
    pub async fn queue_page(&self, after: Option<QueueLabel>, limit: u32) -> Result<Page<QueueRecord>, ManagerError> {
        self.admin(Right::Inspect.on_cluster(), |inner, by| inner.queue_page(after, limit, by)).await
    }

    /// Like [`Manager::queue_page`], but also asks each broker of these queues about their state.
    ///
    /// # Errors
    /// The store's errors. A broker that cannot be asked is not an error.
    pub async fn live_queue_page(
        &self,
        after: Option<QueueLabel>,
        limit: u32,
    ) -> Result<Page<ListedQueue>, ManagerError> {
        self.admin(Right::Inspect.on_cluster(), |inner, by| inner.live_queue_page(after, limit, by)).await
    }

    /// All queues, by label. They may change while they are being read.
    ///
    /// # Errors
    /// [`ManagerError::LimitReached`] beyond [`MAX_LISTED`].
    pub async fn queues(&self) -> Result<Vec<QueueRecord>, ManagerError> {
        self.admin(Right::Inspect.on_cluster(), |inner, by| inner.queues(by)).await
    }

    /// Creates a channel on a queue.
    ///
    /// # Errors
    /// [`ManagerError::QueueNotFound`], [`ManagerError::NoBrokerFor`] (nothing is created),
    /// [`ManagerError::OffsetOutOfRange`], [`ManagerError::LimitReached`].
    pub async fn create_channel(
        &self,
        label: &QueueLabel,
        topic: Topic,
        start: Start,
    ) -> Result<PlacedChannel, ManagerError> {
        self.admin(Right::Consume.on_queue(label), |inner, by| inner.create_channel(label, topic, start, false, by))
            .await
    }

    /// Creates a channel that starts at the earliest message, as the original's clients do after each break. A broker may
    /// delete it once it has had no subscriber for long.
    ///
    /// # Errors
    /// As for [`Manager::create_channel`].
    pub async fn create_disposable_channel(
        &self,
        label: &QueueLabel,
        topic: Topic,
    ) -> Result<PlacedChannel, ManagerError> {
        self.admin(Right::Consume.on_queue(label), |inner, by| {
            inner.create_channel(label, topic, Start::Earliest, true, by)
        })
        .await
    }

    /// The broker that serves a channel.
    ///
    /// # Errors
    /// [`ManagerError::ChannelNotFound`], [`ManagerError::NoBrokerFor`].
    pub async fn channel(&self, id: ChannelId) -> Result<PlacedChannel, ManagerError> {
        self.admin(Right::Inspect.on_channel(id), |inner, by| inner.placed_channel(id, by)).await
    }

    /// Some channels of one queue, or of all, by id: at most `limit` of those that come after `after`.
    ///
    /// # Errors
    /// [`ManagerError::QueueNotFound`].
    pub async fn channel_page(
        &self,
        label: Option<&QueueLabel>,
        after: Option<ChannelId>,
        limit: u32,
    ) -> Result<Page<ChannelRecord>, ManagerError> {
        self.admin(inspect(label), |inner, by| inner.channel_page(label, after, limit, by)).await
    }

    /// The channels of one queue, or of all, by id. They may change while they are being read.
    ///
    /// # Errors
    /// [`ManagerError::QueueNotFound`], [`ManagerError::LimitReached`] beyond [`MAX_LISTED`].
    pub async fn channels(&self, label: Option<&QueueLabel>) -> Result<Vec<ChannelRecord>, ManagerError> {
        self.admin(inspect(label), |inner, by| inner.channels(label, by)).await
    }

    /// The different topics of a queue's channels, sorted; "no topic" is not among them.
    ///
    /// # Errors
    /// [`ManagerError::QueueNotFound`].
    pub async fn topics(&self, label: &QueueLabel) -> Result<Vec<Topic>, ManagerError> {
        self.admin(Right::Inspect.on_queue(label), |inner, by| inner.topics(label, by)).await
    }

    /// Deletes a channel.
    ///
    /// # Errors
    /// [`ManagerError::ChannelNotFound`], also if it has already been deleted.
    pub async fn delete_channel(&self, id: ChannelId) -> Result<(), ManagerError> {
        self.admin(Right::Delete.on_channel(id), |inner, by| inner.delete_channel(id, by)).await
    }

    /// All brokers that registered and were not forgotten, and those in the configuration, by address.
    ///
    /// # Errors
    /// The store's errors.
    pub async fn brokers(&self) -> Result<Vec<BrokerView>, ManagerError> {
        self.admin(Right::Inspect.on_cluster(), |inner, by| inner.brokers(by)).await
    }

    /// Drains a broker (true) or ends that (false). A drained broker gets no new queues, and its queues move to other
    /// brokers while it serves them.
    ///
    /// # Errors
    /// [`ManagerError::BrokerNotFound`].
    pub async fn set_draining(&self, broker: BrokerId, draining: bool) -> Result<(), ManagerError> {
        self.admin(Right::Admin.on_cluster(), |inner, by| inner.set_draining(broker, draining, by)).await
    }

    /// Removes a broker that is gone for good: its lease has been over for a minute (with `force`: is over), and no queue is
    /// assigned to it. If the broker comes back, it counts as a new one.
    ///
    /// # Errors
    /// [`ManagerError::BrokerNotFound`], [`ManagerError::BrokerAlive`], [`ManagerError::BrokerHasQueues`].
    pub async fn forget_broker(&self, broker: BrokerId, force: bool) -> Result<(), ManagerError> {
        self.admin(Right::Admin.on_cluster(), |inner, by| inner.forget_broker(broker, force, by)).await
    }

    /// Moves some queues from brokers with many to brokers with few, now, even if the settings switch rebalancing off.
    ///
    /// # Errors
    /// [`ManagerError::Unsettled`] while queues are being moved or a broker does not answer; [`ManagerError::NoBroker`].
    pub async fn rebalance(&self) -> Result<Rebalanced, ManagerError> {
        self.admin(Right::Admin.on_cluster(), |inner, by| inner.rebalance(by)).await
    }

    /// The problems of the cluster: those that this manager knows from `status`, and those that the live brokers report.
    /// Asking the brokers counts as an operation; if that is refused, the refusal is reported as a problem.
    pub async fn health(&self, status: &ManagerStatus) -> Health {
        let mut problems = self.problems(status);
        let said = match self.admin(Right::Inspect.on_cluster(), |inner, by| inner.complaints(status, by)).await {
            Ok(said) => said,
            Err(error) => {
                problems.push(problems::unasked(&error));
                Health::default()
            }
        };
        problems.extend(said.problems);
        Health { problems, notes: said.notes }
    }
}

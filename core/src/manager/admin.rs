//! Administrative operations. Each takes effect in one transaction of the store; a call to a broker afterwards only hurries
//! the broker up. Every manager carries them out, whether or not it leads.

use std::{collections::BTreeSet, time::Duration};

use tokio::{
    sync::SemaphorePermit,
    time::{Instant, sleep, timeout, timeout_at},
};
use tracing::{debug, info};

use super::{
    Inner, ManagerError,
    deadlines::RETRY_DELAY,
    placement::{Candidate, fewest_queues},
    registry::Registry,
    status::BrokerView,
};
use crate::{
    model::{BrokerAddr, BrokerId, ChannelId, QueueId, QueueLabel, Start, Topic},
    ports::{
        BrokerState, ChannelRecord, ControlError, CreateChannel, CreateQueue, ForgetError, QueueDescription,
        QueueRecord, StoreError,
    },
};

/// Limit on the whole lists that are read at once.
pub(super) const LISTS: usize = 2;
/// Limit on the queues or channels in a whole list; larger lists have to be read in pages.
pub const MAX_LISTED: usize = 100_000;
/// Number of entries that are read from the store at once for a whole list.
const PAGE: u32 = 1_000;

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The entries, in order.
    pub items: Vec<T>,
    /// True if there are more entries after these.
    pub more: bool,
}

impl<T> Page<T> {
    /// Makes a page of entries that were read with a limit of one more than `limit`.
    fn of(mut found: Vec<T>, limit: u32) -> Self {
        let more = found.len() > limit as usize;
        found.truncate(limit as usize);
        Self { items: found, more }
    }
}

fn check_listed(count: usize, what: &str) -> Result<(), ManagerError> {
    if count < MAX_LISTED {
        return Ok(());
    }
    let text = format!("there are more than {MAX_LISTED} {what}, too many for one list; read pages of /v1/{what}");
    Err(ManagerError::LimitReached(text))
}

/// How long a broker's lease has to have been over before the broker can be forgotten without force.
const FORGET_AFTER: Duration = Duration::from_secs(60);

/// A queue and its assigned broker, which is live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedQueue {
    /// Its id.
    pub id: QueueId,
    /// Its label.
    pub label: QueueLabel,
    /// The broker.
    pub broker: BrokerId,
    /// The broker's address.
    pub addr: BrokerAddr,
}

/// A channel and the live broker assigned to its queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedChannel {
    /// The store's record.
    pub channel: ChannelRecord,
    /// The address for subscribing.
    pub addr: BrokerAddr,
}

/// A queue as recorded in the store and, if its broker could be asked, as described by the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueDetails {
    /// The store's record.
    pub queue: QueueRecord,
    /// The hosting broker's description, or the reason why there is none.
    pub live: Result<QueueDescription, NotDescribed>,
}

/// The reason why there is no live description of a queue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDescribed {
    /// There is no live broker to ask.
    #[error("the queue has no live broker at the moment")]
    NoBroker,
    /// The call failed.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The broker described another queue, which was deleted.
    #[error("the broker describes a queue of the same label that was deleted")]
    OtherQueue,
    /// The broker at this address answered that it does not host the queue.
    #[error("the broker at {0} does not host the queue yet, or any more; ask again in a moment")]
    NotHosted(BrokerAddr),
}

impl Inner {
    pub(super) async fn create_queue(&self, label: &QueueLabel, by: Instant) -> Result<PlacedQueue, ManagerError> {
        if self.store.read(by, self.store.catalog().queue(label)).await?.is_some() {
            return Err(ManagerError::QueueExists(label.clone()));
        }
        let target = self.place(None, by).await?;
        mark!(CreateWithoutBroker if target.is_none());
        let target = target.ok_or(ManagerError::NoBroker)?;
        let create = CreateQueue { label: label.clone(), assignee: Some(target.id), request: self.entropy.uuid() };
        let created = self.store.write_until_known(by, || self.store.catalog().create_queue(&create)).await;
        let record = created.map_err(|error| ManagerError::from_create_queue(error, label))?.value;
        info!(queue = %label, id = %record.id, broker = %target.addr, "created a queue");
        let id = record.id;
        let patience = by.saturating_duration_since(Instant::now());
        timeout(patience, self.wait_until_served(record, by)).await.unwrap_or_else(|_| {
            mark!(CreateTimedOut);
            let deadline = self.settings.create_deadline;
            Err(ManagerError::NotServedYet { label: label.clone(), queue: id, deadline })
        })
    }

    /// Waits until a broker serves the queue, and assigns the queue to another broker if its own dies. Ends early only if
    /// the queue is deleted in the meantime.
    async fn wait_until_served(&self, mut queue: QueueRecord, by: Instant) -> Result<PlacedQueue, ManagerError> {
        let limit = self.settings.nudge_deadline;
        loop {
            if let Some((broker, addr)) = queue.assignee.clone() {
                let answer = timeout(limit, self.control.rebuild(&addr, &queue.label, limit)).await;
                match answer {
                    Ok(Ok(())) => return Ok(PlacedQueue { id: queue.id, label: queue.label, broker, addr }),
                    Ok(Err(error)) => debug!(queue = %queue.label, %error, "a new queue is not served yet"),
                    Err(_) => debug!(queue = %queue.label, broker = %addr, "a new queue is not served yet"),
                }
                mark!(CreateAwaited);
                if !self.probes.is_alive(&addr).await {
                    self.give_to_another(&queue, broker, by).await;
                }
            }
            sleep(RETRY_DELAY).await;
            match self.store.read(by, self.store.catalog().queue_by_id(queue.id)).await {
                Ok(Some(now)) => queue = now,
                Ok(None) => return Err(ManagerError::QueueNotFound(queue.label)),
                Err(error) => debug!(queue = %queue.label, %error, "cannot look at a new queue"),
            }
        }
    }

    /// Assigns a queue away from a dead broker, if possible. The caller reads the result from the store.
    async fn give_to_another(&self, queue: &QueueRecord, dead: BrokerId, by: Instant) {
        let target = match self.place(Some(dead), by).await {
            Ok(Some(target)) => target,
            Ok(None) => return,
            Err(error) => {
                debug!(queue = %queue.label, %error, "cannot look for another broker");
                return;
            }
        };
        let assign = self.store.catalog().assign_queue(queue.id, queue.assignment, target.id);
        match self.store.write(by, assign).await {
            Ok(_) => {
                mark!(CreateMoved);
                info!(queue = %queue.label, to = %target.addr, "assigned a new queue to another broker; its first died");
                self.counters.update(|counters| counters.failovers += 1);
            }
            Err(error) => debug!(queue = %queue.label, %error, "a new queue was not assigned to another broker"),
        }
    }

    /// The broker for a new queue: one that takes queues, answered this manager's probe within the last cycle, and has
    /// the fewest queues.
    async fn place(&self, except: Option<BrokerId>, by: Instant) -> Result<Option<Candidate>, StoreError> {
        let registry = Registry::read(&self.store, by).await?;
        let cycle = self.settings.cycle;
        let eligible: Vec<_> = registry
            .brokers
            .iter()
            .filter(|broker| broker.state == BrokerState::Up && Some(broker.id) != except)
            .filter(|broker| registry.lease_current(broker) || self.probes.answered_within(&broker.addr, cycle))
            .collect();
        let unsure = eligible.iter().filter(|broker| !self.probes.answered_within(&broker.addr, cycle));
        self.probes.probe_all(unsure.map(|broker| (broker.id, broker.addr.clone(), 1)).collect()).await;
        let mut candidates: Vec<_> = eligible
            .into_iter()
            // Probing the other brokers may have taken longer than a cycle, so slightly older answers are accepted.
            .filter(|broker| self.probes.answered_within(&broker.addr, cycle + self.settings.probe_deadline))
            .map(Candidate::from)
            .collect();
        // Random, so that managers that see the same brokers do not all choose the same one.
        Ok(fewest_queues(&mut candidates, |ties| self.entropy.below(ties)).cloned())
    }

    pub(super) async fn delete_queue(&self, label: &QueueLabel, by: Instant) -> Result<(), ManagerError> {
        let queue = self.queue_record(label, by).await?;
        let deleted = self.store.write_until_known(by, || self.store.catalog().delete_queue(queue.id)).await?;
        if !deleted.value && !deleted.repeated {
            return Err(ManagerError::QueueNotFound(label.clone()));
        }
        info!(queue = %label, id = %queue.id, "deleted a queue");
        if let Some((_, addr)) = queue.assignee {
            self.nudges.refresh(addr);
        }
        Ok(())
    }

    pub(super) async fn placed_queue(&self, label: &QueueLabel, by: Instant) -> Result<PlacedQueue, ManagerError> {
        let queue = self.queue_record(label, by).await?;
        let (broker, addr) = self.live_assignee(queue.assignee, label, by).await?;
        Ok(PlacedQueue { id: queue.id, label: queue.label, broker, addr })
    }

    pub(super) async fn describe_queue(&self, label: &QueueLabel, by: Instant) -> Result<QueueDetails, ManagerError> {
        let queue = self.queue_record(label, by).await?;
        let live = match self.live_assignee(queue.assignee.clone(), label, by).await {
            Ok((_, addr)) => self.ask_about(&addr, &queue).await,
            Err(ManagerError::NoBrokerFor { .. }) => Err(NotDescribed::NoBroker),
            Err(error) => return Err(error),
        };
        Ok(QueueDetails { queue, live })
    }

    async fn ask_about(&self, addr: &BrokerAddr, queue: &QueueRecord) -> Result<QueueDescription, NotDescribed> {
        let deadline = self.settings.describe_deadline;
        let answer = timeout(deadline, self.control.describe(addr, &queue.label, deadline)).await;
        let description =
            answer.unwrap_or_else(|_| Err(ControlError::DeadlineExceeded { addr: addr.clone(), deadline }))?;
        if description.queue == queue.id { Ok(description) } else { Err(NotDescribed::OtherQueue) }
    }

    pub(super) async fn queue_page(
        &self,
        after: Option<QueueLabel>,
        limit: u32,
        by: Instant,
    ) -> Result<Page<QueueRecord>, ManagerError> {
        let found = self.store.read(by, self.store.catalog().queue_page(after, limit.saturating_add(1))).await?;
        Ok(Page::of(found, limit))
    }

    pub(super) async fn queues(&self, by: Instant) -> Result<Vec<QueueRecord>, ManagerError> {
        let _turn = self.turn_to_list(by).await?;
        let mut all: Vec<QueueRecord> = Vec::new();
        loop {
            let after = all.last().map(|queue| queue.label.clone());
            let page = self.queue_page(after, PAGE, by).await?;
            all.extend(page.items);
            if !page.more {
                return Ok(all);
            }
            check_listed(all.len(), "queues")?;
        }
    }

    /// Whole lists are read a few at a time, since each is held in memory.
    async fn turn_to_list(&self, by: Instant) -> Result<SemaphorePermit<'_>, ManagerError> {
        match timeout_at(by, self.lists.acquire()).await {
            Ok(turn) => turn.map_err(|_| ManagerError::ShuttingDown),
            Err(_) => Err(ManagerError::DeadlineExceeded(self.settings.admin_deadline)),
        }
    }

    pub(super) async fn create_channel(
        &self,
        label: &QueueLabel,
        topic: Topic,
        start: Start,
        disposable: bool,
        by: Instant,
    ) -> Result<PlacedChannel, ManagerError> {
        let queue = self.queue_record(label, by).await?;
        // Checked before the channel is created, since an error has to mean that nothing was created.
        let (_, addr) = self.live_assignee(queue.assignee, label, by).await?;
        let id = ChannelId::new(self.entropy.uuid());
        let create = CreateChannel { id, queue: queue.id, topic, start, disposable };
        let created = self.store.write_until_known(by, || self.store.catalog().create_channel(&create)).await;
        let channel = created.map_err(|error| ManagerError::from_create_channel(error, label))?.value;
        debug!(channel = %channel.id, queue = %label, topic = %channel.topic, start = %channel.start, "created a channel");
        let addr = channel.assignee.as_ref().map_or(addr, |(_, addr)| addr.clone());
        Ok(PlacedChannel { channel, addr })
    }

    pub(super) async fn placed_channel(&self, id: ChannelId, by: Instant) -> Result<PlacedChannel, ManagerError> {
        let found = self.store.read(by, self.store.catalog().channel(id)).await?;
        let channel = found.ok_or(ManagerError::ChannelNotFound(id))?;
        let (_, addr) = self.live_assignee(channel.assignee.clone(), &channel.label, by).await?;
        Ok(PlacedChannel { channel, addr })
    }

    pub(super) async fn channel_page(
        &self,
        label: Option<&QueueLabel>,
        after: Option<ChannelId>,
        limit: u32,
        by: Instant,
    ) -> Result<Page<ChannelRecord>, ManagerError> {
        let queue = self.queue_of_list(label, by).await?;
        self.channels_after(queue, after, limit, by).await
    }

    async fn channels_after(
        &self,
        queue: Option<QueueId>,
        after: Option<ChannelId>,
        limit: u32,
        by: Instant,
    ) -> Result<Page<ChannelRecord>, ManagerError> {
        let found =
            self.store.read(by, self.store.catalog().channel_page(queue, after, limit.saturating_add(1))).await?;
        Ok(Page::of(found, limit))
    }

    async fn queue_of_list(&self, label: Option<&QueueLabel>, by: Instant) -> Result<Option<QueueId>, ManagerError> {
        match label {
            Some(label) => Ok(Some(self.queue_record(label, by).await?.id)),
            None => Ok(None),
        }
    }

    pub(super) async fn channels(
        &self,
        label: Option<&QueueLabel>,
        by: Instant,
    ) -> Result<Vec<ChannelRecord>, ManagerError> {
        let _turn = self.turn_to_list(by).await?;
        let queue = self.queue_of_list(label, by).await?;
        let mut all: Vec<ChannelRecord> = Vec::new();
        loop {
            let page = self.channels_after(queue, all.last().map(|channel| channel.id), PAGE, by).await?;
            all.extend(page.items);
            if !page.more {
                return Ok(all);
            }
            check_listed(all.len(), "channels")?;
        }
    }

    pub(super) async fn topics(&self, label: &QueueLabel, by: Instant) -> Result<Vec<Topic>, ManagerError> {
        let queue = self.queue_of_list(Some(label), by).await?;
        let mut topics = BTreeSet::new();
        let mut after = None;
        loop {
            let page = self.channels_after(queue, after, PAGE, by).await?;
            after = page.items.last().map(|channel| channel.id);
            topics.extend(page.items.into_iter().map(|channel| channel.topic));
            if !page.more {
                return Ok(topics.into_iter().filter(|topic| *topic != Topic::NONE).collect());
            }
        }
    }

    pub(super) async fn delete_channel(&self, id: ChannelId, by: Instant) -> Result<(), ManagerError> {
        let found = self.store.read(by, self.store.catalog().channel(id)).await?;
        let channel = found.ok_or(ManagerError::ChannelNotFound(id))?;
        let deleted = self.store.write_until_known(by, || self.store.catalog().delete_channel(id)).await?;
        if !deleted.value && !deleted.repeated {
            return Err(ManagerError::ChannelNotFound(id));
        }
        debug!(channel = %id, queue = %channel.label, "deleted a channel");
        if let Some((_, addr)) = channel.assignee {
            self.nudges.refresh(addr);
        }
        Ok(())
    }

    pub(super) async fn brokers(&self, by: Instant) -> Result<Vec<BrokerView>, ManagerError> {
        Ok(self.broker_views(&Registry::read(&self.store, by).await?))
    }

    pub(super) async fn set_draining(&self, id: BrokerId, draining: bool, by: Instant) -> Result<(), ManagerError> {
        let known = self.store.write_until_known(by, || self.store.catalog().set_draining(id, draining)).await?.value;
        if !known {
            return Err(ManagerError::BrokerNotFound(id));
        }
        info!(broker = %id, draining, "changed whether a broker takes queues");
        // Wakes this manager's loop. If another manager leads, its next cycle sees the change.
        self.wake.notify_one();
        Ok(())
    }

    /// Removes a broker that is gone for good.
    pub(super) async fn forget_broker(&self, id: BrokerId, force: bool, by: Instant) -> Result<(), ManagerError> {
        let gone_for = if force { Duration::ZERO } else { FORGET_AFTER };
        let forgotten = self.store.write_until_known(by, || self.store.catalog().forget_broker(id, gone_for)).await;
        let forgotten = forgotten.map_err(|error| match error {
            ForgetError::Alive => ManagerError::BrokerAlive { broker: id, gone_for },
            ForgetError::HasQueues(queues) => ManagerError::BrokerHasQueues { broker: id, queues },
            ForgetError::Store(error) => ManagerError::Store(error),
        })?;
        if !forgotten.value && !forgotten.repeated {
            return Err(ManagerError::BrokerNotFound(id));
        }
        info!(broker = %id, "forgot a broker");
        self.wake.notify_one();
        Ok(())
    }

    async fn queue_record(&self, label: &QueueLabel, by: Instant) -> Result<QueueRecord, ManagerError> {
        let found = self.store.read(by, self.store.catalog().queue(label)).await?;
        found.ok_or_else(|| ManagerError::QueueNotFound(label.clone()))
    }

    /// The assignee, if it is live.
    async fn live_assignee(
        &self,
        assignee: Option<(BrokerId, BrokerAddr)>,
        label: &QueueLabel,
        by: Instant,
    ) -> Result<(BrokerId, BrokerAddr), ManagerError> {
        let none = || ManagerError::NoBrokerFor { label: label.clone() };
        let (id, addr) = assignee.ok_or_else(none)?;
        let life = self.store.read(by, self.store.catalog().broker_life(id)).await?;
        let live = life.is_some_and(|life| {
            let lease_current = life.state != BrokerState::Stopped && life.is_leased();
            self.counts_as_live(&life.addr, life.state, lease_current)
        });
        mark!(AssigneeNotLive if !live);
        if live { Ok((id, addr)) } else { Err(none()) }
    }
}

//! The catalog's transactions.

use std::{collections::BTreeSet, ops::Bound, time::Duration};

use super::state::{Broker, Channel, Queue, QueueLog, State};
use crate::{
    model::{
        Assignment, BrokerAddr, BrokerId, ChannelId, Generation, Incarnation, ManagerId, QueueId, QueueLabel, Renewals,
        Start, StoreTime,
        limits::{MAX_CHANNELS_PER_QUEUE, MAX_QUEUES},
    },
    ports::{
        Assign, Assigned, BrokerLife, BrokerRecord, BrokerState, ChannelRecord, CreateChannel, CreateChannelError,
        CreateQueue, CreateQueueError, ForgetError, Leadership, QueueRecord, REQUEST_MEMORY, Register, RegisterError,
        Registration, RenewError, Renewal, StoreError, check_assignments, check_lookup,
    },
};

fn lease_end(now: StoreTime, lease: Duration) -> StoreTime {
    now.plus_millis(u64::try_from(lease.as_millis()).unwrap_or(u64::MAX))
}

/// Brokers.
impl State {
    /// As [`Catalog::register_broker`](crate::ports::Catalog::register_broker).
    ///
    /// # Errors
    /// [`RegisterError::Taken`].
    pub fn register_broker(&mut self, now: StoreTime, register: &Register) -> Result<Registration, RegisterError> {
        let next = self.last_broker.next();
        let id = *self.broker_ids.entry(register.addr.clone()).or_insert(next);
        self.last_broker = self.last_broker.max(id);
        let broker = self.brokers.entry(id).or_insert_with(|| Broker {
            addr: register.addr.clone(),
            incarnation: register.incarnation,
            state: BrokerState::Up,
            lease_until: now,
            lease: register.lease,
            renewals: Renewals::ZERO,
            generation: Generation::ZERO,
        });
        if broker.incarnation != register.incarnation {
            if register.replaces != Some(broker.incarnation) {
                return Err(RegisterError::Taken { by: broker.incarnation });
            }
            broker.incarnation = register.incarnation;
            broker.state = BrokerState::Up;
            broker.renewals = Renewals::ZERO;
        }
        broker.lease_until = lease_end(now, register.lease);
        broker.lease = register.lease;
        Ok(Registration { broker: id, generation: broker.generation, store_time: now })
    }

    fn registered(&mut self, broker: BrokerId, incarnation: Incarnation) -> Result<&mut Broker, RenewError> {
        self.brokers.get_mut(&broker).filter(|found| found.incarnation == incarnation).ok_or(RenewError::Replaced)
    }

    /// As [`Catalog::renew_broker`](crate::ports::Catalog::renew_broker).
    ///
    /// # Errors
    /// [`RenewError::Replaced`].
    pub fn renew_broker(
        &mut self,
        now: StoreTime,
        broker: BrokerId,
        incarnation: Incarnation,
        lease: Duration,
    ) -> Result<Renewal, RenewError> {
        let broker = self.registered(broker, incarnation)?;
        broker.lease_until = lease_end(now, lease);
        broker.lease = lease;
        broker.renewals = broker.renewals.next();
        Ok(Renewal {
            generation: broker.generation,
            renewals: broker.renewals,
            draining: broker.state == BrokerState::Draining,
            store_time: now,
        })
    }

    /// As [`Catalog::retire_broker`](crate::ports::Catalog::retire_broker).
    ///
    /// # Errors
    /// [`RenewError::Replaced`].
    pub fn retire_broker(
        &mut self,
        now: StoreTime,
        broker: BrokerId,
        incarnation: Incarnation,
    ) -> Result<(), RenewError> {
        let broker = self.registered(broker, incarnation)?;
        broker.state = BrokerState::Stopped;
        broker.lease_until = now;
        Ok(())
    }

    /// As [`Catalog::set_draining`](crate::ports::Catalog::set_draining).
    pub fn set_draining(&mut self, broker: BrokerId, draining: bool) -> bool {
        let Some(broker) = self.brokers.get_mut(&broker) else { return false };
        if broker.state != BrokerState::Stopped {
            broker.state = if draining { BrokerState::Draining } else { BrokerState::Up };
        }
        true
    }

    /// As [`Catalog::forget_broker`](crate::ports::Catalog::forget_broker).
    ///
    /// # Errors
    /// [`ForgetError::Alive`], [`ForgetError::HasQueues`], in this order.
    pub fn forget_broker(&mut self, now: StoreTime, broker: BrokerId, gone_for: Duration) -> Result<bool, ForgetError> {
        let Some(found) = self.brokers.get(&broker) else { return Ok(false) };
        if lease_end(found.lease_until, gone_for) > now {
            return Err(ForgetError::Alive);
        }
        match self.queues.values().filter(|queue| queue.assignee == Some(broker)).count() as u64 {
            0 => {}
            queues => return Err(ForgetError::HasQueues(queues)),
        }
        self.broker_ids.remove(&found.addr);
        self.brokers.remove(&broker);
        Ok(true)
    }

    /// As [`Catalog::brokers`](crate::ports::Catalog::brokers).
    #[must_use]
    pub fn brokers(&self) -> Vec<BrokerRecord> {
        let record = |(&id, broker): (&BrokerId, &Broker)| BrokerRecord {
            id,
            addr: broker.addr.clone(),
            incarnation: broker.incarnation,
            state: broker.state,
            lease_until: broker.lease_until,
            lease: broker.lease,
            queues: self.queues.values().filter(|queue| queue.assignee == Some(id)).count() as u64,
        };
        self.brokers.iter().map(record).collect()
    }

    /// As [`Catalog::broker_life`](crate::ports::Catalog::broker_life).
    #[must_use]
    pub fn broker_life(&self, now: StoreTime, broker: BrokerId) -> Option<BrokerLife> {
        let Broker { addr, state, lease_until, lease, .. } = self.brokers.get(&broker)?;
        let (state, lease_until, lease) = (*state, *lease_until, *lease);
        Some(BrokerLife { addr: addr.clone(), state, lease_until, lease, store_time: now })
    }

    /// Tells a broker, if there is one, that something changed.
    fn bump(&mut self, broker: Option<BrokerId>) {
        if let Some(broker) = broker.and_then(|id| self.brokers.get_mut(&id)) {
            broker.generation = broker.generation.next();
        }
    }

    fn addressed(&self, broker: Option<BrokerId>) -> Option<(BrokerId, BrokerAddr)> {
        broker.map(|id| (id, self.brokers[&id].addr.clone()))
    }
}

/// Queues.
impl State {
    fn record(&self, id: QueueId) -> Option<QueueRecord> {
        let queue = self.queues.get(&id)?;
        let assignee = self.addressed(queue.assignee);
        Some(QueueRecord { id, label: queue.label.clone(), assignee, assignment: queue.assignment })
    }

    /// As [`Catalog::create_queue`](crate::ports::Catalog::create_queue). A request is known again for as long as the
    /// queue that it created lives.
    ///
    /// # Errors
    /// [`CreateQueueError::Exists`], [`CreateQueueError::TooMany`], [`CreateQueueError::NoSuchBroker`], in this order.
    pub fn create_queue(&mut self, create: &CreateQueue) -> Result<QueueRecord, CreateQueueError> {
        if let Some(&id) = self.queue_ids.get(&create.label) {
            let own = self.queues[&id].request == create.request;
            mark!(CreateFoundItself if own);
            return self.record(id).filter(|_| own).ok_or(CreateQueueError::Exists);
        }
        if self.deleted_requests.contains_key(&create.request) {
            return Err(CreateQueueError::DeletedSince);
        }
        if self.queues.len() >= MAX_QUEUES {
            return Err(CreateQueueError::TooMany);
        }
        if let Some(unknown) = create.assignee.filter(|broker| !self.brokers.contains_key(broker)) {
            return Err(CreateQueueError::NoSuchBroker(unknown));
        }
        let id = self.last_queue.next();
        self.last_queue = id;
        let assignment = Assignment::new(u64::from(create.assignee.is_some()));
        let queue = Queue {
            label: create.label.clone(),
            assignee: create.assignee,
            assignment,
            request: create.request,
            channels: Default::default(),
        };
        self.queues.insert(id, queue);
        self.queue_ids.insert(create.label.clone(), id);
        self.logs.insert(id, QueueLog::default());
        self.bump(create.assignee);
        let assignee = self.addressed(create.assignee);
        Ok(QueueRecord { id, label: create.label.clone(), assignee, assignment })
    }

    /// As [`Catalog::queue`](crate::ports::Catalog::queue).
    #[must_use]
    pub fn queue(&self, label: &QueueLabel) -> Option<QueueRecord> {
        self.queue_ids.get(label).and_then(|&id| self.record(id))
    }

    /// As [`Catalog::queue_by_id`](crate::ports::Catalog::queue_by_id).
    #[must_use]
    pub fn queue_by_id(&self, queue: QueueId) -> Option<QueueRecord> {
        self.record(queue)
    }

    /// As [`Catalog::queues_by_ids`](crate::ports::Catalog::queues_by_ids).
    ///
    /// # Errors
    /// [`StoreError::Refused`], for ids that break the rules.
    pub fn queues_by_ids(&self, queues: &[QueueId]) -> Result<Vec<QueueRecord>, StoreError> {
        check_lookup(queues)?;
        Ok(queues.iter().filter_map(|&queue| self.record(queue)).collect())
    }

    /// As [`Catalog::queues`](crate::ports::Catalog::queues).
    #[must_use]
    pub fn queues(&self) -> Vec<QueueRecord> {
        self.queue_ids.values().filter_map(|&id| self.record(id)).collect()
    }

    /// As [`Catalog::queues_after`](crate::ports::Catalog::queues_after).
    #[must_use]
    pub fn queues_after(&self, after: QueueId, limit: u32) -> Vec<QueueRecord> {
        let behind = self.queues.range((Bound::Excluded(after), Bound::Unbounded));
        behind.take(limit as usize).filter_map(|(&id, _)| self.record(id)).collect()
    }

    /// As [`Catalog::queue_page`](crate::ports::Catalog::queue_page).
    #[must_use]
    pub fn queue_page(&self, after: Option<QueueLabel>, limit: u32) -> Vec<QueueRecord> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let ids = self.queue_ids.range((from, Bound::Unbounded)).take(limit as usize);
        ids.filter_map(|(_, &id)| self.record(id)).collect()
    }

    /// As [`Catalog::assigned_queues`](crate::ports::Catalog::assigned_queues).
    #[must_use]
    pub fn assigned_queues(&self, broker: BrokerId) -> Vec<QueueRecord> {
        let assigned = self.queues.iter().filter(|(_, queue)| queue.assignee == Some(broker));
        assigned.filter_map(|(&id, _)| self.record(id)).collect()
    }

    /// As [`Catalog::assign_queues`](crate::ports::Catalog::assign_queues).
    ///
    /// # Errors
    /// [`StoreError::Refused`], for a group that breaks the rules.
    pub fn assign_queues(&mut self, group: &[Assign]) -> Result<Vec<Assigned>, StoreError> {
        check_assignments(group)?;
        let mut concerned = BTreeSet::new();
        let assigned = group.iter().map(|assign| self.assign_queue(*assign, &mut concerned)).collect();
        for broker in concerned {
            self.bump(Some(broker));
        }
        Ok(assigned)
    }

    fn assign_queue(&mut self, assign: Assign, concerned: &mut BTreeSet<BrokerId>) -> Assigned {
        let Assign { queue, expected, to } = assign;
        let found = self.queues.get_mut(&queue).filter(|found| found.assignment == expected);
        let Some(found) = found else { return Assigned::Changed };
        let Some(addr) = self.brokers.get(&to).map(|broker| broker.addr.clone()) else { return Assigned::NoSuchBroker };
        found.assignment = found.assignment.next();
        let from = found.assignee.replace(to);
        concerned.extend(from);
        concerned.insert(to);
        Assigned::Done(QueueRecord {
            id: queue,
            label: found.label.clone(),
            assignee: Some((to, addr)),
            assignment: found.assignment,
        })
    }

    /// As [`Catalog::delete_queue`](crate::ports::Catalog::delete_queue).
    pub fn delete_queue(&mut self, now: StoreTime, queue: QueueId) -> bool {
        let Some(gone) = self.queues.remove(&queue) else { return false };
        self.deleted_requests.retain(|_, deleted_at| lease_end(*deleted_at, REQUEST_MEMORY) >= now);
        self.deleted_requests.insert(gone.request, now);
        self.queue_ids.remove(&gone.label);
        for channel in &gone.channels {
            self.channels.remove(channel);
        }
        self.logs.entry(queue).or_default().deleted = true;
        self.bump(gone.assignee);
        true
    }
}

/// Channels.
impl State {
    fn channel_record(&self, id: ChannelId, channel: &Channel) -> ChannelRecord {
        let queue = &self.queues[&channel.queue];
        ChannelRecord {
            id,
            queue: channel.queue,
            label: queue.label.clone(),
            topic: channel.topic.clone(),
            start: channel.start,
            assignee: self.addressed(queue.assignee),
        }
    }

    /// As [`Catalog::create_channel`](crate::ports::Catalog::create_channel). A channel of the same id, queue and topic
    /// counts as made by the same request.
    ///
    /// # Errors
    /// [`CreateChannelError::NoSuchQueue`], [`CreateChannelError::IdTaken`], [`CreateChannelError::TooMany`],
    /// [`CreateChannelError::BeyondEnd`], in this order.
    pub fn create_channel(
        &mut self,
        now: StoreTime,
        create: &CreateChannel,
    ) -> Result<ChannelRecord, CreateChannelError> {
        let queue = self.queues.get_mut(&create.queue).ok_or(CreateChannelError::NoSuchQueue)?;
        if let Some(channel) = self.channels.get(&create.id) {
            let same = channel.queue == create.queue && channel.topic == create.topic;
            return if same { Ok(self.channel_record(create.id, channel)) } else { Err(CreateChannelError::IdTaken) };
        }
        if queue.channels.len() >= MAX_CHANNELS_PER_QUEUE {
            return Err(CreateChannelError::TooMany);
        }
        let log = &self.logs[&create.queue];
        let end = log.end();
        let start = match create.start {
            Start::Earliest => log.trimmed_through.next(),
            Start::Latest => end.next(),
            Start::At(start) if start > end.next() => return Err(CreateChannelError::BeyondEnd { start, end }),
            Start::At(start) => start,
        };
        queue.channels.insert(create.id);
        let used_at = create.disposable.then_some(now);
        let channel = Channel { queue: create.queue, topic: create.topic.clone(), start, used_at };
        let record = self.channel_record(create.id, &channel);
        self.channels.insert(create.id, channel);
        Ok(record)
    }

    /// As [`Catalog::channel`](crate::ports::Catalog::channel).
    #[must_use]
    pub fn channel(&self, channel: ChannelId) -> Option<ChannelRecord> {
        self.channels.get(&channel).map(|found| self.channel_record(channel, found))
    }

    /// As [`Catalog::channels`](crate::ports::Catalog::channels).
    #[must_use]
    pub fn channels(&self, queue: Option<QueueId>) -> Vec<ChannelRecord> {
        let wanted = self.channels.iter().filter(|(_, channel)| queue.is_none_or(|queue| channel.queue == queue));
        wanted.map(|(&id, channel)| self.channel_record(id, channel)).collect()
    }

    /// As [`Catalog::known_channels`](crate::ports::Catalog::known_channels).
    ///
    /// # Errors
    /// [`StoreError::Refused`], for ids that break the rules.
    pub fn known_channels(&self, channels: &[ChannelId]) -> Result<Vec<ChannelId>, StoreError> {
        check_lookup(channels)?;
        Ok(channels.iter().copied().filter(|channel| self.channels.contains_key(channel)).collect())
    }

    /// As [`Catalog::channel_page`](crate::ports::Catalog::channel_page).
    #[must_use]
    pub fn channel_page(&self, queue: Option<QueueId>, after: Option<ChannelId>, limit: u32) -> Vec<ChannelRecord> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.channels.range((from, Bound::Unbounded));
        let wanted = behind.filter(|(_, channel)| queue.is_none_or(|queue| channel.queue == queue));
        wanted.take(limit as usize).map(|(&id, channel)| self.channel_record(id, channel)).collect()
    }

    /// As [`Catalog::delete_channel`](crate::ports::Catalog::delete_channel).
    pub fn delete_channel(&mut self, channel: ChannelId) -> bool {
        let Some(gone) = self.channels.remove(&channel) else { return false };
        let Some(queue) = self.queues.get_mut(&gone.queue) else { return false };
        queue.channels.remove(&channel);
        let assignee = queue.assignee;
        self.bump(assignee);
        true
    }

    /// As [`Catalog::use_channels`](crate::ports::Catalog::use_channels).
    ///
    /// # Errors
    /// [`StoreError::Refused`], for ids that break the rules.
    pub fn use_channels(
        &mut self,
        now: StoreTime,
        channels: &[ChannelId],
        fresh: Duration,
    ) -> Result<Vec<ChannelId>, StoreError> {
        check_lookup(channels)?;
        let mut known = Vec::new();
        for id in channels {
            let Some(channel) = self.channels.get_mut(id) else { continue };
            known.push(*id);
            if let Some(used_at) = channel.used_at.as_mut().filter(|used_at| lease_end(**used_at, fresh) <= now) {
                *used_at = now;
            }
        }
        Ok(known)
    }

    /// As [`Catalog::delete_idle_channels`](crate::ports::Catalog::delete_idle_channels).
    ///
    /// # Errors
    /// [`StoreError::Refused`], for ids that break the rules.
    pub fn delete_idle_channels(
        &mut self,
        now: StoreTime,
        broker: BrokerId,
        queues: &[QueueId],
        idle: Duration,
        seen: StoreTime,
        limit: u32,
    ) -> Result<Vec<ChannelId>, StoreError> {
        check_lookup(queues)?;
        let mut found = Vec::new();
        for queue in queues.iter().filter_map(|queue| self.queues.get(queue)) {
            let of_queue = queue.channels.iter().filter(|_| queue.assignee == Some(broker));
            let used_at = of_queue.filter_map(|id| Some((self.channels.get(id)?.used_at?, *id)));
            let mut idle: Vec<_> = used_at.filter(|(used_at, _)| lease_end(*used_at, idle) <= now.min(seen)).collect();
            idle.sort_unstable();
            found.extend(idle.into_iter().map(|(_, id)| id));
        }
        found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        for id in &found {
            let Some(gone) = self.channels.remove(id) else { continue };
            if let Some(queue) = self.queues.get_mut(&gone.queue) {
                queue.channels.remove(id);
            }
        }
        if !found.is_empty() {
            self.bump(Some(broker));
        }
        found.sort_unstable();
        Ok(found)
    }
}

/// Leadership.
impl State {
    /// As [`Catalog::lead`](crate::ports::Catalog::lead).
    pub fn lead(&mut self, now: StoreTime, manager: ManagerId, lease: Duration) -> Leadership {
        let leader = &mut self.leader;
        let holder = leader.manager.filter(|_| leader.lease_until > now && leader.begun() <= now);
        let leads = holder.or(leader.manager.filter(|held| *held == manager)).unwrap_or(manager);
        mark!(LeadFromTheFuture if leader.manager.is_some_and(|held| held != leads) && leader.begun() > now);
        if leader.manager != Some(leads) {
            leader.term = leader.term.next();
        }
        leader.manager = Some(leads);
        if leads == manager {
            leader.lease_until = lease_end(now, lease);
            leader.lease = lease;
        }
        Leadership { leader: leads, term: leader.term, store_time: now }
    }

    /// As [`Catalog::resign`](crate::ports::Catalog::resign).
    pub fn resign(&mut self, manager: ManagerId) {
        let leader = &mut self.leader;
        if leader.manager == Some(manager) {
            leader.manager = None;
            leader.lease_until = StoreTime::default();
        }
    }
}

//! The contents of the database, and the records of changes to it.

use std::time::Duration;

use rmom_core::{
    model::{BrokerId, ChannelId, Offset, QueueId, StoreTime},
    ports::{
        AppendBatch, Appended, Assign, Assigned, ChannelRecord, Claim, ClaimError, Claimed, CreateChannel,
        CreateChannelError, CreateQueue, CreateQueueError, LogError, QueueRecord, Register, RegisterError,
        Registration, StoreError, Trim, Trimmed,
    },
    store::memory::State,
};

use super::{DATABASE_HOST, evidence::messages};
use crate::history::{Event, Recorder};

/// The data, which survives every crash. Changes that are evidence are recorded as they are committed; everything else goes
/// straight to the [`State`].
#[derive(Debug)]
pub(super) struct Disk {
    state: State,
    recorder: Recorder,
}

impl Disk {
    /// An empty disk.
    pub(super) fn new(recorder: Recorder) -> Self {
        Self { state: State::default(), recorder }
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    pub(super) fn state_mut(&mut self) -> &mut State {
        &mut self.state
    }

    fn record(&self, event: Event) {
        self.recorder.record(DATABASE_HOST, event);
    }

    pub(super) fn register_broker(
        &mut self,
        now: StoreTime,
        register: &Register,
    ) -> Result<Registration, RegisterError> {
        let registration = self.state.register_broker(now, register)?;
        self.record(Event::Registered {
            broker: register.addr.host.clone(),
            broker_id: registration.broker.get(),
            incarnation: register.incarnation.to_string(),
        });
        Ok(registration)
    }

    pub(super) fn create_queue(&mut self, create: &CreateQueue) -> Result<QueueRecord, CreateQueueError> {
        let existed = self.state.queue(&create.label).is_some();
        let record = self.state.create_queue(create)?;
        // A repeated request finds its own queue.
        if !existed {
            let (queue_id, label) = (record.id.get(), record.label.as_str().to_owned());
            self.record(Event::QueueAdded { queue_id, label });
            if let Some(assignee) = create.assignee {
                self.record_assignment(record.id, assignee);
            }
        }
        Ok(record)
    }

    pub(super) fn assign_queues(&mut self, group: &[Assign]) -> Result<Vec<Assigned>, StoreError> {
        let assigned = self.state.assign_queues(group)?;
        for (assign, assigned) in group.iter().zip(&assigned) {
            if matches!(assigned, Assigned::Done(_)) {
                self.record_assignment(assign.queue, assign.to);
            }
        }
        Ok(assigned)
    }

    fn record_assignment(&self, queue: QueueId, to: BrokerId) {
        self.record(Event::Assigned { queue_id: queue.get(), broker_id: to.get() });
    }

    pub(super) fn delete_queue(&mut self, now: StoreTime, queue: QueueId) -> bool {
        let deleted = self.state.delete_queue(now, queue);
        if deleted {
            self.record(Event::QueueTombstoned { queue_id: queue.get() });
        }
        deleted
    }

    pub(super) fn create_channel(
        &mut self,
        now: StoreTime,
        create: &CreateChannel,
    ) -> Result<ChannelRecord, CreateChannelError> {
        let existed = self.state.channel(create.id).is_some();
        let record = self.state.create_channel(now, create)?;
        // A repeated request finds its own channel.
        if !existed {
            let (channel, queue_id) = (record.id.uuid(), record.queue.get());
            let (topic, disposable) = (record.topic.as_wire().to_owned(), create.disposable);
            self.record(Event::ChannelAdded { channel, queue_id, topic, disposable });
        }
        Ok(record)
    }

    pub(super) fn delete_channel(&mut self, channel: ChannelId) -> bool {
        let deleted = self.state.delete_channel(channel);
        if deleted {
            self.record(Event::ChannelRemoved { channel: channel.uuid() });
        }
        deleted
    }

    pub(super) fn delete_idle_channels(
        &mut self,
        now: StoreTime,
        broker: BrokerId,
        queues: &[QueueId],
        idle: Duration,
        seen: StoreTime,
        limit: u32,
    ) -> Result<Vec<ChannelId>, StoreError> {
        let deleted = self.state.delete_idle_channels(now, broker, queues, idle, seen, limit)?;
        for channel in &deleted {
            self.record(Event::ChannelRemoved { channel: channel.uuid() });
        }
        Ok(deleted)
    }

    pub(super) fn claim(&mut self, now: StoreTime, claim: &Claim) -> Result<Claimed, ClaimError> {
        let before = self.state.epoch(claim.queue);
        let claimed = self.state.claim(now, claim)?;
        // A repeated claim creates no epoch.
        if before != Some(claimed.epoch) {
            self.record(Event::Claimed {
                queue_id: claim.queue.get(),
                epoch: claimed.epoch.get(),
                broker_id: claim.broker.get(),
                incarnation: claim.incarnation.to_string(),
            });
        }
        Ok(claimed)
    }

    pub(super) fn append(
        &mut self,
        now: StoreTime,
        group: &[AppendBatch],
        by: &str,
    ) -> Result<Vec<Appended>, StoreError> {
        let outcomes = self.state.append(now, group)?;
        for (batch, outcome) in group.iter().zip(&outcomes) {
            self.record_append(batch, *outcome, by);
        }
        Ok(outcomes)
    }

    fn record_append(&self, batch: &AppendBatch, outcome: Appended, by: &str) {
        let why = match outcome {
            Appended::Stored { stored_at } => return self.record_stored(batch.queue, batch.first, stored_at, by),
            Appended::Fenced { .. } => "fenced",
            Appended::Deleted => "deleted",
            Appended::Conflict => "conflict",
            Appended::RolledBack => "rolled_back",
        };
        let (queue_id, epoch) = (batch.queue.get(), batch.epoch.get());
        self.record(Event::AppendRefused { queue_id, epoch, why: why.into(), by: by.into() });
    }

    fn record_stored(&self, queue: QueueId, first: Offset, stored_at: StoreTime, by: &str) {
        let before = Offset::new(first.get() - 1);
        // Records the batches that are actually stored, not the ones that the caller sent.
        let stored = self.state.read(queue, before, 0).batches;
        let [stored] = stored.as_slice() else { panic!("a batch was stored and is not there") };
        self.record(Event::Stored {
            queue_id: queue.get(),
            epoch: stored.header.epoch.get(),
            stored_at_millis: stored_at.millis(),
            messages: messages(stored),
            by: by.into(),
        });
    }

    pub(super) fn trim(&mut self, now: StoreTime, trim: &Trim) -> Result<Trimmed, LogError> {
        let trimmed = self.state.trim(now, trim)?;
        if trimmed.batches > 0 {
            self.record(Event::Trimmed {
                queue_id: trim.queue.get(),
                through: trimmed.trimmed_through.get(),
                at_millis: now.millis(),
            });
        }
        Ok(trimmed)
    }
}

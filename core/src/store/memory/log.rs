//! The log's transactions.

use std::ops::Bound;

use super::state::{QueueLog, State};
use crate::{
    model::{Epoch, Offset, ProducerId, QueueId, StoreTime},
    ports::{
        AppendBatch, Appended, BatchHeader, Claim, ClaimError, Claimed, LogError, LogStats, LogTail, StoreError,
        StoredBatch, Trim, Trimmed,
    },
};

impl State {
    /// The log of a queue that is not deleted.
    fn live_log(&mut self, queue: QueueId) -> Option<&mut QueueLog> {
        self.logs.get_mut(&queue).filter(|log| !log.deleted)
    }

    /// As [`Log::claim`](crate::ports::Log::claim).
    ///
    /// # Errors
    /// [`ClaimError::Deleted`], [`ClaimError::Replaced`], [`ClaimError::NotAssignee`], in this order.
    pub fn claim(&mut self, now: StoreTime, claim: &Claim) -> Result<Claimed, ClaimError> {
        mark!(ClaimDeleted if !self.queues.contains_key(&claim.queue));
        let queue = self.queues.get(&claim.queue).ok_or(ClaimError::Deleted)?;
        let log = self.logs.get_mut(&claim.queue).ok_or(ClaimError::Deleted)?;
        // Made again, a claim that is still the latest answers as before, whatever has been assigned since: what it
        // created stands until the next claim.
        mark!(ClaimFoundItself if log.claim == Some(claim.claim));
        if log.claim != Some(claim.claim) {
            let registered = self.brokers.get(&claim.broker);
            if registered.is_none_or(|broker| broker.incarnation != claim.incarnation) {
                mark!(ClaimReplaced);
                return Err(ClaimError::Replaced);
            }
            if queue.assignee != Some(claim.broker) {
                mark!(ClaimNotAssignee);
                return Err(ClaimError::NotAssignee);
            }
            log.epoch = log.epoch.next();
            log.claim = Some(claim.claim);
        }
        Ok(Claimed { epoch: log.epoch, store_time: now })
    }

    /// The latest epoch of a queue's log; none if it has no log.
    #[must_use]
    pub fn epoch(&self, queue: QueueId) -> Option<Epoch> {
        self.logs.get(&queue).map(|log| log.epoch)
    }

    /// As [`Log::tail`](crate::ports::Log::tail).
    #[must_use]
    pub fn tail(&self, queue: QueueId) -> LogTail {
        let Some(log) = self.logs.get(&queue) else { return LogTail::default() };
        let last = log.batches.last_key_value().map(|(_, batch)| &batch.header);
        LogTail {
            epoch: log.epoch,
            end: log.end(),
            last_first: last.map_or(Offset::ZERO, |last| last.first),
            last_epoch: last.map_or(Epoch::ZERO, |last| last.epoch),
            last_stored_at: last.map_or(StoreTime::default(), |last| last.stored_at),
            trimmed_through: log.trimmed_through,
            producers: log.producers.clone(),
            incarnations: log.incarnations.iter().map(|(&producer, &incarnation)| (producer, incarnation)).collect(),
        }
    }

    /// Batches that end beyond `after`, in order.
    fn batches_after(&self, queue: QueueId, after: Offset) -> impl Iterator<Item = &StoredBatch> {
        let batches = self.logs.get(&queue).map(|log| {
            let reaching_beyond =
                log.batches.range(..=after).next_back().filter(|(_, batch)| batch.header.last > after);
            let from = reaching_beyond.map_or(Bound::Excluded(after), |(&first, _)| Bound::Included(first));
            log.batches.range((from, Bound::Unbounded)).map(|(_, batch)| batch)
        });
        batches.into_iter().flatten()
    }

    /// As [`Log::headers`](crate::ports::Log::headers).
    #[must_use]
    pub fn headers(&self, queue: QueueId, after: Offset, limit: u32) -> Vec<BatchHeader> {
        let headers = self.batches_after(queue, after).map(|batch| batch.header.clone());
        headers.take(usize::try_from(limit).unwrap_or(usize::MAX)).collect()
    }

    /// As [`Log::read`](crate::ports::Log::read).
    #[must_use]
    pub fn read(&self, queue: QueueId, after: Offset, max_bytes: usize) -> Vec<StoredBatch> {
        let (mut count, mut bytes) = (0_usize, 0_usize);
        let fits = |batch: &&StoredBatch| {
            count += 1;
            bytes = bytes.saturating_add(batch.frames.len());
            count == 1 || bytes <= max_bytes
        };
        self.batches_after(queue, after).take_while(fits).cloned().collect()
    }

    /// As [`Log::append`](crate::ports::Log::append).
    ///
    /// # Errors
    /// [`StoreError::Refused`] if the group is not in order of queue id, names a queue twice or has an empty batch.
    pub fn append(&mut self, now: StoreTime, group: &[AppendBatch]) -> Result<Vec<Appended>, StoreError> {
        if !group.is_sorted_by(|a, b| a.queue < b.queue) {
            return Err(StoreError::Refused("the batches of a group are not in order of queue id".into()));
        }
        if group.iter().any(|batch| batch.first == Offset::ZERO || batch.last < batch.first) {
            return Err(StoreError::Refused("a batch of the group has no messages".into()));
        }
        let append =
            |batch: &AppendBatch| self.live_log(batch.queue).map_or(Appended::Deleted, |log| log.append(now, batch));
        Ok(group.iter().map(append).collect())
    }

    /// As [`Log::trim`](crate::ports::Log::trim).
    ///
    /// # Errors
    /// [`LogError::Deleted`], [`LogError::Fenced`], in this order.
    pub fn trim(&mut self, now: StoreTime, trim: &Trim) -> Result<Trimmed, LogError> {
        let log = self.live_log(trim.queue).ok_or(LogError::Deleted)?;
        if log.epoch != trim.epoch {
            return Err(LogError::Fenced { epoch: log.epoch });
        }
        // A trim that was given up can land after a later one.
        if log.producers.as_ref().is_none_or(|&(through, _)| through <= trim.through) {
            log.producers = Some((trim.through, trim.producers.clone()));
        }
        Ok(log.remove_expired(now, trim))
    }

    /// As [`Log::stats`](crate::ports::Log::stats).
    #[must_use]
    pub fn stats(&self, queue: QueueId, through: Offset) -> LogStats {
        let Some(log) = self.logs.get(&queue) else { return LogStats::default() };
        let mut stats = LogStats::default();
        for batch in log.batches.values().take_while(|batch| batch.header.last <= through) {
            stats.messages += messages(batch);
            stats.bytes += batch.frames.len() as u64;
            stats.oldest.get_or_insert(batch.header.stored_at);
            stats.next_expiry = stats.next_expiry.min(batch.header.expires_at);
        }
        stats
    }

    /// As [`Log::open_producer`](crate::ports::Log::open_producer).
    pub fn open_producer(&mut self, queue: QueueId, producer: ProducerId) -> Option<u64> {
        let incarnation = self.live_log(queue)?.incarnations.entry(producer).or_default();
        *incarnation += 1;
        Some(*incarnation)
    }

    /// As [`Log::purge_deleted`](crate::ports::Log::purge_deleted).
    pub fn purge_deleted(&mut self, limit: u32) -> u64 {
        let mut left = u64::from(limit);
        for log in self.logs.values_mut().filter(|log| log.deleted) {
            while left > 0 && log.batches.pop_first().is_some() {
                left -= 1;
            }
        }
        self.logs.retain(|_, log| !(log.deleted && log.batches.is_empty()));
        u64::from(limit) - left
    }
}

impl QueueLog {
    fn append(&mut self, now: StoreTime, batch: &AppendBatch) -> Appended {
        if batch.epoch != self.epoch || self.epoch == Epoch::ZERO {
            return Appended::Fenced { epoch: self.epoch };
        }
        // Not only the offsets of stored batches are taken: what was trimmed is never given out again either.
        if batch.first <= self.end() {
            return Appended::Conflict;
        }
        let before = Offset::new(batch.first.get() - 1);
        let previous = self.batches.get(&batch.previous).filter(|previous| previous.header.last == before);
        if previous.is_none() && self.trimmed_through < before {
            return Appended::WentBack;
        }
        let last_stored_at = self.batches.last_key_value().map(|(_, last)| last.header.stored_at);
        mark!(StoreClockBehind if now < batch.not_before);
        let stored_at = now.max(batch.not_before).max(last_stored_at.unwrap_or_default());
        let header = BatchHeader {
            first: batch.first,
            last: batch.last,
            epoch: batch.epoch,
            stored_at,
            expires_at: batch.lifetime_millis.map_or(StoreTime::NEVER, |millis| stored_at.plus_millis(millis)),
            format: batch.format,
            index: batch.index.clone(),
        };
        let stored = StoredBatch { header, frames: batch.frames.clone(), checksum: batch.checksum };
        self.batches.insert(batch.first, stored);
        Appended::Stored { stored_at }
    }

    /// Removes expired batches, oldest first. Live ones may be left in between; what is gone below the oldest of those
    /// counts as trimmed.
    fn remove_expired(&mut self, now: StoreTime, trim: &Trim) -> Trimmed {
        let mut removed = Trimmed {
            trimmed_through: self.trimmed_through,
            batches: 0,
            messages: 0,
            bytes: 0,
            oldest: None,
            next_expiry: StoreTime::NEVER,
            store_time: now,
        };
        let mut cursor = Bound::Unbounded;
        while removed.batches < u64::from(trim.limit) {
            let Some((&first, batch)) = self.batches.range((cursor, Bound::Unbounded)).next() else { break };
            if batch.header.last > trim.through {
                break;
            }
            cursor = Bound::Excluded(first);
            let is_last = self.batches.last_key_value().is_some_and(|(&last, _)| last == first);
            // The last batch stays until all before it are gone: it holds the end of the log.
            mark!(TrimKeptEnd if batch.header.expires_at <= now && is_last && self.batches.len() > 1);
            if batch.header.expires_at > now || (is_last && self.batches.len() > 1) {
                continue;
            }
            removed.batches += 1;
            removed.messages += messages(batch);
            removed.bytes += batch.frames.len() as u64;
            let end = batch.header.last;
            self.batches.remove(&first);
            mark!(Trimmed);
            mark!(TrimmedToEmpty if self.batches.is_empty());
            self.trimmed_through = match self.batches.first_key_value() {
                Some((oldest, _)) => Offset::new(oldest.get() - 1),
                None => end,
            };
        }
        removed.trimmed_through = self.trimmed_through;
        removed.oldest = self.batches.first_key_value().map(|(_, batch)| batch.header.stored_at);
        let expiries = self.batches.values().map(|batch| batch.header.expires_at);
        removed.next_expiry = expiries.min().unwrap_or(StoreTime::NEVER);
        removed
    }
}

/// How many messages a batch has.
fn messages(batch: &StoredBatch) -> u64 {
    batch.header.last.since(batch.header.first) + 1
}

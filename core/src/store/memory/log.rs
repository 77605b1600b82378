//! The log's transactions.

use std::ops::Bound;

use super::state::{QueueLog, State};
use crate::{
    model::{Epoch, Offset, ProducerId, QueueId, StoreTime},
    ports::{
        AppendBatch, Appended, BatchHeader, Claim, ClaimError, Claimed, LogError, LogTail, MAX_CLOCK_AHEAD_MILLIS,
        MAX_NAMED_PRODUCERS, MAX_READ_SPAN, MAX_TRIM_SPAN, Opened, Page, Purged, StoreError, StoredBatch, Trim,
        Trimmed,
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
            last_expires_at: last.map_or(StoreTime::NEVER, |last| last.expires_at),
            trimmed_through: log.trimmed_through,
            messages: log.messages,
            bytes: log.bytes,
            removed: log.removed,
            oldest: log.oldest().map(|oldest| oldest.header.stored_at),
            none_expires_before: log.none_expires_before.unwrap_or(StoreTime::NEVER),
            producers: log.producers.clone(),
            producer_epochs: log
                .producer_epochs
                .iter()
                .take(MAX_NAMED_PRODUCERS as usize + 1)
                .map(|(&producer, &epoch)| (producer, epoch))
                .collect(),
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
    pub fn read(&self, queue: QueueId, after: Offset, max_bytes: usize) -> Page {
        self.read_within(queue, after, MAX_READ_SPAN, max_bytes)
    }

    /// As [`Log::read_within`](crate::ports::Log::read_within).
    #[must_use]
    pub fn read_within(&self, queue: QueueId, after: Offset, span: u64, max_bytes: usize) -> Page {
        let Some(log) = self.logs.get(&queue) else { return Page::default() };
        let through = after.max(log.trimmed_through).plus(span);
        let (mut count, mut bytes) = (0_usize, 0_usize);
        let fits = |batch: &&StoredBatch| {
            count += 1;
            bytes = bytes.saturating_add(batch.frames.len());
            count == 1 || bytes <= max_bytes
        };
        let near = self.batches_after(queue, after).take_while(|batch| batch.header.first <= through);
        let batches: Vec<StoredBatch> = near.take_while(fits).cloned().collect();
        let looked_through = batches.last().map_or(through.min(log.end()), |last| last.header.last);
        mark!(HoleRead if batches.is_empty() && through < log.end());
        Page { batches, looked_through }
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
        let saved_through = log.producers.as_ref().map_or(Offset::ZERO, |&(through, _)| through);
        let Some(producers) = &trim.producers else {
            let trimmed = log.remove_expired(now, trim, trim.through.min(saved_through));
            // One that lands after a later save does not know what that speaks for.
            if trimmed.batches > 0 && saved_through == trim.through {
                log.none_expires_before = Some(trimmed.next_expiry);
            }
            return Ok(trimmed);
        };
        let trimmed = log.remove_expired(now, trim, trim.through);
        // A trim that was given up can land after a later one.
        if saved_through <= trim.through {
            log.producers = Some((trim.through, producers.clone()));
            log.none_expires_before = Some(trimmed.next_expiry);
        }
        Ok(trimmed)
    }

    /// As [`Log::open_producer`](crate::ports::Log::open_producer).
    pub fn open_producer(&mut self, queue: QueueId, producer: ProducerId, most: u32) -> Opened {
        let Some(log) = self.live_log(queue) else { return Opened::Deleted };
        let has_room = log.producer_epochs.len() < most.min(MAX_NAMED_PRODUCERS) as usize;
        if !has_room && !log.producer_epochs.contains_key(&producer) {
            return Opened::TooMany;
        }
        let epoch = log.producer_epochs.entry(producer).or_default();
        *epoch = epoch.next();
        Opened::Given(*epoch)
    }

    /// As [`Log::purge_deleted`](crate::ports::Log::purge_deleted).
    pub fn purge_deleted(&mut self, limit: u32) -> Purged {
        let mut left = u64::from(limit);
        for log in self.logs.values_mut().filter(|log| log.deleted) {
            while left > 0 && log.batches.pop_first().is_some() {
                left -= 1;
            }
        }
        self.logs.retain(|_, log| !(log.deleted && log.batches.is_empty()));
        Purged { batches: u64::from(limit) - left, more: self.logs.values().any(|log| log.deleted) }
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
            return Appended::RolledBack;
        }
        let last_stored_at = self.batches.last_key_value().map(|(_, last)| last.header.stored_at);
        mark!(StoreClockBehind if now < batch.not_before);
        let earliest = batch.not_before.max(last_stored_at.unwrap_or_default());
        let is_lawful = earliest <= now.plus_millis(MAX_CLOCK_AHEAD_MILLIS);
        mark!(StoreClockWasAhead if !is_lawful);
        let stored_at = if is_lawful { now.max(earliest) } else { now };
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
        self.messages += messages(&stored);
        self.bytes += stored.frames.len() as u64;
        self.batches.insert(batch.first, stored);
        Appended::Stored { stored_at }
    }

    /// The oldest batch, unless it lies further on than one trim looks.
    fn oldest(&self) -> Option<&StoredBatch> {
        let (&first, batch) = self.batches.first_key_value()?;
        (first.since(self.trimmed_through) <= MAX_TRIM_SPAN).then_some(batch)
    }

    fn remove(&mut self, first: Offset, trimmed: &mut Trimmed) {
        let batch = self.batches.remove(&first).expect("a trim removes what is there");
        mark!(Trimmed);
        mark!(TrimmedToEmpty if self.batches.is_empty());
        self.messages -= messages(&batch);
        self.bytes -= batch.frames.len() as u64;
        self.removed.messages += messages(&batch).cast_signed();
        self.removed.bytes += (batch.frames.len() as u64).cast_signed();
        trimmed.batches += 1;
        trimmed.messages += messages(&batch);
        trimmed.bytes += batch.frames.len() as u64;
        if self.batches.is_empty() {
            self.trimmed_through = batch.header.last;
        }
    }

    /// Removes expired batches, those that expired first first. Live ones may be left in between; what is gone below the
    /// oldest of those counts as trimmed.
    fn remove_expired(&mut self, now: StoreTime, trim: &Trim, through: Offset) -> Trimmed {
        let mut trimmed = Trimmed {
            trimmed_through: self.trimmed_through,
            batches: 0,
            messages: 0,
            bytes: 0,
            removed: self.removed,
            oldest: None,
            next_expiry: StoreTime::NEVER,
            more: false,
            store_time: now,
        };
        let last = self.batches.last_key_value().map(|(&first, batch)| (first, batch.header.expires_at));
        let mut alone = false;
        let is_last = |first| last.is_some_and(|(last, _)| first == last);
        let has_expired = |header: &BatchHeader| header.expires_at <= now && header.last <= through;
        // The last batch stays until all before it are gone: it holds the end of the log.
        let mut expired: Vec<_> = self
            .batches
            .iter()
            .filter(|&(&first, batch)| !is_last(first) && has_expired(&batch.header))
            .map(|(&first, batch)| (batch.header.expires_at, first))
            .filter(|&(expires_at, _)| expires_at >= trim.none_expires_before)
            .collect();
        expired.sort_unstable();
        expired.truncate(usize::try_from(trim.limit).unwrap_or(usize::MAX));
        for (_, first) in expired {
            self.remove(first, &mut trimmed);
        }
        match self.oldest().map(|oldest| oldest.header.clone()) {
            Some(oldest) => {
                self.trimmed_through = Offset::new(oldest.first.get() - 1);
                alone = is_last(oldest.first);
                let has_room = trimmed.batches < u64::from(trim.limit);
                mark!(TrimKeptEnd if !alone && last.is_some_and(|(_, expires_at)| expires_at <= now));
                if alone && has_room && has_expired(&oldest) {
                    self.remove(oldest.first, &mut trimmed);
                } else {
                    trimmed.oldest = Some(oldest.stored_at);
                    if alone {
                        trimmed.next_expiry = oldest.expires_at;
                    }
                }
            }
            None if !self.batches.is_empty() => {
                self.trimmed_through = self.trimmed_through.plus(MAX_TRIM_SPAN);
                trimmed.more = true;
            }
            None => {}
        }
        if !alone && !self.batches.is_empty() && trim.limit == 0 {
            trimmed.next_expiry = trim.none_expires_before;
        } else if !alone {
            let left = self.batches.iter().filter(|&(&first, _)| !is_last(first));
            let left = left.map(|(_, batch)| batch.header.expires_at);
            let left = left.filter(|&expires_at| expires_at >= trim.none_expires_before);
            trimmed.next_expiry = left.min().unwrap_or(StoreTime::NEVER);
        }
        trimmed.more |= trimmed.batches == u64::from(trim.limit) && trim.limit > 0;
        trimmed.trimmed_through = self.trimmed_through;
        trimmed.removed = self.removed;
        trimmed
    }
}

/// How many messages a batch has.
fn messages(batch: &StoredBatch) -> u64 {
    batch.header.last.since(batch.header.first) + 1
}

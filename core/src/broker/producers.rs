//! Who pushed what last: what makes a retry of a push a duplicate instead of a second message.
//!
//! One entry per producer, however many messages it pushes. Two views: what is stored, and what is accepted (stored, or
//! in a batch on its way). A failed append throws the second away.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use prost::Message as _;
use rmom_proto::storage::{ProducerLast, ProducerSnapshot};
use tokio::time::Instant;

use super::{BrokerError, ProducerStamp};
use crate::{
    frame::{FrameError, Run},
    model::{Offset, ProducerEpoch, ProducerId, ProducerKey, Sequence, StoreTime},
};

/// The newest stored message of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Last {
    pub(super) epoch: ProducerEpoch,
    pub(super) sequence: Sequence,
    pub(super) offset: Offset,
    pub(super) stored_at: StoreTime,
    /// When this broker stored it, or found it stored.
    seen_at: Instant,
}

/// What a run of pushes is, compared with what came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// How many of its first messages have been accepted before.
    pub(super) duplicates: u64,
}

/// The producers of one queue.
#[derive(Clone, Debug, Default)]
pub(super) struct Producers {
    stored: BTreeMap<ProducerId, Last>,
    /// Where accepted differs from stored: epoch and last accepted sequence.
    accepted: BTreeMap<ProducerId, (ProducerEpoch, Sequence)>,
    /// Epochs given out to named producers.
    opened: BTreeMap<ProducerId, ProducerEpoch>,
    /// When those who did not push for long were last forgotten, to make room for another one.
    made_room: Option<Instant>,
}

/// Room for another producer is made no more often: it means looking at all.
const MAKE_ROOM_EVERY: Duration = Duration::from_secs(1);

impl Producers {
    /// From the snapshot that the store holds, if any, and the epochs that it gave out.
    pub(super) fn restore(
        snapshot: Option<&Bytes>,
        opened: Vec<(ProducerId, ProducerEpoch)>,
    ) -> Result<Self, FrameError> {
        let mut producers = Self { opened: opened.into_iter().collect(), ..Self::default() };
        if let Some(snapshot) = snapshot {
            for last in ProducerSnapshot::decode(snapshot.as_ref())?.producers {
                let id = ProducerId::from_slice(&last.producer_id)?;
                let sequence = Sequence::parse(last.last_sequence)?;
                let offset = Offset::parse(last.last_offset)?;
                let stored_at = StoreTime::from_millis(last.stored_at_millis);
                let (epoch, seen_at) = (ProducerEpoch::stored(last.producer_epoch), Instant::now());
                producers.stored.insert(id, Last { epoch, sequence, offset, stored_at, seen_at });
            }
        }
        Ok(producers)
    }

    /// The producers for the store to keep: those that pushed within `retention` of `now`, and all named ones, which continue
    /// where they stopped however long ago that was. Since the store's clock may be set forward, a producer is forgotten only
    /// after as much time has passed here, too.
    pub(super) fn snapshot(&mut self, through: Offset, now: StoreTime, retention: Duration) -> Bytes {
        self.forget_idle(now, retention);
        let producers = self
            .stored
            .iter()
            .map(|(id, last)| ProducerLast {
                producer_id: Bytes::copy_from_slice(id.uuid().as_bytes()),
                producer_epoch: last.epoch.get(),
                last_sequence: last.sequence.get(),
                last_offset: last.offset.get(),
                stored_at_millis: last.stored_at.millis(),
            })
            .collect();
        ProducerSnapshot { through_offset: through.get(), producers }.encode_to_vec().into()
    }

    fn forget_idle(&mut self, now: StoreTime, retention: Duration) {
        let opened = &self.opened;
        self.stored.retain(|id, last| {
            opened.contains_key(id) || now.since(last.stored_at) < retention || last.seen_at.elapsed() < retention
        });
    }

    /// True if a producer may push: it is known, or there are fewer than `most`. Producers that did not push within
    /// `retention` are forgotten first.
    pub(super) fn admits(&mut self, id: ProducerId, most: usize, now: StoreTime, retention: Duration) -> bool {
        if self.accepted_of(id).is_some() || self.opened.contains_key(&id) || self.has_room(most) {
            return true;
        }
        if self.made_room.is_none_or(|at| at.elapsed() >= MAKE_ROOM_EVERY) {
            self.made_room = Some(Instant::now());
            self.forget_idle(now, retention);
        }
        self.has_room(most)
    }

    fn has_room(&self, most: usize) -> bool {
        let at_most = self.stored.len() + self.accepted.len();
        // Most of what is on its way is of producers that are known.
        at_most < most
            || self.stored.len() + self.accepted.keys().filter(|id| !self.stored.contains_key(id)).count() < most
    }

    /// Takes note of stored messages.
    pub(super) fn store(&mut self, runs: &[Run], stored_at: StoreTime) {
        let seen_at = Instant::now();
        for run in runs {
            let last =
                Last { epoch: run.key.epoch, sequence: run.last(), offset: run.last_offset(), stored_at, seen_at };
            self.stored.insert(run.key.id, last);
            if self.accepted.get(&run.key.id).is_some_and(|&(_, sequence)| sequence <= last.sequence) {
                self.accepted.remove(&run.key.id);
            }
        }
    }

    /// Forgets what was accepted and did not get stored.
    pub(super) fn forget_accepted(&mut self) {
        self.accepted.clear();
    }

    /// The newest stored message of a producer.
    pub(super) fn last(&self, id: ProducerId) -> Option<Last> {
        self.stored.get(&id).copied()
    }

    /// True if something of a producer is accepted and not stored yet.
    pub(super) fn is_pending(&self, id: ProducerId) -> bool {
        self.accepted.contains_key(&id)
    }

    fn accepted_of(&self, id: ProducerId) -> Option<(ProducerEpoch, Sequence)> {
        self.accepted.get(&id).copied().or_else(|| self.stored.get(&id).map(|last| (last.epoch, last.sequence)))
    }

    /// Takes note of an epoch that the store gave out.
    pub(super) fn open(&mut self, id: ProducerId, epoch: ProducerEpoch) {
        let opened = self.opened.entry(id).or_default();
        *opened = epoch.max(*opened);
    }

    /// Judges `count` pushes from `first`, without accepting them.
    pub(super) fn judge(&self, stamp: &ProducerStamp, first: Sequence, count: u64) -> Result<Verdict, BrokerError> {
        let key = stamp.key;
        let known = self.accepted_of(key.id);
        let current = known.map_or(ProducerEpoch::ZERO, |(epoch, _)| epoch);
        let current = self.opened.get(&key.id).copied().unwrap_or_default().max(current);
        if key.epoch < current {
            mark!(ProducerFenced);
            return Err(BrokerError::ProducerFenced { current, found: key.epoch });
        }
        let last = known.map_or(Sequence::ZERO, |(_, sequence)| sequence);
        // All below the lowest unacknowledged has an outcome that the producer knows: nothing there will be sent again.
        let expected = last.next().max(stamp.lowest_unacknowledged);
        mark!(ProducerUnknown if known.is_none() && first == expected && first > Sequence::ZERO.next());
        if first > expected {
            mark!(SequenceGap);
            return Err(BrokerError::SequenceGap { expected, found: first });
        }
        Ok(Verdict { duplicates: expected.since(first).min(count) })
    }

    /// Accepts everything up to `last`.
    pub(super) fn accept(&mut self, key: ProducerKey, last: Sequence) {
        self.accepted.insert(key.id, (key.epoch, last));
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn stamp(epoch: u64, lowest: u64) -> ProducerStamp {
        let key = ProducerKey { id: ProducerId::new(Uuid::from_u128(1)), epoch: ProducerEpoch::new(epoch) };
        ProducerStamp { key, lowest_unacknowledged: Sequence::new(lowest) }
    }

    #[test]
    fn an_epoch_out_of_range_that_was_accepted_before_stays_readable() {
        let last =
            ProducerLast { producer_id: vec![1; 16].into(), producer_epoch: u64::MAX, ..ProducerLast::default() };
        let snapshot = ProducerSnapshot { through_offset: 0, producers: vec![last] }.encode_to_vec();
        let restored = Producers::restore(Some(&snapshot.into()), Vec::new()).unwrap();
        let id = ProducerId::from_slice(&[1; 16]).unwrap();
        assert_eq!(restored.last(id).map(|last| last.epoch.get()), Some(i64::MAX as u64));
    }

    fn judge(producers: &Producers, stamp: ProducerStamp, first: u64, count: u64) -> Result<u64, BrokerError> {
        producers.judge(&stamp, Sequence::new(first), count).map(|verdict| verdict.duplicates)
    }

    fn store(producers: &mut Producers, first: u64, count: u64) {
        let (first, offset) = (Sequence::new(first), Offset::new(first + 100));
        producers.store(&[Run { key: stamp(0, 1).key, first, offset, count }], StoreTime::from_millis(5));
    }

    #[test]
    fn a_retry_is_a_duplicate_and_a_gap_is_refused() {
        let mut producers = Producers::default();
        assert_eq!(judge(&producers, stamp(0, 1), 1, 3), Ok(0));
        producers.accept(stamp(0, 1).key, Sequence::new(3));
        assert_eq!(judge(&producers, stamp(0, 1), 1, 3), Ok(3), "pending pushes count");
        assert_eq!(judge(&producers, stamp(0, 1), 2, 4), Ok(2), "a run may overlap");
        assert_eq!(judge(&producers, stamp(0, 1), 4, 1), Ok(0));
        let gap = BrokerError::SequenceGap { expected: Sequence::new(4), found: Sequence::new(5) };
        assert_eq!(judge(&producers, stamp(0, 1), 5, 1), Err(gap));
        producers.forget_accepted();
        assert_eq!(judge(&producers, stamp(0, 1), 1, 3), Ok(0), "what failed is pushed again");
    }

    #[test]
    fn an_unknown_producer_starts_where_it_says() {
        let producers = Producers::default();
        assert_eq!(judge(&producers, stamp(0, 8), 8, 1), Ok(0));
        assert!(judge(&producers, stamp(0, 8), 9, 1).is_err());
        assert_eq!(judge(&producers, stamp(0, 8), 7, 2), Ok(1));
    }

    #[test]
    fn a_later_epoch_goes_on_and_fences_the_earlier() {
        let mut producers = Producers::default();
        store(&mut producers, 1, 4);
        producers.open(stamp(2, 1).key.id, ProducerEpoch::new(2));
        let fenced = BrokerError::ProducerFenced { current: ProducerEpoch::new(2), found: ProducerEpoch::ZERO };
        assert_eq!(judge(&producers, stamp(0, 5), 5, 1), Err(fenced));
        assert_eq!(judge(&producers, stamp(2, 5), 5, 1), Ok(0));
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_room_for_so_many_and_the_idle_make_room() {
        let id = |n| ProducerId::new(Uuid::from_u128(n));
        let (at, retention) = (StoreTime::from_millis, Duration::from_secs(60));
        let mut producers = Producers::default();
        for n in 1..=3 {
            assert!(producers.admits(id(n), 3, at(0), retention));
            producers.accept(ProducerKey { id: id(n), epoch: ProducerEpoch::ZERO }, Sequence::new(1));
        }
        assert!(!producers.admits(id(4), 3, at(0), retention), "what is on its way counts");
        let run = |n: u128, first| {
            let key = ProducerKey { id: id(n), epoch: ProducerEpoch::ZERO };
            Run { key, first: Sequence::new(first), offset: Offset::new(1), count: 1 }
        };
        producers.store(&[run(1, 1), run(2, 1), run(3, 1)], at(0));
        producers.accept(ProducerKey { id: id(1), epoch: ProducerEpoch::ZERO }, Sequence::new(2));
        assert!(producers.admits(id(1), 3, at(0), retention) && !producers.admits(id(4), 3, at(0), retention));
        assert!(producers.admits(id(4), 4, at(0), retention), "a producer counts once");
        tokio::time::advance(retention).await;
        producers.store(&[run(1, 2)], at(60_000));
        assert!(producers.admits(id(4), 3, at(60_000), retention), "two were idle for long enough");
        assert_eq!(producers.last(id(2)), None);
        assert_eq!(producers.last(id(1)).map(|last| last.sequence.get()), Some(2));
        // The store counts the named ones. They push whatever the others do.
        producers.open(id(7), ProducerEpoch::new(1));
        assert!(producers.admits(id(7), 0, at(60_000), retention));
    }

    #[tokio::test(start_paused = true)]
    async fn a_snapshot_is_read_back_without_the_old() {
        let mut producers = Producers::default();
        store(&mut producers, 1, 4);
        let retention = Duration::from_millis(10);
        tokio::time::advance(Duration::from_millis(9)).await;
        let snapshot = producers.snapshot(Offset::new(104), StoreTime::from_millis(14), retention);
        let restored = Producers::restore(Some(&snapshot), Vec::new()).unwrap();
        assert_eq!(restored.last(stamp(0, 1).key.id).map(|last| last.offset), Some(Offset::new(104)));
        assert_eq!(judge(&restored, stamp(0, 1), 4, 1), Ok(1));
        let mut remembered = |now| {
            let snapshot = producers.snapshot(Offset::new(104), StoreTime::from_millis(now), retention);
            Producers::restore(Some(&snapshot), Vec::new()).unwrap().last(stamp(0, 1).key.id).is_some()
        };
        assert!(remembered(1_000), "the clock was set forward");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(remembered(14), "the clock was set back");
        assert!(!remembered(15));
    }
}

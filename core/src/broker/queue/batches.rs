//! Pushes that are accepted and not stored yet: batches filling up behind the one in flight.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use super::{backoff::Recovery, command::Pushed};
use crate::{
    broker::{BrokerError, BrokerSettings, Held},
    frame::{BatchBuilder, Encoded, Run, encoded_len},
    model::{MessageId, NewMessage, Offset, ProducerId, ProducerKey, Sequence, limits::MAX_BATCH_BYTES},
};

/// Somebody who waits for a batch.
pub(super) struct Waiter {
    pub(super) pushed: Pushed,
    pub(super) reply: oneshot::Sender<Result<Pushed, BrokerError>>,
    /// Released with the waiter.
    pub(super) _held: Held,
}

/// A batch that fills up.
pub(super) struct Filling {
    builder: BatchBuilder,
    waiters: Vec<Waiter>,
    /// Later messages go into another one.
    is_closed: bool,
}

/// A batch on its way to the store.
pub(super) struct Sealed {
    pub(super) encoded: Encoded,
    pub(super) waiters: Vec<Waiter>,
    /// Set if storing it has failed before.
    pub(super) recovery: Option<Recovery>,
}

/// The batches behind the one in flight, in order. Offsets are given here: they are right, because a batch that fails
/// takes all behind it along.
pub(super) struct Batches {
    filling: VecDeque<Filling>,
    next: Offset,
    /// Most messages of a batch.
    max_messages: usize,
    /// See [`Tuning::enough_bytes`](crate::broker::Tuning).
    enough_bytes: usize,
}

impl Batches {
    /// Nothing accepted yet; the first message gets the offset after `end`.
    pub(super) fn new(end: Offset, settings: &BrokerSettings) -> Self {
        Self {
            filling: VecDeque::new(),
            next: end.next(),
            max_messages: settings.max_batch_messages,
            enough_bytes: settings.tuning.enough_bytes,
        }
    }

    /// The offset that the next accepted message gets.
    pub(super) fn next(&self) -> Offset {
        self.next
    }

    /// Encodes an accepted message into the last batch, or a new one, and returns its offset.
    pub(super) fn add(&mut self, key: ProducerKey, sequence: Sequence, id: MessageId, message: &NewMessage) -> Offset {
        let full = self.filling.back().is_none_or(|batch| {
            batch.is_closed
                || batch.builder.len() >= self.max_messages
                || batch.builder.frame_bytes() + encoded_len(message) > MAX_BATCH_BYTES
        });
        if full {
            self.filling.push_back(Filling {
                builder: BatchBuilder::new(self.next),
                waiters: Vec::new(),
                is_closed: false,
            });
        }
        let last = self.filling.back_mut().expect("there is one, or it was just added");
        self.next = self.next.next();
        last.builder.push(key, sequence, id, message)
    }

    /// Makes somebody wait for the last batch, whose messages were the last ones of a run.
    pub(super) fn wait(&mut self, waiter: Waiter) {
        let batch = self.filling.back_mut().expect("a message was just added");
        batch.waiters.push(waiter);
        batch.is_closed = batch.builder.frame_bytes() >= self.enough_bytes;
    }

    /// Makes somebody wait for the batch that has a producer's message; gives the waiter back if none has it.
    pub(super) fn wait_for(&mut self, id: ProducerId, sequence: Sequence, mut waiter: Waiter) -> Option<Waiter> {
        for batch in &mut self.filling {
            if let Some(offset) = offset_of(batch.builder.runs(), id, sequence) {
                mark!(DuplicateWaiting);
                waiter.pushed.offset = Some(offset);
                batch.waiters.push(waiter);
                return None;
            }
        }
        Some(waiter)
    }

    /// The oldest batch, ended.
    pub(super) fn seal(&mut self) -> Option<Sealed> {
        let batch = self.filling.pop_front()?;
        Some(Sealed { encoded: batch.builder.finish(), waiters: batch.waiters, recovery: None })
    }

    /// Fails everything, and goes on after `end`.
    pub(super) fn fail(&mut self, end: Offset, error: &BrokerError) {
        mark!(AppendBehindFailed if !self.filling.is_empty());
        for batch in self.filling.drain(..) {
            answer(batch.waiters, Err(error));
        }
        self.next = end.next();
    }
}

/// The offset of a producer's message in a batch.
pub(super) fn offset_of(runs: &[Run], id: ProducerId, sequence: Sequence) -> Option<Offset> {
    runs.iter().find_map(|run| run.offset_of(id, sequence))
}

/// Reports a batch's outcome to its waiters. Waiters that have gone away are ignored.
pub(super) fn answer(waiters: Vec<Waiter>, result: Result<(), &BrokerError>) {
    for waiter in waiters {
        let _ = waiter.reply.send(result.map(|()| waiter.pushed).map_err(Clone::clone));
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        broker::{Tuning, room::held_for_tests},
        model::{BrokerAddr, ProducerEpoch},
    };

    /// Batches of a queue that is empty, of at most 1,000 messages each.
    fn batches() -> Batches {
        let settings = BrokerSettings::new(BrokerAddr { host: "broker".into(), port: 1 });
        Batches::new(Offset::ZERO, &BrokerSettings { max_batch_messages: 1_000, ..settings })
    }

    fn key() -> ProducerKey {
        ProducerKey { id: ProducerId::new(Uuid::nil()), epoch: ProducerEpoch::ZERO }
    }

    /// Adds a run of so many messages of so many bytes each.
    fn add(batches: &mut Batches, messages: u64, bytes: usize) {
        let message = NewMessage { content: vec![0; bytes].into(), ..NewMessage::default() };
        for _ in 0..messages {
            let sequence = Sequence::new(batches.next().get());
            batches.add(key(), sequence, MessageId::new(Uuid::nil()), &message);
        }
        let pushed = Pushed { key: key(), through: Sequence::ZERO, offset: None, duplicates: 0 };
        batches.wait(Waiter { pushed, reply: oneshot::channel().0, _held: held_for_tests() });
    }

    /// Messages and waiters of each batch.
    fn sealed(mut batches: Batches) -> Vec<(u64, usize)> {
        std::iter::from_fn(|| batches.seal()).map(|batch| (batch.encoded.messages(), batch.waiters.len())).collect()
    }

    #[test]
    fn a_batch_ends_with_the_push_that_fills_it() {
        let mut batches = batches();
        for _ in 0..5 {
            add(&mut batches, 10, Tuning::default().enough_bytes / 20);
        }
        add(&mut batches, 1, 0);
        assert_eq!(sealed(batches), [(20, 2), (20, 2), (11, 2)]);
    }

    #[test]
    fn a_push_that_is_larger_is_divided_at_the_limits_only() {
        let mut batches = batches();
        add(&mut batches, 900, 1_000);
        add(&mut batches, 1, 0);
        add(&mut batches, 1_005, 0);
        assert!(900 * 1_000 > Tuning::default().enough_bytes);
        assert_eq!(sealed(batches), [(900, 1), (1_000, 1), (6, 1)]);
    }
}

//! Pushes that are accepted and not stored yet: batches filling up behind the one in flight.

use std::collections::VecDeque;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{Pushed, recovery::Recovery};
use crate::{
    broker::{BrokerError, NewMessage},
    frame::{BatchBuilder, Encoded, Run, encoded_len},
    model::{MessageId, Offset, ProducerId, ProducerKey, Sequence, limits::MAX_BATCH_BYTES},
};

/// Somebody who waits for a batch.
pub(super) struct Waiter {
    pub(super) pushed: Pushed,
    pub(super) reply: oneshot::Sender<Result<Pushed, BrokerError>>,
    /// Released with the waiter.
    pub(super) _permit: OwnedSemaphorePermit,
}

/// A batch that fills up.
pub(super) struct Filling {
    builder: BatchBuilder,
    waiters: Vec<Waiter>,
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
}

impl Batches {
    /// Nothing accepted yet; the first message gets the offset after `end`.
    pub(super) fn new(end: Offset, max_messages: usize) -> Self {
        Self { filling: VecDeque::new(), next: end.next(), max_messages }
    }

    /// The offset that the next accepted message gets.
    pub(super) fn next(&self) -> Offset {
        self.next
    }

    /// Encodes an accepted message into the last batch, or a new one, and returns its offset.
    pub(super) fn add(&mut self, key: ProducerKey, sequence: Sequence, id: MessageId, message: &NewMessage) -> Offset {
        let full = self.filling.back().is_none_or(|batch| {
            batch.builder.len() >= self.max_messages
                || batch.builder.frame_bytes() + encoded_len(message) > MAX_BATCH_BYTES
        });
        if full {
            self.filling.push_back(Filling { builder: BatchBuilder::new(self.next), waiters: Vec::new() });
        }
        let last = self.filling.back_mut().expect("there is one, or it was just added");
        self.next = self.next.next();
        last.builder.push(key, sequence, id, message)
    }

    /// Makes somebody wait for the last batch.
    pub(super) fn wait(&mut self, waiter: Waiter) {
        self.filling.back_mut().expect("a message was just added").waiters.push(waiter);
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

/// Tells everybody who waits for a batch what became of it. Who no longer listens need not know.
pub(super) fn answer(waiters: Vec<Waiter>, result: Result<(), &BrokerError>) {
    for waiter in waiters {
        let _ = waiter.reply.send(result.map(|()| waiter.pushed).map_err(Clone::clone));
    }
}

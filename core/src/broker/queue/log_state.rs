//! The state of a queue's log under one epoch, which its task owns.

use std::pin::Pin;

use tokio::sync::oneshot;

use super::{
    batches::{Batches, Sealed},
    unsaved::Unsaved,
};
use crate::{
    broker::producers::Producers,
    model::{Epoch, Offset, ProducerId, Sequence, StoreTime},
    ports::{Appended, StoreError},
};

/// See the module.
pub(super) struct LogState {
    pub(super) epoch: Epoch,
    /// The newest durable offset.
    pub(super) end: Offset,
    /// First offset of the last stored batch.
    pub(super) last_first: Offset,
    pub(super) last_stored_at: StoreTime,
    pub(super) unsaved: Unsaved,
    pub(super) producers: Producers,
    pub(super) batches: Batches,
    pub(super) openings: Vec<Opening>,
}

/// A client that opened a named producer and waits for its last sequence.
pub(super) struct Opening {
    pub(super) id: ProducerId,
    pub(super) reply: oneshot::Sender<Sequence>,
    pub(super) proof: Proof,
}

/// Whether the store has shown, after it gave out a producer's epoch, that this broker still owned the queue: then the next
/// owner knows the epoch, and no other broker stored messages of an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    Missing,
    /// A fenced call is under way.
    Asked,
    Given,
}

impl LogState {
    /// Notes how far the proofs are that some openings wait for.
    pub(super) fn prove(&mut self, from: Proof, to: Proof) {
        for opening in self.openings.iter_mut().filter(|opening| opening.proof == from) {
            opening.proof = to;
        }
    }

    /// Answers the openings whose last sequence cannot change any more: what was pushed under earlier epochs has an
    /// outcome.
    pub(super) fn answer_openings(&mut self) {
        let (mut open, producers) = (std::mem::take(&mut self.openings), &self.producers);
        for opening in open.extract_if(.., |opening| opening.proof == Proof::Given && !producers.is_pending(opening.id))
        {
            let last = producers.last(opening.id).map_or(Sequence::ZERO, |last| last.sequence);
            let _ = opening.reply.send(last);
        }
        self.openings = open;
    }
}

/// The batch that is being stored.
pub(super) struct InFlight {
    pub(super) sealed: Sealed,
    pub(super) epoch: Epoch,
    /// The estimate of the store's clock then.
    pub(super) sent_at: StoreTime,
    pub(super) append: Pin<Box<dyn Future<Output = Result<Appended, StoreError>> + Send>>,
}

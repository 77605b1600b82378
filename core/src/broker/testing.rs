//! What benchmarks measure and is nobody else's business.

use super::{BrokerError, ProducerStamp, producers::Producers};
use crate::{
    frame::Run,
    model::{ProducerKey, Sequence, StoreTime},
};

/// What a queue's task remembers of its producers, to tell a retry from a new message.
#[derive(Debug, Default)]
pub struct Dedupe(Producers);

impl Dedupe {
    /// How many of `count` pushes from `first` have been accepted before.
    ///
    /// # Errors
    /// [`BrokerError::SequenceGap`], [`BrokerError::ProducerFenced`].
    pub fn judge(&self, stamp: &ProducerStamp, first: Sequence, count: u64) -> Result<u64, BrokerError> {
        self.0.judge(stamp, first, count).map(|verdict| verdict.duplicates)
    }

    /// Accepts everything up to `last`.
    pub fn accept(&mut self, key: ProducerKey, last: Sequence) {
        self.0.accept(key, last);
    }

    /// Takes note of stored messages.
    pub fn store(&mut self, runs: &[Run], stored_at: StoreTime) {
        self.0.store(runs, stored_at);
    }
}

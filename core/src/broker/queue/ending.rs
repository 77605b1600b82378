//! How a queue's task comes to an end, or to a new beginning.

use crate::{broker::BrokerError, ports::StoreError};

/// Why a queue is not served any longer, or not at all.
#[derive(Debug)]
pub(super) enum Ending {
    /// Its task claims the queue and reads its log again.
    Activate,
    /// Its task ends: another broker hosts the queue, the queue was deleted, or this broker stops.
    Stop(BrokerError),
    /// The queue stays here and refuses everything, since serving it would do harm.
    Halt(BrokerError),
}

/// Why one attempt to claim a queue or to read its log failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The store failed; the next attempt may succeed.
    Store(StoreError),
    /// No attempt will succeed.
    Final(Ending),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Corrupt(_) => Self::Final(Ending::Halt(error.into())),
            _ => Self::Store(error),
        }
    }
}

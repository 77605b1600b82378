//! Waiting between attempts to reach a store that fails.

use std::time::Duration;

use tokio::time::Instant;

use crate::ports::Entropy;

/// First and longest wait.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Waits longer from attempt to attempt, with jitter, so that brokers do not come in step.
pub(super) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self::up_to(RETRY.1)
    }

    pub(super) fn up_to(longest: Duration) -> Self {
        Self { next: RETRY.0, longest }
    }

    pub(super) async fn wait(&mut self, entropy: &dyn Entropy) {
        let base = u64::try_from(self.next.as_millis()).unwrap_or(u64::MAX);
        tokio::time::sleep(Duration::from_millis(base / 2 + entropy.below(base))).await;
        self.next = (self.next * 2).min(self.longest);
    }
}

/// How long a batch has been in trouble. It goes with the batch from one append to the next.
pub(super) struct Recovery {
    /// When its pushers are told.
    pub(super) deadline: Instant,
    pub(super) backoff: Backoff,
}

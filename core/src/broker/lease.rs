//! The broker's lease.
//!
//! It is for liveness: a broker that cannot reach the store stops serving before others take over. Safety does
//! not rest on it; the fence alone keeps a replaced owner from writing.

use std::time::Duration;

use tokio::{sync::watch, time::Instant};

use super::moments::{Moment, Moments};

/// Until when this broker may serve, by the clocks here.
#[derive(Debug)]
pub(super) struct Lease {
    granted: watch::Sender<Option<Granted>>,
    moments: Moments,
}

/// A lease of a length, from when it was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Granted {
    asked_at: Moment,
    lease: Duration,
}

impl Granted {
    /// When it runs out, unless the machine sleeps meanwhile: then it is over when it wakes up.
    pub(super) fn until(&self) -> Instant {
        self.asked_at.at + self.lease
    }
}

impl Lease {
    pub(super) fn new(moments: Moments) -> Self {
        Self { granted: watch::Sender::new(None), moments }
    }

    fn is_over(&self, granted: &Granted) -> bool {
        self.moments.since(granted.asked_at) >= granted.lease
    }

    /// Extends the lease: `asked_at` is when the request left, so that the answer's way costs us, not others.
    pub(super) fn renewed(&self, asked_at: Moment, lease: Duration) {
        let granted = Granted { asked_at, lease };
        self.granted.send_if_modified(|current| {
            // One that is over by the other clock only is replaced by whatever comes after it.
            let later = current.is_none_or(|current| self.is_over(&current) || current.until() < granted.until());
            if later {
                *current = Some(granted);
            }
            later
        });
    }

    /// Ends it: another run took this broker's place, or the broker stops.
    pub(super) fn end(&self) {
        self.granted.send_replace(None);
    }

    /// Ends it if its time is over, in one step: a renewal that comes at that instant is either seen or comes after. True if
    /// this ended it.
    pub(super) fn run_out(&self) -> bool {
        self.granted.send_if_modified(|current| current.take_if(|granted| self.is_over(granted)).is_some())
    }

    /// Tells of every change.
    pub(super) fn watch(&self) -> watch::Receiver<Option<Granted>> {
        self.granted.subscribe()
    }

    pub(super) fn is_current(&self) -> bool {
        self.granted.borrow().is_some_and(|granted| !self.is_over(&granted))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::broker::moments::testing::{Asleep, awake};

    #[tokio::test(start_paused = true)]
    async fn a_lease_runs_out_while_the_machine_sleeps() {
        let clock = Arc::new(Asleep::default());
        let moments = Moments::new(clock.clone());
        let lease = Lease::new(moments.clone());
        lease.renewed(moments.now(), Duration::from_secs(3));
        tokio::time::advance(Duration::from_millis(10)).await;
        let asked_at = moments.now();
        *clock.0.lock() += Duration::from_secs(3_600);
        assert!(!lease.is_current());
        // An answer from before it slept renews nothing.
        lease.renewed(asked_at, Duration::from_secs(3));
        assert!(!lease.is_current());
        lease.renewed(moments.now(), Duration::from_secs(1));
        assert!(lease.is_current(), "a shorter one, but asked for now");
        *clock.0.lock() += Duration::from_secs(1);
        assert!(lease.run_out() && !lease.is_current());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_counts_from_the_request() {
        let moments = awake();
        let lease = Lease::new(moments.clone());
        assert!(!lease.is_current());
        let asked_at = moments.now();
        tokio::time::advance(Duration::from_millis(400)).await;
        lease.renewed(asked_at, Duration::from_secs(1));
        tokio::time::advance(Duration::from_millis(599)).await;
        assert!(lease.is_current());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!lease.is_current());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_was_renewed_does_not_run_out() {
        let moments = awake();
        let lease = Lease::new(moments.clone());
        assert!(!lease.run_out(), "there is none");
        lease.renewed(moments.now(), Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(1)).await;
        // A watcher that saw it run out comes after the renewal.
        assert!(!lease.is_current());
        lease.renewed(moments.now(), Duration::from_secs(1));
        assert!(!lease.run_out() && lease.is_current());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(lease.run_out() && !lease.is_current());
        assert!(!lease.run_out(), "it ends once");
    }
}

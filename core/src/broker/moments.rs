//! Moments by two clocks: tokio's, which stands still while the machine is suspended, and one that does not.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::ports::Uptime;

/// A moment here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) at: Instant,
    uptime: Duration,
}

/// Tells how long ago a [`Moment`] was.
#[derive(Clone, Debug)]
pub(super) struct Moments(Arc<dyn Uptime>);

impl Moments {
    pub(super) fn new(uptime: Arc<dyn Uptime>) -> Self {
        Self(uptime)
    }

    pub(super) fn now(&self) -> Moment {
        // In this order, so that the second clock never shows more than the first for being asked later.
        let at = Instant::now();
        Moment { at, uptime: self.0.uptime() }
    }

    /// What passed since, by the clock that shows more.
    pub(super) fn since(&self, moment: Moment) -> Duration {
        let asleep = self.0.uptime().saturating_sub(moment.uptime);
        moment.at.elapsed().max(asleep)
    }
}

#[cfg(test)]
pub(super) mod testing {
    use parking_lot::Mutex;

    use super::*;

    /// What the clock shows that counts while the machine sleeps, beyond what the other one does.
    #[derive(Debug, Default)]
    pub(in crate::broker) struct Asleep(pub(in crate::broker) Mutex<Duration>);

    impl Uptime for Asleep {
        fn uptime(&self) -> Duration {
            *self.0.lock()
        }
    }

    pub(in crate::broker) fn awake() -> Moments {
        Moments::new(Arc::new(Asleep::default()))
    }
}

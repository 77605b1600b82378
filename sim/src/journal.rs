//! What applications did and saw.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;

/// Events in the order in which they happened, each with its simulated time. Clones share it; it outlives hosts that crash.
#[derive(Clone, Debug)]
pub struct Journal<E>(Arc<Mutex<Vec<(Duration, E)>>>);

impl<E> Default for Journal<E> {
    /// Nothing happened yet.
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<E: Clone> Journal<E> {
    /// Adds an event that happens now. Outside of hosts there is no now: such events are dated zero.
    pub fn record(&self, event: E) {
        self.0.lock().push((turmoil::sim_elapsed().unwrap_or_default(), event));
    }

    /// How many events satisfy `which` so far.
    pub fn count(&self, which: impl Fn(&E) -> bool) -> usize {
        self.0.lock().iter().filter(|(_, event)| which(event)).count()
    }

    /// All events so far.
    #[must_use]
    pub fn events(&self) -> Vec<(Duration, E)> {
        self.0.lock().clone()
    }
}

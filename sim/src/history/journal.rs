//! A journal of applications' actions and observations.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;

/// Events in their order, each with its simulated time. Clones share the list; it outlives crashed hosts.
#[derive(Clone, Debug)]
pub struct Journal<E>(Arc<Mutex<Vec<(Duration, E)>>>);

impl<E> Default for Journal<E> {
    /// An empty journal.
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<E: Clone> Journal<E> {
    /// Adds an event at the present time. Outside of hosts there is no present time: such events are dated zero.
    pub fn record(&self, event: E) {
        self.0.lock().push((turmoil::sim_elapsed().unwrap_or_default(), event));
    }

    /// The number of events so far that satisfy `which`.
    pub fn count(&self, which: impl Fn(&E) -> bool) -> usize {
        self.0.lock().iter().filter(|(_, event)| which(event)).count()
    }

    /// All events so far.
    #[must_use]
    pub fn events(&self) -> Vec<(Duration, E)> {
        self.0.lock().clone()
    }
}

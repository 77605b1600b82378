//! The store in memory: the model that the databases are compared with, and what the simulated database runs.
//!
//! [`State`] is the model: plain data and plain methods, each of them one transaction, given the time by its caller.
//! [`StateStore`] makes a [`Catalog`](crate::ports::Catalog) and a [`Log`](crate::ports::Log) of anything that runs steps
//! on a [`State`]. [`MemoryStore`] is the simplest of these.

mod catalog;
mod log;
mod rows;
mod state;
mod state_store;

use std::sync::Arc;

use parking_lot::Mutex;

pub use rows::Rows;
pub use state::State;
pub use state_store::{Call, Kind, METHODS, StateStore};

use crate::{
    model::StoreTime,
    ports::{Clock, StoreError},
};

/// A store that lives as long as its process. Every call is one atomic step; none ever waits or fails.
#[derive(Debug)]
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

impl MemoryStore {
    /// An empty store that goes by `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Self::with_state(clock, State::default())
    }

    /// A store that goes on from `state`.
    #[must_use]
    pub fn with_state(clock: Arc<dyn Clock>, state: State) -> Arc<Self> {
        Arc::new(Self { clock, state: Mutex::new(state) })
    }

    /// A copy of all that is stored. Cheap: payloads are shared.
    #[must_use]
    pub fn state(&self) -> State {
        self.state.lock().clone()
    }

    /// Goes back to a copy.
    pub fn restore(&self, state: State) {
        *self.state.lock() = state;
    }
}

impl StateStore for MemoryStore {
    async fn execute<T: Send + 'static, E: From<StoreError> + Send + 'static>(
        &self,
        _: Call,
        step: impl FnOnce(&mut State, StoreTime) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let mut state = self.state.lock();
        step(&mut state, self.clock.now())
    }
}

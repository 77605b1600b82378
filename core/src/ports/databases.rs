//! The databases of a cluster.

use std::sync::Arc;

use super::{Catalog, Log};

/// Both halves of the store in one database.
pub trait Store: Catalog + Log {}

impl<T: Catalog + Log> Store for T {}

/// The databases that brokers and managers work with: that of the catalog, and the one that holds the logs. They may be the
/// same.
#[derive(Clone)]
pub struct Databases {
    /// Brokers, queues, channels and leadership.
    pub catalog: Arc<dyn Catalog>,
    /// The queues' logs.
    pub log: Arc<dyn Log>,
}

impl From<Arc<dyn Store>> for Databases {
    fn from(store: Arc<dyn Store>) -> Self {
        Self { catalog: store.clone(), log: store }
    }
}

impl<T: Store> From<Arc<T>> for Databases {
    fn from(store: Arc<T>) -> Self {
        Self { catalog: store.clone(), log: store }
    }
}

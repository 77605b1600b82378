//! What the queues of a broker share.

use std::sync::{Arc, atomic::AtomicU64};

use crate::{
    broker::{BrokerSettings, lease::Lease, logs::Logs, turns::Turns},
    model::{BrokerId, Incarnation},
    ports::{Catalog, Entropy, StoreError},
};

/// See the module.
pub(in crate::broker) struct Context {
    pub(in crate::broker) settings: BrokerSettings,
    pub(in crate::broker) catalog: Arc<dyn Catalog>,
    pub(in crate::broker) logs: Arc<Logs>,
    pub(in crate::broker) entropy: Arc<dyn Entropy>,
    pub(in crate::broker) lease: Arc<Lease>,
    pub(in crate::broker) broker: BrokerId,
    pub(in crate::broker) incarnation: Incarnation,
    /// Appends that found a later epoch, of all queues.
    pub(in crate::broker) fenced_appends: AtomicU64,
    /// Recoveries first, since pushers wait for them; of the others those whose queue somebody asked for.
    pub(in crate::broker) activations: Turns,
    /// Those first for which the opening of a producer waits.
    pub(in crate::broker) trims: Turns,
}

impl Context {
    /// A read of the store, with its deadline.
    pub(in crate::broker) async fn within<T>(
        &self,
        read: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let timeout = self.settings.store_timeout;
        tokio::time::timeout(timeout, read)
            .await
            .unwrap_or_else(|_| Err(StoreError::Unavailable(format!("no answer within {timeout:?}"))))
    }
}

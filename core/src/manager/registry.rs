//! The brokers, and which of them are live.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::{
    Inner,
    deadlines::TimedStore,
    status::{BrokerView, ProbeView, RegisteredBroker},
};
use crate::{
    model::{BrokerAddr, BrokerId, StoreTime},
    ports::{BrokerRecord, BrokerState, StoreError},
};

/// For this long after its lease has run out, a broker without queues is still probed. Without this limit, brokers whose
/// addresses are never used again would make every round of probes longer.
const GONE_AFTER_MILLIS: u64 = 10 * 60 * 1_000;

/// The brokers that registered and were not forgotten, at one moment of the store.
#[derive(Debug)]
pub(super) struct Registry {
    now: StoreTime,
    pub(super) brokers: Vec<BrokerRecord>,
}

impl Registry {
    pub(super) async fn read(store: &TimedStore, by: Instant) -> Result<Self, StoreError> {
        // The clock is read first: read after the records, it would make a lease that is renewed in between look as if it
        // had run out.
        let now = store.read(by, store.catalog().now()).await?;
        let brokers = store.read(by, store.catalog().brokers()).await?;
        Ok(Self { now, brokers })
    }

    /// True while the broker's lease has not run out on the store's clock.
    pub(super) fn lease_current(&self, broker: &BrokerRecord) -> bool {
        broker.state != BrokerState::Stopped && broker.is_leased(self.now)
    }

    /// True if nothing depends on whether the broker is alive, and it has not been for long. If it comes back, it registers.
    pub(super) fn is_gone(&self, broker: &BrokerRecord) -> bool {
        broker.queues == 0 && broker.lease_until.plus_millis(GONE_AFTER_MILLIS) <= self.now
    }

    pub(super) fn get(&self, id: BrokerId) -> Option<&BrokerRecord> {
        self.brokers.iter().find(|broker| broker.id == id)
    }
}

impl Inner {
    /// True if a broker counts as live by what is known without asking it.
    pub(super) fn is_live(&self, registry: &Registry, broker: &BrokerRecord) -> bool {
        self.counts_as_live(&broker.addr, broker.state, registry.lease_current(broker))
    }

    /// Like [`Self::is_live`], for a broker that was looked up alone.
    pub(super) fn counts_as_live(&self, addr: &BrokerAddr, state: BrokerState, lease_current: bool) -> bool {
        if state == BrokerState::Stopped {
            return false;
        }
        // Failed probes are noticed sooner than the end of a lease. A successful probe bridges a jump of the store's clock.
        match self.probes.verdict(addr, self.settings.cycle * 2) {
            Some(false) => false,
            _ => lease_current || self.probes.answered_within(addr, self.settings.cycle),
        }
    }

    /// The registered brokers and the configured ones, by address.
    pub(super) fn broker_views(&self, registry: &Registry) -> Vec<BrokerView> {
        let configured: BTreeSet<&BrokerAddr> = self.settings.moms.iter().collect();
        let mut views: Vec<_> = registry
            .brokers
            .iter()
            .map(|broker| BrokerView {
                addr: broker.addr.clone(),
                configured: configured.contains(&broker.addr),
                registered: Some(RegisteredBroker {
                    id: broker.id,
                    incarnation: broker.incarnation,
                    state: broker.state,
                    lease_current: registry.lease_current(broker),
                    queues: broker.queues,
                }),
                live: self.is_live(registry, broker),
                gone: registry.is_gone(broker) && !self.is_live(registry, broker),
                probe: self.probe_view(&broker.addr),
            })
            .collect();
        views.extend(self.unregistered(registry).map(|addr| BrokerView {
            addr: addr.clone(),
            configured: true,
            registered: None,
            live: false,
            gone: false,
            probe: self.probe_view(addr),
        }));
        views.sort_by(|a, b| a.addr.cmp(&b.addr));
        views
    }

    /// Configured brokers that never registered, each once.
    pub(super) fn unregistered<'a>(&'a self, registry: &Registry) -> impl Iterator<Item = &'a BrokerAddr> + use<'a> {
        let registered: BTreeSet<&BrokerAddr> = registry.brokers.iter().map(|broker| &broker.addr).collect();
        let listed: BTreeSet<&BrokerAddr> = self.settings.moms.iter().collect();
        let missing: Vec<_> = listed.into_iter().filter(|addr| !registered.contains(addr)).collect();
        missing.into_iter()
    }

    fn probe_view(&self, addr: &BrokerAddr) -> Option<ProbeView> {
        let record = self.probes.of(addr)?;
        let now = Instant::now();
        Some(ProbeView {
            last_success_age: record.last_success.map(|at| now.duration_since(at)),
            failures_in_a_row: record.failures_in_a_row,
            last_error: record.last_error,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;
    use crate::model::Incarnation;

    #[test]
    fn a_lease_from_before_the_clock_was_set_back_is_not_current() {
        let now = StoreTime::from_millis(1_000_000);
        let current = |lease_until: StoreTime, state| {
            let addr = BrokerAddr { host: "b".to_owned(), port: 1 };
            let (incarnation, lease) = (Incarnation::new(Uuid::nil()), Duration::from_secs(3));
            let broker = BrokerRecord { id: BrokerId::new(1), addr, incarnation, state, lease_until, lease, queues: 1 };
            Registry { now, brokers: Vec::new() }.lease_current(&broker)
        };
        let ahead = |millis| current(now.plus_millis(millis), BrokerState::Up);
        assert_eq!([0, 1, 3_000].map(ahead), [false, true, true]);
        // Renewed after the clock was read and before the brokers were.
        assert!(ahead(5_000));
        assert_eq!([6_001, 36_000_000].map(ahead), [false, false]);
        assert!(!current(now.plus_millis(1), BrokerState::Stopped));
    }
}

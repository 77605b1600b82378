//! Support for tests of managers: brokers and a store with scripted behaviour, and time and randomness that replay.

mod brokers;

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use rand::{RngCore as _, SeedableRng as _, rngs::SmallRng};
use tokio::{task::JoinHandle, time::Instant};

pub use brokers::{Behaviour, Call, FakeBrokers};

pub use crate::store::faulty::{Calls, Fault, FaultyStore};

use super::{Manager, ManagerExit, ManagerSettings};
use crate::{
    access,
    model::{BrokerAddr, BrokerId, Incarnation, StoreTime},
    ports::{Catalog as _, Clock, Entropy, Register, Store},
};

/// A lease that no test outlives.
pub const LONG: Duration = Duration::from_secs(24 * 3600);

/// A clock that follows tokio's, which a test may pause.
#[derive(Debug)]
pub struct TokioClock(Instant);

impl TokioClock {
    /// Shows a fixed time now.
    #[must_use]
    pub fn starting_now() -> Self {
        Self(Instant::now())
    }
}

impl Clock for TokioClock {
    fn now(&self) -> StoreTime {
        StoreTime::from_millis(1_000_000).plus_millis(u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

/// Randomness from a seed.
#[derive(Debug)]
pub struct SeededEntropy(Mutex<SmallRng>);

impl SeededEntropy {
    /// The sequence of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(SmallRng::seed_from_u64(seed)))
    }
}

impl Entropy for SeededEntropy {
    fn bits(&self) -> u128 {
        let mut rng = self.0.lock();
        (u128::from(rng.next_u64()) << 64) | u128::from(rng.next_u64())
    }
}

/// The address of a test's broker number `n`.
#[must_use]
pub fn addr(n: u16) -> BrokerAddr {
    BrokerAddr { host: format!("broker-{n}"), port: 50_050 + n }
}

/// A store in memory and fake brokers for a manager.
pub struct World {
    /// The store.
    pub store: Arc<FaultyStore>,
    /// The brokers.
    pub brokers: FakeBrokers,
    entropy: Arc<SeededEntropy>,
}

impl World {
    /// An empty store, and no brokers.
    #[must_use]
    pub fn new() -> Self {
        Self {
            store: FaultyStore::new(Arc::new(TokioClock::starting_now())),
            brokers: FakeBrokers::default(),
            entropy: Arc::new(SeededEntropy::new(1)),
        }
    }

    /// Starts a manager.
    #[must_use]
    pub fn manager(
        &self,
        change: impl FnOnce(&mut ManagerSettings),
    ) -> (Manager<access::Call>, JoinHandle<ManagerExit>) {
        self.manager_over(&self.brokers, change)
    }

    /// Starts a manager that reaches other brokers at the addresses.
    #[must_use]
    pub fn manager_over(
        &self,
        brokers: &FakeBrokers,
        change: impl FnOnce(&mut ManagerSettings),
    ) -> (Manager<access::Call>, JoinHandle<ManagerExit>) {
        let mut settings = ManagerSettings::default();
        change(&mut settings);
        let store: Arc<dyn Store> = self.store.clone();
        let (manager, task) = Manager::spawn(settings, store, Arc::new(brokers.clone()), self.entropy.clone());
        (manager.on_behalf_of(access::Call::of_process()), task)
    }

    /// Registers broker `n` with a lease, and makes it behave well.
    ///
    /// # Panics
    /// If the store was told to fail.
    pub async fn broker(&self, n: u16, lease: Duration) -> BrokerId {
        self.brokers.set(&addr(n), Behaviour::Well);
        let register = Register { addr: addr(n), incarnation: incarnation(n), replaces: None, lease };
        let registered = self.store.register_broker(&register).await;
        registered.expect("the store was told to fail").broker
    }

    /// Retires broker `n` in good order.
    ///
    /// # Panics
    /// If it is not registered.
    pub async fn retire(&self, n: u16, id: BrokerId) {
        self.store.retire_broker(id, incarnation(n)).await.expect("the broker was registered before");
        self.brokers.set(&addr(n), Behaviour::Absent);
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

/// The run in which broker number `n` of a test registers.
#[must_use]
pub fn incarnation(n: u16) -> Incarnation {
    Incarnation::new(uuid::Uuid::from_u128(u128::from(n)))
}

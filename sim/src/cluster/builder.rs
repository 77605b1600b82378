//! The configuration of a cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use rmom_core::{broker::BrokerSettings, manager::ManagerSettings};
use rmom_net::serve::ServeSettings;

use super::{
    Cluster, add_broker,
    hosts::{Exits, SERVING, broker_addr, broker_host, manager_host, run_manager},
    links::Links,
};
use crate::{
    DATABASE_HOST, Database, SeededEntropy, database::run_database, determinism::libc_shim, history::Recorder,
};

/// How much time passes on one host before the next one's turn, unless the builder sets another. A tick costs about 1.7 µs
/// per host, even an idle one: with 1 ms, ticks are nine tenths of a simulation's cost.
const TICK: Duration = Duration::from_millis(2);
/// The least and greatest latency of a segment, unless the builder sets others.
const LATENCY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(5));
/// Segments that a connection holds until they are read.
const TCP_CAPACITY: usize = 4_096;

/// The configuration of a cluster; from [`Cluster::builder`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ClusterBuilder {
    seed: u64,
    managers: usize,
    brokers: usize,
    limit: Duration,
    tick: Duration,
    latency: (Duration, Duration),
    broker_settings: BrokerSettings,
    manager_settings: ManagerSettings,
    serving: ServeSettings,
    recorder: Recorder,
}

impl ClusterBuilder {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            managers: 1,
            brokers: 2,
            limit: Duration::from_secs(600),
            tick: TICK,
            latency: LATENCY,
            broker_settings: BrokerSettings::new(broker_addr(1)),
            manager_settings: ManagerSettings::default(),
            serving: SERVING,
            recorder: Recorder::default(),
        }
    }

    /// The number of managers. Default: 1.
    pub fn managers(mut self, managers: usize) -> Self {
        self.managers = managers;
        self
    }

    /// The number of brokers. Default: 2.
    pub fn brokers(mut self, brokers: usize) -> Self {
        self.brokers = brokers;
        self
    }

    /// Changes the settings of all brokers, except their addresses, which the cluster sets.
    pub fn broker_settings(mut self, change: impl FnOnce(&mut BrokerSettings)) -> Self {
        change(&mut self.broker_settings);
        self
    }

    /// Changes the settings of all managers.
    pub fn manager_settings(mut self, change: impl FnOnce(&mut ManagerSettings)) -> Self {
        change(&mut self.manager_settings);
        self
    }

    /// Changes how brokers serve connections.
    pub fn serving(mut self, change: impl FnOnce(&mut ServeSettings)) -> Self {
        change(&mut self.serving);
        self
    }

    /// The limit on simulated time. Default: 10 minutes.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// How much time passes on one host before the next one's turn: the grain of every race between hosts, and of the
    /// traffic between them. Whole milliseconds; default: 2 ms. Each tick costs time for every host, even an idle one.
    pub fn tick(mut self, tick: Duration) -> Self {
        self.tick = tick;
        self
    }

    /// The least and greatest latency of a segment, in whole milliseconds. Default: 1 to 5 ms.
    pub fn latency(mut self, min: Duration, max: Duration) -> Self {
        self.latency = (min, max);
        self
    }

    /// The recorder of the database's commits. Default: a new recorder.
    pub fn recorder(mut self, recorder: Recorder) -> Self {
        self.recorder = recorder;
        self
    }

    /// Creates the cluster on its hosts; time stands at zero.
    #[must_use]
    pub fn build(self) -> Cluster {
        libc_shim::seed(self.seed);
        let entropy = SeededEntropy::new(self.seed);
        let database = Database::new(entropy.fork(), self.recorder.clone());
        let mut sim = turmoil::Builder::new()
            .rng_seed(self.seed)
            .enable_random_order()
            .tick_duration(self.tick)
            .min_message_latency(self.latency.0)
            .max_message_latency(self.latency.1)
            .tcp_capacity(TCP_CAPACITY)
            // `step` checks the limit, even when no application runs.
            .simulation_duration(Duration::MAX)
            .build();
        let (mut links, exits) = (Links::default(), Rc::new(Exits::default()));
        let server = database.clone();
        sim.host(DATABASE_HOST, move || run_database(server.clone()));
        links.add(&sim, DATABASE_HOST);
        // A restarted host continues its random sequence, so that new ids differ from earlier ones, as in production.
        for number in 1..=self.brokers {
            let settings = BrokerSettings { addr: broker_addr(number), ..self.broker_settings.clone() };
            add_broker(&mut sim, &broker_host(number), (settings, self.serving), &database, entropy.fork(), &exits);
            links.add(&sim, &broker_host(number));
        }
        for number in 1..=self.managers {
            let settings = self.manager_settings.clone();
            let (database, entropy) = (database.clone(), Arc::new(entropy.fork()));
            sim.host(manager_host(number), move || {
                run_manager(number, settings.clone(), database.clone(), entropy.clone())
            });
            links.add(&sim, &manager_host(number));
        }
        Cluster {
            sim,
            links,
            database,
            recorder: self.recorder,
            entropy,
            managers: self.managers,
            limit: self.limit,
            latency: self.latency,
            broker_settings: self.broker_settings,
            serving: self.serving,
            exits,
            twins: BTreeSet::new(),
            restarts: BTreeMap::new(),
        }
    }
}

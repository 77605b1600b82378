//! A cluster on simulated hosts, and the hand of fate over it.

use std::{future::Future, sync::Arc, time::Duration};

use rmom_client::Client;
use rmom_core::{
    broker::BrokerSettings,
    manager::ManagerSettings,
    model::{BrokerAddr, QueueLabel},
    ports::{Entropy as _, Store},
    store::MemoryStore,
};

use crate::{
    SeededEntropy, SimClock, SimNet,
    hosts::{BROKER_PORT, broker_host, manager_host, manager_url, run_broker, run_manager},
};

/// How much time passes on one host before it is the next one's turn: the grain of every race between hosts.
const TICK: Duration = Duration::from_millis(1);
/// How long a segment travels: from .0 to .1.
const LATENCY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(5));
/// Segments that a connection holds until they are read.
const TCP_CAPACITY: usize = 4_096;

/// Why a simulation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SimError {
    /// An application, a broker or a manager ended with this error.
    #[error("after {at:?}: {reason}")]
    Failed {
        /// The simulated time.
        at: Duration,
        /// The error.
        reason: String,
    },
    /// The limit was reached first.
    #[error("not done within {0:?} of simulated time")]
    TimeUp(Duration),
}

/// What a cluster is made of; from [`Cluster::builder`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ClusterBuilder {
    seed: u64,
    managers: usize,
    brokers: usize,
    limit: Duration,
    latency: (Duration, Duration),
    broker_settings: BrokerSettings,
    manager_settings: ManagerSettings,
}

impl ClusterBuilder {
    /// How many managers; 1 if not said.
    pub fn managers(mut self, managers: usize) -> Self {
        self.managers = managers;
        self
    }

    /// How many brokers; 2 if not said.
    pub fn brokers(mut self, brokers: usize) -> Self {
        self.brokers = brokers;
        self
    }

    /// How much simulated time the simulation may take; 10 minutes if not said.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// How long a segment travels, from and to; 1 to 5 ms if not said.
    pub fn latency(mut self, min: Duration, max: Duration) -> Self {
        self.latency = (min, max);
        self
    }

    /// Settings of the brokers, whose addresses are given by the cluster; the defaults if not said.
    pub fn broker_settings(mut self, settings: BrokerSettings) -> Self {
        self.broker_settings = settings;
        self
    }

    /// Settings of the managers; the defaults if not said.
    pub fn manager_settings(mut self, settings: ManagerSettings) -> Self {
        self.manager_settings = settings;
        self
    }

    /// Puts everything on its hosts; time stands at zero.
    #[must_use]
    pub fn build(self) -> Cluster {
        let chance = SeededEntropy::new(self.seed);
        let store = MemoryStore::new(Arc::new(SimClock::default()));
        let mut sim = turmoil::Builder::new()
            .rng_seed(self.seed)
            .enable_random_order()
            .tick_duration(TICK)
            .min_message_latency(self.latency.0)
            .max_message_latency(self.latency.1)
            .tcp_capacity(TCP_CAPACITY)
            // `step` looks after the limit, also when no application runs.
            .simulation_duration(Duration::MAX)
            .build();
        // A host that restarts draws on from where it was: what it makes up is new, as it would be.
        for number in 1..=self.brokers {
            let (store, entropy) = (store.clone(), Arc::new(chance.fork()));
            let addr = BrokerAddr { host: broker_host(number), port: BROKER_PORT };
            let settings = BrokerSettings { addr, ..self.broker_settings.clone() };
            sim.host(broker_host(number), move || run_broker(settings.clone(), store.clone(), entropy.clone()));
        }
        for number in 1..=self.managers {
            let (store, entropy) = (store.clone(), Arc::new(chance.fork()));
            let settings = self.manager_settings.clone();
            sim.host(manager_host(number), move || run_manager(settings.clone(), store.clone(), entropy.clone()));
        }
        Cluster { sim, store, chance, managers: self.managers, limit: self.limit }
    }
}

/// Managers, brokers and applications on simulated hosts, over one store, which survives every crash.
///
/// Time passes in the `run` methods only. All of them fail if an application or a host does, and when the limit is reached;
/// a panic on a host is passed on.
pub struct Cluster {
    sim: turmoil::Sim<'static>,
    store: Arc<MemoryStore>,
    chance: SeededEntropy,
    managers: usize,
    limit: Duration,
}

impl Cluster {
    /// Starts to describe a cluster that is a function of `seed`.
    pub fn builder(seed: u64) -> ClusterBuilder {
        ClusterBuilder {
            seed,
            managers: 1,
            brokers: 2,
            limit: Duration::from_secs(600),
            latency: LATENCY,
            broker_settings: BrokerSettings::new(BrokerAddr { host: String::new(), port: BROKER_PORT }),
            manager_settings: ManagerSettings::default(),
        }
    }

    /// Starts an application on a host of this name, with a client that knows all managers.
    pub fn client<F>(&mut self, host: &str, application: impl FnOnce(Client) -> F + 'static)
    where
        F: Future<Output = turmoil::Result> + 'static,
    {
        let entropy = self.chance.fork();
        let client = Client::builder()
            .managers((1..=self.managers).map(manager_url))
            .connector(SimNet)
            .entropy(move || entropy.bits())
            .build();
        self.sim.client(host, async move { application(client?).await });
    }

    /// Starts an application that can crash: each start of its host calls `application` anew. What is to outlive a crash
    /// is kept outside. Its end is no end of the simulation.
    pub fn service<F>(&mut self, host: &str, application: impl Fn(Client) -> F + 'static)
    where
        F: Future<Output = turmoil::Result> + 'static,
    {
        let entropy = Arc::new(self.chance.fork());
        let managers = self.managers;
        self.sim.host(host, move || {
            let entropy = entropy.clone();
            let client = Client::builder()
                .managers((1..=managers).map(manager_url))
                .connector(SimNet)
                .entropy(move || entropy.bits())
                .build();
            let application = client.map(&application);
            async move { application?.await }
        });
    }

    /// Runs until every application has ended.
    ///
    /// # Errors
    /// See [`Cluster`].
    pub fn run(&mut self) -> Result<(), SimError> {
        while !self.step()? {}
        Ok(())
    }

    /// Runs until `done`, which is looked at after every tick.
    ///
    /// # Errors
    /// See [`Cluster`].
    pub fn run_until(&mut self, mut done: impl FnMut(&Self) -> bool) -> Result<(), SimError> {
        while !done(self) {
            self.step()?;
        }
        Ok(())
    }

    /// Runs for so much simulated time.
    ///
    /// # Errors
    /// See [`Cluster`].
    pub fn run_for(&mut self, time: Duration) -> Result<(), SimError> {
        let end = self.elapsed() + time;
        self.run_until(|cluster| cluster.elapsed() >= end)
    }

    /// One tick; true if every application has ended.
    fn step(&mut self) -> Result<bool, SimError> {
        if self.elapsed() >= self.limit {
            return Err(SimError::TimeUp(self.limit));
        }
        self.sim.step().map_err(|error| SimError::Failed { at: self.elapsed(), reason: error.to_string() })
    }

    /// Simulated time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.sim.elapsed()
    }

    /// The host of the broker that a queue is assigned to; none while there is none, or no such queue.
    #[must_use]
    pub fn hosting(&self, label: &QueueLabel) -> Option<String> {
        self.store.state().queue(label)?.assignee.map(|(_, addr)| addr.host)
    }

    /// What is stored.
    #[must_use]
    pub fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    /// Kills what runs on a manager's or broker's host. Its peers see their connections end.
    pub fn crash(&mut self, host: &str) {
        self.sim.crash(host);
    }

    /// Starts again what was crashed, with nothing in memory.
    pub fn restart(&mut self, host: &str) {
        self.sim.bounce(host);
    }

    /// Cuts the link between two hosts: what is under way or sent from now on is lost, silently.
    ///
    /// Simulated TCP does not send again, so a connection that lost anything stays broken after the link is repaired.
    pub fn cut(&mut self, a: &str, b: &str) {
        self.sim.partition(a, b);
    }

    /// Cuts a link in one direction.
    pub fn cut_oneway(&mut self, from: &str, to: &str) {
        self.sim.partition_oneway(from, to);
    }

    /// Repairs a link, both directions.
    pub fn repair(&mut self, a: &str, b: &str) {
        self.sim.repair(a, b);
    }
    /// What is sent between two hosts from now on waits, and what is under way.
    pub fn hold(&mut self, a: &str, b: &str) {
        self.sim.hold(a, b);
    }

    /// What [`Cluster::hold`] held arrives, and the link is sound.
    pub fn release(&mut self, a: &str, b: &str) {
        self.sim.release(a, b);
    }
}

//! A cluster on simulated hosts, and control over its faults.

mod builder;
mod hosts;
mod links;
mod net;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use rmom_client::{Client, ClientBuilder};
use rmom_core::{broker::BrokerSettings, model::QueueLabel, ports::Entropy as _};
use rmom_net::serve::ServeSettings;

pub use self::{
    builder::ClusterBuilder,
    hosts::{BROKER_PORT, MANAGER_PORT, broker_host, manager_host},
    net::SimNet,
};
use self::{
    hosts::{Exits, broker_addr, manager_url, run_broker, twin_of},
    links::Links,
};
use crate::{DATABASE_HOST, Database, SeededEntropy, determinism::libc_shim, history::Recorder};

/// The time after which a broker's process that ended by itself is restarted, as systemd does.
const RESTART: Duration = Duration::from_secs(2);

/// The reason why a simulation failed.
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
    /// The limit on simulated time was reached first.
    #[error("not done within {0:?} of simulated time")]
    TimeUp(Duration),
}

/// A database, managers, brokers and applications on simulated hosts.
///
/// Time passes only in the `run` methods. All of them fail if an application or a host does, and when the limit is reached;
/// a panic on a host is passed on.
///
/// Cuts and holds of a link add up: a link that was cut twice and repaired once is still cut.
pub struct Cluster {
    sim: turmoil::Sim<'static>,
    links: Links,
    database: Database,
    recorder: Recorder,
    entropy: SeededEntropy,
    managers: usize,
    limit: Duration,
    latency: (Duration, Duration),
    broker_settings: BrokerSettings,
    serving: ServeSettings,
    exits: Rc<Exits>,
    /// Hosts of twins that have been started before.
    twins: BTreeSet<String>,
    /// The restart times of hosts whose process ended by itself.
    restarts: BTreeMap<String, Duration>,
}

impl Cluster {
    /// Starts the configuration of a cluster whose behaviour is a function of `seed`.
    pub fn builder(seed: u64) -> ClusterBuilder {
        ClusterBuilder::new(seed)
    }

    /// Starts an application on a host of this name, with a client that knows all managers.
    pub fn client<F>(&mut self, host: &str, application: impl FnOnce(Client) -> F + 'static)
    where
        F: Future<Output = turmoil::Result> + 'static,
    {
        let client = self.client_builder().build();
        self.host(host, async move { application(client?).await });
    }

    /// Starts an application that can crash: each start of its host calls `application` anew. State that has to outlive a
    /// crash is kept outside. The simulation continues after the application ends.
    pub fn service<F>(&mut self, host: &str, application: impl Fn(Client) -> F + 'static)
    where
        F: Future<Output = turmoil::Result> + 'static,
    {
        self.service_with(host, |builder| builder, application);
    }

    /// Like [`Cluster::service`], with a client whose settings `change` changes.
    pub fn service_with<F>(
        &mut self,
        host: &str,
        change: impl Fn(ClientBuilder) -> ClientBuilder + 'static,
        application: impl Fn(Client) -> F + 'static,
    ) where
        F: Future<Output = turmoil::Result> + 'static,
    {
        let (managers, entropy) = (self.managers, Arc::new(self.entropy.fork()));
        self.sim.host(host, move || {
            let application = change(client_builder(managers, entropy.clone())).build().map(&application);
            async move { application?.await }
        });
        self.links.add(&self.sim, host);
    }

    /// The builder of a client that knows all managers, for use on one host.
    pub fn client_builder(&mut self) -> ClientBuilder {
        client_builder(self.managers, Arc::new(self.entropy.fork()))
    }

    /// Starts an application without a client on a host of this name.
    pub fn host(&mut self, host: &str, application: impl Future<Output = turmoil::Result> + 'static) {
        self.sim.client(host, application);
        self.links.add(&self.sim, host);
    }

    /// Runs until every application has ended.
    ///
    /// # Errors
    /// See [`Cluster`].
    pub fn run(&mut self) -> Result<(), SimError> {
        while !self.step()? {}
        Ok(())
    }

    /// Runs until `done` returns true; it is called after every tick.
    ///
    /// # Errors
    /// See [`Cluster`].
    pub fn run_until(&mut self, mut done: impl FnMut(&Self) -> bool) -> Result<(), SimError> {
        while !done(self) {
            self.step()?;
        }
        Ok(())
    }

    /// Runs for this much simulated time.
    ///
    /// # Errors
    /// See [`Cluster`].
    pub fn run_for(&mut self, time: Duration) -> Result<(), SimError> {
        let end = self.elapsed() + time;
        self.run_until(|cluster| cluster.elapsed() >= end)
    }

    /// Runs for one tick.
    ///
    /// # Errors
    /// See [`Cluster`].
    pub fn tick(&mut self) -> Result<(), SimError> {
        self.step().map(drop)
    }

    /// Runs one tick. True if every application has ended.
    fn step(&mut self) -> Result<bool, SimError> {
        if self.elapsed() >= self.limit {
            return Err(SimError::TimeUp(self.limit));
        }
        libc_shim::set_now(self.sim.elapsed());
        let ended = self.sim.step();
        libc_shim::set_now(self.sim.elapsed());
        self.supervise()?;
        ended.map_err(|error| SimError::Failed { at: self.elapsed(), reason: error.to_string() })
    }

    /// Stops processes that ended by themselves, and restarts them after a while, unless they were started by mistake.
    fn supervise(&mut self) -> Result<(), SimError> {
        let now = self.sim.elapsed();
        for host in self.exits.take() {
            self.sim.crash(host.as_str());
            if self.twins.contains(&host) {
                continue;
            }
            if !self.twins.contains(&twin_of(&host)) {
                let reason = format!("{host} ended because another process took its place, but there was none");
                return Err(SimError::Failed { at: now, reason });
            }
            self.restarts.insert(host, now + RESTART);
        }
        let due = |restarts: &BTreeMap<String, Duration>| {
            restarts.iter().find(|(_, at)| **at <= now).map(|(host, _)| host.clone())
        };
        while let Some(host) = due(&self.restarts) {
            self.restart(&host);
        }
        Ok(())
    }

    /// Simulated time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.sim.elapsed()
    }

    /// A source of randomness that is a function of the seed, for other uses.
    pub fn entropy(&mut self) -> SeededEntropy {
        self.entropy.fork()
    }

    /// The host of the broker to which a queue is assigned, or `None` if the queue is unassigned or does not exist.
    #[must_use]
    pub fn hosting(&self, label: &QueueLabel) -> Option<String> {
        self.database.queue(label)?.assignee.map(|(_, addr)| addr.host)
    }

    /// The database, for inspection and faults.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// The recorder of the database's commits, in which other observers may record as well.
    #[must_use]
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Sets a host's wall clock forward, or back, by this many milliseconds. The database's clock decides when messages
    /// expire; nothing may depend on the others, which libraries read as `SystemTime`.
    pub fn set_clock(&mut self, host: &str, by_millis: i64) {
        if host == DATABASE_HOST {
            self.database.set_clock(by_millis);
        } else {
            libc_shim::shift_clock(host, by_millis);
        }
    }

    /// Kills the process on the database's, a manager's or a broker's host. Its peers see their connections end. Committed
    /// data stays.
    pub fn crash(&mut self, host: &str) {
        self.restarts.remove(host);
        self.sim.crash(host);
    }

    /// Like a crash, but its peers are not notified: the host's links are cut first, and repaired at its restart.
    pub fn power_loss(&mut self, host: &str) {
        self.links.power_off(&self.sim, host);
        self.crash(host);
    }

    /// Restarts a host that crashed or lost its power, with empty memory.
    pub fn restart(&mut self, host: &str) {
        self.restarts.remove(host);
        self.links.power_on(&self.sim, host);
        self.sim.bounce(host);
    }

    /// Starts another broker process under the host and port of a broker, counted from 1, on a host of its own, as an
    /// operator might by mistake. The broker's own process notices that it was replaced, and ends; it is restarted after a
    /// while.
    pub fn start_twin(&mut self, number: usize) {
        let host = twin_of(&broker_host(number));
        if !self.twins.insert(host.clone()) {
            self.sim.bounce(host);
            return;
        }
        let settings = BrokerSettings { addr: broker_addr(number), ..self.broker_settings.clone() };
        add_broker(&mut self.sim, &host, (settings, self.serving), &self.database, self.entropy.fork(), &self.exits);
        self.links.add(&self.sim, &host);
    }

    /// Kills the process that [`Cluster::start_twin`] started, if it still runs.
    pub fn stop_twin(&mut self, number: usize) {
        self.sim.crash(twin_of(&broker_host(number)));
    }

    /// True if a process runs on the host.
    pub fn is_running(&mut self, host: &str) -> bool {
        self.sim.is_host_running(host)
    }

    /// Cuts the link between two hosts: segments in transit or sent from now on are lost silently.
    ///
    /// Simulated TCP does not retransmit, so a connection that lost a segment stays broken after the link is repaired.
    pub fn cut(&mut self, a: &str, b: &str) {
        self.links.cut(&self.sim, a, b);
        self.links.cut(&self.sim, b, a);
    }

    /// Undoes one cut of the link in each direction.
    pub fn repair(&mut self, a: &str, b: &str) {
        self.links.repair(&self.sim, a, b);
        self.links.repair(&self.sim, b, a);
    }

    /// Cuts a link in one direction.
    pub fn cut_oneway(&mut self, from: &str, to: &str) {
        self.links.cut(&self.sim, from, to);
    }

    /// Undoes one [`Cluster::cut_oneway`].
    pub fn repair_oneway(&mut self, from: &str, to: &str) {
        self.links.repair(&self.sim, from, to);
    }

    /// Holds segments between two hosts that are in transit or sent from now on. They are not lost.
    pub fn hold(&mut self, a: &str, b: &str) {
        self.links.hold(&self.sim, a, b);
    }

    /// Undoes one [`Cluster::hold`]: held segments arrive.
    pub fn release(&mut self, a: &str, b: &str) {
        self.links.release(&self.sim, a, b);
    }

    /// Sets the latency of segments sent between two hosts from now on, in whole milliseconds, until [`Cluster::unslow`] or
    /// another `slow`.
    pub fn slow(&mut self, a: &str, b: &str, latency: Duration) {
        self.sim.set_link_latency(a, b, latency);
    }

    /// Restores the usual latency of a link.
    pub fn unslow(&mut self, a: &str, b: &str) {
        // The first call sets both bounds.
        self.sim.set_link_latency(a, b, self.latency.0);
        self.sim.set_link_max_message_latency(a, b, self.latency.1);
    }

    /// Holds all links of a host. To its peers it looks like a stopped one. Its own timers go on, so its late actions reach
    /// no peer until it thaws, and then arrive.
    pub fn freeze(&mut self, host: &str) {
        self.links.freeze(&self.sim, host);
    }

    /// Undoes one [`Cluster::freeze`].
    pub fn thaw(&mut self, host: &str) {
        self.links.thaw(&self.sim, host);
    }
}

fn add_broker(
    sim: &mut turmoil::Sim<'static>,
    host: &str,
    (settings, serving): (BrokerSettings, ServeSettings),
    database: &Database,
    entropy: SeededEntropy,
    exits: &Rc<Exits>,
) {
    let (database, entropy, exits) = (database.clone(), Arc::new(entropy), exits.clone());
    let name = host.to_owned();
    sim.host(host, move || {
        run_broker(name.clone(), settings.clone(), serving, database.clone(), entropy.clone(), exits.clone())
    });
}

fn client_builder(managers: usize, entropy: Arc<SeededEntropy>) -> ClientBuilder {
    Client::builder().managers((1..=managers).map(manager_url)).connector(SimNet).entropy(move || entropy.bits())
}

//! Tests of applications: their own producers and consumers, against a cluster in which any part can fail.
//!
//! [`explore`] runs a test under many seeds. Each seed is a different run: other brokers crash at other times,
//! other links are cut, and services of the application crash, too. For a seed that fails, it reports the faults of the
//! cluster and the command that replays the run exactly.
//!
//! ```
//! use std::sync::{Arc, atomic::{AtomicU64, Ordering::Relaxed}};
//!
//! rmom_sim::explore().seeds(3).run(|world| {
//!     let channel = world.setup(|client| async move {
//!         client.admin().create_queue("greetings").await?;
//!         Ok(client.admin().create_channel("greetings", None, rmom_client::Start::Earliest).await?.id)
//!     })?;
//!     world.service("greeter", |client| async move {
//!         client.producer("greetings").named("greeter").open().await?.push("hello").await?;
//!         std::future::pending().await
//!     });
//!     let received = Arc::new(AtomicU64::new(0));
//!     let count = received.clone();
//!     world.service("listener", move |client| {
//!         let count = count.clone();
//!         async move {
//!             let mut consumer = client.subscribe(channel).build();
//!             loop {
//!                 assert_eq!(consumer.next().await?.content, "hello");
//!                 count.fetch_add(1, Relaxed);
//!             }
//!         }
//!     });
//!     world.run_until(|| received.load(Relaxed) > 0)?;
//!     Ok(())
//! });
//! ```

mod faults;
mod world;

use std::{
    any::Any,
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::Duration,
};

use parking_lot::Mutex;

pub use self::{faults::Faults, world::World};
use crate::isolated;

/// Restricts the test to one seed: the one that failed.
const SEED_VARIABLE: &str = "RMOM_SIM_SEED";
/// The number of seeds, which overrides the test's.
const SEEDS_VARIABLE: &str = "RMOM_SIM_SEEDS";

/// Any error that makes a test fail, besides a panic.
pub type TestError = Box<dyn std::error::Error + Send + Sync>;

/// The configuration of a test; from [`explore`].
#[derive(Clone, Debug)]
#[must_use = "`run` runs it"]
pub struct Explore {
    seeds: u64,
    managers: usize,
    brokers: usize,
    faults: Faults,
    faults_last: Duration,
    patience: Duration,
}

/// Starts the configuration of a test: 100 seeds, 2 managers, 3 brokers, all faults for 20 simulated seconds, and a minute
/// of patience after that.
pub fn explore() -> Explore {
    Explore {
        seeds: 100,
        managers: 2,
        brokers: 3,
        faults: Faults::all(),
        faults_last: Duration::from_secs(20),
        patience: Duration::from_secs(60),
    }
}

impl Explore {
    /// The number of seeds, from 0. The environment variable `RMOM_SIM_SEEDS` overrides it.
    pub fn seeds(mut self, seeds: u64) -> Self {
        self.seeds = seeds;
        self
    }

    /// The number of managers.
    pub fn managers(mut self, managers: usize) -> Self {
        self.managers = managers;
        self
    }

    /// The number of brokers.
    pub fn brokers(mut self, brokers: usize) -> Self {
        self.brokers = brokers;
        self
    }

    /// The permitted faults. Each seed draws some of them.
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// How much simulated time faults last, from the moment at which the test first lets time pass.
    pub fn faults_last(mut self, time: Duration) -> Self {
        self.faults_last = time;
        self
    }

    /// How much simulated time the test has after all faults are over. A test that needs more fails: it is probably stuck.
    pub fn patience(mut self, time: Duration) -> Self {
        self.patience = time;
        self
    }

    /// Runs the test under all seeds, one after the other, each on a thread of its own.
    ///
    /// # Panics
    /// With the first seed that fails: when the test panics or returns an error, a service panics, or time runs out. The
    /// message lists the faults of the run, and the command that replays it.
    pub fn run(self, test: impl Fn(&mut World<'_>) -> Result<(), TestError> + Sync) {
        if let Err(failure) = self.first_failure(test) {
            panic!("{failure}");
        }
    }

    /// Like [`Explore::run`], but returns the first failure, to show that a test can fail.
    ///
    /// # Errors
    /// With the first seed that fails.
    pub fn first_failure(self, test: impl Fn(&mut World<'_>) -> Result<(), TestError> + Sync) -> Result<(), Failure> {
        let seeds = match (number(SEED_VARIABLE), number(SEEDS_VARIABLE)) {
            (Some(seed), _) => seed..seed.saturating_add(1),
            (None, seeds) => 0..seeds.unwrap_or(self.seeds),
        };
        let first = seeds.start;
        for seed in seeds {
            // The faults are reported even if the test panics.
            let faults = Mutex::new(Vec::new());
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                isolated(|| {
                    let mut world = World::new(&self, seed, &faults);
                    test(&mut world).map_err(|error| error.to_string())
                })
            }));
            let reason = match outcome {
                Ok(Ok(())) => continue,
                Ok(Err(reason)) => reason,
                Err(panic) => panic_message(panic.as_ref()),
            };
            let passed = seed - first;
            return Err(Failure { seed, passed, reason, faults: faults.into_inner(), replay: replay(seed) });
        }
        Ok(())
    }
}

/// A seed under which a test fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The number of seeds that passed before it.
    pub passed: u64,
    /// The panic's message, or the error.
    pub reason: String,
    /// The faults of the cluster until then, in order.
    pub faults: Vec<String>,
    /// The command that replays it.
    pub replay: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "seed {} failed, {} passed before it: {}", self.seed, self.passed, self.reason)?;
        if self.faults.is_empty() {
            writeln!(f, "\nthere were no faults until then")?;
        } else {
            writeln!(f, "\nthe faults until then:")?;
            for event in &self.faults {
                writeln!(f, "  {event}")?;
            }
        }
        write!(f, "\nto replay it: {}", self.replay)
    }
}

impl std::error::Error for Failure {}

/// Cargo passes a test its package; the test harness names its threads after the tests.
fn replay(seed: u64) -> String {
    let package = env::var("CARGO_PKG_NAME").map_or_else(|_| String::new(), |name| format!("-p {name} "));
    let thread = thread::current();
    let test = thread.name().filter(|name| *name != "main").unwrap_or("NAME_OF_THE_TEST");
    format!("{SEED_VARIABLE}={seed} cargo test {package}{test} -- --exact")
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} has to be a number, and is {text:?}")))
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a message".into())
}

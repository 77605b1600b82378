//! A few brokers over one store, in paused time: the environment of the targets that test a broker's logic. The brokers are
//! production's, unchanged; only their ports are replaced. One thread, no socket, no file; the same input gives the same
//! run.

#[macro_use]
mod promise;
#[macro_use]
mod steps;
mod chance;
mod database;
mod frames;
mod line;

use std::{collections::BTreeMap, fmt::Debug, sync::Arc, time::Duration};

use arbitrary::{Arbitrary, Unstructured};

use rmom_core::{
    access::Call,
    broker::{Broker, BrokerExit, BrokerSettings},
    model::{BrokerAddr, BrokerId, QueueLabel},
    ports::NeverSuspended,
    store::memory::State,
};
use tokio::task::JoinHandle;

pub(crate) use rmom_core::store::memory::Kind;

pub(crate) use self::{
    chance::Chance,
    database::{Commit, Database},
    frames::{Delivered, decode},
    line::{Fault, Line, Reading},
};

/// A broker process.
#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) broker: Broker<Call>,
    pub(crate) line: Arc<Line>,
    task: Arc<JoinHandle<BrokerExit>>,
}

impl Process {
    /// True if it has ended, in whichever way.
    pub(crate) fn is_gone(&self) -> bool {
        self.task.is_finished()
    }
}

/// See the module's description.
pub(crate) struct World {
    pub(crate) database: Arc<Database>,
    pub(crate) chance: Arc<Chance>,
    settings: BrokerSettings,
    /// The process that was started last on each host.
    running: BTreeMap<u8, Process>,
    /// The last process that lost its host to another and was not stopped.
    pub(crate) replaced: Option<Process>,
    /// Processes that crashed, and replaced ones that receive no more requests.
    gone: Vec<Process>,
}

/// Runs a whole input; time advances when all tasks are idle.
pub(crate) fn run<T>(whole: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime needs nothing that could be missing").block_on(whole)
}

fn addr(host: u8) -> BrokerAddr {
    BrokerAddr { host: "broker".into(), port: u16::from(host) + 1 }
}

impl World {
    /// A store without brokers; `change` changes the settings of all brokers.
    pub(crate) fn new(seed: u8, change: impl FnOnce(&mut BrokerSettings)) -> Self {
        let mut settings = BrokerSettings::new(addr(0));
        change(&mut settings);
        Self {
            database: Arc::new(Database::new()),
            chance: Arc::new(Chance::new(seed)),
            settings,
            running: BTreeMap::new(),
            replaced: None,
            gone: Vec::new(),
        }
    }

    pub(crate) fn settings(&self) -> &BrokerSettings {
        &self.settings
    }

    /// Starts a broker on a host. A process that runs there is not told.
    pub(crate) fn start(&mut self, host: u8) -> Process {
        let line = Line::new(self.database.clone());
        let settings = BrokerSettings { addr: addr(host), ..self.settings.clone() };
        let (broker, task) = Broker::spawn(settings, line.clone(), self.chance.clone(), Arc::new(NeverSuspended));
        let broker = broker.on_behalf_of(Call::of_process());
        let process = Process { broker, line, task: Arc::new(task) };
        if let Some(old) = self.running.insert(host, process.clone()) {
            self.gone.extend(self.replaced.replace(old));
        }
        process
    }

    /// The broker on a host, if one runs.
    pub(crate) fn on(&self, host: u8) -> Option<&Process> {
        self.running.get(&host)
    }

    /// Ends all faults, including those of processes that receive no more requests.
    pub(crate) fn repair(&self) {
        for process in self.running.values().chain(&self.replaced).chain(&self.gone) {
            process.line.repair();
        }
    }

    /// Kills the process on a host.
    pub(crate) fn crash(&mut self, host: u8) {
        if let Some(process) = self.running.remove(&host) {
            process.task.abort();
            self.gone.push(process);
        }
    }

    /// Kills all processes, and returns the stored data.
    ///
    /// # Panics
    /// If a broker's task panicked.
    pub(crate) async fn end(mut self) -> State {
        self.crash_all();
        for Process { task, .. } in self.gone.drain(..) {
            let Some(task) = Arc::into_inner(task) else { continue };
            if let Err(error) = task.await
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
        self.database.state()
    }

    /// Kills all processes.
    pub(crate) fn crash_all(&mut self) {
        self.gone.extend(self.replaced.take());
        self.gone.extend(std::mem::take(&mut self.running).into_values());
        for process in &self.gone {
            process.task.abort();
        }
    }

    /// Assigns a queue to a host's broker, like a manager.
    pub(crate) fn assign(&self, label: &QueueLabel, host: u8) {
        if let Some(broker) = self.id_of(host) {
            self.database.assign(label, broker);
        }
    }

    /// The id of a host's broker, if one ever registered.
    pub(crate) fn id_of(&self, host: u8) -> Option<BrokerId> {
        let known = self.database.transact(|state, _| state.brokers());
        known.into_iter().find(|broker| broker.addr == addr(host)).map(|broker| broker.id)
    }

    /// Lets time pass, after all tasks have done the work that is due now.
    pub(crate) async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

/// Runs the case that is encoded in `data`; if it fails, prints the case, too.
pub(crate) fn decoded<C: for<'a> Arbitrary<'a> + Debug, T>(data: &[u8], run: impl FnOnce(&C) -> T) -> Option<T> {
    struct Tell<'a, C: Debug>(&'a C);
    impl<C: Debug> Drop for Tell<'_, C> {
        #[allow(clippy::print_stderr)] // The text is for the reader of a failed test.
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("the input that failed:\n{:?}", self.0);
            }
        }
    }
    let Ok(case) = C::arbitrary_take_rest(Unstructured::new(data)) else { return None };
    let case = Tell(&case);
    Some(run(case.0))
}

//! Workers and their jobs.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    path::PathBuf,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use super::child::Worker;
use crate::{
    args::FaultArgs,
    error::Error,
    worker::{Job, Outcome},
};

/// The interval at which a waiting caller is called without news.
const TICK: Duration = Duration::from_millis(200);

/// A report from a worker or from the terminal.
pub(super) enum Report {
    /// A worker has finished its job.
    Outcome(u64, Outcome),
    /// A worker has ended.
    Ended(u64),
    /// The user requested the end.
    Interrupted,
}

/// A notification to the caller that runs jobs.
#[derive(Debug)]
pub(crate) enum PoolEvent {
    /// A job is done.
    Outcome(Outcome),
    /// Time has passed.
    Tick,
}

/// Worker processes. They end when the pool is dropped.
pub(crate) struct Pool {
    size: usize,
    deadline: Duration,
    keep: Option<PathBuf>,
    faults: FaultArgs,
    workers: BTreeMap<u64, Worker>,
    started: u64,
    reports: Receiver<Report>,
    reporting: Sender<Report>,
    interrupted: bool,
}

impl Pool {
    /// At most `size` workers, each with `deadline` for a job; files of failures go to `keep`.
    pub(crate) fn new(size: usize, deadline: Duration, keep: Option<PathBuf>, faults: FaultArgs) -> Self {
        let (reporting, reports) = mpsc::channel();
        Self {
            size,
            deadline,
            keep,
            faults,
            workers: BTreeMap::new(),
            started: 0,
            reports,
            reporting,
            interrupted: false,
        }
    }

    /// Makes Ctrl-C end the jobs instead of the program.
    pub(crate) fn interruptible(&self) {
        let reporting = self.reporting.clone();
        thread::spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else { return };
            while runtime.block_on(tokio::signal::ctrl_c()).is_ok() && reporting.send(Report::Interrupted).is_ok() {}
        });
    }

    /// True if the user interrupted it.
    pub(crate) fn was_interrupted(&self) -> bool {
        self.interrupted
    }

    /// Runs all jobs, in any order, until `each` or the user stops it.
    ///
    /// The death of a worker, or a job that exceeds the deadline, counts as a crash of the job; the worker is replaced.
    pub(crate) fn run(
        &mut self,
        jobs: impl IntoIterator<Item = Job>,
        mut each: impl FnMut(PoolEvent) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        let mut jobs = jobs.into_iter().peekable();
        loop {
            self.hand_out(&mut jobs)?;
            if self.workers.values().all(|worker| worker.job.is_none()) {
                return Ok(());
            }
            let news = match self.reports.recv_timeout(TICK) {
                Ok(Report::Outcome(id, outcome)) => self.outcome(id, outcome),
                Ok(Report::Ended(id)) => self.ended(id),
                Ok(Report::Interrupted) => {
                    self.interrupted = true;
                    self.workers.clear();
                    return Ok(());
                }
                // The channel cannot be disconnected, since `self` holds a sender.
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => self.overdue(),
            };
            if each(news)?.is_break() {
                self.workers.clear();
                return Ok(());
            }
        }
    }

    fn hand_out(&mut self, jobs: &mut std::iter::Peekable<impl Iterator<Item = Job>>) -> Result<(), Error> {
        while jobs.peek().is_some() {
            let idle = self.workers.iter().find(|(_, worker)| worker.job.is_none()).map(|(&id, _)| id);
            let id = match idle {
                Some(id) => id,
                None if self.workers.len() < self.size => self.start()?,
                None => return Ok(()),
            };
            if let (Some(worker), Some(job)) = (self.workers.get_mut(&id), jobs.next()) {
                worker.give(&job);
            }
        }
        Ok(())
    }

    fn start(&mut self) -> Result<u64, Error> {
        let id = self.started;
        self.started += 1;
        let worker = Worker::start(id, self.keep.as_deref(), &self.faults, &self.reporting)?;
        self.workers.insert(id, worker);
        Ok(id)
    }

    fn outcome(&mut self, id: u64, outcome: Outcome) -> PoolEvent {
        match self.workers.get_mut(&id) {
            Some(worker) => {
                worker.job = None;
                PoolEvent::Outcome(outcome)
            }
            // The worker answered while it was being killed, and its job already has an outcome.
            None => PoolEvent::Tick,
        }
    }

    fn ended(&mut self, id: u64) -> PoolEvent {
        let Some(mut worker) = self.workers.remove(&id) else { return PoolEvent::Tick };
        match worker.job {
            Some((seed, since)) => PoolEvent::Outcome(Outcome::crashed(seed, worker.exit_reason(), micros(since))),
            None => PoolEvent::Tick,
        }
    }

    fn overdue(&mut self) -> PoolEvent {
        let late = |worker: &Worker| worker.job.is_some_and(|(_, since)| since.elapsed() > self.deadline);
        let Some(id) = self.workers.iter().find(|(_, worker)| late(worker)).map(|(&id, _)| id) else {
            return PoolEvent::Tick;
        };
        let job = self.workers.remove(&id).and_then(|worker| worker.job);
        let Some((seed, since)) = job else { return PoolEvent::Tick };
        let why = format!("it did not end within {}", crate::output::duration(self.deadline));
        PoolEvent::Outcome(Outcome::crashed(seed, why, micros(since)))
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

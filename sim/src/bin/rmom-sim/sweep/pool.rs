//! Workers, and what they are given to do.

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

/// How often somebody who waits hears that there is no news.
const TICK: Duration = Duration::from_millis(200);

/// What comes in from workers and from the terminal.
pub(super) enum Report {
    /// A worker is done with its job.
    Outcome(u64, Outcome),
    /// A worker is no more.
    Ended(u64),
    /// The user wants it to end.
    Interrupted,
}

/// What whoever runs jobs is told.
#[derive(Debug)]
pub(crate) enum News {
    /// A job is done.
    Outcome(Outcome),
    /// Time passes.
    Tick,
}

/// Worker processes. They live as long as this does.
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
    /// `size` workers at most, each with `deadline` for a job; failures leave their files in `keep`.
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

    /// Lets Ctrl-C end what runs, and not the program.
    pub(crate) fn interruptible(&self) {
        let reporting = self.reporting.clone();
        thread::spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else { return };
            while runtime.block_on(tokio::signal::ctrl_c()).is_ok() && reporting.send(Report::Interrupted).is_ok() {}
        });
    }

    /// True if the user ended it.
    pub(crate) fn was_interrupted(&self) -> bool {
        self.interrupted
    }

    /// Has all jobs done, in any order, until `each` breaks it off or the user does.
    ///
    /// A worker that dies, or needs longer than the deadline, is a crash of its job and is replaced.
    pub(crate) fn run(
        &mut self,
        jobs: impl IntoIterator<Item = Job>,
        mut each: impl FnMut(News) -> Result<ControlFlow<()>, Error>,
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
                // This side holds a sender: nothing else can be the matter.
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

    fn outcome(&mut self, id: u64, outcome: Outcome) -> News {
        match self.workers.get_mut(&id) {
            Some(worker) => {
                worker.job = None;
                News::Outcome(outcome)
            }
            // It answered while it was being ended, and its job has an outcome.
            None => News::Tick,
        }
    }

    fn ended(&mut self, id: u64) -> News {
        let Some(mut worker) = self.workers.remove(&id) else { return News::Tick };
        match worker.job {
            Some((seed, since)) => News::Outcome(Outcome::crashed(seed, worker.obituary(), micros(since))),
            None => News::Tick,
        }
    }

    fn overdue(&mut self) -> News {
        let late = |worker: &Worker| worker.job.is_some_and(|(_, since)| since.elapsed() > self.deadline);
        let Some(id) = self.workers.iter().find(|(_, worker)| late(worker)).map(|(&id, _)| id) else {
            return News::Tick;
        };
        let job = self.workers.remove(&id).and_then(|worker| worker.job);
        let Some((seed, since)) = job else { return News::Tick };
        let why = format!("it did not end within {}", crate::output::duration(self.deadline));
        News::Outcome(Outcome::crashed(seed, why, micros(since)))
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

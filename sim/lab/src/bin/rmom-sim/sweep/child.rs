//! A worker process, as its parent sees it.

use std::{
    collections::VecDeque,
    env,
    io::{self, BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc::Sender},
    thread,
    time::Instant,
};

use super::pool::Report;
use crate::{
    args::FaultArgs,
    error::Error,
    scenario::fault_arguments,
    worker::{Job, Outcome},
};

/// The number of lines of a worker's standard error that are kept for the report of its death.
const LAST_WORDS: usize = 6;

/// A worker process. It is killed when this is dropped.
pub(super) struct Worker {
    child: Child,
    jobs: Option<ChildStdin>,
    last_words: Arc<Mutex<VecDeque<String>>>,
    /// Its job's seed, and when the job began.
    pub(super) job: Option<(u64, Instant)>,
}

impl Worker {
    /// Starts a worker that sends its reports to `reports` under `id`.
    pub(super) fn start(
        id: u64,
        keep: Option<&Path>,
        faults: &FaultArgs,
        reports: &Sender<Report>,
    ) -> Result<Self, Error> {
        let mut command = Command::new(env::current_exe().map_err(Error::Worker)?);
        command.arg("worker").args(fault_arguments(faults).split_whitespace());
        if let Some(dir) = keep {
            command.arg("--keep").arg(dir);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C at the terminal must reach only the parent, which writes the summary.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().map_err(Error::Worker)?;

        let last_words = Arc::new(Mutex::new(VecDeque::new()));
        let stderr = child.stderr.take().map(BufReader::new);
        let listening = last_words.clone();
        let listener = thread::spawn(move || {
            for line in stderr.into_iter().flat_map(|stderr| stderr.lines().map_while(Result::ok)) {
                let mut kept = listening.lock().unwrap_or_else(PoisonError::into_inner);
                kept.push_back(line);
                if kept.len() > LAST_WORDS {
                    kept.pop_front();
                }
            }
        });
        let stdout = child.stdout.take().map(BufReader::new);
        let reports = reports.clone();
        thread::spawn(move || {
            for line in stdout.into_iter().flat_map(|stdout| stdout.lines().map_while(Result::ok)) {
                // Any other line was printed by the simulated code.
                if let Ok(outcome) = serde_json::from_str::<Outcome>(&line) {
                    let _ = reports.send(Report::Outcome(id, outcome));
                }
            }
            let _ = listener.join();
            let _ = reports.send(Report::Ended(id));
        });
        let jobs = child.stdin.take();
        Ok(Self { child, jobs, last_words, job: None })
    }

    /// Gives it a job. If it has died meanwhile, its end is reported separately.
    pub(super) fn give(&mut self, job: &Job) {
        self.job = Some((job.seed(), Instant::now()));
        if let Some(jobs) = &mut self.jobs {
            let line = serde_json::to_string(job).unwrap_or_default() + "\n";
            let _ = jobs.write_all(line.as_bytes()).and_then(|()| jobs.flush());
        }
    }

    /// The reason why it ended.
    pub(super) fn exit_reason(&mut self) -> String {
        let how = self.child.wait().map_or_else(|error| error.to_string(), how_it_ended);
        let words = self.last_words.lock().unwrap_or_else(PoisonError::into_inner);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        if words.is_empty() { how } else { format!("{how}: {}", words.join(" | ")) }
    }

    /// Kills it at once.
    pub(super) fn kill(&mut self) -> io::Result<()> {
        self.jobs = None;
        self.child.kill()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.kill();
        let _ = self.child.wait();
    }
}

fn how_it_ended(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("the worker was ended by signal {signal}");
    }
    format!("the worker ended ({status})")
}

//! A process of a run's own cluster.

use std::{
    collections::VecDeque,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child, Command},
    sync::oneshot,
    time::timeout,
};

use super::usage::Usage;
use crate::{cli::error::CliError, config::configures_servers};

/// How long a process may take to report the address on which it listens.
const START_DEADLINE: Duration = Duration::from_secs(20);
/// How long it may take to stop after SIGTERM.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// Number of lines of its output that are kept.
const KEPT_LINES: usize = 20;

type Said = Arc<Mutex<VecDeque<String>>>;

/// A process. Dropping it kills the process.
pub(super) struct Server {
    pub(super) name: String,
    child: Child,
    said: Said,
}

impl Server {
    /// Starts it, and waits for the first line in which `find` finds something.
    pub(super) async fn start<T: Send + 'static>(
        name: &str,
        folder: &Path,
        mut command: Command,
        find: impl Fn(&str) -> Option<T> + Send + 'static,
    ) -> Result<(Self, T), CliError> {
        let failed =
            |reason: &dyn std::fmt::Display| CliError::unavailable(format_args!("{name} did not start: {reason}"));
        command
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // Variables set for this command do not apply to its servers.
        for (variable, _) in std::env::vars_os().filter(|(name, _)| configures_servers(name)) {
            command.env_remove(variable);
        }
        let mut child = command.spawn().map_err(|error| failed(&error))?;
        let said = Said::default();
        let (found, wanted) = oneshot::channel();
        let find = Arc::new(Mutex::new(Some((find, found))));
        let look = move |line: &str| {
            let mut waiting = find.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((find, found)) = waiting.take() {
                match find(line) {
                    // The waiting task may have given up.
                    Some(answer) => drop(found.send(answer)),
                    None => *waiting = Some((find, found)),
                }
            }
        };
        listen(child.stdout.take(), Arc::clone(&said), look.clone());
        listen(child.stderr.take(), Arc::clone(&said), look);
        let server = Self { name: name.to_owned(), child, said };
        match timeout(START_DEADLINE, wanted).await {
            Ok(Ok(answer)) => Ok((server, answer)),
            _ => Err(failed(&server.last_words())),
        }
    }

    fn last_words(&self) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_empty() { "it said nothing".to_owned() } else { Vec::from(said.clone()).join("\n") }
    }

    pub(super) fn usage(&self) -> Option<Usage> {
        self.child.id().and_then(Usage::of)
    }

    /// SIGKILL; waits until it is gone.
    pub(super) async fn kill(&mut self) -> Result<(), CliError> {
        self.child
            .kill()
            .await
            .map_err(|error| CliError::unavailable(format_args!("cannot kill {}: {error}", self.name)))
    }

    /// SIGTERM, and SIGKILL if that is not enough.
    pub(super) async fn stop(mut self) {
        if let Some(id) = self.child.id() {
            // Through the shell, which has `kill` built in.
            let asked = Command::new("sh").arg("-c").arg(format!("kill -TERM {id}")).status().await;
            if asked.is_ok_and(|status| status.success()) && timeout(STOP_DEADLINE, self.child.wait()).await.is_ok() {
                return;
            }
        }
        let _ = self.child.kill().await;
    }
}

/// Reads the output of a process as long as it lives, so that it never blocks on a full pipe.
fn listen(stream: Option<impl AsyncRead + Unpin + Send + 'static>, said: Said, look: impl Fn(&str) + Send + 'static) {
    let Some(stream) = stream else { return };
    tokio::spawn(async move {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            look(&line);
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            said.push_back(line);
            if said.len() > KEPT_LINES {
                said.pop_front();
            }
        }
    });
}

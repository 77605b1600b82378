//! One process.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rmom::config::configures_servers;

use super::{PATIENCE, eventually};

/// Number of lines of each log that are shown when a test fails.
const TAIL_LINES: usize = 60;

/// The output of a process, and its exit code.
#[derive(Debug)]
pub struct Output {
    /// Exit code. `None` means that a signal ended it.
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Output {
    /// Standard output, which has to be UTF-8.
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("the output is UTF-8")
    }

    /// Fails the test unless the exit code is 0.
    #[track_caller]
    pub fn success(self) -> Self {
        assert_eq!(self.code, Some(0), "stderr:\n{}stdout:\n{}", self.stderr, String::from_utf8_lossy(&self.stdout));
        self
    }
}

/// A command without settings from the environment.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| configures_servers(name)) {
        command.env_remove(name);
    }
    command
}

/// The binary of this package with this name.
pub fn program(name: &str) -> PathBuf {
    let rmom = Path::new(env!("CARGO_BIN_EXE_rmom"));
    rmom.with_file_name(name)
}

/// Runs a command to its end, with `input` as its standard input.
///
/// # Panics
/// If it does not end in time.
#[track_caller]
pub fn run(mut command: Command, input: impl Into<Vec<u8>>) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary is built along with the tests");
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = input.into();
    thread::spawn(move || {
        // A command that does not read its input may close it.
        let _ = stdin.write_all(&input);
    });
    let id = child.id();
    let ended = thread::spawn(move || child.wait_with_output());
    let started = Instant::now();
    while !ended.is_finished() {
        if started.elapsed() > 2 * PATIENCE {
            signal(id, "KILL");
            panic!("{command:?} did not end within {:?}", 2 * PATIENCE);
        }
        thread::sleep(Duration::from_millis(5));
    }
    let output = ended.join().expect("waiting does not panic").expect("the process can be waited for");
    Output {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs `rmom` against a manager.
#[track_caller]
pub fn rmom(manager: &str, args: &[&str], input: impl Into<Vec<u8>>) -> Output {
    let mut command = command(program("rmom"));
    command.args(args).env("RMOM_MANAGER", manager);
    run(command, input)
}

/// Runs a binary of this package in a directory, with some environment variables.
#[track_caller]
pub fn rmom_in(directory: &Path, name: &str, args: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = command(program(name));
    command.args(args).current_dir(directory).envs(environment.iter().copied());
    run(command, "")
}

/// A process that keeps running during the test. Dropping it kills the process; if the test failed, its log is shown.
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    stdin: Option<ChildStdin>,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts it with a standard input that [`Process::feed`] writes to. Its output goes to files in `directory`, after the
    /// output of an earlier process of the same name.
    #[track_caller]
    pub fn spawn(name: &str, directory: &Path, mut command: Command) -> Self {
        let (stdout, stderr) = (directory.join(format!("{name}.out")), directory.join(format!("{name}.log")));
        let open = |path: &Path| -> File {
            fs::OpenOptions::new().create(true).append(true).open(path).expect("the test's directory is writable")
        };
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(open(&stdout))
            .stderr(open(&stderr))
            .spawn()
            .expect("the binary is built along with the tests");
        let stdin = child.stdin.take();
        Self { name: name.to_owned(), child, stdout, stderr, stdin, ended: None }
    }

    /// Writes to its standard input, which then waits for more.
    #[track_caller]
    pub fn feed(&mut self, input: impl AsRef<[u8]>) {
        let stdin = self.stdin.as_mut().expect("the input was not ended yet");
        stdin.write_all(input.as_ref()).expect("the process reads its input");
    }

    /// Ends its standard input.
    pub fn end_input(&mut self) {
        self.stdin = None;
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it has written to standard output.
    pub fn stdout(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    /// Everything that it has written to standard error.
    pub fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// Waits until `find` finds something in the output (standard output, standard error).
    ///
    /// # Panics
    /// If it does not in time, or the process ends first.
    #[track_caller]
    pub fn wait_until<T>(&mut self, what: &str, mut find: impl FnMut(&str, &str) -> Option<T>) -> T {
        eventually(&format!("{}: {what}", self.name), || {
            let ended = self.child.try_wait().expect("it can be waited for");
            let found = find(&self.stdout(), &self.stderr());
            if found.is_none() {
                assert!(ended.is_none(), "{} ended with {ended:?}; waited for {what}\n{}", self.name, self.stderr());
            }
            found
        })
    }

    /// Waits until standard error has a line with this text, and returns the last such line.
    #[track_caller]
    pub fn wait_for_log(&mut self, text: &str) -> String {
        self.wait_until(text, |_, stderr| stderr.lines().rev().find(|line| line.contains(text)).map(str::to_owned))
    }

    /// Sends a signal by its name without SIG.
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.ended = self.child.wait().ok();
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end in time.
    #[track_caller]
    pub fn wait(&mut self) -> Option<i32> {
        let name = self.name.clone();
        let status = eventually(&format!("{name} ends"), || self.child.try_wait().expect("it can be waited for"));
        self.ended = Some(status);
        status.code()
    }

    /// Sends SIGTERM, and waits until it has stopped.
    #[track_caller]
    pub fn stop(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.kill();
        }
        if thread::panicking() {
            let log = self.stderr();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
            eprintln!("--- {} (process {}), last {} lines:\n{}", self.name, self.id(), tail.len(), tail.join("\n"));
        }
    }
}

/// Through the shell, which has `kill` built in.
fn signal(id: u32, name: &str) {
    let killed = Command::new("sh").arg("-c").arg(format!("kill -{name} {id}")).status();
    assert!(killed.is_ok_and(|status| status.success()), "cannot send {name} to {id}");
}

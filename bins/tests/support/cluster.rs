//! Managers and brokers as separate processes, on one PostgreSQL database.

use std::{fs, path::PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use super::{
    eventually, get,
    process::{Process, command, program},
};

/// The cluster to start.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    pub brokers: usize,
    pub managers: usize,
    /// `postgres://…`
    pub database_url: String,
    /// Lines added to every broker's YAML.
    pub broker_settings: String,
    /// Lines added to every manager's `[default]`.
    pub manager_settings: String,
    /// `RUST_LOG` of all processes.
    pub log: String,
}

impl ClusterOptions {
    /// Three brokers and two managers, which check the brokers twice a second.
    pub fn new(database_url: impl Into<String>) -> Self {
        Self {
            brokers: 3,
            managers: 2,
            database_url: database_url.into(),
            broker_settings: String::new(),
            manager_settings: "manager_cycle_millis = 500\n".to_owned(),
            log: "info".to_owned(),
        }
    }
}

/// A broker or manager.
pub struct Server {
    binary: &'static str,
    name: String,
    config: PathBuf,
    directory: PathBuf,
    log: String,
    /// The address on which it listens.
    pub authority: String,
    /// `None` means that it was killed or stopped.
    pub process: Option<Process>,
}

impl Server {
    /// Starts a server whose configuration has `PORT` in place of its port; waits until it listens.
    fn start(binary: &'static str, name: &str, directory: &TempDir, config: &str, log: &str) -> Self {
        let directory = directory.path().to_owned();
        let path = directory.join(format!("{name}.conf"));
        fs::write(&path, config.replace("PORT", "0")).expect("the test's directory is writable");
        let mut server = Self {
            binary,
            name: name.to_owned(),
            config: path,
            directory,
            log: log.to_owned(),
            authority: String::new(),
            process: None,
        };
        server.spawn();
        let process = server.process.as_mut().expect("it was just started");
        let line = process.wait_for_log(&format!("{binary} starts"));
        server.authority = serde_json::from_str::<Value>(&line)
            .ok()
            .and_then(|line| Some(line["listening"].as_str()?.to_owned()))
            .unwrap_or_else(|| panic!("no address in {line}"));
        // A restarted server has to keep its port, in order to be the same server.
        let port = server.authority.rsplit(':').next().expect("an address has a port");
        fs::write(&server.config, config.replace("PORT", port)).expect("the test's directory is writable");
        server
    }

    fn spawn(&mut self) {
        let mut command = command(program(self.binary));
        command.arg(&self.config).args(["--log-format", "json"]).env("RUST_LOG", &self.log);
        self.process = Some(Process::spawn(&self.name, &self.directory, command));
    }

    fn running(&self) -> &Process {
        self.process.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name))
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut process = self.process.take().unwrap_or_else(|| panic!("{} does not run", self.name));
        process.kill();
    }

    /// SIGTERM, and waits; returns the exit code.
    #[track_caller]
    pub fn stop(&mut self) -> Option<i32> {
        let mut process = self.process.take().unwrap_or_else(|| panic!("{} does not run", self.name));
        process.stop()
    }

    /// SIGSTOP: it keeps its connections and does nothing.
    pub fn pause(&self) {
        self.running().signal("STOP");
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.running().signal("CONT");
    }

    /// Starts it again after [`Server::kill`] or [`Server::stop`], on the same port; does not wait.
    pub fn restart(&mut self) {
        assert!(self.process.is_none(), "{} runs", self.name);
        self.spawn();
    }

    /// True if it accepts requests.
    pub fn is_ready(&self) -> bool {
        get(&self.authority, "/readyz").is_some_and(|(status, _)| status == 200)
    }

    /// Waits until it accepts requests.
    #[track_caller]
    pub fn wait_until_ready(&self) {
        eventually(&format!("{} is ready", self.name), || self.is_ready().then_some(()));
    }
}

/// Brokers and managers. Dropping it kills all of them.
pub struct Cluster {
    pub brokers: Vec<Server>,
    pub managers: Vec<Server>,
    directory: TempDir,
}

impl Cluster {
    /// Starts them, and waits until the managers count every broker as alive.
    #[track_caller]
    pub fn start(options: &ClusterOptions) -> Self {
        let directory = tempfile::tempdir().expect("there is a directory for temporary files");
        let ClusterOptions { database_url, broker_settings, manager_settings, log, .. } = options;
        let broker = format!(
            "host: 127.0.0.1\nport: PORT\nexternal_port: PORT\ndatabase:\n  url: \"{database_url}\"\n{broker_settings}"
        );
        let manager = format!(
            "[default]\nport = PORT\n{manager_settings}[default.databases.rmom_manager]\nurl = \"{database_url}\"\n"
        );
        let start = |binary, what: &str, config: &str, count| -> Vec<Server> {
            let one = |number| Server::start(binary, &format!("{what}-{number}"), &directory, config, log);
            (1..=count).map(one).collect()
        };
        let managers = start("rmom-manager", "manager", &manager, options.managers);
        let brokers = start("rmom-broker", "broker", &broker, options.brokers);
        let cluster = Self { brokers, managers, directory };
        for manager in &cluster.managers {
            manager.wait_until_ready();
            eventually("all brokers are alive", || (live_brokers(manager) == Some(options.brokers)).then_some(()));
        }
        cluster
    }

    /// The URLs of all managers.
    pub fn manager_urls(&self) -> Vec<String> {
        self.managers.iter().map(|manager| format!("http://{}", manager.authority)).collect()
    }

    /// The broker that hosts a queue, as an index into [`Cluster::brokers`], according to the first manager that answers.
    pub fn host_of(&self, queue: &str) -> Option<usize> {
        let answers = self.managers.iter().filter(|manager| manager.process.is_some());
        let (status, body) =
            answers.filter_map(|manager| get(&manager.authority, &format!("/queues/{queue}"))).next()?;
        let place: Value = serde_json::from_str(&body).ok().filter(|_| status == 200)?;
        let authority = format!("{}:{}", place["host"].as_str()?, place["port"]);
        self.brokers.iter().position(|broker| broker.authority == authority)
    }

    /// The manager that leads, as an index into [`Cluster::managers`].
    pub fn leader(&self) -> Option<usize> {
        self.managers.iter().position(|manager| {
            let status = get(&manager.authority, "/v1/status").and_then(|(_, body)| serde_json::from_str(&body).ok());
            status.is_some_and(|status: Value| status["leading"] == true)
        })
    }

    /// The directory of configurations and logs.
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }
}

fn live_brokers(manager: &Server) -> Option<usize> {
    let (_, body) = get(&manager.authority, "/v1/brokers")?;
    let brokers: Value = serde_json::from_str(&body).ok()?;
    Some(brokers["brokers"].as_array()?.iter().filter(|broker| broker["live"] == true).count())
}

//! A cluster that a run starts for itself.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use super::{args::TargetArgs, database::Database, process::Server, usage::Usage};
use crate::cli::{error::CliError, output::tell, session::Session};

/// How often the manager checks the brokers, as in `rmom dev`.
const CYCLE_MILLIS: u32 = 500;
/// The servers' log level: enough to read the addresses on which they listen.
const LOG: &str = "warn,rmom=info";

/// A cluster with a temporary folder or a database of its own.
pub(super) struct OwnCluster {
    /// The manager's address.
    pub(super) manager: String,
    /// The brokers' addresses.
    pub(super) brokers: Vec<String>,
    kind: Kind,
    folder: TempDir,
}

enum Kind {
    /// All in one process.
    Embedded(Box<Server>),
    /// In the order of [`OwnCluster::brokers`]; `None` means that the broker was killed.
    Postgres { manager: Box<Server>, brokers: Vec<Option<Server>>, database: Box<Database> },
}

impl OwnCluster {
    /// Starts the cluster that the arguments ask for, if they do.
    pub(super) async fn start(args: &TargetArgs, default_brokers: u16) -> Result<Option<Self>, CliError> {
        let brokers = args.brokers.unwrap_or(default_brokers);
        let folder = || tempfile::Builder::new().prefix("rmom-bench-").tempdir().map_err(CliError::unavailable);
        match &args.postgres {
            Some(url) => Self::postgres(folder()?, url, brokers).await.map(Some),
            None if args.embedded => Self::embedded(folder()?, brokers).await.map(Some),
            None if args.brokers.is_some() => {
                Err(CliError::usage("--brokers is for a cluster of the run's own: --embedded or --postgres URL"))
            }
            None => Ok(None),
        }
    }

    async fn embedded(folder: TempDir, brokers: u16) -> Result<Self, CliError> {
        let mut command = Command::new(env::current_exe().map_err(CliError::unavailable)?);
        command.args(["dev", "--json", "--port", "0", "--data", "data", "--brokers", &brokers.to_string()]);
        let announced =
            |line: &str| serde_json::from_str::<Value>(line).ok().filter(|line| line["manager"].is_string());
        let (server, line) = Server::start("rmom dev", folder.path(), command, announced).await?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let brokers = line["brokers"].as_array().into_iter().flatten().map(text).collect();
        Ok(Self { manager: text(&line["manager"]), brokers, kind: Kind::Embedded(Box::new(server)), folder })
    }

    async fn postgres(folder: TempDir, url: &str, count: u16) -> Result<Self, CliError> {
        let database = Database::create(url).await?;
        let url = database.url();
        let start = async {
            let config = format!(
                "[default]\nport = 0\nmanager_cycle_millis = {CYCLE_MILLIS}\n[default.log]\nlevel = \"{LOG}\"\n\
                 [default.databases.rmom_manager]\nurl = \"{url}\"\n"
            );
            let file = write(folder.path(), "manager.toml", &config)?;
            let (manager, authority) = start_server("rmom-manager", "manager", folder.path(), &file).await?;
            let mut brokers = Vec::new();
            let mut authorities = Vec::new();
            for number in 1..=count {
                let file = folder.path().join(format!("broker-{number}.yaml"));
                let config = |port: &str| {
                    format!(
                        "host: 127.0.0.1\nport: {port}\nexternal_port: {port}\nlog:\n  level: \"{LOG}\"\n\
                         database:\n  url: \"{url}\"\n"
                    )
                };
                fs::write(&file, config("0")).map_err(CliError::unavailable)?;
                let (broker, authority) =
                    start_server("rmom-broker", &format!("broker {number}"), folder.path(), &file).await?;
                // A restarted broker has to keep its port, in order to be the same broker.
                let port = authority.rsplit(':').next().unwrap_or_default();
                fs::write(&file, config(port)).map_err(CliError::unavailable)?;
                brokers.push(Some(broker));
                authorities.push(authority);
            }
            Ok((manager, authority, brokers, authorities))
        };
        match start.await {
            Ok((manager, authority, brokers, authorities)) => Ok(Self {
                manager: format!("http://{authority}"),
                brokers: authorities,
                kind: Kind::Postgres { manager: Box::new(manager), brokers, database: Box::new(database) },
                folder,
            }),
            Err(error) => {
                // The first failure is the one to report.
                let _ = database.drop_it().await;
                Err(error)
            }
        }
    }

    /// Its settings, for the report.
    pub(super) fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = vec![("brokers", self.brokers.len().to_string())];
        match &self.kind {
            Kind::Embedded(_) => settings.insert(0, ("store", "SQLite, in one process with the brokers".to_owned())),
            Kind::Postgres { database, .. } => {
                settings.insert(0, ("store", "PostgreSQL".to_owned()));
                settings.extend(database.settings.iter().cloned());
            }
        }
        settings
    }

    /// The usage of each running process.
    pub(super) fn usages(&self) -> Vec<(String, Usage)> {
        let servers: Vec<&Server> = match &self.kind {
            Kind::Embedded(server) => vec![server.as_ref()],
            Kind::Postgres { manager, brokers, .. } => {
                [manager.as_ref()].into_iter().chain(brokers.iter().flatten()).collect()
            }
        };
        servers.into_iter().filter_map(|server| Some((server.name.clone(), server.usage()?))).collect()
    }

    fn index(&self, broker: &str) -> Result<usize, CliError> {
        let index = self.brokers.iter().position(|authority| authority == broker);
        index.ok_or_else(|| CliError::refused(format_args!("the cluster has no broker at {broker}")))
    }

    /// Ends a broker like a power cut.
    pub(super) async fn crash(&mut self, session: &Session, broker: &str) -> Result<(), CliError> {
        let index = self.index(broker)?;
        match &mut self.kind {
            Kind::Embedded(_) => session.post(&format!("/v1/dev/brokers/{}/crash", index + 1)).await,
            Kind::Postgres { brokers, .. } => match brokers[index].take() {
                Some(mut server) => server.kill().await,
                None => Err(CliError::refused(format_args!("the broker at {broker} does not run"))),
            },
        }
    }

    /// Starts the broker again.
    pub(super) async fn restart(&mut self, session: &Session, broker: &str) -> Result<(), CliError> {
        let index = self.index(broker)?;
        let folder = self.folder.path().to_owned();
        match &mut self.kind {
            Kind::Embedded(_) => session.post(&format!("/v1/dev/brokers/{}/restart", index + 1)).await,
            Kind::Postgres { brokers, .. } => {
                let file = folder.join(format!("broker-{}.yaml", index + 1));
                let (server, _) = start_server("rmom-broker", &format!("broker {}", index + 1), &folder, &file).await?;
                brokers[index] = Some(server);
                Ok(())
            }
        }
    }

    /// Stops everything and cleans up.
    pub(super) async fn stop(self) {
        match self.kind {
            Kind::Embedded(server) => server.stop().await,
            Kind::Postgres { manager, brokers, database } => {
                futures_util::future::join_all(brokers.into_iter().flatten().map(Server::stop)).await;
                manager.stop().await;
                if let Err(error) = database.drop_it().await {
                    tell(format_args!("rmom: the run's database is left behind: {error}"));
                }
            }
        }
    }
}

fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf, CliError> {
    let path = folder.join(name);
    fs::write(&path, text).map_err(CliError::unavailable)?;
    Ok(path)
}

/// Starts a server of the same build, found beside this program; its log tells the address on which it listens.
async fn start_server(binary: &str, name: &str, folder: &Path, config: &Path) -> Result<(Server, String), CliError> {
    let program = env::current_exe().map_err(CliError::unavailable)?.with_file_name(binary);
    if !program.is_file() {
        return Err(CliError::unavailable(format_args!("there is no {}", program.display()))
            .hint("A cluster on PostgreSQL takes all programs; build them with: cargo build --release"));
    }
    let mut command = Command::new(program);
    command.arg(config).args(["--log-format", "json"]);
    let runs = format!("{binary} runs");
    let listening = move |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["message"].as_str()? == runs).then(|| line["listening"].as_str().map(str::to_owned))?
    };
    Server::start(name, folder, command, listening).await
}

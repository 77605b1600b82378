//! `rmom-manager`, once its configuration has been read.

use std::{sync::Arc, time::Duration};

use rmom_core::manager::{Manager, ManagerExit};
use rmom_net::{entropy::OsEntropy, grpc::GrpcControl, rest::RestSettings, serve::ServeStats};

use super::{
    Exit, Kind, Node, NodeEnd, Signals, StartError, Starting, Transports, authority, refuse, routers, stop, store,
};
use crate::config::ManagerConfig;

/// The program's name in the log.
const PROGRAM: &str = "rmom-manager";

/// Runs a manager until it is told to stop, or cannot go on.
pub async fn run_manager(config: ManagerConfig) -> Exit {
    match start_and_run(config).await {
        Ok(exit) => exit,
        Err(error @ StartError::Transport(_)) => refuse(PROGRAM, error, Exit::Usage),
        Err(error) => refuse(PROGRAM, error, Exit::Unavailable),
    }
}

async fn start_and_run(config: ManagerConfig) -> Result<Exit, StartError> {
    let mut signals = Signals::new().map_err(StartError::System)?;
    let transports = Transports::new(&config.tls, config.connections.addresses_tell())?;
    let listener =
        transports.listen.bind(&authority(&config.address, config.port)).await.map_err(StartError::Listen)?;
    let local = listener.local_addr();
    let deadline = Duration::from_secs(config.shutdown_timeout_secs);
    let database = &config.databases.rmom_manager;

    let (router, ready) = Starting::router(Kind::Manager);
    let stats = Arc::new(ServeStats::default());
    let mut node = Node::serve(listener, config.connections.settings(deadline), Arc::clone(&stats), |_| router);
    tracing::info!(listening = %local, database = %database.url.redacted(), "{PROGRAM} starts");

    let store = tokio::select! {
        biased;
        signal = signals.next() => {
            tracing::info!(signal, "stopped while waiting for the database");
            return Ok(Exit::Ok);
        }
        store = store::open(database, Duration::from_millis(config.store_timeout_millis), &ready, &stats) => store?,
    };
    let control = Arc::new(GrpcControl::new(transports.connect));
    let (manager, core) = Manager::spawn(config.settings(), store, control, Arc::new(OsEntropy));
    node.set_core(core);
    ready.serve(routers::manager(&manager, rest_settings(&config), stats));
    tracing::info!(listening = %local, "{PROGRAM} runs");

    let end = tokio::select! {
        biased;
        signal = signals.next() => {
            tracing::info!(signal, ?deadline, "stopping; once more stops at once");
            let stopped = node.shutdown(manager.shutdown(deadline));
            return Ok(stop(stopped, deadline, &mut signals).await);
        }
        end = node.ended() => end,
    };
    Ok(match end {
        NodeEnd::Core(ManagerExit::Stopped) => Exit::Ok,
        NodeEnd::Panicked(panic) => {
            tracing::error!(panic, "a defect of rmom; please report it");
            Exit::Internal
        }
    })
}

/// The manager's own deadlines give more precise errors than the API's, so they pass first.
fn rest_settings(config: &ManagerConfig) -> RestSettings {
    let defaults = RestSettings::default();
    let longest = Duration::from_millis(config.create_timeout_millis.max(config.admin_timeout_millis));
    RestSettings { request_deadline: defaults.request_deadline.max(longest + Duration::from_secs(1)), ..defaults }
}

//! `rmom-broker`, once its configuration has been read.

use std::{sync::Arc, time::Duration};

use rmom_core::broker::{Broker, BrokerExit};
use rmom_net::{clock::SystemUptime, entropy::OsEntropy, serve::ServeStats};
use tokio::time::{Instant, sleep};

use super::{
    Exit, Kind, Node, NodeEnd, Signals, StartError, Starting, Transports, authority, port_of, refuse, routers, stop,
    store,
};
use crate::config::BrokerConfig;

/// The program's name in the log.
const PROGRAM: &str = "rmom-broker";
/// A broker that was replaced has run for at least this long when it ends. Twins that are restarted for ever move their
/// queues to and fro no more often than this.
const TWIN_PAUSE: Duration = Duration::from_secs(10);

/// Runs a broker until it is told to stop, or cannot go on.
pub async fn run_broker(config: BrokerConfig) -> Exit {
    match start_and_run(config).await {
        Ok(exit) => exit,
        Err(error @ StartError::Transport(_)) => refuse(PROGRAM, error, Exit::Usage),
        Err(error) => refuse(PROGRAM, error, Exit::Unavailable),
    }
}

async fn start_and_run(config: BrokerConfig) -> Result<Exit, StartError> {
    let started = Instant::now();
    let mut signals = Signals::new().map_err(StartError::System)?;
    let transports = Transports::new(&config.tls, config.connections.addresses_tell())?;
    let listener = transports.listen.bind(&authority(&config.host, config.port)).await.map_err(StartError::Listen)?;
    let local = listener.local_addr();
    let settings = config.settings(port_of(&local));
    let addr = settings.addr.clone();
    let deadline = Duration::from_secs(config.shutdown_timeout_secs);

    let (router, ready) = Starting::router(Kind::Broker);
    let stats = Arc::new(ServeStats::default());
    let mut node = Node::serve(listener, config.connections.settings(deadline), Arc::clone(&stats), |_| router);
    tracing::info!(listening = %local, external = %addr, database = %config.database.url.redacted(), "{PROGRAM} starts");

    let store = tokio::select! {
        biased;
        signal = signals.next() => {
            tracing::info!(signal, "stopped while waiting for the database");
            return Ok(Exit::Ok);
        }
        store = store::open(&config.database, Duration::from_millis(config.store_timeout_millis), &ready, &stats) => store?,
    };
    let (broker, core) = Broker::spawn(settings, store, Arc::new(OsEntropy), Arc::new(SystemUptime));
    node.set_core(core);
    ready.serve(routers::broker(&broker, config.max_message_bytes, stats, node.stop_token()));
    tracing::info!(listening = %local, external = %addr, "{PROGRAM} runs");

    let end = tokio::select! {
        biased;
        signal = signals.next() => {
            tracing::info!(signal, ?deadline, "stopping; once more stops at once");
            let stopped = node.shutdown(broker.shutdown(deadline));
            return Ok(stop(stopped, deadline, &mut signals).await);
        }
        end = node.ended() => end,
    };
    Ok(match end {
        NodeEnd::Core(BrokerExit::Stopped) => Exit::Ok,
        NodeEnd::Core(BrokerExit::Replaced) => {
            tracing::error!(external = %addr, "another process registered as this broker: each needs an external_host and external_port of its own");
            // If a supervisor restarts this program, it replaces the other one in turn: the pause limits how often.
            tokio::select! {
                biased;
                _ = signals.next() => {}
                () = sleep(TWIN_PAUSE.saturating_sub(started.elapsed())) => {}
            }
            Exit::Replaced
        }
        NodeEnd::Panicked(panic) => {
            tracing::error!(panic, "a defect of rmom; please report it");
            Exit::Internal
        }
    })
}

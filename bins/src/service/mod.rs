//! What the servers do between their arguments and their end: listen, open the store, run, stop in good order.

mod broker;
mod exit;
mod manager;
mod node;
pub(crate) mod routers;
mod signals;
mod starting;
mod store;
mod tls;

use std::{fmt::Display, future::Future, time::Duration};

use tokio::time::timeout;

pub use broker::run_broker;
pub use exit::Exit;
pub use manager::run_manager;
pub use node::{Node, NodeEnd, serve_settings};
pub use signals::Signals;
pub use starting::{Ready, Starting};
pub use tls::{TransportError, Transports};

/// What stopping may take beyond its deadlines.
const STOP_SLACK: Duration = Duration::from_secs(1);

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The runtime or the signals.
    #[error("the system refuses to start this program: {0}")]
    System(std::io::Error),
    /// Certificates.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The port is taken, or not allowed.
    #[error("{0}; is another program running there?")]
    Listen(std::io::Error),
    /// The database cannot be used as it is.
    #[error(transparent)]
    Store(#[from] rmom_net::store::OpenError),
}

/// `host:port`, with brackets around an IPv6 address.
#[must_use]
pub fn authority(host: &str, port: u16) -> String {
    rmom_core::model::BrokerAddr { host: host.to_owned(), port }.authority()
}

/// The port of a `host:port`.
pub(crate) fn port_of(authority: &str) -> u16 {
    authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or_default()
}

/// Runs `future` to its end on a runtime of its own.
///
/// # Errors
/// There is no runtime to be had.
pub fn block_on<T>(future: impl Future<Output = T>) -> Result<T, StartError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(StartError::System)?;
    let result = runtime.block_on(future);
    // A thread that waits for standard input would hold the process back.
    runtime.shutdown_background();
    Ok(result)
}

/// Logs why a server did not start, and turns it into an exit code.
fn refuse(program: &str, error: impl Display, exit: Exit) -> Exit {
    tracing::error!(%error, "{program} cannot start");
    exit
}

/// Stops in good order; at once at another signal, or if it takes much longer than it may.
async fn stop(stopped: impl Future<Output = ()>, deadline: Duration, signals: &mut Signals) -> Exit {
    // The core's deadline and then the server's.
    let limit = deadline.saturating_mul(2) + STOP_SLACK;
    tokio::select! {
        biased;
        signal = signals.next() => tracing::warn!(signal, "stopped at once"),
        stopped = timeout(limit, stopped) => match stopped {
            Ok(()) => tracing::info!("stopped"),
            Err(_) => tracing::warn!(?limit, "not everything stopped in time; it is cut off"),
        },
    }
    Exit::Ok
}

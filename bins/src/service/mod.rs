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

use std::{env, fmt::Display, future::Future, num::NonZero, time::Duration};

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

/// How many threads a runtime has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// One for each core.
    PerCore,
    /// One less than there are cores, and at least one: for servers, and for whatever loads a server that runs beside it. The
    /// kernel and, on small machines, the database need a core as well, and a push crosses from thread to thread less often:
    /// with one thread on two cores it takes a tenth less time and a third less of a broker's CPU than with two.
    LeaveOne,
    /// So many.
    Exactly(NonZero<usize>),
}

impl Threads {
    /// How many, if it is not left to tokio; `TOKIO_WORKER_THREADS` is stronger than what was not asked for by number.
    fn count(self, cores: usize, is_set: bool) -> Option<usize> {
        match self {
            Self::Exactly(count) => Some(count.get()),
            Self::LeaveOne if !is_set => Some(cores.saturating_sub(1).max(1)),
            Self::LeaveOne | Self::PerCore => None,
        }
    }
}

/// Runs `future` to its end on a runtime of its own.
///
/// # Errors
/// There is no runtime to be had.
pub fn block_on<T>(threads: Threads, future: impl Future<Output = T>) -> Result<T, StartError> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    if let Some(count) = threads.count(cores, env::var_os("TOKIO_WORKER_THREADS").is_some()) {
        builder.worker_threads(count);
    }
    let runtime = builder.enable_all().build().map_err(StartError::System)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_is_left_to_others_unless_somebody_says_how_many_threads() {
        let counts = [1, 2, 3, 16].map(|cores| Threads::LeaveOne.count(cores, false));
        assert_eq!(counts, [Some(1), Some(1), Some(2), Some(15)]);
        assert_eq!(Threads::LeaveOne.count(16, true), None);
        assert_eq!(Threads::PerCore.count(16, false), None);
        assert_eq!(Threads::Exactly(NonZero::new(3).unwrap()).count(16, true), Some(3));
    }
}

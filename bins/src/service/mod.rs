//! The work of the servers: listen, open the store, run, stop in good order.

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
pub use routers::Kind;
pub use signals::Signals;
pub(crate) use starting::STARTING;
pub use starting::{Ready, Starting};
pub use tls::{TransportError, Transports};

/// Time that stopping may take beyond its deadlines.
const STOP_SLACK: Duration = Duration::from_secs(1);

/// The reason why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The runtime or the signal handlers failed.
    #[error("the system refuses to start this program: {0}")]
    System(std::io::Error),
    /// Certificates cannot be used.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The port is taken, or not allowed.
    #[error("{0}; is another program running there?")]
    Listen(std::io::Error),
    /// The database cannot be used in its present state.
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

/// The number of threads of a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// One for each core.
    PerCore,
    /// One less than there are cores, but at least one: for servers, and for a load that runs beside a server. The kernel
    /// and, on small machines, the database need a core as well, and a push moves between threads less often. With one
    /// thread on two cores, a push takes a tenth less time and a third less of a broker's CPU time than with two.
    LeaveOne,
    /// This many.
    Exactly(NonZero<usize>),
}

impl Threads {
    /// The number, or `None` if tokio chooses it; `TOKIO_WORKER_THREADS` overrides everything except an explicit number.
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
/// The runtime cannot be created.
pub fn block_on<T>(threads: Threads, future: impl Future<Output = T>) -> Result<T, StartError> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    if let Some(count) = threads.count(cores, env::var_os("TOKIO_WORKER_THREADS").is_some()) {
        builder.worker_threads(count);
    }
    let runtime = builder.enable_all().build().map_err(StartError::System)?;
    let result = runtime.block_on(future);
    // A thread that waits for standard input would delay the exit.
    runtime.shutdown_background();
    Ok(result)
}

/// Logs the reason why a server did not start, and returns the exit code.
fn refuse(program: &str, error: impl Display, exit: Exit) -> Exit {
    tracing::error!(%error, "{program} cannot start");
    exit
}

/// Stops in good order; at once on another signal, or if it takes much longer than allowed.
async fn stop(stopped: impl Future<Output = ()>, deadline: Duration, signals: &mut Signals) -> Exit {
    // The core's deadline, followed by the server's.
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

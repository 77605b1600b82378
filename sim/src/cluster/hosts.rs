//! The processes on the hosts: brokers and managers, wired as in production.

use std::{cell::RefCell, fmt::Debug, future::pending, rc::Rc, sync::Arc, time::Duration};

use axum::Router;
use rmom_core::{
    broker::{Broker, BrokerExit, BrokerSettings},
    manager::{Manager, ManagerSettings},
    model::BrokerAddr,
    ports::{Entropy, Transport as _, Uptime},
};
use rmom_net::{
    grpc::{BrokerService, GrpcControl, broker_router},
    rest::{self, RestSettings},
    serve::{
        DEFAULT_IDLE_TIMEOUT, DEFAULT_MAX_CONNECTIONS, DEFAULT_MAX_CONNECTIONS_PER_PEER, DEFAULT_MAX_RECEIVE_BYTES,
        DEFAULT_SHUTDOWN_DEADLINE, ServeSettings, ServeStats, serve,
    },
};
use tokio_util::sync::CancellationToken;

use super::SimNet;
use crate::{
    database::{Database, RemoteStore},
    determinism::libc_shim,
};

/// The port of every broker.
pub const BROKER_PORT: u16 = 50_051;
/// The port of every manager.
pub const MANAGER_PORT: u16 = 8_082;

/// The name of a broker's host; brokers are counted from 1.
#[must_use]
pub fn broker_host(number: usize) -> String {
    format!("broker-{number}")
}

/// The name of a manager's host; managers are counted from 1.
#[must_use]
pub fn manager_host(number: usize) -> String {
    format!("manager-{number}")
}

/// The defaults, except for the keepalive: the simulated network does not retransmit, so a connection that lost a packet
/// never recovers and must be detected soon.
pub(super) const SERVING: ServeSettings = ServeSettings {
    max_connections: DEFAULT_MAX_CONNECTIONS,
    max_connections_per_peer: DEFAULT_MAX_CONNECTIONS_PER_PEER,
    max_receive_bytes: DEFAULT_MAX_RECEIVE_BYTES,
    idle_timeout: DEFAULT_IDLE_TIMEOUT,
    keepalive_interval: Duration::from_secs(2),
    keepalive_timeout: Duration::from_secs(1),
    shutdown_deadline: DEFAULT_SHUTDOWN_DEADLINE,
};

/// The address of a broker.
pub(super) fn broker_addr(number: usize) -> BrokerAddr {
    BrokerAddr { host: broker_host(number), port: BROKER_PORT }
}

/// The URL of a manager.
pub(super) fn manager_url(number: usize) -> String {
    format!("http://{}:{MANAGER_PORT}", manager_host(number))
}

/// The name of the host for a second process under a broker's address.
pub(super) fn twin_of(broker: &str) -> String {
    format!("twin-of-{broker}")
}

/// Hosts whose processes ended by themselves because another process took their place. They must be stopped: a process takes
/// its threads and sockets with it.
#[derive(Debug, Default)]
pub(super) struct Exits(RefCell<Vec<String>>);

impl Exits {
    /// Takes the hosts noted since the last call.
    pub(super) fn take(&self) -> Vec<String> {
        self.0.take()
    }
}

/// Simulated time, which runs on regardless of a host's own clocks.
#[derive(Debug)]
struct SimUptime;

impl Uptime for SimUptime {
    fn uptime(&self) -> Duration {
        libc_shim::elapsed()
    }
}

/// Runs a broker from its start until its host crashes. `host` is the host on which it runs.
pub(super) async fn run_broker(
    host: String,
    settings: BrokerSettings,
    serving: ServeSettings,
    database: Database,
    entropy: Arc<dyn Entropy>,
    exits: Rc<Exits>,
) -> turmoil::Result {
    let store = Arc::new(RemoteStore::new(database, settings.addr.host.clone()));
    let max_message_bytes = settings.max_message_bytes;
    let (broker, core) = Broker::spawn(settings, store, entropy, Arc::new(SimUptime));
    let core = async move {
        let exit = core.await;
        if exit.as_ref().is_ok_and(|exit| *exit == BrokerExit::Replaced) {
            exits.0.borrow_mut().push(host);
            pending::<()>().await;
        }
        exit
    };
    let connections = Arc::new(ServeStats::default());
    let shutdown = CancellationToken::new();
    let service = BrokerService { max_message_bytes, connections: connections.clone(), shutdown: shutdown.clone() };
    run(BROKER_PORT, broker_router(broker, service), serving, connections, shutdown, core).await
}

/// Runs a manager from its start until its host crashes.
pub(super) async fn run_manager(
    number: usize,
    settings: ManagerSettings,
    database: Database,
    entropy: Arc<dyn Entropy>,
) -> turmoil::Result {
    let store = Arc::new(RemoteStore::new(database, manager_host(number)));
    let control = Arc::new(GrpcControl::new(Arc::new(SimNet)));
    let (manager, core) = Manager::spawn(settings, store, control, entropy);
    let connections = Arc::<ServeStats>::default();
    let router = rest::router(manager, RestSettings::default(), connections.clone());
    run(MANAGER_PORT, router, SERVING, connections, CancellationToken::new(), core).await
}

/// Serves until the host crashes. No orderly shutdown is ever requested, so any end is a failure of the simulation.
async fn run<E: Debug>(
    port: u16,
    router: Router,
    serving: ServeSettings,
    stats: Arc<ServeStats>,
    shutdown: CancellationToken,
    core: impl Future<Output = E>,
) -> turmoil::Result {
    let listener = SimNet.bind(&format!("0.0.0.0:{port}")).await?;
    tokio::select! {
        biased;
        exit = core => Err(format!("the core ended by itself: {exit:?}").into()),
        () = serve(listener, router, serving, stats, shutdown) => Err("the server ended by itself".into()),
    }
}

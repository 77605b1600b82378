//! `rmom dev`: a whole cluster in one process, on an embedded store.
//!
//! Tests of an application can use it as a library: it runs real brokers on real sockets, and can crash them.

mod brokers;
mod routes;

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use rmom_core::{
    access::Call,
    manager::{Manager, ManagerExit, ManagerSettings},
    model::BrokerAddr,
    ports::{Store, Transport as _},
    store::MemoryStore,
};
use rmom_net::{
    clock::SystemClock,
    entropy::OsEntropy,
    grpc::GrpcControl,
    rest::RestSettings,
    serve::ServeStats,
    store::{OpenError, SqliteOptions, SqliteStore},
    transport::Tcp,
};
use tokio::time::{Instant, sleep, timeout};

use self::brokers::DevBroker;
use crate::service::{Node, authority, port_of, routers, serve_settings};

/// The file below [`DevOptions::data`].
const DATABASE: &str = "rmom.db";
/// How long the cluster may take until it accepts requests.
const START_DEADLINE: Duration = Duration::from_secs(15);
/// How often to check that.
const START_POLL: Duration = Duration::from_millis(20);
/// How often the manager checks the brokers: more often than in production, so that a failover is quick to watch.
const CYCLE: Duration = Duration::from_millis(500);
/// How many times to check whether a broker has registered.
const REGISTRATION_LOOKS: u32 = 200;
/// The pause between these checks.
const REGISTRATION_PAUSE: Duration = Duration::from_millis(5);
/// How long each part may take to stop in good order.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// The cluster to run.
#[derive(Clone, Debug)]
pub struct DevOptions {
    /// The directory for messages. `None` keeps them in memory.
    pub data: Option<PathBuf>,
    /// Address to listen on.
    pub host: IpAddr,
    /// The manager's port; 0 takes a free one.
    pub port: u16,
    /// The first broker's port, followed by the others; 0 takes free ones.
    pub broker_port: u16,
    /// Number of brokers.
    pub brokers: u16,
}

impl Default for DevOptions {
    /// Loopback, free ports, three brokers, nothing kept.
    fn default() -> Self {
        Self { data: None, host: Ipv4Addr::LOCALHOST.into(), port: 0, broker_port: 0, brokers: 3 }
    }
}

/// The reason why an operation on a cluster or broker failed.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// A port is taken.
    #[error("cannot listen on {authority} for {whom}: {reason}")]
    Listen {
        /// `host:port`.
        authority: String,
        /// The manager, or the name of the broker.
        whom: String,
        /// The system's error.
        reason: io::Error,
    },
    /// The ports would exceed the highest port number.
    #[error("{brokers} brokers from port {first} on is more than there are ports")]
    TooManyPorts {
        /// The first broker's port.
        first: u16,
        /// Number of brokers.
        brokers: u16,
    },
    /// The data directory cannot be created.
    #[error("cannot make the directory {}: {reason}", directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// The system's error.
        reason: io::Error,
    },
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// It runs, but accepts no requests.
    #[error("the brokers were not ready within {START_DEADLINE:?}; RUST_LOG=info says more")]
    NotReady,
    /// The number names none of the brokers.
    #[error("there is no broker {number}; they are numbered from 1 to {brokers}")]
    NoSuchBroker {
        /// The given number.
        number: u16,
        /// Number of brokers.
        brokers: u16,
    },
    /// A broker that is not running cannot be crashed.
    #[error("broker {0} does not run; start it with: rmom dev-broker restart {0}")]
    NotRunning(u16),
    /// A running broker cannot be started.
    #[error("broker {0} runs already")]
    Running(u16),
    /// The cluster is shutting down.
    #[error("the cluster is stopping")]
    Stopping,
}

/// A manager and some brokers.
pub struct DevCluster {
    manager: Manager,
    manager_node: Node<ManagerExit>,
    manager_url: String,
    brokers: Arc<[DevBroker]>,
}

impl DevCluster {
    /// Starts the cluster, and waits until it accepts requests.
    ///
    /// # Errors
    /// A port is taken, or the store cannot be opened.
    pub async fn start(options: DevOptions) -> Result<Self, DevError> {
        if options.broker_port != 0 && options.broker_port.checked_add(options.brokers.saturating_sub(1)).is_none() {
            return Err(DevError::TooManyPorts { first: options.broker_port, brokers: options.brokers });
        }
        let host = options.host.to_string();
        let place = authority(&host, options.port);
        let listener = Tcp.bind(&place).await.map_err(|reason| DevError::Listen {
            authority: place,
            whom: "the manager".to_owned(),
            reason: bare(&reason),
        })?;
        let manager_port = port_of(&listener.local_addr());
        let store = open_store(&options).await?;

        let mut brokers = Vec::new();
        for number in 1..=options.brokers {
            let port = if options.broker_port == 0 { 0 } else { options.broker_port + (number - 1) };
            let broker = DevBroker::start(number, &host, port, &store).await?;
            registered(&*store, broker.addr()).await;
            brokers.push(broker);
        }
        let brokers: Arc<[DevBroker]> = brokers.into();

        let control = Arc::new(GrpcControl::new(Arc::new(Tcp)));
        let settings = ManagerSettings { cycle: CYCLE, ..ManagerSettings::default() };
        let (manager, core) = Manager::spawn(settings, store, control, Arc::new(OsEntropy));
        let stats = Arc::new(ServeStats::default());
        let router = routers::manager(&manager, RestSettings::default(), Arc::clone(&stats))
            .merge(routes::router(Arc::clone(&brokers)));
        let mut manager_node = Node::serve(listener, serve_settings(STOP_DEADLINE), stats, |_| router);
        manager_node.set_core(core);

        let manager_url = format!("http://{}", authority(&reachable(options.host).to_string(), manager_port));
        let cluster = Self { manager, manager_node, manager_url, brokers };
        cluster.wait_until_ready().await?;
        Ok(cluster)
    }

    /// The manager's URL.
    #[must_use]
    pub fn manager_url(&self) -> &str {
        &self.manager_url
    }

    /// The brokers' addresses, in the order of their numbers, which start at 1.
    pub fn brokers(&self) -> impl Iterator<Item = &BrokerAddr> {
        self.brokers.iter().map(DevBroker::addr)
    }

    /// Ends a broker like SIGKILL: its connections break, and it hands nothing over.
    ///
    /// # Errors
    /// The number names none of the brokers, or the broker is not running.
    pub async fn crash_broker(&self, number: u16) -> Result<(), DevError> {
        find(&self.brokers, number)?.crash().await
    }

    /// Starts a broker again, on the same port.
    ///
    /// # Errors
    /// The number names none of the brokers, the broker is running, or another process has taken its port.
    pub async fn restart_broker(&self, number: u16) -> Result<(), DevError> {
        find(&self.brokers, number)?.restart().await
    }

    /// Stops everything in good order: the brokers first, so that the manager can answer their clients.
    pub async fn shutdown(self) {
        futures_util::future::join_all(self.brokers.iter().map(DevBroker::shutdown)).await;
        self.manager_node.shutdown(self.manager.shutdown(STOP_DEADLINE)).await;
    }

    async fn wait_until_ready(&self) -> Result<(), DevError> {
        let manager = self.manager.on_behalf_of(Call::of_process());
        let deadline = Instant::now() + START_DEADLINE;
        while Instant::now() < deadline {
            let live = timeout(START_DEADLINE, manager.brokers()).await;
            let live = live.ok().and_then(Result::ok).unwrap_or_default();
            if live.iter().filter(|broker| broker.live && self.brokers().any(|addr| *addr == broker.addr)).count()
                == self.brokers.len()
            {
                return Ok(());
            }
            sleep(START_POLL).await;
        }
        Err(DevError::NotReady)
    }
}

fn find(brokers: &[DevBroker], number: u16) -> Result<&DevBroker, DevError> {
    let broker = number.checked_sub(1).and_then(|index| brokers.get(usize::from(index)));
    let count = u16::try_from(brokers.len()).unwrap_or(u16::MAX);
    broker.ok_or(DevError::NoSuchBroker { number, brokers: count })
}

/// An address that clients on this machine can connect to.
fn reachable(host: IpAddr) -> IpAddr {
    match host {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// The system's error, without the transport's text around it.
fn bare(error: &io::Error) -> io::Error {
    io::Error::from(error.kind())
}

async fn open_store(options: &DevOptions) -> Result<Arc<dyn Store>, DevError> {
    let clock = Arc::new(SystemClock);
    let Some(directory) = &options.data else {
        return Ok(MemoryStore::new(clock));
    };
    std::fs::create_dir_all(directory)
        .map_err(|reason| DevError::Directory { directory: directory.clone(), reason })?;
    Ok(Arc::new(SqliteStore::open(SqliteOptions::new(directory.join(DATABASE)), clock).await?))
}

/// Waits until a broker has registered. Brokers register one after the other, so that in a new database each id is the
/// broker's number. If one does not register, `wait_until_ready` reports more.
async fn registered(store: &dyn Store, addr: &BrokerAddr) {
    for _ in 0..REGISTRATION_LOOKS {
        if store.brokers().await.is_ok_and(|known| known.iter().any(|broker| broker.addr == *addr)) {
            return;
        }
        sleep(REGISTRATION_PAUSE).await;
    }
}

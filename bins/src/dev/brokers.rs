//! A broker of a development cluster, and the task that keeps it, crashes it and restarts it.

use std::sync::Arc;

use rmom_core::{
    broker::{Broker, BrokerExit, BrokerSettings},
    model::BrokerAddr,
    ports::{Listener, Store, Transport as _},
};
use rmom_net::{clock::SystemUptime, entropy::OsEntropy, serve::ServeStats, transport::Tcp};
use tokio::sync::{mpsc, oneshot};

use super::{DevError, STOP_DEADLINE, bare, reachable};
use crate::service::{Node, authority, port_of, routers, serve_settings};

/// Limit on the commands that wait.
const MAX_WAITING: usize = 8;

/// A handle on the task.
pub(super) struct DevBroker {
    addr: BrokerAddr,
    commands: mpsc::Sender<(Command, Answer)>,
}

type Answer = oneshot::Sender<Result<(), DevError>>;

enum Command {
    Crash,
    Restart,
    Shutdown,
}

impl DevBroker {
    /// Starts a broker and the task that keeps it.
    pub(super) async fn start(number: u16, host: &str, port: u16, store: &Arc<dyn Store>) -> Result<Self, DevError> {
        let mut keeper = Keeper {
            number,
            bind: authority(host, port),
            addr: BrokerAddr { host: host.to_owned(), port },
            store: Arc::clone(store),
        };
        let listener = keeper.listen().await?;
        let port = port_of(&listener.local_addr());
        let reached = host.parse().map_or_else(|_| host.to_owned(), |ip| reachable(ip).to_string());
        keeper.addr = BrokerAddr { host: reached, port };
        keeper.bind = authority(host, port);
        let addr = keeper.addr.clone();
        let (commands, inbox) = mpsc::channel(MAX_WAITING);
        let running = keeper.run(listener);
        tokio::spawn(keeper.keep(running, inbox));
        Ok(Self { addr, commands })
    }

    pub(super) fn addr(&self) -> &BrokerAddr {
        &self.addr
    }

    pub(super) async fn crash(&self) -> Result<(), DevError> {
        self.command(Command::Crash).await
    }

    pub(super) async fn restart(&self) -> Result<(), DevError> {
        self.command(Command::Restart).await
    }

    pub(super) async fn shutdown(&self) {
        // A broker that is already gone need not be stopped.
        let _ = self.command(Command::Shutdown).await;
    }

    async fn command(&self, command: Command) -> Result<(), DevError> {
        let (answer, answered) = oneshot::channel();
        self.commands.send((command, answer)).await.map_err(|_| DevError::Stopping)?;
        answered.await.map_err(|_| DevError::Stopping)?
    }
}

/// The parts needed to start the broker repeatedly.
struct Keeper {
    number: u16,
    bind: String,
    addr: BrokerAddr,
    store: Arc<dyn Store>,
}

struct Running {
    broker: Broker,
    node: Node<BrokerExit>,
}

impl Keeper {
    async fn listen(&self) -> Result<Box<dyn Listener>, DevError> {
        Tcp.bind(&self.bind).await.map_err(|reason| DevError::Listen {
            authority: self.bind.clone(),
            whom: format!("broker {}", self.number),
            reason: bare(&reason),
        })
    }

    fn run(&self, listener: Box<dyn Listener>) -> Running {
        let settings = BrokerSettings::new(self.addr.clone());
        let max_message_bytes = settings.max_message_bytes;
        let (broker, core) =
            Broker::spawn(settings, Arc::clone(&self.store), Arc::new(OsEntropy), Arc::new(SystemUptime));
        let stats = Arc::new(ServeStats::default());
        let mut node = Node::serve(listener, serve_settings(STOP_DEADLINE), Arc::clone(&stats), |stop| {
            routers::broker(&broker, max_message_bytes, stats, stop)
        });
        node.set_core(core);
        Running { broker, node }
    }

    /// Ends with the handle, or on command.
    async fn keep(self, running: Running, mut inbox: mpsc::Receiver<(Command, Answer)>) {
        let mut running = Some(running);
        loop {
            let ended = async {
                match &mut running {
                    Some(running) => running.node.ended().await,
                    None => std::future::pending().await,
                }
            };
            let (command, answer) = tokio::select! {
                biased;
                command = inbox.recv() => match command {
                    Some(command) => command,
                    None => return,
                },
                end = ended => {
                    tracing::error!(broker = self.number, ?end, "a broker ended by itself");
                    running = None;
                    continue;
                }
            };
            let result = match command {
                Command::Crash => match running.take() {
                    Some(running) => {
                        running.node.crash().await;
                        tracing::warn!(broker = self.number, addr = %self.addr, "crashed as asked");
                        Ok(())
                    }
                    None => Err(DevError::NotRunning(self.number)),
                },
                Command::Restart if running.is_some() => Err(DevError::Running(self.number)),
                Command::Restart => self.listen().await.map(|listener| running = Some(self.run(listener))),
                Command::Shutdown => {
                    if let Some(Running { broker, node }) = running.take() {
                        node.shutdown(broker.shutdown(STOP_DEADLINE)).await;
                    }
                    // The cluster may have stopped waiting.
                    let _ = answer.send(Ok(()));
                    return;
                }
            };
            // The caller may be gone; the command has been carried out.
            let _ = answer.send(result);
        }
    }
}

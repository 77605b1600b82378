//! A manager and a broker, each with its server, on one thread and in paused time.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use rmom_core::{
    access::Call,
    broker::{Broker, BrokerSettings, NewMessage, PushRequest, QueuePhase},
    manager::{
        Manager, ManagerSettings,
        testing::{SeededEntropy, TokioClock},
    },
    model::{BrokerAddr, ChannelId, QueueLabel, Topic},
    ports::{Entropy, NeverSuspended, Store},
    store::MemoryStore,
};
use rmom_net::{
    grpc::{BrokerService, GrpcControl, broker_router},
    rest::{self, RestSettings},
    serve::{ServeSettings, ServeStats, serve},
    testing::Pipes,
};
use tokio::{
    io::DuplexStream,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::exchange;

/// A queue that exists from the start, with a channel and some messages.
pub(super) const QUEUE: &str = "q";
/// The limit on messages, which is small so that inputs reach it.
pub(super) const MAX_MESSAGE_BYTES: usize = 1_024;
/// Longer than any deadline of the servers.
pub(super) const PATIENCE: Duration = Duration::from_secs(90);
/// The interval of all periodic work, long to save time.
const SELDOM: Duration = Duration::from_secs(3_600);

/// The port of one of the two servers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Port {
    Broker,
    Manager,
}

impl Port {
    pub(super) const fn authority(self) -> &'static str {
        match self {
            Self::Broker => "broker:50051",
            Self::Manager => "manager:8082",
        }
    }
}

pub(super) struct Cluster {
    pipes: Pipes,
    broker: Broker,
    stats: [Arc<ServeStats>; 2],
    pub(super) channel: ChannelId,
}

impl Cluster {
    pub(super) async fn start() -> Self {
        let pipes = Pipes::default();
        let store: Arc<dyn Store> = MemoryStore::new(Arc::new(TokioClock::starting_now()));
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(1));
        let stats = [Arc::<ServeStats>::default(), Arc::default()];

        let mut settings = BrokerSettings::new(BrokerAddr { host: "broker".into(), port: 50_051 });
        settings.max_message_bytes = MAX_MESSAGE_BYTES;
        (settings.lease, settings.trim_interval) = (SELDOM, SELDOM);
        let (broker, _task) = Broker::spawn(settings, store.clone(), entropy.clone(), Arc::new(NeverSuspended));
        let service = BrokerService {
            max_message_bytes: MAX_MESSAGE_BYTES,
            connections: stats[0].clone(),
            shutdown: CancellationToken::new(),
        };
        serve_at(&pipes, Port::Broker, broker_router(broker.clone(), service), &stats[0]);
        until(|| broker.may_serve()).await;

        let settings = ManagerSettings { cycle: SELDOM, lease: SELDOM, ..ManagerSettings::default() };
        let control = Arc::new(GrpcControl::new(Arc::new(pipes.clone())));
        let (manager, _task) = Manager::spawn(settings, store, control, entropy);
        serve_at(
            &pipes,
            Port::Manager,
            rest::router(manager.clone(), RestSettings::default(), stats[1].clone()),
            &stats[1],
        );
        while manager.ready().await.is_err() {
            sleep(Duration::from_millis(1)).await;
        }

        let label = QueueLabel::parse(QUEUE).expect("it is a label");
        manager.on_behalf_of(Call::of_process()).create_queue(&label).await.expect("there is a broker");
        let local = broker.on_behalf_of(Call::of_process());
        let channel = local.create_channel(&label, Topic::NONE).await.expect("there is a queue");
        for content in ["one", "two"] {
            let message = NewMessage { content: Bytes::from(content), ..NewMessage::default() };
            let push = PushRequest { label: label.clone(), queue: None, producer: None, message };
            local.push(push).await.expect("the queue is served");
        }
        Self { pipes, broker, stats, channel }
    }

    pub(super) fn dial(&self, port: Port) -> DuplexStream {
        self.pipes.dial(port.authority()).expect("somebody listens")
    }

    /// Checks that the clients' departure ends all work for them, and that both servers answer.
    pub(super) async fn is_well(&self) {
        // The manager keeps its connection to the broker.
        until(|| self.stats[0].open() <= 1 && self.stats[1].open() == 0).await;
        let status = self.broker.status();
        assert!(status.lease_current && !status.stopping, "{status:?}");
        assert_eq!(status.pending_bytes.0, 0, "no push waits that nobody waits for");
        for queue in &status.queues {
            assert!(queue.subscribers.is_empty(), "{queue:?}");
            assert!(matches!(queue.phase, QueuePhase::Serving | QueuePhase::Activating), "{queue:?}");
        }
        for port in [Port::Broker, Port::Manager] {
            let answer = exchange::get(self, port, "/readyz").await;
            assert_eq!(answer.status, 200, "{port:?}: {answer:?}");
        }
    }
}

fn serve_at(pipes: &Pipes, port: Port, router: axum::Router, stats: &Arc<ServeStats>) {
    let listener = pipes.listen(port.authority());
    tokio::spawn(serve(listener, router, ServeSettings::default(), stats.clone(), CancellationToken::new()));
}

/// Waits until a condition holds.
pub(super) async fn until(condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, holds).await.expect("something hangs");
}

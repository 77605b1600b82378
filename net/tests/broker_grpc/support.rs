//! A broker on a free port, and its clients.

use std::{sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use rmom_core::{
    broker::{Broker, BrokerSettings},
    model::{BrokerAddr, Code},
    ports::{Store, Transport},
    store::MemoryStore,
};
use rmom_net::{
    clock::{SystemClock, SystemUptime},
    entropy::OsEntropy,
    grpc::{BrokerService, broker_router, grpc_code, stable_code},
    serve::{ServeSettings, ServeStats, serve},
    transport::Tcp,
};
use rmom_proto::messages::{
    CreateChannelRequest, CreateQueueRequest, DescribeQueueRequest, DescribeQueueResponse, Message, Push,
    SubscriptionRequest, message_stream_client::MessageStreamClient,
};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};

/// Longer than anything here takes; a test that waits this long fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// The limit on messages of these brokers.
pub(crate) const MAX_MESSAGE_BYTES: usize = 512 << 10;

pub(crate) type Client = MessageStreamClient<Channel>;

/// A running broker. Dropping it is a crash.
pub(crate) struct Server {
    pub(crate) broker: Broker,
    pub(crate) addr: BrokerAddr,
    pub(crate) shutdown: CancellationToken,
    pub(crate) serving: JoinHandle<()>,
    tasks: JoinHandle<rmom_core::broker::BrokerExit>,
    transport: Arc<dyn Transport>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
        self.tasks.abort();
    }
}

pub(crate) fn memory_store() -> Arc<dyn Store> {
    MemoryStore::new(Arc::new(SystemClock))
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(memory_store(), Arc::new(Tcp)).await
    }

    pub(crate) async fn start_with(store: Arc<dyn Store>, transport: Arc<dyn Transport>) -> Self {
        Self::start_as(store, transport, ServeSettings::default(), |_| {}).await
    }

    pub(crate) async fn start_as(
        store: Arc<dyn Store>,
        transport: Arc<dyn Transport>,
        serving: ServeSettings,
        change: impl FnOnce(&mut BrokerSettings),
    ) -> Self {
        let listener = transport.bind("127.0.0.1:0").await.unwrap();
        let (host, port) = listener.local_addr().rsplit_once(':').map(|(h, p)| (h.to_owned(), p.parse())).unwrap();
        let addr = BrokerAddr { host, port: port.unwrap() };
        let mut settings = BrokerSettings::new(addr.clone());
        settings.max_message_bytes = MAX_MESSAGE_BYTES;
        // Deliveries come from the cache while that reaches far enough, then from the store; this cache is small.
        settings.queue_buffer_bytes = 1 << 20;
        change(&mut settings);
        let (broker, tasks) = Broker::spawn(settings, store, Arc::new(OsEntropy), Arc::new(SystemUptime));
        let connections = Arc::<ServeStats>::default();
        let shutdown = CancellationToken::new();
        let service = BrokerService {
            max_message_bytes: MAX_MESSAGE_BYTES,
            connections: connections.clone(),
            shutdown: shutdown.clone(),
        };
        let router = broker_router(broker.clone(), service);
        let serving = tokio::spawn(serve(listener, router, serving, connections, shutdown.clone()));
        let registered = async {
            while !broker.may_serve() {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, registered).await.expect("the broker registers");
        Self { broker, addr, shutdown, serving, tasks, transport }
    }

    pub(crate) fn channel(&self) -> Channel {
        self.connect(&Endpoint::from_shared(format!("http://{}", self.addr.authority())).unwrap())
    }

    /// A client that accepts this many bytes before it reads them, on a stream and on its connection.
    pub(crate) fn client_with_windows(&self, bytes: u32) -> Client {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.addr.authority())).unwrap();
        Client::new(self.connect(&endpoint.initial_stream_window_size(bytes).initial_connection_window_size(bytes)))
    }

    fn connect(&self, endpoint: &Endpoint) -> Channel {
        let (transport, authority) = (self.transport.clone(), self.addr.authority());
        endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
            let (transport, authority) = (transport.clone(), authority.clone());
            async move { transport.connect(&authority).await.map(TokioIo::new) }
        }))
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.channel())
    }

    /// A client, and a queue `q`.
    pub(crate) async fn client_with_queue(&self) -> Client {
        let mut client = self.client();
        client.create_queue(CreateQueueRequest { queue_label: "q".into() }).await.unwrap();
        client
    }
}

pub(crate) async fn create_channel(client: &mut Client, topic: &str) -> String {
    let request = CreateChannelRequest { queue_label: "q".into(), topic: topic.into() };
    client.create_channel(request).await.unwrap().into_inner().channel_id
}

pub(crate) fn push(content: impl Into<bytes::Bytes>, topic: &str) -> Push {
    Push { content: content.into(), topic: topic.into(), queue_label: "q".into(), ..Push::default() }
}

pub(crate) async fn subscribe(client: &mut Client, channel_id: &str) -> Streaming<Message> {
    let request = SubscriptionRequest { channel_id: channel_id.into(), position: None };
    client.subscribe_to_channel(request).await.unwrap().into_inner()
}

/// The next message of a subscription.
pub(crate) async fn next(stream: &mut Streaming<Message>) -> Result<Message, Status> {
    let next = timeout(PATIENCE, stream.message()).await.expect("a message in time");
    next.map(|message| message.expect("a subscription ends with an error"))
}

pub(crate) async fn describe(client: &mut Client) -> DescribeQueueResponse {
    client.describe_queue(DescribeQueueRequest { queue_label: "q".into() }).await.unwrap().into_inner()
}

/// Checks that a call was refused with one of our codes and the matching gRPC code; returns the message.
#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code) -> String {
    let status = result.expect_err("it should be refused");
    assert_eq!(stable_code(&status), Some(code), "{status:?}");
    assert_eq!(status.code(), grpc_code(code), "{status:?}");
    status.message().to_owned()
}

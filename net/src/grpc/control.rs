//! The manager's client for calls to the brokers.

use std::{collections::BTreeMap, error::Error, io, ops::RangeInclusive, sync::Arc, time::Duration};

use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rmom_core::{
    model::{BrokerAddr, ChannelId, Epoch, Offset, QueueId, QueueLabel, Topic},
    ports::{
        BrokerControl, ControlError, QueueActivity, QueueDescription, QueueState, SubscriberDescription, Transport,
    },
};
use rmom_proto::messages::{
    self as wire, DescribeQueueRequest, DescribeQueueResponse, HeartbeatRequest, ListComplaintsRequest,
    ListQueueStatesRequest, RebuildQueueRequest, RefreshRequest, message_stream_client::MessageStreamClient,
};
use tokio::time::timeout;
use tonic::{
    Request, Response, Status, TimeoutExpired,
    transport::{Channel, Endpoint},
};

use super::status::stable_code;

/// How often a broker is asked whether its connection is alive. A failover waits for this, so it is short.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// How long its answer may take.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a connection to a broker may take.
pub const CONTROL_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Limit on the connections to brokers that are kept; the one that has gone unused for longest makes room.
pub const MAX_CONTROL_CHANNELS: usize = 1_024;

type Client = MessageStreamClient<Channel>;

/// [`BrokerControl`] over gRPC. The connection to each broker is opened with the first call, and again whenever it has
/// broken.
pub struct GrpcControl {
    transport: Arc<dyn Transport>,
    channels: Mutex<Channels>,
}

#[derive(Default)]
struct Channels {
    by_broker: BTreeMap<BrokerAddr, Kept>,
    /// Counts all uses, so that the least recently used channel can be found.
    uses: u64,
}

struct Kept {
    channel: Channel,
    used: u64,
}

impl GrpcControl {
    /// Reaches brokers over `transport`.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport, channels: Mutex::default() }
    }

    fn client(&self, broker: &BrokerAddr) -> Result<Client, ControlError> {
        let mut channels = self.channels.lock();
        channels.uses += 1;
        let used = channels.uses;
        if let Some(kept) = channels.by_broker.get_mut(broker) {
            kept.used = used;
            return Ok(Client::new(kept.channel.clone()));
        }
        let channel = open(self.transport.clone(), broker)?;
        if channels.by_broker.len() >= MAX_CONTROL_CHANNELS {
            let oldest = channels.by_broker.iter().min_by_key(|(_, kept)| kept.used).map(|(addr, _)| addr.clone());
            oldest.and_then(|addr| channels.by_broker.remove(&addr));
        }
        channels.by_broker.insert(broker.clone(), Kept { channel: channel.clone(), used });
        Ok(Client::new(channel))
    }
}

/// A channel that connects on first use.
fn open(transport: Arc<dyn Transport>, broker: &BrokerAddr) -> Result<Channel, ControlError> {
    let authority = broker.authority();
    let endpoint = Endpoint::from_shared(format!("http://{authority}"))
        .map_err(|error| ControlError::Unreachable { addr: broker.clone(), reason: error.to_string() })?
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    let connector = tower::service_fn(move |_| {
        let (transport, authority) = (transport.clone(), authority.clone());
        async move {
            match timeout(CONTROL_CONNECT_TIMEOUT, transport.connect(&authority)).await {
                Ok(connected) => connected.map(TokioIo::new),
                Err(_) => {
                    let what = format!("no connection within {CONTROL_CONNECT_TIMEOUT:?}");
                    Err(io::Error::new(io::ErrorKind::TimedOut, what))
                }
            }
        }
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}

/// A request that tells the broker when its caller stops waiting for an answer.
fn request<T>(message: T, deadline: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

async fn within<T>(
    addr: &BrokerAddr,
    deadline: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, ControlError> {
    match timeout(deadline, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(refusal(addr, deadline, &status)),
        Err(_) => Err(ControlError::DeadlineExceeded { addr: addr.clone(), deadline }),
    }
}

/// The error that a status stands for. A status made in this process has a source; one from the broker has none.
fn refusal(addr: &BrokerAddr, deadline: Duration, status: &Status) -> ControlError {
    let addr = addr.clone();
    let causes: Vec<_> = std::iter::successors(status.source(), |&cause| cause.source()).collect();
    if causes.iter().any(|cause| cause.is::<TimeoutExpired>())
        || (causes.is_empty() && status.code() == tonic::Code::DeadlineExceeded)
    {
        return ControlError::DeadlineExceeded { addr, deadline };
    }
    match causes.last() {
        Some(cause) => ControlError::Unreachable { addr, reason: cause.to_string() },
        None if status.code() == tonic::Code::Unimplemented => ControlError::Older { addr },
        None => ControlError::Refused { addr, code: stable_code(status), message: status.message().to_owned() },
    }
}

#[async_trait]
impl BrokerControl for GrpcControl {
    async fn heartbeat(&self, broker: &BrokerAddr, deadline: Duration) -> Result<(), ControlError> {
        let mut client = self.client(broker)?;
        within(broker, deadline, client.get_heartbeat(request(HeartbeatRequest {}, deadline))).await?;
        Ok(())
    }

    async fn rebuild(&self, broker: &BrokerAddr, label: &QueueLabel, deadline: Duration) -> Result<(), ControlError> {
        let mut client = self.client(broker)?;
        let message = RebuildQueueRequest { queue_label: label.to_string() };
        within(broker, deadline, client.rebuild_queue(request(message, deadline))).await?;
        Ok(())
    }

    async fn refresh(&self, broker: &BrokerAddr, deadline: Duration) -> Result<(), ControlError> {
        let mut client = self.client(broker)?;
        within(broker, deadline, client.refresh(request(RefreshRequest {}, deadline))).await?;
        Ok(())
    }

    async fn describe(
        &self,
        broker: &BrokerAddr,
        label: &QueueLabel,
        deadline: Duration,
    ) -> Result<QueueDescription, ControlError> {
        let mut client = self.client(broker)?;
        let message = DescribeQueueRequest { queue_label: label.to_string() };
        let described = within(broker, deadline, client.describe_queue(request(message, deadline))).await?;
        description(described).map_err(|error| nonsense(broker, &*error))
    }

    async fn states(
        &self,
        broker: &BrokerAddr,
        labels: &RangeInclusive<QueueLabel>,
        deadline: Duration,
    ) -> Result<Vec<QueueState>, ControlError> {
        let mut client = self.client(broker)?;
        let (first_label, last_label) = (labels.start().to_string(), labels.end().to_string());
        let message = ListQueueStatesRequest { first_label, last_label };
        let listed = within(broker, deadline, client.list_queue_states(request(message, deadline))).await?;
        let states: Result<_, _> = listed.queues.into_iter().map(state).collect();
        states.map_err(|error| nonsense(broker, &*error))
    }

    async fn complaints(&self, broker: &BrokerAddr, deadline: Duration) -> Result<Vec<String>, ControlError> {
        let mut client = self.client(broker)?;
        let message = ListComplaintsRequest {};
        Ok(within(broker, deadline, client.list_complaints(request(message, deadline))).await?.complaints)
    }
}

fn nonsense(broker: &BrokerAddr, error: &(dyn Error + Send + Sync)) -> ControlError {
    let message = format!("its answer makes no sense: {error}");
    ControlError::Refused { addr: broker.clone(), code: None, message }
}

fn state(raw: wire::QueueState) -> Result<QueueState, Box<dyn Error + Send + Sync>> {
    let activity = match raw.activity() {
        wire::QueueActivity::Served => QueueActivity::Served,
        wire::QueueActivity::Halted => QueueActivity::Halted,
        wire::QueueActivity::Waiting | wire::QueueActivity::Unspecified => QueueActivity::Waiting,
    };
    Ok(QueueState {
        queue: QueueId::parse(raw.queue_id)?,
        activity,
        reason: Some(raw.reason).filter(|reason| !reason.is_empty()),
        epoch: Epoch::parse(raw.epoch)?,
        last_offset: Offset::parse(raw.last_offset)?,
        depth_messages: raw.depth_messages,
        depth_bytes: raw.depth_bytes,
        oldest_age: Duration::from_millis(raw.oldest_age_millis),
        subscribers: raw.subscribers,
        largest_lag: raw.largest_lag,
    })
}

fn description(raw: DescribeQueueResponse) -> Result<QueueDescription, Box<dyn Error + Send + Sync>> {
    let subscriber = |raw: rmom_proto::messages::SubscriberInfo| -> Result<_, Box<dyn Error + Send + Sync>> {
        Ok(SubscriberDescription {
            channel: ChannelId::parse(&raw.channel_id)?,
            topic: Topic::parse(&raw.topic)?,
            peer: raw.peer,
            offset: Offset::parse(raw.offset)?,
            lag: raw.lag,
        })
    };
    Ok(QueueDescription {
        queue: QueueId::parse(raw.queue_id)?,
        epoch: Epoch::parse(raw.epoch)?,
        last_offset: Offset::parse(raw.last_offset)?,
        depth_messages: raw.depth_messages,
        depth_bytes: raw.depth_bytes,
        oldest_age: Duration::from_millis(raw.oldest_age_millis),
        subscribers: raw.subscribers.into_iter().map(subscriber).collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests {
    use axum::{Router, routing::post};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        grpc::to_status,
        serve::{ServeSettings, ServeStats, serve},
        testing::Pipes,
    };
    use rmom_core::{broker::BrokerError, model::Code};

    const DEADLINE: Duration = Duration::from_millis(700);

    fn addr(host: &str) -> BrokerAddr {
        BrokerAddr { host: host.into(), port: 1 }
    }

    /// A broker that answers every heartbeat with a status, or never.
    fn start(pipes: &Pipes, host: &str, answer: Option<Status>) -> (Arc<ServeStats>, tokio::task::JoinHandle<()>) {
        let handler = move || async move {
            match answer {
                Some(status) => status.into_http::<axum::body::Body>(),
                None => std::future::pending().await,
            }
        };
        let router = Router::new().route("/messages.MessageStream/GetHeartbeat", post(handler));
        let stats = Arc::<ServeStats>::default();
        let listener = pipes.listen(&addr(host).authority());
        let settings = ServeSettings::default();
        (stats.clone(), tokio::spawn(serve(listener, router, settings, stats, CancellationToken::new())))
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_keep_their_code() {
        let pipes = Pipes::default();
        let control = GrpcControl::new(Arc::new(pipes.clone()));
        start(&pipes, "b1", Some(to_status(&BrokerError::LeaseExpired)));
        let Err(ControlError::Refused { addr: at, code, message }) = control.heartbeat(&addr("b1"), DEADLINE).await
        else {
            panic!("expected a refusal");
        };
        assert_eq!((at, code), (addr("b1"), Some(Code::LeaseExpired)));
        assert_eq!(message, BrokerError::LeaseExpired.to_string());
        start(&pipes, "b2", Some(Status::internal("not ours")));
        let refused = control.heartbeat(&addr("b2"), DEADLINE).await;
        assert!(matches!(refused, Err(ControlError::Refused { code: None, .. })), "{refused:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_does_not_know_a_call_is_older() {
        let pipes = Pipes::default();
        let control = GrpcControl::new(Arc::new(pipes.clone()));
        start(&pipes, "b1", Some(Status::unimplemented("no such method")));
        let old = ControlError::Older { addr: addr("b1") };
        assert_eq!(control.heartbeat(&addr("b1"), DEADLINE).await, Err(old.clone()));
        // A path that the other end does not serve is answered in the same way.
        assert_eq!(control.complaints(&addr("b1"), DEADLINE).await, Err(old));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_at_the_deadline() {
        let pipes = Pipes::default();
        let control = GrpcControl::new(Arc::new(pipes.clone()));
        start(&pipes, "b1", None);
        let begun = tokio::time::Instant::now();
        let late = control.heartbeat(&addr("b1"), DEADLINE).await;
        assert_eq!(late, Err(ControlError::DeadlineExceeded { addr: addr("b1"), deadline: DEADLINE }));
        assert!(begun.elapsed() <= DEADLINE + Duration::from_millis(2), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_comes_back_is_reached_again() {
        let pipes = Pipes::default();
        let control = GrpcControl::new(Arc::new(pipes.clone()));
        let unreachable = control.heartbeat(&addr("b1"), DEADLINE).await;
        assert!(matches!(unreachable, Err(ControlError::Unreachable { .. })), "{unreachable:?}");
        for run in 0..2 {
            let (stats, server) = start(&pipes, "b1", Some(to_status(&BrokerError::LeaseExpired)));
            for _ in 0..3 {
                let refused = control.heartbeat(&addr("b1"), DEADLINE).await;
                assert!(matches!(refused, Err(ControlError::Refused { .. })), "run {run}: {refused:?}");
            }
            assert_eq!(stats.accepted(), 1, "one connection for all calls");
            server.abort();
            let _ = server.await;
            let unreachable = control.heartbeat(&addr("b1"), DEADLINE).await;
            assert!(matches!(unreachable, Err(ControlError::Unreachable { .. })), "run {run}: {unreachable:?}");
        }
    }

    /// A network in which connections neither succeed nor fail.
    #[derive(Debug)]
    struct Nowhere;

    #[async_trait]
    impl Transport for Nowhere {
        async fn connect(&self, _: &str) -> io::Result<rmom_core::ports::BoxIo> {
            std::future::pending().await
        }

        async fn bind(&self, _: &str) -> io::Result<Box<dyn rmom_core::ports::Listener>> {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn connecting_has_a_deadline_of_its_own() {
        let control = GrpcControl::new(Arc::new(Nowhere));
        let begun = tokio::time::Instant::now();
        let unreachable = control.heartbeat(&addr("b1"), Duration::from_secs(60)).await;
        let Err(ControlError::Unreachable { reason, .. }) = unreachable else { panic!("{unreachable:?}") };
        assert_eq!(reason, "no connection within 1s");
        assert!(begun.elapsed() <= CONTROL_CONNECT_TIMEOUT + Duration::from_millis(2), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn connections_kept_are_bounded() {
        let control = GrpcControl::new(Arc::new(Nowhere));
        let ask = |n: usize| control.client(&addr(&format!("b{n}"))).unwrap();
        for n in 0..=MAX_CONTROL_CHANNELS {
            ask(n);
            ask(1);
        }
        ask(MAX_CONTROL_CHANNELS + 1);
        let channels = control.channels.lock();
        assert_eq!(channels.by_broker.len(), MAX_CONTROL_CHANNELS);
        assert!(channels.by_broker.contains_key(&addr("b1")), "in use all the time");
        for gone in ["b0", "b2"] {
            assert!(!channels.by_broker.contains_key(&addr(gone)), "not used for longest");
        }
    }

    #[tokio::test]
    async fn a_host_that_is_none_is_said_so() {
        let control = GrpcControl::new(Arc::new(Nowhere));
        let refused = control.heartbeat(&addr("no host"), DEADLINE).await;
        assert!(matches!(refused, Err(ControlError::Unreachable { .. })), "{refused:?}");
    }
}

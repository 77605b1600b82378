//! All methods of `MessageStream` but one, over the broker's handle.

use std::{pin::Pin, sync::Arc, time::Duration};

use parking_lot::Mutex;
use rmom_core::{
    access::{Call, Denied, Right, admit},
    broker::{Broker, BrokerError},
    model::{ChannelId, Coded, Offset, ProducerId, QueueLabel, Topic},
    ports::{QueueActivity, QueueDescription, QueueState},
};
use rmom_proto::messages::{
    self as wire, CreateChannelRequest, CreateChannelResponse, CreateQueueOkResponse, CreateQueueRequest,
    DeleteChannelOkResponse, DeleteChannelRequest, DeleteQueueOkResponse, DeleteQueueRequest, DescribeQueueRequest,
    DescribeQueueResponse, HeartbeatOkResponse, HeartbeatRequest, ListComplaintsRequest, ListComplaintsResponse,
    ListQueueStatesRequest, ListQueueStatesResponse, Message, OpenProducerRequest, OpenProducerResponse, Push, PushAck,
    PushOkResponse, PushStreamRequest, RebuildQueueOkResponse, RebuildQueueRequest, RefreshRequest, RefreshResponse,
    SubscriberInfo, SubscriptionRequest, message_stream_server::MessageStream,
};
use tokio::time::Instant;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{complaints::complaints, counted::Ledger, parse, push_stream, status::to_status};
use crate::{access::identified, serve::ServeStats};

/// Limit on the subscribers that a description lists: as many as fit the message size that gRPC clients accept.
const MAX_DESCRIBED_SUBSCRIBERS: usize = 10_000;

/// Greatest age of an answer about complaints. Looking at all queues takes longer the more there are, and any client may
/// ask.
const COMPLAINTS_AGE: Duration = Duration::from_millis(500);

/// The service.
pub(super) struct BrokerMethods {
    pub(super) broker: Broker,
    pub(super) connections: Arc<ServeStats>,
    /// The last answer to [`MessageStream::list_complaints`], and when it was made.
    pub(super) complaints: Mutex<Option<(Instant, Vec<String>)>>,
    /// Ends streams of pushes, which clients would otherwise keep open for ever.
    pub(super) shutdown: CancellationToken,
}

fn answer<T>(result: Result<T, BrokerError>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|error| refused(&error))
}

fn refused(error: &impl Coded) -> Status {
    to_status(error)
}

fn label(raw: &str) -> Result<QueueLabel, Status> {
    QueueLabel::parse(raw).map_err(|error| refused(&BrokerError::from(error)))
}

fn describe(queue: QueueDescription) -> DescribeQueueResponse {
    let subscribers = queue.subscribers.into_iter().take(MAX_DESCRIBED_SUBSCRIBERS).map(|subscriber| SubscriberInfo {
        channel_id: subscriber.channel.to_string(),
        topic: subscriber.topic.as_wire().to_owned(),
        peer: subscriber.peer,
        offset: subscriber.offset.get(),
        lag: subscriber.lag,
    });
    DescribeQueueResponse {
        queue_id: queue.queue.get(),
        epoch: queue.epoch.get(),
        last_offset: queue.last_offset.get(),
        depth_messages: queue.depth_messages,
        depth_bytes: queue.depth_bytes,
        oldest_age_millis: u64::try_from(queue.oldest_age.as_millis()).unwrap_or(u64::MAX),
        subscribers: subscribers.collect(),
    }
}

fn state(queue: QueueState) -> wire::QueueState {
    let activity = match queue.activity {
        QueueActivity::Waiting => wire::QueueActivity::Waiting,
        QueueActivity::Served => wire::QueueActivity::Served,
        QueueActivity::Halted => wire::QueueActivity::Halted,
    };
    wire::QueueState {
        queue_id: queue.queue.get(),
        activity: activity.into(),
        reason: queue.reason.unwrap_or_default(),
        epoch: queue.epoch.get(),
        last_offset: queue.last_offset.get(),
        depth_messages: queue.depth_messages,
        depth_bytes: queue.depth_bytes,
        oldest_age_millis: u64::try_from(queue.oldest_age.as_millis()).unwrap_or(u64::MAX),
        subscribers: queue.subscribers,
        largest_lag: queue.largest_lag,
    }
}

/// The broker, acting for the client that sent the request.
fn asked<T>(broker: &Broker, request: &Request<T>) -> Result<Broker<Call>, Status> {
    Ok(broker.on_behalf_of(identified(request.extensions()).map_err(|denied| refused(&denied))?))
}

/// The answer to a stream of pushes.
type Acks = Pin<Box<dyn Stream<Item = Result<PushAck, Status>> + Send>>;

impl BrokerMethods {
    /// `PushToQueue`.
    pub(super) async fn push(
        &self,
        call: Result<Call, Denied>,
        request: Request<Push>,
    ) -> Result<Response<PushOkResponse>, Status> {
        let broker = self.broker.on_behalf_of(call.map_err(|denied| refused(&denied))?);
        let held = request.extensions().get::<Ledger>().and_then(Ledger::take);
        let push = parse::push(request.into_inner()).map_err(|error| refused(&error))?;
        let pushed = match held {
            Some(held) => broker.push_held(push, held).await,
            None => broker.push(push).await,
        };
        answer(pushed.map(|receipt| PushOkResponse {
            id: receipt.id.to_string(),
            offset: receipt.offset.map_or(0, Offset::get),
            duplicate: receipt.duplicate,
            queue_id: receipt.queue.get(),
        }))
    }

    /// `PushStream`.
    pub(super) fn pushes(
        &self,
        call: Result<Call, Denied>,
        request: Request<Streaming<PushStreamRequest>>,
    ) -> Result<Response<Acks>, Status> {
        // The response headers are sent before the first request has arrived: some clients send nothing until they see them.
        let ledger = request.extensions().get::<Ledger>().cloned();
        let broker = self.broker.on_behalf_of(call.map_err(|denied| refused(&denied))?);
        let acks = push_stream::serve(broker, request.into_inner(), ledger, self.shutdown.clone());
        Ok(Response::new(Box::pin(acks)))
    }
}

#[async_trait]
impl MessageStream for BrokerMethods {
    type SubscribeToChannelStream = tokio_stream::Empty<Result<Message, Status>>;

    /// Never called: the router sends this method to `subscribe`.
    async fn subscribe_to_channel(
        &self,
        _request: Request<SubscriptionRequest>,
    ) -> Result<Response<Self::SubscribeToChannelStream>, Status> {
        Err(Status::unimplemented("subscriptions are served beside this service"))
    }

    /// Never called: the router sends this method to [`BrokerMethods::push`].
    async fn push_to_queue(&self, _request: Request<Push>) -> Result<Response<PushOkResponse>, Status> {
        Err(Status::unimplemented("pushes are served beside this service"))
    }

    async fn create_queue(
        &self,
        request: Request<CreateQueueRequest>,
    ) -> Result<Response<CreateQueueOkResponse>, Status> {
        let label = label(&request.get_ref().queue_label)?;
        answer(asked(&self.broker, &request)?.create_queue(&label).await.map(|_| CreateQueueOkResponse {}))
    }

    async fn delete_queue(
        &self,
        request: Request<DeleteQueueRequest>,
    ) -> Result<Response<DeleteQueueOkResponse>, Status> {
        let label = label(&request.get_ref().queue_label)?;
        answer(asked(&self.broker, &request)?.delete_queue(&label).await.map(|()| DeleteQueueOkResponse {}))
    }

    async fn rebuild_queue(
        &self,
        request: Request<RebuildQueueRequest>,
    ) -> Result<Response<RebuildQueueOkResponse>, Status> {
        let label = label(&request.get_ref().queue_label)?;
        answer(asked(&self.broker, &request)?.rebuild_queue(&label).await.map(|()| RebuildQueueOkResponse {}))
    }

    async fn create_channel(
        &self,
        request: Request<CreateChannelRequest>,
    ) -> Result<Response<CreateChannelResponse>, Status> {
        let label = label(&request.get_ref().queue_label)?;
        let topic = Topic::parse(&request.get_ref().topic).map_err(|error| refused(&BrokerError::from(error)))?;
        let created = asked(&self.broker, &request)?.create_channel(&label, topic).await;
        answer(created.map(|channel| CreateChannelResponse { channel_id: channel.to_string() }))
    }

    async fn delete_channel(
        &self,
        request: Request<DeleteChannelRequest>,
    ) -> Result<Response<DeleteChannelOkResponse>, Status> {
        let channel =
            ChannelId::parse(&request.get_ref().channel_id).map_err(|error| refused(&BrokerError::from(error)))?;
        answer(asked(&self.broker, &request)?.delete_channel(channel).await.map(|()| DeleteChannelOkResponse {}))
    }

    async fn get_heartbeat(&self, request: Request<HeartbeatRequest>) -> Result<Response<HeartbeatOkResponse>, Status> {
        answer(asked(&self.broker, &request)?.heartbeat().map(|()| HeartbeatOkResponse {}))
    }

    type PushStreamStream = Acks;

    /// Never called: the router sends this method to [`BrokerMethods::pushes`].
    async fn push_stream(
        &self,
        _request: Request<Streaming<PushStreamRequest>>,
    ) -> Result<Response<Self::PushStreamStream>, Status> {
        Err(Status::unimplemented("pushes are served beside this service"))
    }

    async fn open_producer(
        &self,
        request: Request<OpenProducerRequest>,
    ) -> Result<Response<OpenProducerResponse>, Status> {
        let label = label(&request.get_ref().queue_label)?;
        let producer = ProducerId::from_slice(&request.get_ref().producer_id)
            .map_err(|error| refused(&BrokerError::from(error)))?;
        answer(asked(&self.broker, &request)?.open_producer(&label, producer).await.map(|opened| {
            OpenProducerResponse {
                producer_epoch: opened.epoch.get(),
                last_sequence: opened.last_sequence.get(),
                queue_id: opened.queue.get(),
            }
        }))
    }

    async fn describe_queue(
        &self,
        request: Request<DescribeQueueRequest>,
    ) -> Result<Response<DescribeQueueResponse>, Status> {
        let label = label(&request.get_ref().queue_label)?;
        answer(asked(&self.broker, &request)?.describe(&label).await.map(describe))
    }

    async fn list_queue_states(
        &self,
        request: Request<ListQueueStatesRequest>,
    ) -> Result<Response<ListQueueStatesResponse>, Status> {
        let range = request.get_ref();
        let labels = label(&range.first_label)?..=label(&range.last_label)?;
        let states = asked(&self.broker, &request)?.states(labels);
        answer(states.map(|queues| ListQueueStatesResponse { queues: queues.into_iter().map(state).collect() }))
    }

    async fn list_complaints(
        &self,
        request: Request<ListComplaintsRequest>,
    ) -> Result<Response<ListComplaintsResponse>, Status> {
        let call = identified(request.extensions());
        let _permit =
            call.and_then(|call| admit(&call, Right::Inspect.on_cluster())).map_err(|denied| refused(&denied))?;
        let mut told = self.complaints.lock();
        let complaints = match &*told {
            Some((at, complaints)) if at.elapsed() < COMPLAINTS_AGE => complaints.clone(),
            _ => {
                let complaints = complaints(&self.broker.status(), &self.connections);
                told.insert((Instant::now(), complaints)).1.clone()
            }
        };
        Ok(Response::new(ListComplaintsResponse { complaints }))
    }

    async fn refresh(&self, request: Request<RefreshRequest>) -> Result<Response<RefreshResponse>, Status> {
        answer(asked(&self.broker, &request)?.refresh().await.map(|()| RefreshResponse {}))
    }
}

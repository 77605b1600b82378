//! rmom's service, as far as it is measured.

use std::{
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use rmom_proto::messages::{
    CreateChannelRequest, CreateChannelResponse, CreateQueueOkResponse, CreateQueueRequest, DeleteChannelOkResponse,
    DeleteChannelRequest, DeleteQueueOkResponse, DeleteQueueRequest, DescribeQueueRequest, DescribeQueueResponse,
    HeartbeatOkResponse, HeartbeatRequest, ListComplaintsRequest, ListComplaintsResponse, ListQueueStatesRequest,
    ListQueueStatesResponse, Message, OpenProducerRequest, OpenProducerResponse, Push, PushAck, PushOkResponse,
    PushStreamRequest, RebuildQueueOkResponse, RebuildQueueRequest, RefreshRequest, RefreshResponse,
    SubscriptionRequest, message_stream_server::MessageStream, push_stream_request,
};
use sqlx::{PgPool, query};
use tokio_stream::{Empty, Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming, async_trait};

/// What rmom answers with: as long as its ids.
const ID: &str = "01234567-89ab-cdef-0123-456789abcdef";

/// Where messages go.
pub(super) struct Methods {
    /// None: nowhere.
    rows: Option<PgPool>,
    pushed: AtomicU64,
}

impl Methods {
    pub(super) fn new(rows: Option<PgPool>) -> Self {
        Self { rows, pushed: AtomicU64::new(0) }
    }
}

fn absent<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("this server is there to be measured: it takes pushes, and serve-tonic delivers"))
}

#[async_trait]
impl MessageStream for Methods {
    async fn push_to_queue(&self, request: Request<Push>) -> Result<Response<PushOkResponse>, Status> {
        if let Some(pool) = &self.rows {
            insert(pool, request.into_inner()).await.map_err(|error| Status::unavailable(error.to_string()))?;
            return Ok(Response::new(PushOkResponse::default()));
        }
        let offset = self.pushed.fetch_add(1, Relaxed) + 1;
        Ok(Response::new(PushOkResponse { id: ID.to_owned(), offset, duplicate: false, queue_id: 1 }))
    }

    type PushStreamStream = Pin<Box<dyn Stream<Item = Result<PushAck, Status>> + Send>>;

    async fn push_stream(
        &self,
        request: Request<Streaming<PushStreamRequest>>,
    ) -> Result<Response<Self::PushStreamStream>, Status> {
        if self.rows.is_some() {
            return absent();
        }
        let mut through = 0;
        let acks = request.into_inner().map(move |request| {
            if let Some(push_stream_request::Request::Messages(some)) = request?.request {
                through += some.messages.len() as u64;
            }
            Ok(PushAck { through_sequence: through, offset: through, queue_id: 1, duplicates: 0 })
        });
        Ok(Response::new(Box::pin(acks)))
    }

    type SubscribeToChannelStream = Empty<Result<Message, Status>>;

    /// Never called: the router sends this method elsewhere.
    async fn subscribe_to_channel(
        &self,
        _: Request<SubscriptionRequest>,
    ) -> Result<Response<Self::SubscribeToChannelStream>, Status> {
        absent()
    }

    async fn create_queue(&self, _: Request<CreateQueueRequest>) -> Result<Response<CreateQueueOkResponse>, Status> {
        absent()
    }

    async fn delete_queue(&self, _: Request<DeleteQueueRequest>) -> Result<Response<DeleteQueueOkResponse>, Status> {
        absent()
    }

    async fn rebuild_queue(&self, _: Request<RebuildQueueRequest>) -> Result<Response<RebuildQueueOkResponse>, Status> {
        absent()
    }

    async fn create_channel(
        &self,
        _: Request<CreateChannelRequest>,
    ) -> Result<Response<CreateChannelResponse>, Status> {
        absent()
    }

    async fn delete_channel(
        &self,
        _: Request<DeleteChannelRequest>,
    ) -> Result<Response<DeleteChannelOkResponse>, Status> {
        absent()
    }

    async fn get_heartbeat(&self, _: Request<HeartbeatRequest>) -> Result<Response<HeartbeatOkResponse>, Status> {
        absent()
    }

    async fn open_producer(&self, _: Request<OpenProducerRequest>) -> Result<Response<OpenProducerResponse>, Status> {
        absent()
    }

    async fn describe_queue(
        &self,
        _: Request<DescribeQueueRequest>,
    ) -> Result<Response<DescribeQueueResponse>, Status> {
        absent()
    }

    async fn list_queue_states(
        &self,
        _: Request<ListQueueStatesRequest>,
    ) -> Result<Response<ListQueueStatesResponse>, Status> {
        absent()
    }

    async fn list_complaints(
        &self,
        _: Request<ListComplaintsRequest>,
    ) -> Result<Response<ListComplaintsResponse>, Status> {
        absent()
    }

    async fn refresh(&self, _: Request<RefreshRequest>) -> Result<Response<RefreshResponse>, Status> {
        absent()
    }
}

/// Waits for the commit.
async fn insert(pool: &PgPool, push: Push) -> Result<(), sqlx::Error> {
    let insert = query(
        "INSERT INTO side_by_side_original (queue_label, topic, expires_at, content) \
         VALUES ($1, $2, now() + interval '10 minutes', $3)",
    );
    insert.bind(push.queue_label).bind(push.topic).bind(&push.content[..]).execute(pool).await?;
    Ok(())
}

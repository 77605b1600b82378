//! The original's nine routes, with the same bodies and the same status codes. There is one difference: when no broker is
//! available the status is 503, where the original sent 500. Request bodies and their content types are ignored.

use axum::{
    Json,
    extract::{Path, State},
    response::IntoResponse,
    routing::{any, get, post, put},
};
use http::StatusCode;
use rmom_core::{
    manager::{PlacedChannel, PlacedQueue},
    model::{ChannelId, QueueLabel, Topic},
};
use serde::Serialize;

use super::{Api, RouteEntry, error::RestError};

pub(super) fn routes() -> Vec<RouteEntry> {
    vec![
        ("/queues", get(queues)),
        ("/queues/", any(empty_label)),
        ("/queues/{label}", post(create_queue).delete(delete_queue).get(queue)),
        // Both spellings: the original has the first, clients expect the second.
        ("/queue/{label}/topics", get(topics)),
        ("/queues/{label}/topics", get(topics)),
        ("/queues/{label}/channels/{topic}", put(create_channel)),
        ("/channels", get(channels)),
        ("/channels/{id}", get(channel).delete(delete_channel)),
    ]
}

/// The address for pushes to a queue.
#[derive(Serialize)]
struct QueueAddress {
    label: String,
    host: String,
    port: u16,
}

impl From<PlacedQueue> for QueueAddress {
    fn from(queue: PlacedQueue) -> Self {
        Self { label: queue.label.to_string(), host: queue.addr.host, port: queue.addr.port }
    }
}

/// The address for subscribing to a channel.
#[derive(Serialize)]
struct ChannelAddress {
    id: ChannelId,
    host: String,
    port: u16,
    topic: String,
}

impl From<PlacedChannel> for ChannelAddress {
    fn from(placed: PlacedChannel) -> Self {
        Self {
            id: placed.channel.id,
            host: placed.addr.host,
            port: placed.addr.port,
            topic: placed.channel.topic.as_wire().to_owned(),
        }
    }
}

async fn queues(State(api): State<Api>) -> Result<impl IntoResponse, RestError> {
    let queues = api.manager.queues().await?;
    Ok(Json(queues.iter().map(|queue| queue.label.to_string()).collect::<Vec<_>>()))
}

async fn empty_label() -> RestError {
    QueueLabel::parse("").map_or_else(RestError::from, |_| RestError::NoSuchRoute)
}

async fn create_queue(State(api): State<Api>, Path(label): Path<String>) -> Result<StatusCode, RestError> {
    api.manager.create_queue(&QueueLabel::parse(&label)?).await?;
    Ok(StatusCode::OK)
}

async fn delete_queue(State(api): State<Api>, Path(label): Path<String>) -> Result<StatusCode, RestError> {
    api.manager.delete_queue(&QueueLabel::parse(&label)?).await?;
    Ok(StatusCode::OK)
}

async fn queue(State(api): State<Api>, Path(label): Path<String>) -> Result<impl IntoResponse, RestError> {
    let queue = api.manager.queue(&QueueLabel::parse(&label)?).await?;
    Ok(Json(QueueAddress::from(queue)))
}

async fn topics(State(api): State<Api>, Path(label): Path<String>) -> Result<impl IntoResponse, RestError> {
    let topics = api.manager.topics(&QueueLabel::parse(&label)?).await?;
    Ok(Json(topics.iter().map(ToString::to_string).collect::<Vec<_>>()))
}

async fn create_channel(
    State(api): State<Api>,
    Path((label, topic)): Path<(String, String)>,
) -> Result<impl IntoResponse, RestError> {
    let (label, topic) = (QueueLabel::parse(&label)?, Topic::parse(&topic)?);
    let channel = api.manager.create_disposable_channel(&label, topic).await?;
    Ok(Json(ChannelAddress::from(channel)))
}

async fn channels(State(api): State<Api>) -> Result<impl IntoResponse, RestError> {
    let channels = api.manager.channels(None).await?;
    Ok(Json(channels.iter().map(|channel| channel.id).collect::<Vec<_>>()))
}

async fn channel(State(api): State<Api>, Path(id): Path<String>) -> Result<impl IntoResponse, RestError> {
    let channel = api.manager.channel(ChannelId::parse(&id)?).await?;
    Ok(Json(ChannelAddress::from(channel)))
}

async fn delete_channel(State(api): State<Api>, Path(id): Path<String>) -> Result<StatusCode, RestError> {
    api.manager.delete_channel(ChannelId::parse(&id)?).await?;
    Ok(StatusCode::OK)
}

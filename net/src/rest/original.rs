//! The original's nine routes, with the same bodies and the same status codes. There is one difference: when no broker is
//! available the status is 503, where the original sent 500. Request bodies and their content types are ignored.

use axum::{
    Json,
    extract::Path,
    response::IntoResponse,
    routing::{any, delete, get, post, put},
};
use http::StatusCode;
use rmom_core::{
    manager::{PlacedChannel, PlacedQueue},
    model::{ChannelId, QueueLabel, Topic},
};
use serde::Serialize;

use super::{Asked, RouteEntry, error::RestError};

pub(super) fn routes() -> Vec<RouteEntry> {
    vec![
        ("GET", "/queues", get(queues)),
        ("*", "/queues/", any(empty_label)),
        ("POST", "/queues/{label}", post(create_queue)),
        ("DELETE", "/queues/{label}", delete(delete_queue)),
        ("GET", "/queues/{label}", get(queue)),
        // Both spellings: the original has the first, clients expect the second.
        ("GET", "/queue/{label}/topics", get(topics)),
        ("GET", "/queues/{label}/topics", get(topics)),
        ("PUT", "/queues/{label}/channels/{topic}", put(create_channel)),
        ("GET", "/channels", get(channels)),
        ("GET", "/channels/{id}", get(channel)),
        ("DELETE", "/channels/{id}", delete(delete_channel)),
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

async fn queues(Asked(manager): Asked) -> Result<impl IntoResponse, RestError> {
    let queues = manager.queues().await?;
    Ok(Json(queues.iter().map(|queue| queue.label.to_string()).collect::<Vec<_>>()))
}

async fn empty_label() -> RestError {
    QueueLabel::parse("").map_or_else(RestError::from, |_| RestError::NoSuchRoute)
}

async fn create_queue(Asked(manager): Asked, Path(label): Path<String>) -> Result<StatusCode, RestError> {
    manager.create_queue(&QueueLabel::parse(&label)?).await?;
    Ok(StatusCode::OK)
}

async fn delete_queue(Asked(manager): Asked, Path(label): Path<String>) -> Result<StatusCode, RestError> {
    manager.delete_queue(&QueueLabel::parse(&label)?).await?;
    Ok(StatusCode::OK)
}

async fn queue(Asked(manager): Asked, Path(label): Path<String>) -> Result<impl IntoResponse, RestError> {
    let queue = manager.queue(&QueueLabel::parse(&label)?).await?;
    Ok(Json(QueueAddress::from(queue)))
}

async fn topics(Asked(manager): Asked, Path(label): Path<String>) -> Result<impl IntoResponse, RestError> {
    let topics = manager.topics(&QueueLabel::parse(&label)?).await?;
    Ok(Json(topics.iter().map(ToString::to_string).collect::<Vec<_>>()))
}

async fn create_channel(
    Asked(manager): Asked,
    Path((label, topic)): Path<(String, String)>,
) -> Result<impl IntoResponse, RestError> {
    let (label, topic) = (QueueLabel::parse(&label)?, Topic::parse(&topic)?);
    let channel = manager.create_disposable_channel(&label, topic).await?;
    Ok(Json(ChannelAddress::from(channel)))
}

async fn channels(Asked(manager): Asked) -> Result<impl IntoResponse, RestError> {
    let channels = manager.channels(None).await?;
    Ok(Json(channels.iter().map(|channel| channel.id).collect::<Vec<_>>()))
}

async fn channel(Asked(manager): Asked, Path(id): Path<String>) -> Result<impl IntoResponse, RestError> {
    let channel = manager.channel(ChannelId::parse(&id)?).await?;
    Ok(Json(ChannelAddress::from(channel)))
}

async fn delete_channel(Asked(manager): Asked, Path(id): Path<String>) -> Result<StatusCode, RestError> {
    manager.delete_channel(ChannelId::parse(&id)?).await?;
    Ok(StatusCode::OK)
}

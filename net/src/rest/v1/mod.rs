//! Our own routes, under `/v1/`. `openapi.json` describes them.

mod views;

use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use http::{HeaderValue, StatusCode, Uri, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rmom_core::{
    access::Call,
    manager::Manager,
    model::{ChannelId, QueueLabel, Start, Topic},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Api, Asked, RouteEntry,
    error::RestError,
    request::{self, JsonBody},
};
use crate::access::Admitted;

/// Describes the routes below, for readers and for generators of clients.
pub(super) const OPENAPI: &str = include_str!("openapi.json");

pub(super) fn routes() -> Vec<RouteEntry> {
    vec![
        ("GET", "/v1/queues", get(queues)),
        ("POST", "/v1/queues", post(create_queue)),
        ("GET", "/v1/queues/{label}", get(queue)),
        ("DELETE", "/v1/queues/{label}", delete(delete_queue)),
        ("GET", "/v1/queues/{label}/channels", get(queue_channels)),
        ("POST", "/v1/queues/{label}/channels", post(create_channel)),
        ("GET", "/v1/channels", get(channels)),
        ("GET", "/v1/channels/{id}", get(channel)),
        ("DELETE", "/v1/channels/{id}", delete(delete_channel)),
        ("GET", "/v1/brokers", get(brokers)),
        ("DELETE", "/v1/brokers/{id}", delete(forget)),
        ("POST", "/v1/brokers/rebalance", post(rebalance)),
        ("POST", "/v1/brokers/{id}/drain", post(drain)),
        ("POST", "/v1/brokers/{id}/undrain", post(undrain)),
        ("GET", "/v1/status", get(status)),
        ("GET", "/v1/openapi.json", get(openapi)),
    ]
}

/// The body that creates a queue. Fields are not typed here, so that errors can name them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewQueue {
    label: Value,
}

/// The body that creates a channel.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewChannel {
    #[serde(default)]
    topic: Value,
    #[serde(default)]
    start: Value,
}

impl NewChannel {
    fn parse(&self) -> Result<(Topic, Start), RestError> {
        let topic = match &self.topic {
            Value::Null => Topic::NONE,
            topic => Topic::parse(request::text("topic", topic)?)?,
        };
        Ok((topic, request::start(&self.start)?))
    }
}

/// 201 with the location and the object.
fn created(location: &str, body: impl IntoResponse) -> Response {
    let location = HeaderValue::from_str(location).expect("a percent-encoded path is a header value");
    (StatusCode::CREATED, [(header::LOCATION, location)], body).into_response()
}

async fn queues(Asked(manager): Asked, uri: Uri) -> Result<impl IntoResponse, RestError> {
    let listing: request::QueueListing = request::query(&uri)?;
    let after = listing.after.as_deref().map(QueueLabel::parse).transpose()?;
    if listing.live()? {
        let page = manager.live_queue_page(after, listing.limit()?).await?;
        let queues: Vec<_> = page.items.iter().map(views::DescribedQueue::from).collect();
        let next = page.items.last().filter(|_| page.more).map(|listed| listed.queue.label.to_string());
        return Ok(Json(json!({ "queues": queues, "next": next })));
    }
    let page = manager.queue_page(after, listing.limit()?).await?;
    let queues: Vec<_> = page.items.iter().map(views::Queue::from).collect();
    let next = page.items.last().filter(|_| page.more).map(|queue| queue.label.to_string());
    Ok(Json(json!({ "queues": queues, "next": next })))
}

async fn create_queue(
    Asked(manager): Asked,
    JsonBody(body): JsonBody<NewQueue>,
) -> Result<impl IntoResponse, RestError> {
    let label = QueueLabel::parse(request::text("label", &body.label)?)?;
    let queue = manager.create_queue(&label).await?;
    let location = format!("/v1/queues/{}", utf8_percent_encode(label.as_str(), NON_ALPHANUMERIC));
    Ok(created(&location, Json(views::Queue::from(&queue))))
}

async fn queue(Asked(manager): Asked, Path(label): Path<String>) -> Result<impl IntoResponse, RestError> {
    let details = manager.describe_queue(&QueueLabel::parse(&label)?).await?;
    Ok(Json(views::DescribedQueue::from(&details)))
}

async fn delete_queue(Asked(manager): Asked, Path(label): Path<String>) -> Result<StatusCode, RestError> {
    manager.delete_queue(&QueueLabel::parse(&label)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn queue_channels(
    Asked(manager): Asked,
    Path(label): Path<String>,
    uri: Uri,
) -> Result<impl IntoResponse, RestError> {
    channel_page(&manager, Some(&QueueLabel::parse(&label)?), &uri).await
}

async fn channel_page(
    manager: &Manager<Call>,
    label: Option<&QueueLabel>,
    uri: &Uri,
) -> Result<Json<Value>, RestError> {
    let listing: request::Listing = request::query(uri)?;
    let after = listing.after.as_deref().map(ChannelId::parse).transpose()?;
    let page = manager.channel_page(label, after, listing.limit()?).await?;
    let channels: Vec<_> = page.items.iter().map(views::Channel::from).collect();
    let next = page.items.last().filter(|_| page.more).map(|channel| channel.id);
    Ok(Json(json!({ "channels": channels, "next": next })))
}

async fn create_channel(
    Asked(manager): Asked,
    Path(label): Path<String>,
    JsonBody(body): JsonBody<NewChannel>,
) -> Result<impl IntoResponse, RestError> {
    let label = QueueLabel::parse(&label)?;
    let (topic, start) = body.parse()?;
    let placed = manager.create_channel(&label, topic, start).await?;
    let location = format!("/v1/channels/{}", placed.channel.id);
    Ok(created(&location, Json(views::Channel::from(&placed))))
}

async fn channels(Asked(manager): Asked, uri: Uri) -> Result<impl IntoResponse, RestError> {
    channel_page(&manager, None, &uri).await
}

async fn channel(Asked(manager): Asked, Path(id): Path<String>) -> Result<impl IntoResponse, RestError> {
    let placed = manager.channel(ChannelId::parse(&id)?).await?;
    Ok(Json(views::Channel::from(&placed)))
}

async fn delete_channel(Asked(manager): Asked, Path(id): Path<String>) -> Result<StatusCode, RestError> {
    manager.delete_channel(ChannelId::parse(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn brokers(Asked(manager): Asked) -> Result<impl IntoResponse, RestError> {
    let brokers = manager.brokers().await?;
    let brokers: Vec<_> = brokers.iter().map(views::Broker::from).collect();
    Ok(Json(json!({ "brokers": brokers })))
}

/// Whether the operator has confirmed the request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Force {
    #[serde(default)]
    force: bool,
}

async fn forget(Asked(manager): Asked, Path(id): Path<String>, uri: Uri) -> Result<StatusCode, RestError> {
    let force: Force = request::query(&uri)?;
    manager.forget_broker(request::broker_id(&id)?, force.force).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn rebalance(Asked(manager): Asked) -> Result<impl IntoResponse, RestError> {
    Ok(Json(views::Rebalanced::from(&manager.rebalance().await?)))
}

async fn drain(Asked(manager): Asked, Path(id): Path<String>) -> Result<StatusCode, RestError> {
    manager.set_draining(request::broker_id(&id)?, true).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn undrain(Asked(manager): Asked, Path(id): Path<String>) -> Result<StatusCode, RestError> {
    manager.set_draining(request::broker_id(&id)?, false).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn status(_: Admitted, Asked(manager): Asked, State(api): State<Api>) -> impl IntoResponse {
    Json(views::Status::of(&manager, &api.connections).await)
}

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}

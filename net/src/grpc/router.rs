//! Everything that a broker serves on its port: gRPC, probes and metrics.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Body,
    extract::{Query, Request, State},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderValue, StatusCode, header::CONTENT_TYPE};
use parking_lot::Mutex;
use rmom_core::broker::{Broker, PushRoom};
use rmom_proto::{
    FILE_DESCRIPTORS,
    messages::message_stream_server::{MessageStreamServer, SERVICE_NAME},
};
use serde::Deserialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tonic::{
    Status,
    server::{Grpc, NamedService},
};
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::server::Builder as Reflection;
use tower::{Service, service_fn};

use super::{
    complaints::complaints,
    counted, deadline,
    health::BrokerHealth,
    probe_streams::ProbeStreams,
    service::BrokerMethods,
    subscribe,
    tally::{Tallied, TalliedCodec},
};
use crate::{
    access::{self, Admitted, rpc_of},
    metrics::{self, TEXT_FORMAT},
    serve::ServeStats,
};

/// Bytes that a request may have beyond the largest message, for a label, a producer and the framing of a run. It also lets
/// a push that is slightly too large reach the broker, whose answer names the limit.
pub const REQUEST_SLACK_BYTES: usize = 1 << 20;
/// The largest request of a method that does not push. Such requests are not counted before they are read.
pub const MAX_SMALL_REQUEST_BYTES: usize = 8 << 10;
/// The largest request to gRPC health and reflection.
pub const MAX_PROBE_REQUEST_BYTES: usize = 4 << 10;

/// Settings and shared state of the services, beside the broker.
#[derive(Clone, Debug)]
pub struct BrokerService {
    /// The broker's setting of the same name.
    pub max_message_bytes: usize,
    /// Counters of the server that runs this router, for the metrics.
    pub connections: Arc<ServeStats>,
    /// Ends streams that clients would keep open; the token that also ends [`crate::serve::serve`].
    pub shutdown: CancellationToken,
}

/// All that the broker serves on its port: the service `messages.MessageStream`, gRPC health and reflection, and over plain
/// HTTP `/healthz` (the process is alive), `/readyz` (all is well, otherwise 503 with the reasons) and `/metrics`.
pub fn broker_router(broker: Broker, service: BrokerService) -> Router {
    let methods = Arc::new(BrokerMethods {
        broker: broker.clone(),
        connections: service.connections.clone(),
        shutdown: service.shutdown.clone(),
        complaints: Mutex::default(),
    });
    let largest = service.max_message_bytes.saturating_add(REQUEST_SLACK_BYTES);
    let pushes = Pushes { methods: methods.clone(), room: broker.room(), largest };
    let others = MessageStreamServer::from_arc(methods).max_decoding_message_size(MAX_SMALL_REQUEST_BYTES);
    let unary = Router::new()
        .route_service(&format!("/{SERVICE_NAME}/{{method}}"), others)
        .layer(middleware::from_fn(access::identify))
        .layer(middleware::from_fn(deadline::unary));
    let router = Router::new()
        .route(&format!("/{SERVICE_NAME}/PushToQueue"), post(push_to_queue).with_state::<()>(pushes.clone()))
        .route(&format!("/{SERVICE_NAME}/PushStream"), post(push_stream).with_state::<()>(pushes))
        .route(&format!("/{SERVICE_NAME}/SubscribeToChannel"), post(subscribe::handle).with_state::<()>(broker.clone()))
        .merge(unary);
    let health = HealthServer::new(BrokerHealth::new(broker.clone(), service.shutdown));
    let health = health.max_decoding_message_size(MAX_PROBE_REQUEST_BYTES);
    let described = "the descriptors are encoded by our own build";
    let v1 = reflection().build_v1().expect(described).max_decoding_message_size(MAX_PROBE_REQUEST_BYTES);
    let v1alpha = reflection().build_v1alpha().expect(described).max_decoding_message_size(MAX_PROBE_REQUEST_BYTES);
    let probes = mount(mount(mount(Router::new(), health), v1), v1alpha);
    let streams = ProbeStreams::default();
    let limit = middleware::from_fn(move |request, next| streams.clone().limit(request, next));
    // For a stream, the deadline covers only the time until its answer begins.
    let router = router.merge(probes.layer(limit).layer(middleware::from_fn(deadline::unary)));
    let (ready, connections) = (service.connections.clone(), service.connections);
    let probes = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(move |State(broker): State<Broker>| async move { readyz(&broker, &ready) }))
        .route(
            "/metrics",
            get(move |_: Admitted, State(broker): State<Broker>| async move { broker_metrics(&broker, &connections) }),
        )
        .route("/metrics/per-object", get(per_object))
        .layer(middleware::from_fn(access::identify))
        .with_state(broker);
    router.merge(probes).fallback(nothing_here)
}

/// The methods that push. tonic's generated service would decode their requests before they were counted.
#[derive(Clone)]
struct Pushes {
    methods: Arc<BrokerMethods>,
    room: PushRoom,
    largest: usize,
}

impl Pushes {
    fn count(&self, request: Request, unary: bool) -> Request {
        counted::count(self.room.clone(), self.largest, request, unary)
    }

    fn server<T: prost::Message + 'static, U: Tallied>(&self) -> Grpc<TalliedCodec<T, U>> {
        Grpc::new(TalliedCodec::default()).max_decoding_message_size(self.largest)
    }
}

/// Clients make this call for each message. It sets its deadline and counts by itself, because layers would box each request
/// again.
async fn push_to_queue(State(pushes): State<Pushes>, request: Request) -> Response {
    let call = rpc_of(&request);
    let answer = |request| async move {
        let method = service_fn(|request| pushes.methods.push(call.clone(), request));
        pushes.server().unary(method, pushes.count(request, true)).await.map(Body::new)
    };
    deadline::within("content", request, answer).await
}

async fn push_stream(State(pushes): State<Pushes>, request: Request) -> Response {
    let call = rpc_of(&request);
    let method = service_fn(|request| {
        let (methods, call) = (pushes.methods.clone(), call.clone());
        async move { methods.pushes(call, request) }
    });
    pushes.server().streaming(method, pushes.count(request, false)).await.map(Body::new)
}

fn reflection<'a>() -> Reflection<'a> {
    Reflection::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// Adds a tonic service at its own path.
fn mount<S>(router: Router, service: S) -> Router
where
    S: Service<Request<Body>, Error = std::convert::Infallible> + NamedService + Clone + Send + Sync + 'static,
    S::Response: IntoResponse,
    S::Future: Send + 'static,
{
    router.route_service(&format!("/{}/{{*method}}", S::NAME), service)
}

async fn nothing_here(request: Request) -> Response {
    let content_type = request.headers().get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    if content_type.starts_with(b"application/grpc") {
        return Status::unimplemented(format!("there is no method {} here", request.uri().path())).into_http();
    }
    (StatusCode::NOT_FOUND, "nothing here; try /healthz, /readyz or /metrics, or gRPC messages.MessageStream\n")
        .into_response()
}

/// The process is alive as long as it answers: it knows of no fault that a restart would repair.
async fn healthz() -> Response {
    Json(json!({ "status": "alive" })).into_response()
}

fn readyz(broker: &Broker, connections: &ServeStats) -> Response {
    let complaints = complaints(&broker.status(), connections);
    if complaints.is_empty() {
        return Json(json!({ "status": "ready" })).into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "not ready", "reasons": complaints }))).into_response()
}

/// Selects the queues to list.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Listing {
    prefix: String,
    after: String,
}

async fn per_object(_: Admitted, State(broker): State<Broker>, Query(listing): Query<Listing>) -> Response {
    let page = metrics::per_object(&broker.status(), &listing.prefix.to_lowercase(), &listing.after.to_lowercase());
    ([(CONTENT_TYPE, TEXT_FORMAT)], page).into_response()
}

fn broker_metrics(broker: &Broker, connections: &ServeStats) -> Response {
    ([(CONTENT_TYPE, TEXT_FORMAT)], metrics::broker(&broker.status(), connections)).into_response()
}

//! The routers of brokers and managers.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Json, Router,
    response::{IntoResponse as _, Response},
    routing::get,
};
use rmom_core::{broker::Broker, manager::Manager};
use rmom_net::{
    grpc::{BrokerService, broker_router},
    rest::{self, RestSettings},
    serve::ServeStats,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// The path at which brokers and managers report their version and clock, from their start on.
pub(crate) const VERSION_PATH: &str = "/version";

/// The kind of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It hosts queues.
    Broker,
    /// It administers them.
    Manager,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Manager => "manager",
        }
    }
}

/// gRPC, health and metrics of a broker.
pub(crate) fn broker(
    broker: &Broker,
    max_message_bytes: usize,
    connections: Arc<ServeStats>,
    shutdown: CancellationToken,
) -> Router {
    broker_router(broker.clone(), BrokerService { max_message_bytes, connections, shutdown })
        .route(VERSION_PATH, get(|| async { version(Kind::Broker) }))
}

/// REST, health and metrics of a manager.
pub(crate) fn manager(manager: &Manager, settings: RestSettings, connections: Arc<ServeStats>) -> Router {
    rest::router(manager.clone(), settings, connections).route(VERSION_PATH, get(|| async { version(Kind::Manager) }))
}

/// The values that `rmom doctor` compares, and the kind of the server.
pub(super) fn version(kind: Kind) -> Response {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    Json(json!({ "server": kind.name(), "version": crate::VERSION, "unix_millis": millis })).into_response()
}

//! What brokers and managers answer on their ports.

use std::sync::Arc;

use axum::{Router, http::header::CONTENT_TYPE, routing::get};
use rmom_core::{broker::Broker, manager::Manager};
use rmom_net::{
    grpc::{BrokerService, broker_router},
    metrics,
    rest::{self, RestSettings},
    serve::ServeStats,
};
use tokio_util::sync::CancellationToken;

/// gRPC, health and metrics of a broker.
pub(crate) fn broker(
    broker: &Broker,
    max_message_bytes: usize,
    connections: Arc<ServeStats>,
    shutdown: CancellationToken,
) -> Router {
    broker_router(broker.clone(), BrokerService { max_message_bytes, connections, shutdown })
}

/// REST, health and metrics of a manager.
pub(crate) fn manager(manager: &Manager, settings: RestSettings, connections: Arc<ServeStats>) -> Router {
    let api = rest::router(manager.clone(), settings, Arc::clone(&connections));
    let manager = manager.clone();
    let page = move || {
        let page = metrics::manager(&manager.status(), &connections);
        std::future::ready(([(CONTENT_TYPE, metrics::TEXT_FORMAT)], page))
    };
    api.route("/metrics", get(page))
}

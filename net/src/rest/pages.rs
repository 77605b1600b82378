//! Health checks and metrics: `/healthz` says whether the process should be left running, `/readyz` whether it can do its
//! work.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header::CONTENT_TYPE};
use rmom_core::model::Coded as _;
use serde_json::json;

use super::{Api, RouteEntry};
use crate::{
    access::Admitted,
    metrics::{self, TEXT_FORMAT},
};

pub(super) fn routes() -> Vec<RouteEntry> {
    vec![("GET", "/healthz", get(healthz)), ("GET", "/readyz", get(readyz)), ("GET", "/metrics", get(metrics))]
}

/// 503 once the manager's task has ended, since only a restart helps then.
async fn healthz(State(api): State<Api>) -> Response {
    if api.manager.is_running() {
        (StatusCode::OK, Json(json!({ "status": "alive" }))).into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "ended" }))).into_response()
    }
}

/// 503 with the reason while the store does not answer, while the manager stops, or while new clients are refused.
async fn readyz(State(api): State<Api>) -> Response {
    match api.manager.ready().await {
        Ok(()) if !api.connections.complaints().is_empty() => {
            let reason = json!({ "status": "not ready", "reason": api.connections.complaints().join("; ") });
            (StatusCode::SERVICE_UNAVAILABLE, Json(reason)).into_response()
        }
        Ok(()) => {
            let leading = api.manager.status().leading;
            (StatusCode::OK, Json(json!({ "status": "ready", "leading": leading }))).into_response()
        }
        Err(error) => {
            let reason = json!({ "status": "not ready", "code": error.code().as_str(), "reason": error.to_string() });
            (StatusCode::SERVICE_UNAVAILABLE, Json(reason)).into_response()
        }
    }
}

async fn metrics(_: Admitted, State(api): State<Api>) -> impl IntoResponse {
    ([(CONTENT_TYPE, TEXT_FORMAT)], metrics::manager(&api.manager.status(), &api.connections))
}

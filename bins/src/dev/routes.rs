//! Routes that only `rmom dev` has, for crashing and restarting brokers.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    middleware,
    response::{IntoResponse, Response},
    routing::post,
};
use rmom_net::access::{Admitted, identify};
use serde_json::json;

use super::{DevError, brokers::DevBroker, find};

type Brokers = Arc<[DevBroker]>;

pub(super) fn router(brokers: Brokers) -> Router {
    Router::new()
        .route("/v1/dev/brokers/{number}/crash", post(crash))
        .route("/v1/dev/brokers/{number}/restart", post(restart))
        .layer(middleware::from_fn(identify))
        .with_state(brokers)
}

async fn crash(_: Admitted, State(brokers): State<Brokers>, Path(number): Path<u16>) -> Result<StatusCode, DevError> {
    find(&brokers, number)?.crash().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn restart(_: Admitted, State(brokers): State<Brokers>, Path(number): Path<u16>) -> Result<StatusCode, DevError> {
    find(&brokers, number)?.restart().await?;
    Ok(StatusCode::NO_CONTENT)
}

impl IntoResponse for DevError {
    fn into_response(self) -> Response {
        let (status, code) = match self {
            Self::NoSuchBroker { .. } => (StatusCode::NOT_FOUND, "BROKER_NOT_FOUND"),
            Self::NotRunning(_) | Self::Running(_) => (StatusCode::CONFLICT, "INVALID_ARGUMENT"),
            _ => (StatusCode::SERVICE_UNAVAILABLE, "SHUTTING_DOWN"),
        };
        let problem = json!({ "status": status.as_u16(), "code": code, "title": code, "detail": self.to_string() });
        (status, [("content-type", "application/problem+json")], Json(problem)).into_response()
    }
}

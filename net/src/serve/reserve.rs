//! The requests allowed on a connection beyond the limits: those that keep the cluster alive, and those that report its
//! state.

use std::time::Duration;

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use rmom_core::model::Code;
use rmom_proto::contract::RETRY_AFTER_SECS;
use serde_json::json;

use super::admission::Limit;
use crate::grpc::status;

/// How long a connection in the reserve may take to say which HTTP it speaks.
pub const RESERVED_OPENING_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it may stay without requests; managers and monitoring send them more often.
pub const RESERVED_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Health, status, metrics, and the calls of managers to brokers.
pub const RESERVED_PATHS: [&str; 12] = [
    "/healthz",
    "/readyz",
    "/metrics",
    "/metrics/per-object",
    "/v1/status",
    "/grpc.health.v1.Health/Check",
    "/messages.MessageStream/GetHeartbeat",
    "/messages.MessageStream/Refresh",
    "/messages.MessageStream/RebuildQueue",
    "/messages.MessageStream/DescribeQueue",
    "/messages.MessageStream/ListQueueStates",
    "/messages.MessageStream/ListComplaints",
];

/// True if the reserve serves this path.
pub(super) fn may(path: &str) -> bool {
    RESERVED_PATHS.contains(&path)
}

/// The answer to all other requests.
pub(super) fn refusal(limit: Limit, headers: &HeaderMap) -> Response {
    let why = match limit {
        Limit::All => "there are too many connections to this server (max_connections); try again later",
        Limit::Peer | Limit::Handshakes => {
            "there are too many connections to this server from this address (max_connections_per_peer); \
             close some, or try again later"
        }
    };
    let content_type = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    if content_type.starts_with(b"application/grpc") {
        return status(Code::TooManyConnections, why.to_owned(), Vec::new()).into_http();
    }
    let problem = json!({ "code": Code::TooManyConnections.as_str(), "detail": why, "status": 503 });
    let mut response = (StatusCode::SERVICE_UNAVAILABLE, Json(problem)).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECS));
    response
}

//! Deadlines of unary calls, and errors that tonic makes before a handler sees the request.

use std::time::Duration;

use axum::{extract::Request, middleware::Next, response::Response};
use http::HeaderMap;
use rmom_core::model::Code;
use tokio::time::timeout;
use tonic::Status;

use super::status::status;

/// The longest that a unary call may take, even if its client allows more.
pub const MAX_UNARY_DEADLINE: Duration = Duration::from_secs(30);

/// The middleware of unary methods: see [`within`].
pub(super) async fn unary(request: Request, next: Next) -> Response {
    within("request", request, |request| next.run(request)).await
}

/// Answers `DEADLINE_EXCEEDED` if no answer has begun when the client's own deadline, or [`MAX_UNARY_DEADLINE`], passes. A
/// refusal of a request that is too large names `field`.
pub(super) async fn within<F>(field: &str, request: Request, answer: impl FnOnce(Request) -> F) -> Response
where
    F: Future<Output = Response>,
{
    let deadline = grpc_timeout(request.headers()).map_or(MAX_UNARY_DEADLINE, |asked| asked.min(MAX_UNARY_DEADLINE));
    match timeout(deadline, answer(request)).await {
        Ok(response) => too_large_by_far(field, response),
        Err(_) => status(Code::DeadlineExceeded, format!("no answer within {deadline:?}"), Vec::new()).into_http(),
    }
}

/// Replaces the code of tonic's own refusal of a request beyond its decoding limit by the code that the broker gives for
/// smaller ones. tonic's status has no details, which tells it from ours.
fn too_large_by_far(field: &str, response: Response) -> Response {
    match Status::from_header_map(response.headers()) {
        Some(refusal) if refusal.code() == tonic::Code::OutOfRange && refusal.details().is_empty() => {
            too_large(field, &refusal).into_http()
        }
        _ => response,
    }
}

/// Like tonic's refusal of a message beyond its decoding limit, but with our code.
pub(super) fn too_large(field: &str, refusal: &Status) -> Status {
    status(Code::MessageTooLarge, format!("{field}: {}", refusal.message()), Vec::new())
}

/// The client's deadline: up to eight digits and a unit. An unreadable value counts as no deadline, as in tonic.
fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("grpc-timeout")?.to_str().ok()?;
    let unit = value.chars().next_back()?;
    let digits = value.strip_suffix(unit)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        'H' => Duration::from_secs(count * 3600),
        'M' => Duration::from_secs(count * 60),
        'S' => Duration::from_secs(count),
        'm' => Duration::from_millis(count),
        'u' => Duration::from_micros(count),
        'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, routing::get};
    use tower::ServiceExt as _;

    use super::*;
    use crate::grpc::stable_code;

    #[test]
    fn timeouts_are_read_as_the_protocol_has_them() {
        let read = |value: &'static str| {
            grpc_timeout(&HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-timeout"),
                value.parse().unwrap(),
            )]))
        };
        assert_eq!(read("1H"), Some(Duration::from_secs(3600)));
        assert_eq!(read("2M"), Some(Duration::from_secs(120)));
        assert_eq!(read("3S"), Some(Duration::from_secs(3)));
        assert_eq!(read("99999999m"), Some(Duration::from_millis(99_999_999)));
        assert_eq!(read("5u"), Some(Duration::from_micros(5)));
        assert_eq!(read("6n"), Some(Duration::from_nanos(6)));
        for nonsense in ["", "S", "1", "-1S", "123456789S", "1X", "1 S"] {
            assert_eq!(read(nonsense), None, "{nonsense:?}");
        }
    }

    async fn refused(grpc_timeout: &str) -> Status {
        let router = Router::new()
            .route("/", get(|| async { tokio::time::sleep(Duration::from_secs(3600)).await }))
            .layer(axum::middleware::from_fn(unary));
        let request = Request::get("/").header("grpc-timeout", grpc_timeout).body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/grpc");
        Status::from_header_map(response.headers()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn the_shorter_deadline_counts() {
        let begun = tokio::time::Instant::now();
        let status = refused("250m").await;
        assert_eq!(begun.elapsed().as_millis(), 250);
        assert_eq!(
            (status.code(), stable_code(&status)),
            (tonic::Code::DeadlineExceeded, Some(Code::DeadlineExceeded))
        );
        let begun = tokio::time::Instant::now();
        assert_eq!(refused("1H").await.message(), "no answer within 30s");
        assert_eq!(begun.elapsed().as_secs(), 30);
    }
}

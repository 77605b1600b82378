//! The answers of a server before its store is open: it is alive, it is not ready, and the reason.

use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use futures_util::future::BoxFuture;
use rmom_proto::contract::RETRY_AFTER_SECS;
use tokio::sync::watch;
use tower::{Service, ServiceExt as _};

use super::routers::{Kind, VERSION_PATH, version};

/// The reason that is reported until there is a better one.
pub(crate) const STARTING: &str = "starting";

/// Stands in for a router that does not exist yet.
#[derive(Clone)]
pub struct Starting {
    kind: Kind,
    router: Arc<OnceLock<Router>>,
    reason: watch::Receiver<String>,
}

/// Sets the router.
pub struct Ready {
    router: Arc<OnceLock<Router>>,
    reason: watch::Sender<String>,
}

impl Starting {
    /// A router to serve at once, and the handle that completes it.
    pub fn router(kind: Kind) -> (Router, Ready) {
        let router = Arc::new(OnceLock::new());
        let (sender, reason) = watch::channel(STARTING.to_owned());
        let starting = Self { kind, router: Arc::clone(&router), reason };
        (Router::new().fallback_service(starting), Ready { router, reason: sender })
    }

    fn answer(&self, path: &str) -> Response {
        match path {
            "/healthz" => "alive\n".into_response(),
            VERSION_PATH => version(self.kind),
            _ => {
                let reason = format!("not ready: {}\n", *self.reason.borrow());
                // A gRPC client reads this status as UNAVAILABLE.
                (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, RETRY_AFTER_SECS)], reason).into_response()
            }
        }
    }
}

impl Ready {
    /// Sets the reason for waiting that `/readyz` reports.
    pub fn waiting_for(&self, reason: String) {
        self.reason.send_replace(reason);
    }

    /// From now on `router` answers.
    pub fn serve(self, router: Router) {
        // This is the only handle, and the call consumes it, so the router cannot have been set before.
        let _ = self.router.set(router);
    }
}

impl Service<Request<Body>> for Starting {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self.router.get() {
            Some(router) => Box::pin(router.clone().oneshot(request)),
            None => Box::pin(std::future::ready(Ok(self.answer(request.uri().path())))),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use http_body_util::BodyExt as _;

    use super::*;

    async fn ask(router: &Router, path: &str) -> (u16, String) {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn alive_but_not_ready_and_then_the_router_answers() {
        let (router, ready) = Starting::router(Kind::Manager);
        assert_eq!(ask(&router, "/healthz").await, (200, "alive\n".into()));
        ready.waiting_for("the database is down".into());
        assert_eq!(ask(&router, "/readyz").await, (503, "not ready: the database is down\n".into()));
        assert_eq!(ask(&router, "/queues").await.0, 503);
        let (status, version) = ask(&router, "/version").await;
        assert!(status == 200 && version.contains(&format!("\"version\":\"{}\"", crate::VERSION)), "{version}");
        assert!(version.contains("\"server\":\"manager\""), "{version}");
        ready.serve(Router::new().route("/queues", get(|| async { "[]" })));
        assert_eq!(ask(&router, "/queues").await, (200, "[]".into()));
        assert_eq!(ask(&router, "/nothing").await.0, 404);
    }
}

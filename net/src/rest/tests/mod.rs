//! The router, driven in process over a store in memory and fake brokers.

mod bad_input;
mod contract;
mod good_input;
mod protocol_page;

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body};
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use rmom_core::access::Call;
use rmom_core::manager::{
    Manager, ManagerExit,
    testing::{LONG, World},
};
use serde_json::Value;
use tokio::task::JoinHandle;
use tower::ServiceExt as _;

use super::{RestSettings, router};
use crate::serve::ServeStats;

/// A manager with broker 1, and its API.
struct Bench {
    world: World,
    manager: Manager<Call>,
    router: Router,
    connections: Arc<ServeStats>,
    _task: JoinHandle<ManagerExit>,
}

/// An answer.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Bench {
    async fn start() -> Self {
        let bench = Self::without_broker();
        bench.world.broker(1, LONG).await;
        bench
    }

    fn without_broker() -> Self {
        let world = World::new();
        let (manager, task) = world.manager(|_| {});
        let connections = Arc::<ServeStats>::default();
        let router = router(manager.on_behalf_of_nobody(), RestSettings::default(), connections.clone());
        Self { world, manager, router, connections, _task: task }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let (method, path) = (request.method().as_str().to_owned(), request.uri().to_string());
        let what = format!("{method} {path}");
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).unwrap_or_else(|_| panic!("{what} answered other than JSON: {bytes:?}"))
        };
        let answer = Answer { status: parts.status, headers: parts.headers, body };
        contract::check(&method, &path, &answer);
        answer
    }

    /// Sends a request without a body.
    async fn ask(&self, method: &str, path: &str) -> Answer {
        self.send(Request::builder().method(method).uri(path).body(Body::empty()).unwrap()).await
    }

    /// Sends a request with a body of JSON.
    async fn post(&self, path: &str, body: impl Into<Body>) -> Answer {
        let request = Request::builder().method("POST").uri(path).header(header::CONTENT_TYPE, "application/json");
        self.send(request.body(body.into()).unwrap()).await
    }

    /// Creates a channel of a queue, by the original's route.
    async fn channel(&self, label: &str, topic: &str) -> String {
        let answer = self.ask("PUT", &format!("/queues/{label}/channels/{topic}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body["id"].as_str().unwrap().to_owned()
    }
}

impl Answer {
    fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or("")
    }

    fn detail(&self) -> &str {
        self.body["detail"].as_str().unwrap_or("")
    }
}

async fn a_while() {
    tokio::time::sleep(Duration::from_millis(2_500)).await;
}

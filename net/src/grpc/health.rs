//! The gRPC health service, answered from the broker itself.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use rmom_core::broker::Broker;
use rmom_proto::messages::message_stream_server::SERVICE_NAME;
use tokio::time::{Instant, sleep};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, async_trait};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server::Health,
};

/// A queue that has been activated for longer makes its broker complain.
pub(super) const LONGEST_ACTIVATION: Duration = Duration::from_secs(30);

/// How often a watched broker is looked at.
pub const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Serving while the broker's lease is current, it is not stopping, and all its queues can be served.
pub(super) struct BrokerHealth {
    broker: Broker,
    /// What all watches go by: looking at every queue for each of them would cost the more the more watch.
    looked: Arc<Mutex<Option<(Instant, ServingStatus)>>>,
    /// Ends watches, which clients would keep open for ever.
    shutdown: CancellationToken,
}

impl BrokerHealth {
    pub(super) fn new(broker: Broker, shutdown: CancellationToken) -> Self {
        Self { broker, looked: Arc::default(), shutdown }
    }
}

/// The process as a whole, or the one service it has.
fn is_known(service: &str) -> bool {
    service.is_empty() || service == SERVICE_NAME
}

fn current(broker: &Broker) -> ServingStatus {
    if broker.heartbeat().is_ok() && !broker.has_broken_queue(LONGEST_ACTIVATION) {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    }
}

/// As [`current`], of [`WATCH_INTERVAL`] ago at most.
fn watched(broker: &Broker, looked: &Mutex<Option<(Instant, ServingStatus)>>) -> ServingStatus {
    let mut looked = looked.lock();
    match *looked {
        Some((at, status)) if at.elapsed() < WATCH_INTERVAL => status,
        _ => {
            let status = current(broker);
            *looked = Some((Instant::now(), status));
            status
        }
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[async_trait]
impl Health for BrokerHealth {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !is_known(&service) {
            return Err(Status::not_found(format!("there is no service {service:?} here")));
        }
        Ok(Response::new(answer(current(&self.broker))))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        if !is_known(&request.into_inner().service) {
            // The protocol has the call go on, in case the service appears; here none ever does.
            let unknown = stream::once(async { Ok(answer(ServingStatus::ServiceUnknown)) });
            let shutdown = self.shutdown.clone().cancelled_owned();
            return Ok(Response::new(Box::pin(unknown.chain(stream::pending()).take_until(shutdown))));
        }
        let (broker, looked) = (self.broker.clone(), self.looked.clone());
        let changes = stream::unfold(None, move |last| {
            let (broker, looked) = (broker.clone(), looked.clone());
            async move {
                loop {
                    let now = watched(&broker, &looked);
                    if last != Some(now) {
                        return Some((Ok(answer(now)), Some(now)));
                    }
                    sleep(WATCH_INTERVAL).await;
                }
            }
        });
        Ok(Response::new(Box::pin(changes.take_until(self.shutdown.clone().cancelled_owned()))))
    }
}

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

/// A queue whose activation has taken longer than this makes its broker complain.
pub(super) const LONGEST_ACTIVATION: Duration = Duration::from_secs(30);

/// How often the status of a watched broker is read.
pub const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Healthy while the broker's lease is current, the broker is not stopping, and all its queues can be served.
pub(super) struct BrokerHealth {
    broker: Broker,
    /// The status that all watches share: otherwise each watch would look at every queue.
    looked: Arc<Mutex<Option<(Instant, ServingStatus)>>>,
    /// Ends watches, which clients would otherwise keep open for ever.
    shutdown: CancellationToken,
}

impl BrokerHealth {
    pub(super) fn new(broker: Broker, shutdown: CancellationToken) -> Self {
        Self { broker, looked: Arc::default(), shutdown }
    }
}

/// True for the process as a whole, and for its one service.
fn is_known(service: &str) -> bool {
    service.is_empty() || service == SERVICE_NAME
}

fn current(broker: &Broker) -> ServingStatus {
    if broker.may_serve() && !broker.has_broken_queue(LONGEST_ACTIVATION) {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    }
}

/// Like [`current`], but up to [`WATCH_INTERVAL`] old.
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
            // The protocol keeps the call open in case the service appears later; here that never happens.
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

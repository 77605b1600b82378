//! gRPC: the broker's service over its handle, and the manager's client for the brokers.
//!
//! - `router` puts everything that a broker serves on one port.
//! - `service` has the methods, `parse` reads their requests into the core's types, `push_stream` serves the stream of
//!   pushes.
//! - `counted` counts pushes before they are read, `tally` counts their parts before they are decoded.
//! - `subscribe` is the one method that bypasses tonic: it sends stored bytes unchanged.
//! - `status` turns errors into statuses and back.
//! - `complaints` lists the reasons why a broker is not healthy.
//! - `probe_streams` limits the streams of health and reflection that clients keep open.
//! - `control` is a client: the calls that managers make to brokers.

mod complaints;
mod control;
mod counted;
mod deadline;
mod filled;
mod health;
mod parse;
mod probe_streams;
mod push_stream;
mod router;
mod service;
mod status;
mod subscribe;
mod tally;

pub use control::{CONTROL_CONNECT_TIMEOUT, GrpcControl, MAX_CONTROL_CHANNELS};
pub use counted::{MESSAGE_TIMEOUT, STALL_TIMEOUT};
pub use deadline::MAX_UNARY_DEADLINE;
pub use health::WATCH_INTERVAL;
pub use probe_streams::{MAX_PROBE_STREAMS, MAX_PROBE_STREAMS_PER_PEER};
pub use push_stream::{MAX_PENDING_RUNS, OPEN_TIMEOUT};
pub use router::{BrokerService, MAX_PROBE_REQUEST_BYTES, MAX_SMALL_REQUEST_BYTES, REQUEST_SLACK_BYTES, broker_router};
pub(crate) use status::status;
pub use status::{ErrorInfo, error_info, grpc_code, stable_code, to_status};
pub use subscribe::{EPOCH_HEADER, MAX_SUBSCRIBE_REQUEST_BYTES, QUEUE_ID_HEADER};
#[cfg(feature = "testing")]
pub use tally::tally_run;

/// Reads a run of a push stream into the core's types, as the service does. For benchmarks.
///
/// # Errors
/// The field that is wrong, and the expected value.
#[cfg(feature = "testing")]
pub fn parse_run(
    run: rmom_proto::messages::PushStreamMessages,
) -> Result<rmom_core::broker::PushRun, rmom_core::broker::BrokerError> {
    parse::push_run(run)
}

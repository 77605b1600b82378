//! tonic with rmom's service: the limit of what gRPC can carry, and the original's shape.

pub(crate) mod deliver;
pub(crate) mod serve;
mod service;
pub(crate) mod stream;
pub(crate) mod unary;

use std::time::Duration;

use rmom_proto::messages::message_stream_client::MessageStreamClient;
use tonic::transport::{Channel, Endpoint};

use crate::load::Error;

/// As long as those of `rmom bench`.
const QUEUE: &str = "side-by-side-0123456789abcdef-0";
/// Lifetime of messages, as in `rmom bench`.
const TTL: Duration = Duration::from_secs(2 * 3_600);
/// As rmom's client sets them.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// See [`STREAM_WINDOW_BYTES`].
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

fn ttl_millis() -> u64 {
    TTL.as_secs() * 1_000
}

/// As `rmom bench` connects for unary calls.
fn endpoint(at: &str) -> Result<Endpoint, Error> {
    let endpoint = Endpoint::from_shared(format!("http://{at}"));
    endpoint.map(|endpoint| endpoint.tcp_nodelay(true)).map_err(|error| Error::Other(format!("{at}: {error}")))
}

/// As rmom's client connects for streams.
fn stream_endpoint(at: &str) -> Result<Endpoint, Error> {
    let endpoint = endpoint(at)?.initial_stream_window_size(STREAM_WINDOW_BYTES);
    Ok(endpoint.initial_connection_window_size(CONNECTION_WINDOW_BYTES))
}

async fn connect(endpoint: &Endpoint) -> Result<MessageStreamClient<Channel>, Error> {
    let error = |error| {
        let at = endpoint.uri();
        Error::Other(format!("cannot connect to {at}: {error}; start a server: rmom-peers serve-tonic HOST:PORT"))
    };
    endpoint.connect().await.map(MessageStreamClient::new).map_err(error)
}

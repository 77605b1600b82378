//! The servers.

use axum::routing::post;
use rmom_net::serve::{
    DEFAULT_KEEPALIVE_INTERVAL, DEFAULT_KEEPALIVE_TIMEOUT, HTTP2_LARGEST_WINDOW_BYTES, HTTP2_MAX_FRAME_BYTES,
    HTTP2_MAX_HEADER_LIST_BYTES, HTTP2_MAX_STREAMS, HTTP2_STREAM_WINDOW_BYTES,
};
use rmom_proto::messages::message_stream_server::{MessageStreamServer, SERVICE_NAME};
use sqlx::{Executor as _, PgPool, postgres::PgPoolOptions};
use tokio::net::TcpListener;
use tonic::{
    service::Routes,
    transport::{Server, server::TcpIncoming},
};

use super::{deliver, service::Methods};
use crate::load::{Error, runtime};

/// As the original's, but for a reference to a table of queues.
const MESSAGES: &str = "
DROP TABLE IF EXISTS side_by_side_original;
CREATE TABLE side_by_side_original (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), queue_label text NOT NULL,
    topic text NOT NULL, expires_at timestamptz NOT NULL, content bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now())";
/// Of the original's own configuration; everything else about its pool is sqlx' default, there and here.
const CONNECTIONS: (u32, u32) = (2, 20);

/// tonic, and nothing behind it.
pub(crate) fn tonic(at: &str) -> Result<(), Error> {
    runtime()?.block_on(serve(at, Methods::new(None)))
}

/// The original's shape: a unary call and a transaction for each message.
pub(crate) fn original(at: &str, url: &str) -> Result<(), Error> {
    runtime()?.block_on(async {
        let (min, max) = CONNECTIONS;
        let pool: PgPool = PgPoolOptions::new().min_connections(min).max_connections(max).connect(url).await?;
        pool.execute(MESSAGES).await?;
        serve(at, Methods::new(Some(pool))).await
    })
}

/// With the settings of rmom's own server; only how much is held ready to be sent cannot be set here: 400 KiB, there 512.
async fn serve(at: &str, methods: Methods) -> Result<(), Error> {
    let cannot = |error: &dyn std::fmt::Display| Error::Other(format!("cannot serve on {at}: {error}"));
    let listener = TcpListener::bind(at).await.map_err(|error| cannot(&error))?;
    let mut routes = Routes::new(MessageStreamServer::new(methods));
    let router = std::mem::take(routes.axum_router_mut());
    // Beside tonic, as rmom does, since tonic would encode each message for each subscriber.
    *routes.axum_router_mut() = router.route(&format!("/{SERVICE_NAME}/SubscribeToChannel"), post(deliver::serve));
    let server = Server::builder()
        .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES.1)
        .initial_connection_window_size(HTTP2_LARGEST_WINDOW_BYTES)
        .max_concurrent_streams(HTTP2_MAX_STREAMS)
        .max_frame_size(HTTP2_MAX_FRAME_BYTES)
        .http2_max_header_list_size(HTTP2_MAX_HEADER_LIST_BYTES)
        .http2_keepalive_interval(Some(DEFAULT_KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(DEFAULT_KEEPALIVE_TIMEOUT))
        .add_routes(routes.prepare());
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    server.serve_with_incoming(incoming).await.map_err(|error| cannot(&error))
}

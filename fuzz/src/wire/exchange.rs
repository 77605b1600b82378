//! A request and its answer, with a correct HTTP client.

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::{sleep, timeout};

use super::cluster::{Cluster, PATIENCE, Port};

/// The largest answer to one request.
const MAX_ANSWER_BYTES: usize = 256 << 10;
/// An answer that pauses for this long is a subscription without new messages.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// `None` if the body has not ended.
    pub(super) trailers: Option<HeaderMap>,
}

pub(super) type Client = http2::SendRequest<Full<Bytes>>;

/// A connection for several requests.
pub(super) async fn connect(cluster: &Cluster, port: Port) -> Client {
    let io = TokioIo::new(cluster.dial(port));
    let (client, connection) = http2::handshake(TokioExecutor::new(), io).await.expect("the server speaks HTTP/2");
    tokio::spawn(connection);
    client
}

/// Sends a request, and reads the answer to its end, or until it pauses if `may_pause`.
pub(super) async fn send(client: &mut Client, request: Request<Full<Bytes>>, may_pause: bool) -> Answer {
    let what = format!("{} {}", request.method(), request.uri());
    let answer = timeout(PATIENCE, client.send_request(request)).await;
    let answer = answer.unwrap_or_else(|_| panic!("{what} has no answer"));
    read(answer.unwrap_or_else(|error| panic!("{what}: {error}")), &what, may_pause).await
}

async fn read(answer: http::Response<hyper::body::Incoming>, what: &str, may_pause: bool) -> Answer {
    let (head, mut incoming) = answer.into_parts();
    let (mut body, mut trailers) = (Vec::new(), Some(HeaderMap::new()));
    loop {
        let frame = tokio::select! {
            biased;
            frame = timeout(PATIENCE, incoming.frame()) => frame.unwrap_or_else(|_| panic!("{what} has no end")),
            () = sleep(PAUSE), if may_pause => {
                trailers = None;
                break;
            }
        };
        let Some(frame) = frame else { break };
        match frame.unwrap_or_else(|error| panic!("{what}: {error}")).into_data() {
            Ok(data) => body.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
        assert!(body.len() <= MAX_ANSWER_BYTES, "{what} has an answer of more than {MAX_ANSWER_BYTES} bytes");
    }
    Answer { status: head.status.as_u16(), headers: head.headers, body: body.into(), trailers }
}

/// Requests a page by HTTP/1.1, over a connection of its own.
pub(super) async fn get(cluster: &Cluster, port: Port, path: &str) -> Answer {
    let io = TokioIo::new(cluster.dial(port));
    let (mut client, connection) = http1::handshake(io).await.expect("a handshake is no traffic");
    tokio::spawn(connection);
    let request = Request::get(path).header("host", port.authority()).body(Full::<Bytes>::default());
    let asked = client.send_request(request.expect("it is a request"));
    let answer = timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("{path} has no answer"));
    read(answer.unwrap_or_else(|error| panic!("{path}: {error}")), path, false).await
}

//! The raw wire, without our client library: gRPC stubs and plain HTTP over the simulated network.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rmom_core::{marks::reached, ports::Transport as _};
use rmom_net::grpc::error_info;
use rmom_proto::messages::message_stream_client::MessageStreamClient;
use rmom_sim::{MANAGER_PORT, SimNet, manager_host};
use serde_json::Value;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

use crate::run::marks::TOLD_OVERLOADED;

/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The flow-control window of a stream.
const WINDOW_BYTES: u32 = 65_535;

/// The error of a raw call.
#[derive(Clone, Debug)]
pub(super) struct RawError {
    /// rmom's code if the answer has one; otherwise the gRPC code, `HTTP_` and the status, or `UNREACHABLE`.
    pub(super) code: String,
    pub(super) message: String,
    /// True if the call may have taken effect nevertheless.
    pub(super) unknown: bool,
    /// True if the error came from an rmom process, not from the transport.
    pub(super) answered: bool,
    /// The address at which the broker says that the queue is.
    pub(super) hosted_at: Option<String>,
}

/// True for a refusal code after which the request may have taken effect nevertheless.
fn is_unknown(code: &str) -> bool {
    matches!(code, "OUTCOME_UNKNOWN" | "DEADLINE_EXCEEDED" | "INTERNAL")
}

impl RawError {
    pub(super) fn unreachable(message: impl Into<String>, unknown: bool) -> Self {
        let (code, message) = ("UNREACHABLE".to_owned(), message.into());
        Self { code, message, unknown, answered: false, hosted_at: None }
    }

    pub(super) fn late() -> Self {
        Self { code: "NO_ANSWER".to_owned(), ..Self::unreachable("no answer in time", true) }
    }
}

impl From<tonic::Status> for RawError {
    fn from(status: tonic::Status) -> Self {
        let message = status.message().to_owned();
        match error_info(&status) {
            Some(info) => {
                if info.reason == "OVERLOADED" {
                    reached(TOLD_OVERLOADED);
                }
                let hosted_at = (info.reason == "NOT_HOSTED")
                    .then(|| Some(format!("{}:{}", info.metadata.get("host")?, info.metadata.get("port")?)))
                    .flatten();
                let unknown = is_unknown(&info.reason);
                Self { unknown, code: info.reason, message, answered: true, hosted_at }
            }
            None => {
                let code = format!("GRPC_{:?}", status.code()).to_uppercase();
                Self { code, message, unknown: true, answered: false, hosted_at: None }
            }
        }
    }
}

/// A connection to a broker, with the keepalive that the documentation recommends to all clients.
pub(super) fn broker(authority: &str) -> MessageStreamClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{authority}"))
        .expect("authorities of simulated brokers are valid")
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(1))
        .keep_alive_while_idle(true)
        // Little is in transit to a client that takes nothing, so later messages were sent later. The checkers know this
        // size.
        .initial_stream_window_size(WINDOW_BYTES)
        // h2 ends a connection if its unread small frames, counted as 256 bytes each, exceed half of its window.
        .initial_connection_window_size(16 * WINDOW_BYTES);
    let authority = authority.to_owned();
    let channel = endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
        let authority = authority.clone();
        async move {
            timeout(CONNECT_TIMEOUT, SimNet.connect(&authority))
                .await
                .unwrap_or_else(|elapsed| Err(elapsed.into()))
                .map(TokioIo::new)
        }
    }));
    MessageStreamClient::new(channel)
}

/// A plain HTTP client of the managers.
#[derive(Clone, Debug)]
pub(super) struct Rest {
    managers: usize,
    /// The manager that is asked first.
    preferred: usize,
    timeout: Duration,
}

impl Rest {
    pub(super) fn new(managers: usize, timeout: Duration) -> Self {
        Self { managers: managers.max(1), preferred: 0, timeout }
    }

    /// Asks this manager first, counted from 1.
    pub(super) fn first(self, manager: usize) -> Self {
        Self { preferred: manager - 1, ..self }
    }

    /// Makes a call, and returns its status and, if it is JSON, its body. If repeating the call is harmless, tries each
    /// manager until one answers with a status below 500.
    pub(super) async fn call(
        &mut self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<(u16, Value), RawError> {
        let mut last = None;
        for _ in 0..self.managers {
            let error = match self.ask(self.preferred + 1, &method, path, body.as_ref()).await {
                Ok((status, answer)) if status < 500 => return Ok((status, answer)),
                Ok((status, answer)) => refusal(status, &answer),
                Err(error) => error,
            };
            self.preferred = (self.preferred + 1) % self.managers;
            let stop = error.unknown && method != Method::GET;
            last = Some(error);
            if stop {
                break;
            }
        }
        Err(last.expect("there is a manager"))
    }

    /// Like [`Rest::call`], but a refusal is an error.
    pub(super) async fn ok(&mut self, method: Method, path: &str, body: Option<Value>) -> Result<Value, RawError> {
        match self.call(method, path, body).await? {
            (status, answer) if status < 400 => Ok(answer),
            (status, answer) => Err(refusal(status, &answer)),
        }
    }

    /// Asks one manager; managers are counted from 1.
    pub(super) async fn ask(
        &self,
        manager: usize,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value), RawError> {
        let authority = format!("{}:{MANAGER_PORT}", manager_host(manager));
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let (status, answer) = exchange(&authority, method, path, body, self.timeout).await?;
        Ok((status, serde_json::from_slice(&answer).unwrap_or(Value::Null)))
    }

    /// The `host:port` of the broker of a queue or a channel: `path` is `/queues/L` or `/channels/ID`.
    pub(super) async fn locate(&mut self, path: &str) -> Result<String, RawError> {
        let answer = self.ok(Method::GET, path, None).await?;
        let place = answer["host"].as_str().zip(answer["port"].as_u64());
        place
            .map(|(host, port)| format!("{host}:{port}"))
            .ok_or_else(|| RawError::unreachable(format!("an answer without a place: {answer}"), false))
    }
}

/// Sends one request over a connection of its own, and returns the answer's status and body.
pub(super) async fn exchange(
    authority: &str,
    method: &Method,
    path: &str,
    body: Bytes,
    limit: Duration,
) -> Result<(u16, Bytes), RawError> {
    let io = timeout(CONNECT_TIMEOUT, SimNet.connect(authority)).await;
    let io = match io {
        Ok(Ok(io)) => TokioIo::new(io),
        Ok(Err(error)) => return Err(RawError::unreachable(error.to_string(), false)),
        Err(_) => return Err(RawError::unreachable("no connection in time", false)),
    };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, authority)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body));
    let request = request.map_err(|error| RawError::unreachable(error.to_string(), false))?;
    let exchange = async {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        let exchange = async {
            let response = sender.send_request(request).await?;
            let status = response.status().as_u16();
            Ok::<_, hyper::Error>((status, response.into_body().collect().await?.to_bytes()))
        };
        tokio::pin!(exchange, connection);
        tokio::select! {
            biased;
            answer = &mut exchange => answer,
            // If the connection fails, the exchange reports the error as well.
            _ = &mut connection => exchange.await,
        }
    };
    match timeout(limit, exchange).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(RawError::unreachable(error.to_string(), true)),
        Err(_) => Err(RawError::late()),
    }
}

fn refusal(status: u16, answer: &Value) -> RawError {
    let code = answer["code"].as_str().map_or_else(|| format!("HTTP_{status}"), str::to_owned);
    let message = answer["detail"].as_str().unwrap_or_default().to_owned();
    RawError { unknown: is_unknown(&code), code, message, answered: true, hosted_at: None }
}

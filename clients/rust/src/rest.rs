//! Calls to the managers: REST over HTTP/1.1, one connection per call.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rmom_proto::contract::{self, Code};
use serde::{Deserialize, de::DeserializeOwned};
use tracing::debug;

use crate::{
    Error,
    connect::{Dialer, Protocol},
};

/// The largest answer that is read. A list of all queues of a cluster, with descriptions, is smaller.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Characters that need no escape in a segment of a path (RFC 3986: unreserved).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One segment of a path, escaped.
pub(crate) fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// A manager's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manager {
    authority: String,
    tls: bool,
}

impl Manager {
    /// Reads a URL of a host and optionally a port.
    pub(crate) fn parse(url: &str, tls_configured: bool) -> Result<Self, Error> {
        let refuse = |reason: &str| {
            let reason = format!("{url:?} {reason}; it has to look like \"http://127.0.0.1:8082\"");
            Err(Error::Config { setting: "managers", reason })
        };
        let Ok(uri) = url.parse::<Uri>() else { return refuse("is not a URL") };
        let (tls, default_port) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") if tls_configured => (true, 443),
            Some("https") => return refuse("needs TLS, which is not configured"),
            _ => return refuse("starts with neither http:// nor https://"),
        };
        let Some(authority) = uri.authority().filter(|a| !a.host().is_empty() && !a.as_str().contains('@')) else {
            return refuse("names no host");
        };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return refuse("has a path");
        }
        let port = authority.port_u16().unwrap_or(default_port);
        Ok(Self { authority: contract::authority(authority.host(), port), tls })
    }
}

/// All managers; any of them can answer.
#[derive(Debug)]
pub(crate) struct Managers {
    all: Vec<Manager>,
    /// Index of the manager that answered last; it is asked first.
    preferred: AtomicUsize,
    dialer: Dialer,
}

/// The fields of an error: `application/problem+json`, and the same document on the original's routes.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Problem {
    code: Option<String>,
    title: Option<String>,
    detail: Option<String>,
    #[serde(flatten)]
    more: BTreeMap<String, serde_json::Value>,
}

impl Managers {
    pub(crate) fn new(all: Vec<Manager>, dialer: Dialer) -> Self {
        Self { all, preferred: AtomicUsize::new(0), dialer }
    }

    /// A call whose answer is JSON.
    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&serde_json::Value>,
        timeout: Duration,
    ) -> Result<T, Error> {
        let (authority, answer) = self.call(method, path, body, timeout).await?;
        serde_json::from_slice(&answer).map_err(|error| Error::Protocol {
            authority,
            reason: format!("the answer to {path} is not as expected: {error}"),
        })
    }

    /// A call whose answer is ignored if it is a success. Tries one manager after the other, each for at most `timeout`,
    /// until one answers. A call that changes something is not repeated once it may have been read; in that case, the next
    /// call begins with another manager, so that a caller that repeats it is not stuck with a manager that cannot reach the
    /// store.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&serde_json::Value>,
        timeout: Duration,
    ) -> Result<(String, Bytes), Error> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut failure = None;
        for index in (0..self.all.len()).map(|i| (first + i) % self.all.len()) {
            let manager = &self.all[index];
            match self.ask(manager, &method, path, body, timeout).await {
                Ok((status, answer)) if status.is_success() => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok((manager.authority.clone(), answer));
                }
                Ok((status, answer)) => {
                    let error = refusal(&manager.authority, &format!("{method} {path}"), status, &answer);
                    // A manager that cannot reach the store knows less than the next one may, and a server that is not a
                    // manager knows nothing.
                    let next =
                        matches!(error, Error::Protocol { .. }) || status.is_server_error() && method == Method::GET;
                    if !next {
                        if status.is_server_error() {
                            self.pass_over(index);
                        }
                        return Err(error);
                    }
                    failure = Some(error);
                }
                Err(error) => {
                    debug!(manager = manager.authority, %error, "a manager did not answer");
                    let may_ask_again = method == Method::GET || !error.outcome_unknown();
                    failure = Some(error);
                    if !may_ask_again {
                        self.pass_over(index);
                        break;
                    }
                }
            }
        }
        Err(failure.expect("the builder sees to it that there is a manager"))
    }

    /// The next call begins with the manager after this one.
    fn pass_over(&self, index: usize) {
        self.preferred.store((index + 1) % self.all.len(), Ordering::Relaxed);
    }

    async fn ask(
        &self,
        manager: &Manager,
        method: &Method,
        path: &str,
        body: Option<&serde_json::Value>,
        timeout: Duration,
    ) -> Result<(StatusCode, Bytes), Error> {
        let mut sent = false;
        tokio::time::timeout(timeout, self.exchange(manager, method, path, body, &mut sent)).await.unwrap_or_else(
            |_| {
                let what = format!("{method} {path} at {}", manager.authority);
                Err(Error::DeadlineExceeded { what, after: timeout, sent })
            },
        )
    }

    async fn exchange(
        &self,
        manager: &Manager,
        method: &Method,
        path: &str,
        body: Option<&serde_json::Value>,
        sent: &mut bool,
    ) -> Result<(StatusCode, Bytes), Error> {
        let unreachable =
            |reason: String, sent| Error::Unreachable { authority: manager.authority.clone(), reason, sent };
        let io = self
            .dialer
            .dial(&manager.authority, Protocol::Http1, manager.tls)
            .await
            .map_err(|error| unreachable(error.to_string(), false))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io))
            .await
            .map_err(|error| unreachable(error.to_string(), false))?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &manager.authority)
            .header(header::CONNECTION, "close")
            .header(header::ACCEPT, "application/json");
        let body = body.map_or_else(Bytes::new, |json| json.to_string().into());
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(body)).map_err(|error| Error::Config {
            setting: "managers",
            reason: format!("{path:?} at {} is no valid request: {error}", manager.authority),
        })?;
        *sent = true;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|error| unreachable(error.to_string(), true))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
            Ok((status, body.map_err(|error| unreachable(error.to_string(), true))?.to_bytes()))
        };
        // The connection is driven here instead of in a task of its own; the answer reports its failures as well.
        let connection = async {
            let _ = connection.await;
            std::future::pending().await
        };
        tokio::select! {
            biased;
            answer = answer => answer,
            never = connection => never,
        }
    }
}

/// Reads a manager's error. An answer without one of rmom's codes is from a proxy, or from a server that is not a manager;
/// its "not found" says nothing about our queues.
fn refusal(authority: &str, request: &str, status: StatusCode, answer: &[u8]) -> Error {
    let problem: Problem = serde_json::from_slice(answer).unwrap_or_default();
    let message = problem.detail.or(problem.title).unwrap_or_else(|| {
        let text = String::from_utf8_lossy(answer);
        let text = text.trim().chars().take(200).collect::<String>();
        if text.is_empty() { status.to_string() } else { format!("{status}: {text}") }
    });
    let Some(code) = problem.code.or_else(|| proxys_code(status).map(str::to_owned)) else {
        let reason = format!("it answered {request} as no manager does, with {message}");
        return Error::Protocol { authority: authority.to_owned(), reason };
    };
    let details = problem
        .more
        .into_iter()
        .filter_map(|(name, value)| match value {
            serde_json::Value::String(text) => Some((name, text)),
            serde_json::Value::Number(number) => Some((name, number.to_string())),
            _ => None,
        })
        .collect();
    Error::Refused { by: authority.to_owned(), code, message, details }
}

/// The code for a status that came without one.
fn proxys_code(status: StatusCode) -> Option<&'static str> {
    match status {
        StatusCode::UNAUTHORIZED => Some("UNAUTHENTICATED"),
        StatusCode::FORBIDDEN => Some("PERMISSION_DENIED"),
        // A manager behind a proxy is down, or has not opened its store yet.
        status if status.is_server_error() => Some(Code::StoreUnavailable.as_str()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manager_urls_are_hosts_and_ports() {
        let authority = |url: &str| Manager::parse(url, false).unwrap().authority;
        assert_eq!(authority("http://127.0.0.1:8082"), "127.0.0.1:8082");
        assert_eq!(authority("http://manager/"), "manager:80");
        assert_eq!(authority("http://[::1]:5"), "[::1]:5");
        assert!(Manager::parse("https://manager", true).unwrap().tls);
        for (url, reason) in [
            ("manager:8082", "neither"),
            ("https://manager", "TLS"),
            ("http://manager/v1", "path"),
            ("http://user@manager", "host"),
            ("", "URL"),
            ("http://", "URL"),
        ] {
            let error = Manager::parse(url, false).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn labels_become_one_segment() {
        assert_eq!(segment("a/b ä?"), "a%2Fb%20%C3%A4%3F");
    }

    #[test]
    fn refusals_have_the_managers_code_or_are_somebody_elses() {
        let error =
            refusal("m:1", "POST /v1/queues", StatusCode::CONFLICT, br#"{"code":"QUEUE_EXISTS","detail":"it exists"}"#);
        assert_eq!(
            (error.code(), error.to_string().as_str()),
            ("QUEUE_EXISTS", "m:1 refused: it exists (QUEUE_EXISTS)")
        );
        let code = |status| refusal("m:1", "GET /queues/x", status, b"").code().to_owned();
        assert_eq!(code(StatusCode::SERVICE_UNAVAILABLE), "STORE_UNAVAILABLE");
        assert_eq!(code(StatusCode::FORBIDDEN), "PERMISSION_DENIED");
        // These must not become QUEUE_NOT_FOUND, which would end producers.
        for status in [StatusCode::NOT_FOUND, StatusCode::BAD_REQUEST, StatusCode::FOUND] {
            let error = refusal("m:1", "GET /queues/x", status, b"no such page\n");
            assert_eq!((error.code(), error.is_retryable()), ("PROTOCOL_VIOLATION", true));
            assert!(error.to_string().ends_with(&format!("with {status}: no such page")), "{error}");
        }
    }
}

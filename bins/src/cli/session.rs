//! Shared by all commands of `rmom` that talk to a cluster.

use std::{fs::File, io::BufReader, path::PathBuf, sync::Arc, time::Duration};

use axum::http::{Request, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::{client::legacy::Client as LegacyClient, rt::TokioExecutor};
use rmom_client::{
    Client, ClientBuilder, Error,
    rustls::{
        self, ClientConfig, RootCertStore,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

use tokio::time::timeout;

use super::{args::TlsArgs, error::CliError};

/// The hint for a cluster that does not answer.
const IS_IT_RUNNING: &str = "Is it running? Start one with: rmom dev. Elsewhere? Name it with --manager URL.";
/// Limit on the time of [`Session::post`].
const POST_TIMEOUT: Duration = Duration::from_secs(15);
/// Limit on the length of an explanation that is read.
const MAX_PROBLEM_BYTES: usize = 64 << 10;

/// The cluster named on the command line.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) client: Client,
    managers: Vec<String>,
}

impl Session {
    /// Creates a session; does not connect yet.
    pub(super) fn new(
        managers: &[String],
        tls: &TlsArgs,
        set: impl FnOnce(ClientBuilder) -> ClientBuilder,
    ) -> Result<Self, CliError> {
        let managers: Vec<String> = managers.iter().map(|url| url.trim().trim_end_matches('/').to_owned()).collect();
        let mut builder = Client::builder().managers(managers.clone());
        if let Some(config) = tls_config(tls)? {
            builder = builder.tls(Arc::new(config));
        }
        let client = set(builder).build().map_err(|error| match error {
            Error::Config { setting: "managers", reason } => {
                let error = CliError::usage(format_args!("--manager: {reason}"));
                let wants_tls = tls.ca.is_none() && managers.iter().any(|url| url.starts_with("https:"));
                if wants_tls {
                    error.hint("For TLS, name the certificates that vouch for it with --ca FILE.")
                } else {
                    error
                }
            }
            Error::Config { setting: "delivery_timeout", reason } => {
                CliError::usage(format_args!("--timeout: {reason}"))
            }
            other => CliError::usage(other),
        })?;
        Ok(Self { client, managers })
    }

    /// The managers' URLs, without a slash at the end.
    pub(super) fn managers(&self) -> &[String] {
        &self.managers
    }

    /// Posts to a route of `rmom dev`, which the client library does not have.
    pub(super) async fn post(&self, path: &str) -> Result<(), CliError> {
        let manager = self.managers.first().map_or("", String::as_str);
        let request = Request::post(format!("{manager}{path}")).body(Empty::<Bytes>::new()).map_err(CliError::usage)?;
        let answer = async {
            let http = LegacyClient::builder(TokioExecutor::new()).build_http();
            let response = http.request(request).await.map_err(|error| {
                let reason = plain(&deepest(&error).to_string());
                CliError::unavailable(format_args!("cannot reach a manager at {manager}: {reason}")).hint(IS_IT_RUNNING)
            })?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_PROBLEM_BYTES).collect().await;
            let body = body.map_err(CliError::unavailable)?.to_bytes();
            Ok::<_, CliError>((status, body))
        };
        let (status, body) = timeout(POST_TIMEOUT, answer)
            .await
            .map_err(|_| CliError::unavailable(format_args!("no answer from {manager} within {POST_TIMEOUT:?}")))??;
        if status.is_success() {
            return Ok(());
        }
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let detail = problem["detail"].as_str().map_or_else(|| status.to_string(), str::to_owned);
        Err(match problem["code"].as_str() {
            Some("BROKER_NOT_FOUND") => CliError::not_found(detail),
            None | Some("NO_SUCH_ROUTE") if status == StatusCode::NOT_FOUND => {
                CliError::not_found(format_args!("the manager at {manager} was not started by rmom dev"))
            }
            _ if status.is_server_error() => CliError::unavailable(detail),
            _ => CliError::refused(detail),
        })
    }

    /// The client's error, as shown to the user.
    pub(super) fn explain(&self, error: &Error) -> CliError {
        if let Error::Unreachable { authority, reason, sent: false } = error
            && let Some(url) = self.managers.iter().find(|url| url.ends_with(authority.as_str()))
        {
            let reason = plain(reason);
            let message = match self.managers.len() {
                1 => format!("cannot reach a manager at {url}: {reason}"),
                _ => format!("cannot reach any manager of {}; the last one said: {reason}", self.managers.join(", ")),
            };
            return CliError::unavailable(message).hint(IS_IT_RUNNING);
        }
        let code = root(error).code();
        let message = text(error);
        let error = match code {
            "QUEUE_NOT_FOUND" | "CHANNEL_NOT_FOUND" | "BROKER_NOT_FOUND" => CliError::not_found(message),
            "INVALID_CONFIG" => CliError::usage(message),
            _ if error.is_retryable() => CliError::unavailable(message),
            _ => CliError::refused(message),
        };
        match hint(code) {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// The failure at the root of the error.
fn root(error: &Error) -> &Error {
    match error {
        Error::NotDelivered { reason, .. } => root(reason),
        Error::GaveUp { last, .. } | Error::DeliveryTimeout { last: Some(last), .. } => root(last),
        error => error,
    }
}

fn text(error: &Error) -> String {
    match error {
        // The server that refused, and the field's name in the API, do not help a user at a terminal.
        Error::Refused { message, .. } => {
            let field =
                ["queue_label: ", "channel_id: ", "broker_id: "].iter().find(|field| message.starts_with(**field));
            message[field.map_or(0, |field| field.len())..].to_owned()
        }
        Error::NotDelivered { reason, outcome_unknown: false } => text(reason),
        Error::NotDelivered { reason, .. } => format!("it may or may not be stored: {}", text(reason)),
        Error::DeliveryTimeout { after, last: Some(last) } | Error::GaveUp { after, last } => {
            format!("gave up after {after:?}: {}", text(last))
        }
        error => error.to_string(),
    }
}

fn hint(code: &str) -> Option<&'static str> {
    Some(match code {
        "QUEUE_NOT_FOUND" => "List the queues with: rmom queue list. Create one with: rmom queue create LABEL",
        "CHANNEL_NOT_FOUND" => "List the channels with: rmom channel list",
        "BROKER_NOT_FOUND" | "NO_BROKER" | "NOT_HOSTED" => "See the state of the brokers with: rmom broker list",
        "UNSETTLED" => "See which broker does not answer with: rmom broker list",
        "QUEUE_REPLACED" => {
            "The queue was deleted meanwhile. If there is a new one of that label, subscribe or push to it again."
        }
        "PRODUCER_FENCED" => "Another run with the same --producer took over; let one run at a time.",
        "MESSAGE_TOO_LARGE" => "Send less at once, or raise max_message_bytes of the brokers.",
        "STORE_ROLLED_BACK" => "An older copy of the database was restored, or data was lost; see the operators' page.",
        "STORE_UNAVAILABLE" => "The database is down or slow; try again later.",
        "STORE_REFUSED" => "The database is full or read-only: free space, or make it writable.",
        "PROTOCOL_VIOLATION" => {
            "Is that a manager? Brokers listen on other ports. Name the manager with --manager URL (rmom dev prints it)."
        }
        _ => return None,
    })
}

/// The root cause; the errors around it only say that something failed.
pub(super) fn deepest<'e>(error: &'e (dyn std::error::Error + 'static)) -> &'e (dyn std::error::Error + 'static) {
    error.source().map_or(error, deepest)
}

/// `Connection refused (os error 111)` without its number and capital.
pub(super) fn plain(reason: &str) -> String {
    let reason = reason.split(" (os error").next().unwrap_or(reason);
    let mut letters = reason.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

pub(super) fn tls_config(args: &TlsArgs) -> Result<Option<ClientConfig>, CliError> {
    let Some(ca) = &args.ca else { return Ok(None) };
    let unusable =
        |file: &PathBuf, reason: &dyn std::fmt::Display| CliError::usage(format_args!("{}: {reason}", file.display()));
    let certificates = |file: &PathBuf| {
        let reader = BufReader::new(File::open(file).map_err(|error| unusable(file, &error))?);
        let all: Result<Vec<_>, _> = CertificateDer::pem_reader_iter(reader).collect();
        all.map_err(|error| unusable(file, &error))
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(|error| unusable(ca, &error))?;
    }
    if roots.is_empty() {
        return Err(unusable(ca, &"the file contains no certificate"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(CliError::usage)?
        .with_root_certificates(roots);
    let config = match (&args.cert, &args.key) {
        (Some(cert), Some(key)) => {
            let chain = certificates(cert)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| unusable(cert, &error))?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Some(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(managers: &[&str]) -> Session {
        let managers: Vec<String> = managers.iter().map(|&url| url.to_owned()).collect();
        Session::new(&managers, &TlsArgs::default(), |builder| builder).unwrap()
    }

    fn refused(code: &str, message: &str) -> Error {
        Error::Refused { by: "h:1".into(), code: code.into(), message: message.into(), details: [].into() }
    }

    #[test]
    fn a_missing_manager_is_named_with_a_way_out() {
        let error = Error::Unreachable {
            authority: "127.0.0.1:8082".into(),
            reason: "Connection refused (os error 111)".into(),
            sent: false,
        };
        let explained = session(&["http://127.0.0.1:8082/"]).explain(&error);
        assert_eq!(explained.exit_code(), 4);
        assert_eq!(
            explained.to_string(),
            "cannot reach a manager at http://127.0.0.1:8082: connection refused\n\
             Is it running? Start one with: rmom dev. Elsewhere? Name it with --manager URL."
        );
        let explained = session(&["http://a:1", "http://127.0.0.1:8082"]).explain(&error).to_string();
        assert!(explained.starts_with("cannot reach any manager of http://a:1, http://127.0.0.1:8082;"), "{explained}");
    }

    #[test]
    fn codes_decide_the_exit_code() {
        let session = session(&["http://m:1"]);
        let code = |error| session.explain(&error).exit_code();
        assert_eq!(code(refused("QUEUE_NOT_FOUND", "")), 3);
        assert_eq!(code(refused("CHANNEL_NOT_FOUND", "")), 3);
        assert_eq!(code(refused("QUEUE_EXISTS", "")), 1);
        assert_eq!(code(refused("INVALID_NAME", "")), 1);
        assert_eq!(code(refused("NO_BROKER", "")), 4);
        assert_eq!(code(refused("STORE_UNAVAILABLE", "")), 4);
        let timeout = |last: Error| Error::DeliveryTimeout {
            after: std::time::Duration::from_secs(1),
            last: Some(Arc::new(last)),
        };
        assert_eq!(code(timeout(refused("STORE_UNAVAILABLE", ""))), 4);
        assert_eq!(code(timeout(refused("QUEUE_NOT_FOUND", ""))), 3);
        let lost = Error::NotDelivered { reason: Arc::new(refused("MESSAGE_TOO_LARGE", "")), outcome_unknown: false };
        assert_eq!(code(lost), 1);
    }

    #[test]
    fn refusals_are_told_without_the_names_of_fields() {
        let text = session(&["http://m:1"])
            .explain(&refused("QUEUE_NOT_FOUND", "queue_label: there is no queue x"))
            .to_string();
        assert!(text.starts_with("there is no queue x\nList the queues"), "{text}");
    }
}

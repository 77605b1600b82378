//! The observations of `rmom doctor`: asks every manager of the command line, and every broker that they name.

use std::{
    fs, io,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::http::{Request, StatusCode, Uri, header::HOST};
use bytes::Bytes;
use futures_util::{StreamExt as _, future::join_all, stream};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rmom_client::{
    Broker, Connector as _, Io, Status, TcpConnector,
    rustls::{ClientConfig, pki_types::ServerName},
};
use rmom_proto::messages::{HeartbeatRequest, message_stream_client::MessageStreamClient};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tower::{Service as _, ServiceExt as _};

use super::{
    super::session::{deepest, plain},
    checks::{About, BrokerAnswer, BrokerSeen, ManagerAnswer, ManagerSeen, Readiness, Seen},
};
use crate::service::{authority, routers::VERSION_PATH};

/// Number of brokers that are asked at once.
const BROKERS_AT_ONCE: usize = 64;
/// The largest answer that is read. The state of a cluster with thousands of brokers is smaller.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// The file in which Linux lists the limits of a process.
const LIMITS: &str = "/proc/self/limits";

/// Any failure; only its text matters.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Asks all of them. The managers get half of the time, so that the brokers have the other half.
pub(super) async fn look(managers: &[String], tls: Option<Arc<ClientConfig>>, time: Duration) -> Seen {
    let begun = Instant::now();
    let asked = managers.iter().map(|url| look_at_manager(url, tls.as_ref(), begun + time / 2));
    let managers = join_all(asked).await;
    let named = brokers(&managers);
    let asked = stream::iter(named).map(|broker| look_at_broker(broker, tls.as_ref(), begun + time));
    let brokers = asked.buffered(BROKERS_AT_ONCE).collect().await;
    let limits = fs::read_to_string(LIMITS).unwrap_or_default();
    Seen { version: crate::VERSION.to_owned(), open_files: open_files(&limits), managers, brokers }
}

/// The brokers named by the managers. A broker is alive if any manager counts it as alive.
fn brokers(managers: &[ManagerSeen]) -> Vec<Broker> {
    let statuses = managers.iter().filter_map(|manager| manager.answer.as_ref().ok()?.status.as_ref().ok());
    let mut all: Vec<Broker> = Vec::new();
    for broker in statuses.flat_map(|status| &status.brokers) {
        match all.iter_mut().find(|known| (&known.host, known.port) == (&broker.host, broker.port)) {
            Some(known) if broker.live && !known.live => known.clone_from(broker),
            Some(_) => {}
            None => all.push(broker.clone()),
        }
    }
    all.sort_by_key(|broker| broker.id.unwrap_or(u64::MAX));
    all
}

/// The soft limit in Linux's table. `None` means unlimited, or another system.
fn open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

async fn look_at_manager(url: &str, tls: Option<&Arc<ClientConfig>>, by: Instant) -> ManagerSeen {
    let answer = match timeout_at(by, ask_manager(url, tls)).await {
        Ok(answer) => answer.map_err(|error| reason(&*error)),
        Err(_) => Err("it did not answer in time".to_owned()),
    };
    ManagerSeen { url: url.to_owned(), answer }
}

async fn ask_manager(url: &str, tls: Option<&Arc<ClientConfig>>) -> Result<ManagerAnswer, Failure> {
    let uri: Uri = url.parse()?;
    let is_tls = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let place = format!("{}:{port}", uri.host().unwrap_or_default());
    let sent = Instant::now();
    let stream = dial(&place, tls.filter(|_| is_tls), b"http/1.1").await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut get = async |path: &str| -> Result<(StatusCode, Bytes), Failure> {
        sender.ready().await?;
        let request = Request::get(path).header(HOST, &place).body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        Ok((status, Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await?.to_bytes()))
    };
    let asked = wall_millis();
    let (_, version) = get(VERSION_PATH).await?;
    let (took, about) = (sent.elapsed(), about(&version, asked, wall_millis()));
    let (status, body) = get("/readyz").await?;
    let readiness = readiness(status, &body);
    let (code, body) = get("/v1/status").await?;
    let status = serde_json::from_slice::<Status>(&body).map_err(|error| match code {
        StatusCode::OK => error.to_string(),
        other => format!("{other} for /v1/status"),
    });
    Ok(ManagerAnswer { took, about, readiness, status })
}

async fn look_at_broker(broker: Broker, tls: Option<&Arc<ClientConfig>>, by: Instant) -> BrokerSeen {
    if !broker.live {
        return BrokerSeen { broker, connection: None };
    }
    let connection = match timeout_at(by, ask_broker(&authority(&broker.host, broker.port), tls)).await {
        Ok(answer) => answer.map_err(|error| reason(&*error)),
        Err(_) => Err("it did not answer in time".to_owned()),
    };
    BrokerSeen { broker, connection: Some(connection) }
}

/// Acts like a client: connects to the address that the broker gives out, and makes a call over gRPC.
async fn ask_broker(place: &str, tls: Option<&Arc<ClientConfig>>) -> Result<BrokerAnswer, Failure> {
    let begun = Instant::now();
    // The connector handles TLS; the scheme is only a header.
    let endpoint = Endpoint::from_shared(format!("http://{place}"))?;
    let (to, tls) = (place.to_owned(), tls.cloned());
    let connector = tower::service_fn(move |_| {
        let (to, tls) = (to.clone(), tls.clone());
        async move { dial(&to, tls.as_ref(), b"h2").await.map(TokioIo::new) }
    });
    let mut channel = endpoint.connect_with_connector(connector).await?;
    MessageStreamClient::new(channel.clone())
        .get_heartbeat(HeartbeatRequest {})
        .await
        .map_err(|status| status.message().to_owned())?;
    let took = begun.elapsed();
    let about = ask_version(&mut channel).await.unwrap_or_default();
    Ok(BrokerAnswer { took, about })
}

async fn ask_version(channel: &mut Channel) -> Result<About, Failure> {
    let request = Request::get(VERSION_PATH).body(tonic::body::Body::empty())?;
    let asked = wall_millis();
    let response = channel.ready().await?.call(request).await?;
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await?.to_bytes();
    Ok(about(&body, asked, wall_millis()))
}

async fn dial(place: &str, tls: Option<&Arc<ClientConfig>>, protocol: &[u8]) -> io::Result<Box<dyn Io>> {
    let stream = TcpConnector.connect(place).await?;
    let Some(config) = tls else { return Ok(stream) };
    let mut config = ClientConfig::clone(config);
    config.alpn_protocols = vec![protocol.to_vec()];
    let host = place.rsplit_once(':').map_or(place, |(host, _)| host).trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await?))
}

fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    plain(&deepest(error).to_string())
}

fn wall_millis() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// The answer of `/version`, which came between two readings of this machine's clock.
fn about(body: &[u8], asked: i64, answered: i64) -> About {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    About {
        version: body["version"].as_str().map(str::to_owned),
        ahead_millis: body["unix_millis"].as_i64().map(|told| ahead(told, asked, answered)),
    }
}

/// The least time by which a clock is ahead that was read between these two readings of this machine's clock. Negative if it
/// is behind.
fn ahead(told: i64, asked: i64, answered: i64) -> i64 {
    // This machine's clock may have been set back in between.
    let (first, last) = (asked.min(answered), asked.max(answered));
    told.saturating_sub(told.clamp(first, last))
}

fn readiness(status: StatusCode, body: &[u8]) -> Readiness {
    if status == StatusCode::OK {
        return Readiness::Ready;
    }
    let text = String::from_utf8_lossy(body);
    // A server that is waiting for its database answers with a line of text.
    if let Some(reason) = text.strip_prefix("not ready: ") {
        return Readiness::Waiting(reason.trim().to_owned());
    }
    let document: Value = serde_json::from_slice(body).unwrap_or_default();
    let code = document["code"].as_str().map(str::to_owned);
    Readiness::NotReady { code, reason: document["reason"].as_str().unwrap_or(text.trim()).to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_is_the_soft_one() {
        let table = "Limit                     Soft Limit           Hard Limit           Units     \n\
                     Max processes             95943                95943                processes \n\
                     Max open files            1024                 524288               files     \n";
        assert_eq!(open_files(table), Some(1_024));
        assert_eq!(open_files(&table.replace("1024  ", "unlimited")), None);
        assert_eq!(open_files(""), None);
    }

    #[test]
    fn a_clock_is_off_only_as_far_as_the_answers_time_does_not_explain() {
        assert_eq!(ahead(1_500, 1_000, 2_000), 0);
        assert_eq!(ahead(2_500, 1_000, 2_000), 500);
        assert_eq!(ahead(400, 1_000, 2_000), -600);
        assert_eq!(ahead(1_500, 2_000, 1_000), 0);
        assert_eq!(ahead(i64::MIN, 1, 2), i64::MIN);
    }

    #[test]
    fn a_version_comes_with_a_time_or_not_at_all() {
        let told = about(br#"{"version":"0.1.0 (0123456789ab)","unix_millis":5000}"#, 1_000, 2_000);
        assert_eq!(told, About { version: Some("0.1.0 (0123456789ab)".into()), ahead_millis: Some(3_000) });
        assert_eq!(about(b"nothing here\n", 1_000, 2_000), About::default());
    }

    #[test]
    fn a_manager_that_is_not_ready_says_why() {
        assert_eq!(readiness(StatusCode::OK, b"anything"), Readiness::Ready);
        let said = |body: &str| readiness(StatusCode::SERVICE_UNAVAILABLE, body.as_bytes());
        let not_ready = |code: Option<&str>, reason: &str| Readiness::NotReady {
            code: code.map(str::to_owned),
            reason: reason.to_owned(),
        };
        let document = r#"{"status":"not ready","code":"STORE_UNAVAILABLE","reason":"it is down"}"#;
        assert_eq!(said(document), not_ready(Some("STORE_UNAVAILABLE"), "it is down"));
        assert_eq!(said(r#"{"reason":"full"}"#), not_ready(None, "full"));
        assert_eq!(said("bad gateway"), not_ready(None, "bad gateway"));
        assert_eq!(said("not ready: no database\n"), Readiness::Waiting("no database".into()));
    }

    #[test]
    fn a_broker_that_any_manager_counts_as_alive_is_asked() {
        let broker =
            |live| Broker { id: Some(1), host: "b".into(), port: 1, state: "up".into(), live, queues: 0, gone: false };
        let manager = |live| ManagerSeen {
            url: String::new(),
            answer: Ok(ManagerAnswer {
                took: Duration::ZERO,
                about: About::default(),
                readiness: Readiness::Ready,
                status: Ok(super::super::tests::status(vec![broker(live)])),
            }),
        };
        assert_eq!(brokers(&[manager(false), manager(true), manager(false)]), [broker(true)]);
        let other = |id| Broker { id, host: "c".into(), port: id.unwrap_or(2) as u16, ..broker(true) };
        let mut several = manager(true);
        several.answer.as_mut().unwrap().status =
            Ok(super::super::tests::status(vec![other(None), other(Some(9)), broker(true)]));
        assert_eq!(brokers(&[several]), [broker(true), other(Some(9)), other(None)]);
    }
}

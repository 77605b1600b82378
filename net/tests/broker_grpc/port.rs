//! Other services on a broker's port: health, reflection, probes, metrics; also TLS, and stopping.

use std::{fs, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use rmom_core::{
    broker::BrokerSettings,
    model::{Code, QueueLabel},
    ports::{BrokerControl as _, Transport as _},
};
use rmom_net::{
    grpc::{GrpcControl, MAX_PROBE_STREAMS_PER_PEER, stable_code},
    serve::{RESERVED_PATHS, ServeSettings},
    transport::{Identity, Tcp, Tls, TlsFiles},
};
use rmom_proto::messages::{
    DescribeQueueRequest, PushStreamOpen, PushStreamRequest, RefreshRequest, RefreshResponse, push_stream_request,
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::support::{PATIENCE, Server, create_channel, memory_store, next, push, refused, subscribe};

async fn get(server: &Server, path: &str) -> (StatusCode, String) {
    let io = Tcp.connect(&server.addr.authority()).await.unwrap();
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get(path).header("host", "broker").body(Empty::<Bytes>::new()).unwrap();
    let (parts, body) = client.send_request(request).await.unwrap().into_parts();
    (parts.status, String::from_utf8(body.collect().await.unwrap().to_bytes().into()).unwrap())
}

#[tokio::test]
async fn probes_and_metrics_over_plain_http() {
    let server = Server::start().await;
    let mut client = server.client_with_queue().await;
    client.push_to_queue(push("x", "")).await.unwrap();
    assert_eq!(get(&server, "/healthz").await, (StatusCode::OK, r#"{"status":"alive"}"#.to_owned()));
    assert_eq!(get(&server, "/readyz").await, (StatusCode::OK, r#"{"status":"ready"}"#.to_owned()));
    let (status, page) = get(&server, "/metrics").await;
    assert_eq!(status, StatusCode::OK);
    for line in
        ["rmom_broker_lease_current 1", "rmom_queue_pushed_total{queue=\"q\"} 1", "rmom_queue_epoch{queue=\"q\"} 1"]
    {
        assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
    }
    assert_eq!(get(&server, "/nonsense").await.0, StatusCode::NOT_FOUND);

    server.broker.shutdown(PATIENCE).await;
    let (status, why) = get(&server, "/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(why.contains("stopping"), "{why}");
    assert_eq!(get(&server, "/healthz").await.0, StatusCode::OK);
}

#[tokio::test]
async fn grpc_health_follows_the_lease() {
    let server = Server::start().await;
    let mut health = HealthClient::new(server.channel());
    let request = |service: &str| HealthCheckRequest { service: service.into() };
    for service in ["", "messages.MessageStream"] {
        let answer = health.check(request(service)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
    assert_eq!(health.check(request("other")).await.unwrap_err().code(), tonic::Code::NotFound);
    let mut unknown = health.watch(request("other")).await.unwrap().into_inner();
    assert_eq!(unknown.message().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
    let mut watch = health.watch(request("")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    server.broker.shutdown(PATIENCE).await;
    let change = timeout(PATIENCE, watch.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(change.status(), ServingStatus::NotServing);
    server.shutdown.cancel();
    assert!(timeout(PATIENCE, watch.message()).await.unwrap().unwrap().is_none(), "the watch ends with the server");
}

#[tokio::test]
async fn the_services_describe_themselves() {
    let server = Server::start().await;
    let mut client = ServerReflectionClient::new(server.channel());
    let list = MessageRequest::ListServices(String::new());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let mut answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) = answers.next().await.unwrap().unwrap().message_response
    else {
        panic!("expected a list")
    };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert!(names.contains(&"messages.MessageStream") && names.contains(&"grpc.health.v1.Health"), "{names:?}");
}

#[tokio::test]
async fn only_pushes_may_be_large() {
    let server = Server::start().await;
    for path in ["/messages.MessageStream/GetHeartbeat", "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"]
    {
        let mut grpc = tonic::client::Grpc::new(server.channel());
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<PushStreamOpen, PushStreamOpen>::default();
        let open = PushStreamOpen { queue_label: "x".repeat(100 << 10), ..PushStreamOpen::default() };
        let answer = grpc.unary(tonic::Request::new(open), http::uri::PathAndQuery::from_static(path), codec).await;
        let message = refused(answer, Code::MessageTooLarge);
        assert!(message.starts_with("request: "), "{path}: {message}");
    }
}

#[tokio::test]
async fn unknown_methods_are_unimplemented() {
    let server = Server::start().await;
    for path in ["/messages.MessageStream/Nonsense", "/other.Service/Method"] {
        let mut grpc = tonic::client::Grpc::new(server.channel());
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<PushStreamOpen, PushStreamOpen>::default();
        let request = tonic::Request::new(PushStreamOpen::default());
        let answer = grpc.unary(request, http::uri::PathAndQuery::from_static(path), codec).await;
        assert_eq!(answer.unwrap_err().code(), tonic::Code::Unimplemented, "{path}");
    }
}

#[tokio::test]
async fn stopping_tells_everybody_and_does_not_wait_for_the_idle() {
    let mut server = Server::start().await;
    let mut client = server.client_with_queue().await;
    let channel_id = create_channel(&mut client, "").await;
    let mut subscription = subscribe(&mut client, &channel_id).await;
    let open = PushStreamOpen { queue_label: "q".into(), ..PushStreamOpen::default() };
    let open = PushStreamRequest { request: Some(push_stream_request::Request::Open(open)) };
    let requests = tokio_stream::once(open).chain(tokio_stream::pending());
    let mut acks = client.push_stream(requests).await.unwrap().into_inner();
    acks.message().await.unwrap().unwrap();

    let begun = Instant::now();
    server.broker.shutdown(PATIENCE).await;
    server.shutdown.cancel();
    refused(next(&mut subscription).await, Code::ShuttingDown);
    refused(timeout(PATIENCE, acks.message()).await.unwrap(), Code::ShuttingDown);
    timeout(PATIENCE, &mut server.serving).await.expect("the server stops").unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "no deadline was waited for: {:?}", begun.elapsed());
}

/// A CA, and an identity for 127.0.0.1 that it signed.
fn tls(dir: &Path) -> Tls {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    let file = |name: &str, pem: String| {
        let path = dir.join(name);
        fs::write(&path, pem).unwrap();
        path
    };
    let ca = file("ca.pem", ca.pem());
    let identity =
        Identity { certificate: file("certificate.pem", certificate.pem()), key: file("key.pem", key.serialize_pem()) };
    Tls::from_files(&TlsFiles { identity: Some(identity), server_ca: Some(ca.clone()), client_ca: Some(ca) }).unwrap()
}

#[tokio::test]
async fn everything_works_over_mutual_tls() {
    use rmom_core::ports::BrokerControl as _;
    let dir = tempfile::tempdir().unwrap();
    let tls = Arc::new(tls(dir.path()));
    let server = Server::start_with(memory_store(), tls.clone()).await;
    let mut client = server.client_with_queue().await;
    let channel_id = create_channel(&mut client, "").await;
    client.push_to_queue(push("secret", "")).await.unwrap();
    let mut stream = subscribe(&mut client, &channel_id).await;
    assert_eq!(next(&mut stream).await.unwrap().content, "secret");
    rmom_net::grpc::GrpcControl::new(tls).heartbeat(&server.addr, PATIENCE).await.unwrap();

    let plain = Tcp.connect(&server.addr.authority()).await.unwrap();
    let (mut plain, connection) = hyper::client::conn::http1::handshake(TokioIo::new(plain)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("/healthz").header("host", "b").body(Empty::<Bytes>::new()).unwrap();
    plain.send_request(request).await.expect_err("plain text is not understood");
}

#[tokio::test]
async fn behind_a_proxy_one_address_may_look_up_what_all_may() {
    for (max_connections_per_peer, expected) in [(1, Code::Overloaded), (0, Code::QueueNotFound)] {
        let serving = ServeSettings { max_connections_per_peer, ..ServeSettings::default() };
        let slow = |settings: &mut BrokerSettings| settings.max_lookups_per_second = 8;
        let server = Server::start_as(memory_store(), Arc::new(Tcp), serving, slow).await;
        let mut client = server.client();
        let mut last = None;
        for n in 0..8 {
            let asked = DescribeQueueRequest { queue_label: format!("unknown {n}") };
            last = client.describe_queue(asked).await.err().and_then(|status| stable_code(&status));
        }
        assert_eq!(last, Some(expected), "max_connections_per_peer: {max_connections_per_peer}");
    }
}

#[tokio::test]
async fn the_reserve_is_wired_to_what_managers_and_operators_ask() {
    let serving = ServeSettings { max_connections: 1, ..ServeSettings::default() };
    let server = Server::start_as(memory_store(), Arc::new(Tcp), serving, |_| {}).await;
    let mut first = server.client_with_queue().await;
    let control = GrpcControl::new(Arc::new(Tcp));
    let label = QueueLabel::parse("q").unwrap();
    control.heartbeat(&server.addr, PATIENCE).await.unwrap();
    control.refresh(&server.addr, PATIENCE).await.unwrap();
    control.rebuild(&server.addr, &label, PATIENCE).await.unwrap();
    control.describe(&server.addr, &label, PATIENCE).await.unwrap();
    control.states(&server.addr, &(label.clone()..=label), PATIENCE).await.unwrap();
    let complaints = control.complaints(&server.addr, PATIENCE).await.unwrap();
    assert!(complaints[0].starts_with("all 1 connections are taken (max_connections)"), "{complaints:?}");
    let (status, why) = get(&server, "/readyz").await;
    assert!(status == StatusCode::SERVICE_UNAVAILABLE && why.contains(&complaints[0]), "{why}");
    for path in ["/healthz", "/metrics", "/metrics/per-object"] {
        assert_eq!(get(&server, path).await.0, StatusCode::OK, "{path}");
    }
    // Every path of the reserve exists on a server.
    let of_managers = ["/v1/status"];
    for path in RESERVED_PATHS.into_iter().filter(|path| path.contains('.')) {
        let mut grpc = tonic::client::Grpc::new(server.channel());
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<RefreshRequest, RefreshResponse>::default();
        let path = http::uri::PathAndQuery::from_static(path);
        let answer = grpc.unary(tonic::Request::new(RefreshRequest {}), path.clone(), codec).await;
        let code = answer.as_ref().err().map(tonic::Status::code);
        assert!(!matches!(code, Some(tonic::Code::Unimplemented | tonic::Code::Unavailable)), "{path}: {answer:?}");
    }
    assert_eq!(RESERVED_PATHS.iter().filter(|path| !path.contains('.')).count(), 4 + of_managers.len());
    let refusal = refused(server.client().push_to_queue(push("x", "")).await, Code::TooManyConnections);
    assert!(refusal.contains("max_connections"), "{refusal}");
    first.push_to_queue(push("x", "")).await.unwrap();
}

#[tokio::test]
async fn streams_that_only_watch_are_few() {
    let server = Server::start().await;
    let mut health = HealthClient::new(server.channel());
    let request = || HealthCheckRequest { service: String::new() };
    let mut watches = Vec::new();
    for _ in 0..MAX_PROBE_STREAMS_PER_PEER {
        watches.push(health.watch(request()).await.unwrap());
    }
    let refusal = refused(health.watch(request()).await, Code::Overloaded);
    assert_eq!(refusal, "your address has 64 watches of health; ask with Check");
    health.check(request()).await.unwrap();
    let mut reflection = ServerReflectionClient::new(server.channel());
    let (mut questions, mut answers) = (Vec::new(), Vec::new());
    for _ in 0..MAX_PROBE_STREAMS_PER_PEER {
        let (ask, asked) = mpsc::channel(1);
        questions.push(ask);
        answers.push(reflection.server_reflection_info(ReceiverStream::new(asked)).await.unwrap());
    }
    refused(reflection.server_reflection_info(tokio_stream::empty()).await, Code::Overloaded);
    drop((watches, questions, answers));
    let again = async {
        while health.watch(request()).await.is_err()
            || reflection.server_reflection_info(tokio_stream::empty()).await.is_err()
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, again).await.expect("those that end make room");
}

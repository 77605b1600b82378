//! Subscriptions, read by the generated client.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rmom_core::{model::Code, ports::Transport as _};
use rmom_net::transport::Tcp;
use rmom_proto::messages::{Header, Position, Push, SubscriptionRequest};
use tokio::time::{sleep, timeout};
use tonic::Status;

use crate::support::{PATIENCE, Server, create_channel, describe, next, push, refused, subscribe};

#[tokio::test]
async fn positions_are_in_the_headers_and_are_gone_on_from() {
    let server = Server::start().await;
    let mut client = server.client_with_queue().await;
    let channel_id = create_channel(&mut client, "").await;
    for content in ["one", "two", "three"] {
        let headers = vec![Header { name: "k".into(), value: content.into() }];
        client.push_to_queue(Push { headers, ttl_millis: 60_000, ..push(content, "T") }).await.unwrap();
    }
    let request = SubscriptionRequest { channel_id: channel_id.clone(), position: None };
    let response = client.subscribe_to_channel(request).await.unwrap();
    let header = |name: &str| response.metadata().get(name).unwrap().to_str().unwrap().parse::<u64>().unwrap();
    let (queue_id, epoch) = (header("rmom-queue-id"), header("rmom-epoch"));
    let described = describe(&mut client).await;
    assert_eq!((queue_id, epoch), (described.queue_id, described.epoch));
    let mut stream = response.into_inner();
    let first = next(&mut stream).await.unwrap();
    assert_eq!(uuid::Uuid::parse_str(&first.id).unwrap().get_version_num(), 8);
    assert_eq!((&first.content[..], first.topic.as_str(), first.offset), (&b"one"[..], "t", 1));
    assert_eq!((first.headers[0].name.as_str(), &first.headers[0].value[..]), ("k", &b"one"[..]));
    assert_eq!(first.ttl_millis, 60_000);

    let position = Some(Position { queue_id, epoch, offset: 2 });
    let resumed = client.subscribe_to_channel(SubscriptionRequest { channel_id, position }).await.unwrap();
    assert_eq!(next(&mut resumed.into_inner()).await.unwrap().offset, 3);
}

#[tokio::test]
async fn the_end_of_a_queue_is_said() {
    let server = Server::start().await;
    let mut client = server.client_with_queue().await;
    let channel_id = create_channel(&mut client, "").await;
    let mut stream = subscribe(&mut client, &channel_id).await;
    let deleted = rmom_proto::messages::DeleteQueueRequest { queue_label: "q".into() };
    client.delete_queue(deleted).await.unwrap();
    let end = next(&mut stream).await.unwrap_err();
    assert!(matches!(end.code(), tonic::Code::NotFound | tonic::Code::FailedPrecondition), "{end:?}");
    assert!(rmom_net::grpc::stable_code(&end).is_some());
}

#[tokio::test]
async fn a_slow_subscriber_is_waited_for_and_loses_nothing() {
    const MESSAGES: u64 = 64;
    let server = Server::start().await;
    let mut client = server.client_with_queue().await;
    let channel_id = create_channel(&mut client, "").await;
    let mut slow = subscribe(&mut client, &channel_id).await;
    let content = Bytes::from(vec![7; 256 << 10]);
    for _ in 0..MESSAGES {
        client.push_to_queue(push(content.clone(), "")).await.unwrap();
    }
    // The windows of client and kernel hold a few MiB of these 16; the rest is neither handed over nor kept in memory.
    let mut handed = 0;
    let settled = async {
        loop {
            sleep(std::time::Duration::from_millis(100)).await;
            let offset = describe(&mut client).await.subscribers[0].offset;
            if offset > 0 && offset == std::mem::replace(&mut handed, offset) {
                break;
            }
        }
    };
    timeout(PATIENCE, settled).await.expect("the windows fill up");
    assert!((1..MESSAGES).contains(&handed), "{handed} were handed over");
    for offset in 1..=MESSAGES {
        let message = next(&mut slow).await.unwrap();
        assert_eq!((message.offset, message.content.len()), (offset, content.len()));
    }
    let page = describe(&mut client).await;
    assert_eq!((page.subscribers[0].offset, page.subscribers[0].lag), (MESSAGES, 0));
}

#[tokio::test]
async fn small_messages_that_are_not_read_do_not_end_the_connection() {
    const MESSAGES: u64 = 1_000;
    let server = Server::start().await;
    let mut client = server.client_with_queue().await;
    let channel_id = create_channel(&mut client, "").await;
    // HTTP/2's own windows. Such a client allows half of a window for the overhead of small frames.
    let mut slow = subscribe(&mut server.client_with_windows(65_535), &channel_id).await;
    for n in 0..MESSAGES {
        client.push_to_queue(push(n.to_string(), "")).await.unwrap();
    }
    for offset in 1..=MESSAGES {
        assert_eq!(next(&mut slow).await.unwrap().offset, offset);
    }
}

#[tokio::test]
async fn a_client_that_goes_away_is_forgotten() {
    let server = Server::start().await;
    let mut client = server.client_with_queue().await;
    let channel_id = create_channel(&mut client, "").await;
    let stream = subscribe(&mut client, &channel_id).await;
    assert_eq!(describe(&mut client).await.subscribers.len(), 1);
    assert!(describe(&mut client).await.subscribers[0].peer.starts_with("127.0.0.1:"));
    drop(stream);
    let forgotten = async {
        while !describe(&mut client).await.subscribers.is_empty() {
            sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, forgotten).await.expect("the reset ends the subscription");
}

/// A request that a generated client would not send.
async fn raw(server: &Server, content_type: &str, body: &[u8]) -> http::Response<Bytes> {
    let io = Tcp.connect(&server.addr.authority()).await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post(format!("http://{}/messages.MessageStream/SubscribeToChannel", server.addr))
        .header("content-type", content_type)
        .body(Full::new(Bytes::copy_from_slice(body)))
        .unwrap();
    let (parts, body) = client.send_request(request).await.unwrap().into_parts();
    http::Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn malformed_requests_get_trailers_only() {
    let server = Server::start().await;
    let status = async |body: &[u8]| {
        let response = raw(&server, "application/grpc", body).await;
        assert_eq!((response.status(), response.body().len()), (StatusCode::OK, 0));
        assert_eq!(response.headers()["content-type"], "application/grpc");
        assert!(response.headers().get("date").is_none());
        Status::from_header_map(response.headers()).unwrap()
    };
    assert_eq!(status(&[1, 0, 0, 0, 1, 9]).await.code(), tonic::Code::Unimplemented);
    for malformed in [&[0, 0, 0, 0][..], &[0, 0, 0, 0, 9], &[0, 0, 0, 0, 1, 0xFF], &[2, 0, 0, 0, 0]] {
        refused(Err::<(), _>(status(malformed).await), Code::InvalidArgument);
    }
    let json = raw(&server, "application/json", b"{}").await;
    assert_eq!(json.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

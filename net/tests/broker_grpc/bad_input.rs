//! Requests that are refused, and that change nothing.

use bytes::Bytes;
use rmom_core::model::Code;
use rmom_net::grpc::{MAX_SUBSCRIBE_REQUEST_BYTES, REQUEST_SLACK_BYTES, error_info};
use rmom_proto::messages::{
    CreateChannelRequest, CreateQueueRequest, DeleteChannelRequest, Header, OpenProducerRequest, Position,
    ProducerStamp, Push, PushMessage, PushStreamMessages, PushStreamRequest, SubscriptionRequest, push_stream_request,
};

use crate::support::{Client, MAX_MESSAGE_BYTES, Server, create_channel, describe, push, refused};

#[tokio::test]
async fn labels_and_topics() {
    let server = Server::start().await;
    let mut client = server.client_with_queue().await;
    for label in ["", &"x".repeat(256), "a\u{0}b", " a", "__NONE__", "__none__", "line\nbreak"] {
        let create = client.create_queue(CreateQueueRequest { queue_label: label.into() }).await;
        let message = refused(create, Code::InvalidName);
        assert!(message.starts_with("queue_label"), "{message}");
        let push = Push { queue_label: label.into(), ..push("x", "") };
        refused(client.push_to_queue(push).await, Code::InvalidName);
    }
    for topic in [&"x".repeat(256), "a\tb", "a "] {
        let create = CreateChannelRequest { queue_label: "q".into(), topic: topic.into() };
        let message = refused(client.create_channel(create).await, Code::InvalidName);
        assert!(message.starts_with("topic"), "{message}");
        refused(client.push_to_queue(push("x", topic)).await, Code::InvalidName);
    }
    let unknown = Push { queue_label: "unknown".into(), ..push("x", "") };
    refused(client.push_to_queue(unknown).await, Code::QueueNotFound);
    assert_eq!(server.broker.status().queues.len(), 1);
    assert_eq!(describe(&mut client).await.last_offset, 0);
}

#[tokio::test]
async fn ids_and_positions() {
    let server = Server::start().await;
    let mut client = server.client_with_queue().await;
    let channel_id = create_channel(&mut client, "").await;
    let queue_id = describe(&mut client).await.queue_id;
    let subscribe = async |client: &mut Client, channel_id: &str, position| {
        let request = SubscriptionRequest { channel_id: channel_id.into(), position };
        client.subscribe_to_channel(request).await
    };
    for malformed in ["", "nonsense", "67e55044-10b1-426f-9247-bb680e5fe0cX"] {
        let message = refused(subscribe(&mut client, malformed, None).await, Code::InvalidArgument);
        assert!(message.starts_with("channel_id is not a UUID"), "{message}");
        let delete = client.delete_channel(DeleteChannelRequest { channel_id: malformed.into() }).await;
        refused(delete, Code::InvalidArgument);
    }
    let unknown = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    refused(subscribe(&mut client, unknown, None).await, Code::ChannelNotFound);
    refused(client.delete_channel(DeleteChannelRequest { channel_id: unknown.into() }).await, Code::ChannelNotFound);

    let position = |queue_id, epoch, offset| Some(Position { queue_id, epoch, offset });
    let elsewhere = subscribe(&mut client, &channel_id, position(queue_id + 1, 1, 0)).await;
    refused(elsewhere, Code::QueueReplaced);
    let beyond = subscribe(&mut client, &channel_id, position(queue_id, 0, 5)).await.unwrap_err();
    assert_eq!(error_info(&beyond).unwrap().metadata["end"], "0");
    refused(Err::<(), _>(beyond), Code::OffsetOutOfRange);
    let lost = subscribe(&mut client, &channel_id, position(queue_id, 1, 5)).await;
    refused(lost, Code::StoreRolledBack);
    let absurd = subscribe(&mut client, &channel_id, position(queue_id, 1, u64::MAX)).await;
    refused(absurd, Code::InvalidArgument);
    let long = subscribe(&mut client, &"x".repeat(MAX_SUBSCRIBE_REQUEST_BYTES), None).await;
    refused(long, Code::InvalidArgument);

    let short = OpenProducerRequest { queue_label: "q".into(), producer_id: Bytes::from_static(b"short") };
    let message = refused(client.open_producer(short).await, Code::InvalidArgument);
    assert_eq!(message, "producer_id has 5 bytes; it takes 16");
}

#[tokio::test]
async fn producers_and_sequences() {
    let server = Server::start().await;
    let mut client = server.client_with_queue().await;
    let stamp = |lowest_unacknowledged| Some(ProducerStamp { id: vec![7; 16].into(), epoch: 0, lowest_unacknowledged });
    for (producer, sequence) in [
        (None, 1),
        (stamp(1), 0),
        (stamp(0), 1),
        (stamp(9), 1),
        (stamp(u64::MAX), 1),
        (stamp(1), u64::MAX),
        (stamp(1), i64::MAX as u64),
        (Some(ProducerStamp { id: Bytes::new(), epoch: 0, lowest_unacknowledged: 1 }), 1),
    ] {
        let push = Push { producer, sequence, ..push("x", "") };
        refused(client.push_to_queue(push).await, Code::InvalidArgument);
    }
    assert_eq!(describe(&mut client).await.last_offset, 0);
}

#[tokio::test]
async fn sizes() {
    let server = Server::start().await;
    let mut client = server.client_with_queue().await;
    // The largest content is the limit minus id, offset and their framing. It is searched for, since only the broker knows
    // the exact value.
    let (mut fits, mut too_large) = (0, MAX_MESSAGE_BYTES);
    while too_large - fits > 1 {
        let bytes = fits.midpoint(too_large);
        match client.push_to_queue(push(vec![0; bytes], "")).await {
            Ok(_) => fits = bytes,
            Err(_) => too_large = bytes,
        }
    }
    assert!(MAX_MESSAGE_BYTES - fits < 100, "{fits}");
    let end = describe(&mut client).await.last_offset;

    let refusal = client.push_to_queue(push(vec![0; too_large], "")).await.unwrap_err();
    assert_eq!(error_info(&refusal).unwrap().metadata["limit"], MAX_MESSAGE_BYTES.to_string());
    let message = refused(Err::<(), _>(refusal), Code::MessageTooLarge);
    assert!(message.starts_with("content: "), "{message}");
    for bytes in [MAX_MESSAGE_BYTES + 1, MAX_MESSAGE_BYTES * 2, MAX_MESSAGE_BYTES + 2 * REQUEST_SLACK_BYTES] {
        let message = refused(client.push_to_queue(push(vec![0; bytes], "")).await, Code::MessageTooLarge);
        assert!(message.contains("limit"), "{message}");
    }
    let header = |name: usize| Header { name: "n".repeat(name), value: Bytes::new() };
    for headers in [vec![header(1); 65], vec![header(0)], vec![header(256)]] {
        let message = refused(client.push_to_queue(Push { headers, ..push("x", "") }).await, Code::InvalidArgument);
        assert!(message.starts_with("headers: "), "{message}");
    }
    let eternal = Push { ttl_millis: u64::MAX, ..push("x", "") };
    let message = refused(client.push_to_queue(eternal).await, Code::InvalidArgument);
    assert!(message.starts_with("ttl_millis: "), "{message}");
    assert_eq!(describe(&mut client).await.last_offset, end, "nothing of it was stored");
}

/// Other faults of a request are seen only after decoding.
#[tokio::test]
async fn what_repeats_is_counted_before_it_is_decoded() {
    let server = Server::start().await;
    let mut client = server.client_with_queue().await;
    let headers = vec![Header::default(); 65];
    let push = Push { headers: headers.clone(), queue_label: String::new(), ..push("x", "") };
    let message = refused(client.push_to_queue(push).await, Code::InvalidArgument);
    assert_eq!(message, "headers: there are 65; the limit is 64");

    let mut first = async |messages| {
        let run = PushStreamMessages { messages, ..PushStreamMessages::default() };
        let request = PushStreamRequest { request: Some(push_stream_request::Request::Messages(run)) };
        let mut acks = client.push_stream(tokio_stream::once(request)).await.unwrap().into_inner();
        acks.message().await
    };
    let message = refused(first(vec![PushMessage::default(); 8_193]).await, Code::LimitReached);
    assert_eq!(message, "messages: there are 8193; the limit is 8192");
    let bad = PushMessage { headers, ..PushMessage::default() };
    let message = refused(first(vec![PushMessage::default(), bad]).await, Code::InvalidArgument);
    assert_eq!(message, "headers: there are 65; the limit is 64");
}

//! The methods of the original's clients, and our unary methods.

use rmom_core::model::{Code, limits::MAX_NAME_BYTES};
use rmom_net::grpc::error_info;
use rmom_proto::messages::{
    CreateQueueRequest, DeleteChannelRequest, DeleteQueueRequest, HeartbeatRequest, OpenProducerRequest, ProducerStamp,
    Push, RebuildQueueRequest, RefreshRequest,
};

use crate::support::{Server, create_channel, describe, memory_store, next, push, refused, subscribe};

#[tokio::test]
async fn an_original_client_gets_along() {
    let server = Server::start().await;
    let mut client = server.client();
    client.get_heartbeat(HeartbeatRequest {}).await.unwrap();
    let label = || "News".to_owned();
    client.create_queue(CreateQueueRequest { queue_label: label() }).await.unwrap();
    client.rebuild_queue(RebuildQueueRequest { queue_label: label() }).await.unwrap();
    let push = |topic: &str, content: &'static str| Push {
        content: content.into(),
        topic: topic.into(),
        queue_label: "nEWS".into(),
        ..Push::default()
    };
    client.push_to_queue(push("A", "one")).await.unwrap();
    client.push_to_queue(push("b", "two")).await.unwrap();
    let channel = rmom_proto::messages::CreateChannelRequest { queue_label: label(), topic: "a".into() };
    let channel_id = client.create_channel(channel).await.unwrap().into_inner().channel_id;
    let mut stream = subscribe(&mut client, &channel_id).await;
    client.push_to_queue(push("a", "three")).await.unwrap();
    for (content, topic, offset) in [("one", "a", 1), ("three", "a", 3)] {
        let message = next(&mut stream).await.unwrap();
        assert_eq!((&message.content[..], message.topic.as_str()), (content.as_bytes(), topic));
        assert_eq!(message.offset, offset);
    }
    client.delete_channel(DeleteChannelRequest { channel_id: channel_id.clone() }).await.unwrap();
    refused(next(&mut stream).await, Code::ChannelNotFound);
    let again = client.delete_channel(DeleteChannelRequest { channel_id }).await;
    refused(again, Code::ChannelNotFound);
    client.delete_queue(DeleteQueueRequest { queue_label: label() }).await.unwrap();
    refused(client.push_to_queue(push("a", "four")).await, Code::QueueNotFound);
}

#[tokio::test]
async fn duplicates_and_deletes_are_told() {
    let server = Server::start().await;
    let mut client = server.client_with_queue().await;
    let again = client.create_queue(CreateQueueRequest { queue_label: "Q".into() }).await;
    assert_eq!(refused(again, Code::QueueExists), "queue_label: the queue q exists");
    let first = describe(&mut client).await.queue_id;
    client.delete_queue(DeleteQueueRequest { queue_label: "q".into() }).await.unwrap();
    refused(client.delete_queue(DeleteQueueRequest { queue_label: "q".into() }).await, Code::QueueNotFound);
    client.create_queue(CreateQueueRequest { queue_label: "q".into() }).await.unwrap();
    assert!(describe(&mut client).await.queue_id > first);
    let stale = Push { queue_id: first, ..push("x", "") };
    refused(client.push_to_queue(stale).await, Code::QueueReplaced);
    let longest = "x".repeat(MAX_NAME_BYTES);
    client.create_queue(CreateQueueRequest { queue_label: longest }).await.unwrap();
}

#[tokio::test]
async fn a_retried_push_is_stored_once() {
    let server = Server::start().await;
    let mut client = server.client_with_queue().await;
    let stamp = ProducerStamp { id: vec![7; 16].into(), epoch: 0, lowest_unacknowledged: 1 };
    let numbered = |sequence| Push { producer: Some(stamp.clone()), sequence, ..push("x", "") };
    let first = client.push_to_queue(numbered(1)).await.unwrap().into_inner();
    assert!(!first.duplicate && first.offset == 1);
    let again = client.push_to_queue(numbered(1)).await.unwrap().into_inner();
    assert!(again.duplicate);
    assert_eq!(again.id, first.id);
    assert_eq!(describe(&mut client).await.depth_messages, 1);

    let gap = client.push_to_queue(numbered(5)).await.unwrap_err();
    assert_eq!(error_info(&gap).unwrap().metadata["expected"], "2");
    refused(Err::<(), _>(gap), Code::SequenceGap);
}

#[tokio::test]
async fn a_named_producer_fences_its_earlier_runs() {
    let server = Server::start().await;
    let mut client = server.client_with_queue().await;
    let open = || OpenProducerRequest { queue_label: "q".into(), producer_id: vec![9; 16].into() };
    let first = client.open_producer(open()).await.unwrap().into_inner();
    assert_eq!((first.producer_epoch, first.last_sequence), (1, 0));
    let stamp = |epoch| Some(ProducerStamp { id: vec![9; 16].into(), epoch, lowest_unacknowledged: 1 });
    client.push_to_queue(Push { producer: stamp(1), sequence: 1, ..push("x", "") }).await.unwrap();
    let second = client.open_producer(open()).await.unwrap().into_inner();
    assert_eq!((second.producer_epoch, second.last_sequence), (2, 1));
    let late = client.push_to_queue(Push { producer: stamp(1), sequence: 2, ..push("x", "") }).await.unwrap_err();
    assert_eq!(error_info(&late).unwrap().metadata["current"], "2");
    refused(Err::<(), _>(late), Code::ProducerFenced);
}

#[tokio::test]
async fn a_queue_hosted_elsewhere_is_said_where() {
    let store = memory_store();
    let here = Server::start_with(store.clone(), std::sync::Arc::new(rmom_net::transport::Tcp)).await;
    let there = Server::start_with(store, std::sync::Arc::new(rmom_net::transport::Tcp)).await;
    let mut client = there.client_with_queue().await;
    let channel_id = create_channel(&mut client, "").await;

    let mut client = here.client();
    client.refresh(RefreshRequest {}).await.unwrap();
    let refusals = [
        client.push_to_queue(push("x", "")).await.unwrap_err(),
        client.rebuild_queue(RebuildQueueRequest { queue_label: "q".into() }).await.unwrap_err(),
        client
            .subscribe_to_channel(rmom_proto::messages::SubscriptionRequest { channel_id, position: None })
            .await
            .unwrap_err(),
    ];
    for status in refusals {
        let info = error_info(&status).unwrap();
        assert_eq!(info.metadata["host"], there.addr.host);
        assert_eq!(info.metadata["port"], there.addr.port.to_string());
        let message = refused(Err::<(), _>(status), Code::NotHosted);
        assert!(message.contains(&there.addr.to_string()), "{message}");
    }
}

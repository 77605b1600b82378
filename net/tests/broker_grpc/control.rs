//! The manager's client with a real broker.

use std::{sync::Arc, time::Duration};

use rmom_core::{
    model::{Code, Offset, QueueLabel, Topic},
    ports::{BrokerControl as _, ControlError, QueueActivity},
};
use rmom_net::{grpc::GrpcControl, transport::Tcp};

use crate::support::{Server, create_channel, next, push, subscribe};

const DEADLINE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn every_call_arrives() {
    let server = Server::start().await;
    let control = GrpcControl::new(Arc::new(Tcp));
    let mut client = server.client_with_queue().await;
    let channel_id = create_channel(&mut client, "Sport").await;
    client.push_to_queue(push("x", "sport")).await.unwrap();
    client.push_to_queue(push("y", "")).await.unwrap();
    let mut stream = subscribe(&mut client, &channel_id).await;
    next(&mut stream).await.unwrap();

    let label = QueueLabel::parse("q").unwrap();
    control.heartbeat(&server.addr, DEADLINE).await.unwrap();
    control.refresh(&server.addr, DEADLINE).await.unwrap();
    control.rebuild(&server.addr, &label, DEADLINE).await.unwrap();
    let queue = control.describe(&server.addr, &label, DEADLINE).await.unwrap();
    assert_eq!((queue.last_offset, queue.depth_messages), (Offset::new(2), 2));
    assert!(queue.depth_bytes > 0 && queue.epoch.get() == 1);
    let [subscriber] = &queue.subscribers[..] else { panic!("{queue:?}") };
    assert_eq!(subscriber.channel.to_string(), channel_id);
    assert_eq!(subscriber.topic, Topic::parse("sport").unwrap());

    let all = QueueLabel::parse("a").unwrap()..=QueueLabel::parse("z").unwrap();
    let states = control.states(&server.addr, &all, DEADLINE).await.unwrap();
    let [state] = &states[..] else { panic!("{states:?}") };
    assert_eq!((state.queue, state.activity, &state.reason), (queue.queue, QueueActivity::Served, &None));
    assert_eq!((state.epoch, state.last_offset), (queue.epoch, queue.last_offset));
    assert_eq!((state.depth_messages, state.depth_bytes), (queue.depth_messages, queue.depth_bytes));
    assert_eq!(state.subscribers, 1);
    let others = QueueLabel::parse("r").unwrap()..=QueueLabel::parse("z").unwrap();
    assert_eq!(control.states(&server.addr, &others, DEADLINE).await, Ok(Vec::new()));

    assert_eq!(control.complaints(&server.addr, DEADLINE).await, Ok(Vec::new()));

    let unknown = QueueLabel::parse("unknown").unwrap();
    let refused = control.rebuild(&server.addr, &unknown, DEADLINE).await;
    assert!(matches!(refused, Err(ControlError::Refused { code: Some(Code::QueueNotFound), .. })), "{refused:?}");
}

#[tokio::test]
async fn a_broker_that_stops_refuses_and_one_that_died_is_not_reached() {
    let server = Server::start().await;
    let control = GrpcControl::new(Arc::new(Tcp));
    control.heartbeat(&server.addr, DEADLINE).await.unwrap();
    server.broker.shutdown(DEADLINE).await;
    let refused = control.heartbeat(&server.addr, DEADLINE).await;
    assert!(matches!(refused, Err(ControlError::Refused { code: Some(Code::ShuttingDown), .. })), "{refused:?}");
    // It reports the reason when asked for complaints.
    assert_eq!(control.complaints(&server.addr, DEADLINE).await.unwrap()[0], "stopping");
    let addr = server.addr.clone();
    drop(server);
    // The end of the connection may be noticed in the middle of a call; in both cases there is no answer.
    for _ in 0..3 {
        let unreachable = control.heartbeat(&addr, DEADLINE).await;
        assert!(matches!(unreachable, Err(ControlError::Unreachable { .. })), "{unreachable:?}");
    }
}

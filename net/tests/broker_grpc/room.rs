//! Room for pushes: counted before they are read, and shared between queues.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use rmom_core::{
    access::Call,
    broker::{Held, MAX_TURNS, OpenPush, QUEUE_SHARE, WAITING_SHARE},
    model::{Code, QueueLabel},
};
use rmom_proto::messages::{
    CreateQueueRequest, Push, PushMessage, PushOkResponse, PushStreamMessages, PushStreamOpen, PushStreamRequest,
    message_stream_client::MessageStreamClient, push_stream_request::Request,
};
use tokio::time::{sleep, timeout};
use tonic::Status;
use tower::ServiceBuilder;

use crate::support::{Client, MAX_MESSAGE_BYTES, PATIENCE, Server, describe, push, refused};

/// The default.
const ROOM: usize = 64 << 20;
/// Number of the largest messages that fit a queue's share.
const SHARE: usize = ROOM / QUEUE_SHARE / (MAX_MESSAGE_BYTES + 1_000);
/// Number of them that may wait for it.
const WAITING: usize = ROOM / WAITING_SHARE / (MAX_MESSAGE_BYTES + 1_000);

fn large(label: &str) -> Push {
    Push { queue_label: label.into(), ..push(vec![7; MAX_MESSAGE_BYTES - 200], "") }
}

/// Takes all of a queue's share, as if its store did not answer.
async fn stall(server: &Server, label: &str) -> Held {
    let open = OpenPush { label: QueueLabel::parse(label).unwrap(), queue: None, producer: None };
    let broker = server.broker.on_behalf_of(Call::of_process());
    broker.open_push(open).await.unwrap().room().try_take(ROOM / QUEUE_SHARE).expect("nothing is under way")
}

/// A request's body in small pieces, with a count of the bytes sent.
struct Metered {
    body: tonic::body::Body,
    chunk: Bytes,
    sent: Arc<AtomicUsize>,
}

impl http_body::Body for Metered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        if self.chunk.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.chunk = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                end => return Poll::Ready(end),
            }
        }
        let length = self.chunk.len().min(16 << 10);
        self.sent.fetch_add(length, Relaxed);
        Poll::Ready(Some(Ok(http_body::Frame::data(self.chunk.split_to(length)))))
    }
}

/// A counter's value, once it has stayed the same for a while.
async fn settled(counter: &AtomicUsize) -> usize {
    let mut seen = (counter.load(Relaxed), 0);
    while seen.1 < 100 {
        sleep(Duration::from_millis(5)).await;
        let now = counter.load(Relaxed);
        seen = if now == seen.0 { (now, seen.1 + 1) } else { (now, 0) };
    }
    seen.0
}

/// Opens a stream and pushes runs of large messages on it without waiting for acknowledgements; returns how it ended.
async fn stream(client: &mut Client, label: &str, runs: u64) -> Result<u64, Status> {
    let open = PushStreamOpen { queue_label: label.into(), ..PushStreamOpen::default() };
    let mut requests = vec![PushStreamRequest { request: Some(Request::Open(open)) }];
    requests.extend((1..=runs).map(|n| {
        let message = PushMessage { content: vec![7; MAX_MESSAGE_BYTES - 200].into(), ..PushMessage::default() };
        let run = PushStreamMessages { first_sequence: n, messages: vec![message], lowest_unacknowledged: 0 };
        PushStreamRequest { request: Some(Request::Messages(run)) }
    }));
    let mut acks = client.push_stream(tokio_stream::iter(requests)).await?.into_inner();
    let mut through = 0;
    while let Some(ack) = acks.message().await? {
        through = ack.through_sequence;
    }
    Ok(through)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_room_is_not_read_and_waits() {
    let server = Server::start().await;
    drop(server.client_with_queue().await);
    let all = server.broker.room().try_take(ROOM).unwrap();
    let sent = Arc::<AtomicUsize>::default();
    let metered = || {
        let sent = sent.clone();
        let meter = move |request: http::Request<tonic::body::Body>| {
            request.map(|body| tonic::body::Body::new(Metered { body, chunk: Bytes::new(), sent: sent.clone() }))
        };
        MessageStreamClient::new(ServiceBuilder::new().map_request(meter).service(server.channel()))
    };
    let single = (0..20)
        .flat_map(|_| vec![metered(); 15])
        .map(|mut client| async move { client.push_to_queue(large("q")).await });
    let single = join_all(single);
    let (mut one, mut two) = (server.client(), server.client());
    let streams = async move { tokio::join!(stream(&mut one, "q", 40), stream(&mut two, "q", 40)) };
    let pushing = tokio::spawn(async move { tokio::join!(single, streams) });
    let waiting = async {
        while server.broker.status().room_counts.0 < 16 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("they wait for room");
    // Small pushes fare no better, and requests that need no room are answered.
    let small = tokio::spawn({
        let mut client = server.client();
        async move { client.push_to_queue(push("x", "")).await }
    });
    server.client().create_queue(CreateQueueRequest { queue_label: "another".into() }).await.unwrap();
    assert!(!small.is_finished());
    // The windows of streams, and the beginnings of messages that wait for room with a turn, but not the 150 MiB that are
    // pushed.
    let read = 300 * (256 << 10) + MAX_TURNS * (64 << 10);
    let sent = settled(&sent).await;
    assert!(sent <= read, "{sent} bytes were sent");
    assert_eq!(server.broker.status().pending_bytes, (ROOM, ROOM), "nobody took what there is not");
    drop(all);
    let (single, (one, two)) = timeout(PATIENCE, pushing).await.expect("they go on").unwrap();
    let refusals = single.into_iter().filter_map(Result::err).inspect(|status| {
        assert_eq!(rmom_net::grpc::stable_code(status), Some(Code::Overloaded), "{status:?}");
    });
    let refusals = refusals.count();
    assert!(
        refusals <= 300 - SHARE - WAITING,
        "{refusals} refused: not those that fit the queue's share, nor those that may wait"
    );
    assert_eq!((one.unwrap(), two.unwrap()), (40, 40));
    small.await.unwrap().unwrap();
    assert_eq!(server.broker.status().pending_bytes, (0, ROOM));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_stuck_does_not_hold_up_pushes_to_others() {
    let server = Server::start().await;
    let mut client = server.client_with_queue().await;
    client.create_queue(CreateQueueRequest { queue_label: "well".into() }).await.unwrap();
    let stuck = stall(&server, "q").await;
    let single = (0..3 * SHARE).map(|_| {
        let mut client = server.client();
        async move { client.push_to_queue(large("q")).await }
    });
    let single = tokio::spawn(join_all(single));
    let streams = (0..2 * SHARE).map(|_| {
        let mut client = server.client();
        async move { stream(&mut client, "q", 3).await }
    });
    let streams = tokio::spawn(join_all(streams));
    let overloaded = async {
        while server.broker.status().room_counts.1 < SHARE as u64 / 2 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, overloaded).await.expect("some of the stuck queue's pushes are refused");
    for _ in 0..20 {
        let pushed = timeout(Duration::from_secs(5), client.push_to_queue(large("well"))).await;
        pushed.expect("nothing of the other queue waits").unwrap();
    }
    assert_eq!(timeout(Duration::from_secs(5), stream(&mut client, "well", 50)).await.unwrap().unwrap(), 50);
    drop(stuck);
    let mut stored = 0;
    for pushed in timeout(PATIENCE, single).await.unwrap().unwrap() {
        match pushed {
            Ok(_) => stored += 1,
            refusal => drop(refused(refusal, Code::Overloaded)),
        }
    }
    assert!(stored >= WAITING, "what waited is stored: {stored}");
    for ended in timeout(PATIENCE, streams).await.unwrap().unwrap() {
        match ended {
            Ok(through) => assert_eq!(through, 3),
            refusal => drop(refused(refusal, Code::Overloaded)),
        }
    }
    assert_eq!(server.broker.status().pending_bytes, (0, ROOM));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_on_a_connection_leaves_the_others_there_their_window() {
    let server = Server::start().await;
    let mut client = server.client_with_queue().await;
    client.create_queue(CreateQueueRequest { queue_label: "well".into() }).await.unwrap();
    // All are on one connection, whose window they would fill: as streams, which wait before they are read.
    let stuck = stall(&server, "q").await;
    let streams = (0..100).map(|_| {
        let mut client = client.clone();
        async move { stream(&mut client, "q", 3).await }
    });
    let streams = tokio::spawn(join_all(streams));
    let overloaded = async {
        while server.broker.status().room_counts.0 < 8 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, overloaded).await.expect("they wait");
    for _ in 0..20 {
        let pushed = timeout(Duration::from_secs(5), client.push_to_queue(large("well"))).await;
        pushed.expect("there is window for what is read").unwrap();
    }
    drop(stuck);
    let ended = timeout(PATIENCE, streams).await.unwrap().unwrap();
    let stored = ended.into_iter().filter(|ended| match ended {
        Ok(through) => *through == 3,
        Err(status) => {
            assert_eq!(rmom_net::grpc::stable_code(status), Some(Code::Overloaded), "{status:?}");
            false
        }
    });
    assert!(stored.count() >= 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_too_large_is_refused_at_once_also_without_room() {
    let server = Server::start().await;
    let mut client = server.client_with_queue().await;
    let _all = server.broker.room().try_take(ROOM).unwrap();
    let huge = push(vec![0; MAX_MESSAGE_BYTES + rmom_net::grpc::REQUEST_SLACK_BYTES], "");
    let answer = timeout(Duration::from_secs(5), client.push_to_queue(huge)).await.expect("at once");
    refused(answer, Code::MessageTooLarge);
}

#[tokio::test]
async fn a_single_push_is_one_message() {
    let server = Server::start().await;
    let mut client = server.client_with_queue().await;
    for empty in [false, true] {
        let mut grpc = tonic::client::Grpc::new(server.channel());
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<Push, PushOkResponse>::default();
        let further = if empty { Push::default() } else { push("x", "") };
        let pushes = tokio_stream::iter(std::iter::once(push("x", "")).chain(std::iter::repeat_n(further, 10_000)));
        let path = http::uri::PathAndQuery::from_static("/messages.MessageStream/PushToQueue");
        let answer = timeout(PATIENCE, grpc.client_streaming(tonic::Request::new(pushes), path, codec)).await.unwrap();
        refused(answer, Code::InvalidArgument);
    }
    assert_eq!(describe(&mut client).await.last_offset, 0);
    assert_eq!(server.broker.status().pending_bytes, (0, ROOM));
}

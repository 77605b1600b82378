//! Streams of pushes.

use rmom_core::model::Code;
use rmom_net::grpc::{REQUEST_SLACK_BYTES, error_info};
use rmom_proto::messages::{
    ProducerStamp, PushAck, PushMessage, PushStreamMessages, PushStreamOpen, PushStreamRequest,
    push_stream_request::Request,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::support::{Client, MAX_MESSAGE_BYTES, PATIENCE, Server, create_channel, describe, next, refused, subscribe};

struct Pusher {
    requests: mpsc::Sender<PushStreamRequest>,
    acks: Streaming<PushAck>,
}

fn open(producer: Option<u8>) -> PushStreamRequest {
    let producer = producer.map(|id| ProducerStamp { id: vec![id; 16].into(), epoch: 0, lowest_unacknowledged: 1 });
    let open = PushStreamOpen { queue_label: "q".into(), producer, queue_id: 0 };
    PushStreamRequest { request: Some(Request::Open(open)) }
}

fn run(first_sequence: u64, count: u64) -> PushStreamRequest {
    let message = |n| PushMessage { content: format!("m{n}").into(), ..PushMessage::default() };
    let messages = (first_sequence..first_sequence.saturating_add(count)).map(message).collect();
    let run = PushStreamMessages { first_sequence, messages, lowest_unacknowledged: 0 };
    PushStreamRequest { request: Some(Request::Messages(run)) }
}

impl Pusher {
    async fn start(client: &mut Client) -> Self {
        let (requests, sent) = mpsc::channel(64);
        // The response headers come before the first request has been sent.
        let acks =
            timeout(PATIENCE, client.push_stream(ReceiverStream::new(sent))).await.unwrap().unwrap().into_inner();
        Self { requests, acks }
    }

    async fn open(client: &mut Client, producer: Option<u8>) -> Self {
        let mut pusher = Self::start(client).await;
        pusher.send(open(producer)).await;
        let opened = pusher.ack().await.unwrap().unwrap();
        assert_eq!(opened, PushAck { queue_id: describe(client).await.queue_id, ..PushAck::default() });
        pusher
    }

    async fn send(&self, request: PushStreamRequest) {
        self.requests.send(request).await.unwrap();
    }

    async fn ack(&mut self) -> Result<Option<PushAck>, Status> {
        timeout(PATIENCE, self.acks.message()).await.expect("an acknowledgement in time")
    }

    /// Reads acknowledgements until one covers `sequence`.
    async fn acked(&mut self, sequence: u64) -> PushAck {
        let mut through = 0;
        loop {
            let ack = self.ack().await.unwrap().expect("the stream goes on");
            assert!(ack.through_sequence > through, "cumulative");
            through = ack.through_sequence;
            if through >= sequence {
                return ack;
            }
        }
    }

    async fn refusal(mut self) -> Status {
        loop {
            match self.ack().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended without an error"),
                Err(status) => return status,
            }
        }
    }
}

#[tokio::test]
async fn runs_are_acknowledged_and_delivered_in_order() {
    let server = Server::start().await;
    let mut client = server.client_with_queue().await;
    let channel_id = create_channel(&mut client, "").await;
    let mut pusher = Pusher::open(&mut client, Some(1)).await;
    for first in (1..=1_000).step_by(10) {
        pusher.send(run(first, 10)).await;
    }
    let last = pusher.acked(1_000).await;
    assert_eq!((last.through_sequence, last.offset, last.duplicates), (1_000, 1_000, 0));
    drop(pusher.requests);
    assert_eq!(timeout(PATIENCE, pusher.acks.message()).await.unwrap().unwrap(), None, "an end without an error");

    let mut stream = subscribe(&mut client, &channel_id).await;
    for n in 1..=1_000 {
        let message = next(&mut stream).await.unwrap();
        assert_eq!((message.offset, message.content), (n, format!("m{n}").into()));
    }
}

#[tokio::test]
async fn a_stream_taken_up_again_tells_its_duplicates() {
    let server = Server::start().await;
    let mut client = server.client_with_queue().await;
    let mut first = Pusher::open(&mut client, Some(1)).await;
    first.send(run(1, 5)).await;
    first.acked(5).await;
    drop(first);
    let mut again = Pusher::open(&mut client, Some(1)).await;
    again.send(run(3, 6)).await;
    let ack = again.acked(8).await;
    assert_eq!((ack.through_sequence, ack.duplicates, ack.offset), (8, 3, 8));
    assert_eq!(describe(&mut client).await.depth_messages, 8);
}

#[tokio::test]
async fn the_first_error_ends_the_stream() {
    let server = Server::start().await;
    let mut client = server.client_with_queue().await;
    let pusher = Pusher::open(&mut client, Some(1)).await;
    pusher.send(run(1, 2)).await;
    pusher.send(run(7, 1)).await;
    pusher.send(run(8, 1)).await;
    let status = pusher.refusal().await;
    assert_eq!(error_info(&status).unwrap().metadata["expected"], "3");
    refused(Err::<(), _>(status), Code::SequenceGap);
    assert_eq!(describe(&mut client).await.last_offset, 2);
}

#[tokio::test]
async fn without_a_producer_sequences_are_for_the_acknowledgements() {
    let server = Server::start().await;
    let mut client = server.client_with_queue().await;
    for stream in 1..=2 {
        let mut pusher = Pusher::open(&mut client, None).await;
        pusher.send(run(1, 3)).await;
        pusher.send(run(4, 1)).await;
        let ack = pusher.acked(4).await;
        assert_eq!((ack.offset, ack.duplicates), (4 * stream, 0));
        pusher.send(run(6, 1)).await;
        let message = refused(Err::<(), _>(pusher.refusal().await), Code::InvalidArgument);
        assert!(message.starts_with("first_sequence: "), "{message}");
    }
}

#[tokio::test]
async fn malformed_streams_are_refused() {
    let server = Server::start().await;
    let mut client = server.client_with_queue().await;
    let nothing = PushStreamRequest { request: None };
    let mut large = run(1, 1);
    if let Some(Request::Messages(run)) = &mut large.request {
        run.messages[0].content = vec![0; MAX_MESSAGE_BYTES + 1].into();
    }
    let mut huge = run(1, 1);
    if let Some(Request::Messages(run)) = &mut huge.request {
        run.messages[0].content = vec![0; MAX_MESSAGE_BYTES + 2 * REQUEST_SLACK_BYTES].into();
    }
    let unknown = PushStreamOpen { queue_label: "unknown".into(), ..PushStreamOpen::default() };
    let unknown = PushStreamRequest { request: Some(Request::Open(unknown)) };
    for (requests, code) in [
        (vec![nothing.clone()], Code::InvalidArgument),
        (vec![run(1, 1)], Code::InvalidArgument),
        (vec![unknown], Code::QueueNotFound),
        (vec![open(Some(1)), open(Some(1))], Code::InvalidArgument),
        (vec![open(Some(1)), nothing], Code::InvalidArgument),
        (vec![open(Some(1)), run(1, 0)], Code::InvalidArgument),
        (vec![open(Some(1)), run(0, 1)], Code::InvalidArgument),
        (vec![open(Some(1)), run(u64::MAX, 1)], Code::InvalidArgument),
        (vec![open(None), run(1, 8_193)], Code::LimitReached),
        (vec![open(None), large], Code::MessageTooLarge),
        (vec![open(None), huge], Code::MessageTooLarge),
    ] {
        let pusher = Pusher::start(&mut client).await;
        for request in requests {
            pusher.send(request).await;
        }
        refused(Err::<(), _>(pusher.refusal().await), code);
    }
    assert_eq!(describe(&mut client).await.last_offset, 0);
    let silent = Pusher::start(&mut client).await;
    drop(silent.requests);
    let mut acks = silent.acks;
    assert_eq!(acks.message().await.unwrap(), None, "nothing was asked, nothing is wrong");
}

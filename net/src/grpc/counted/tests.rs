use std::future::poll_fn;

use futures_util::FutureExt as _;
use rmom_core::{
    access::Caller,
    broker::{MAX_TURNS, MAX_TURNS_OF_QUEUE, QUEUE_SHARE},
    model::Origin,
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use super::*;
use crate::grpc::stable_code;

const ROOM: usize = 4_000;
const LARGEST: usize = 2_000;

/// A body whose frames the test sends.
struct Script(mpsc::UnboundedReceiver<Result<Frame<Bytes>, axum::Error>>);

impl HttpBody for Script {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.0.poll_recv(cx)
    }
}

/// A client, and the counter of its messages.
struct Pair {
    client: mpsc::UnboundedSender<Result<Frame<Bytes>, axum::Error>>,
    ledger: Ledger,
    counted: Counted<Script>,
}

impl Pair {
    fn new(room: PushRoom, unary: bool) -> Self {
        let (client, script) = mpsc::unbounded_channel();
        let ledger = Ledger::new(room.from_origin(&Origin::of("10.0.0.1:1")));
        let counted = Counted::new(Script(script), ledger.clone(), None, LARGEST, unary);
        Self { client, ledger, counted }
    }

    fn send(&self, bytes: &[u8]) {
        self.client.send(Ok(Frame::data(Bytes::copy_from_slice(bytes)))).unwrap();
    }

    async fn frame(&mut self) -> Option<Result<Frame<Bytes>, axum::Error>> {
        poll_fn(|cx| Pin::new(&mut self.counted).poll_frame(cx)).await
    }

    /// The bytes that are let through now.
    fn through(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(Some(Ok(frame))) = self.frame().now_or_never() {
            all.extend(frame.into_data().unwrap());
        }
        all
    }

    fn held(&self) -> usize {
        self.ledger.0.lock().held.len()
    }
}

fn message(length: usize) -> Vec<u8> {
    let mut message = vec![0];
    message.extend(u32::try_from(length).unwrap().to_be_bytes());
    message.extend(vec![7; length]);
    message
}

fn code(failed: Option<Result<Frame<Bytes>, axum::Error>>) -> Code {
    let error = failed.expect("it fails").unwrap_err().into_inner();
    stable_code(error.downcast_ref::<Status>().expect("with a status")).unwrap()
}

#[tokio::test]
async fn a_prefix_may_come_in_pieces() {
    let room = PushRoom::for_tests(ROOM);
    let mut pair = Pair::new(room, true);
    let message = message(3);
    let mut through = Vec::new();
    for byte in &message {
        pair.send(&[*byte]);
        through.extend(pair.through());
    }
    assert_eq!((through, pair.held()), (message, 1));
}

#[tokio::test]
async fn several_messages_may_come_in_one_frame() {
    let room = PushRoom::for_tests(ROOM);
    let mut pair = Pair::new(room.of_queue_for_tests(), false);
    let all = [message(3), message(0), message(100), message(5)].concat();
    pair.send(&all[..all.len() - 4]);
    assert_eq!(pair.through(), all[..all.len() - 4]);
    assert_eq!(pair.held(), 4);
    pair.send(&all[all.len() - 4..]);
    assert_eq!(pair.through(), all[all.len() - 4..]);
}

#[tokio::test]
async fn what_follows_the_first_message_counts_for_its_queue() {
    let room = PushRoom::for_tests(ROOM);
    let mut pair = Pair::new(room.clone(), false);
    pair.send(&[message(3), message(4)].concat());
    let first = pair.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!((first, pair.held()), (message(3).into(), 1));
    pair.ledger.set_room(room.of_queue_for_tests());
    assert_eq!((pair.through(), pair.held()), (message(4), 2));
}

#[tokio::test]
async fn a_single_push_has_no_second_message() {
    let mut pair = Pair::new(PushRoom::for_tests(ROOM), true);
    pair.send(&[message(3), message(3)].concat());
    assert_eq!(code(pair.frame().await), Code::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn a_length_that_is_not_kept_holds_room_for_a_while() {
    let room = PushRoom::for_tests(ROOM);
    let mut pair = Pair::new(room.clone(), true);
    pair.send(&message(900)[..20]);
    assert_eq!(pair.through().len(), 20);
    let begun = Instant::now();
    assert_eq!(code(pair.frame().await), Code::DeadlineExceeded);
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
    drop(pair);
    assert!(room.try_take(ROOM).is_some(), "it gave the room back");
}

/// An unfinished push would keep its room for as long as a call may take.
#[tokio::test(start_paused = true)]
async fn a_single_push_has_to_end() {
    let room = PushRoom::for_tests(ROOM);
    let mut pair = Pair::new(room.clone(), true);
    pair.send(&message(900));
    assert_eq!(pair.through().len(), 905);
    let begun = Instant::now();
    assert_eq!(code(pair.frame().await), Code::DeadlineExceeded);
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
    drop(pair);
    assert!(room.try_take(ROOM).is_some(), "it gave the room back");
}

/// Sends a byte every four seconds, up to `bytes` bytes; returns how long the server accepts this.
async fn trickled(bytes: usize) -> Duration {
    let mut pair = Pair::new(PushRoom::for_tests(ROOM), true);
    pair.send(&message(900)[..FRAME_PREFIX_BYTES]);
    pair.through();
    let begun = Instant::now();
    for _ in 0..bytes {
        match timeout(Duration::from_secs(4), pair.frame()).await {
            Ok(failed) => {
                assert_eq!(code(failed), Code::DeadlineExceeded);
                return begun.elapsed();
            }
            Err(_) => pair.send(&[7]),
        }
        assert_eq!(pair.through().len(), 1);
    }
    // An empty frame does not count as progress.
    assert!(timeout(Duration::from_secs(4), pair.frame()).await.is_err());
    pair.send(&[]);
    assert_eq!(code(pair.frame().await), Code::DeadlineExceeded);
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn what_makes_progress_has_more_time() {
    assert_eq!(trickled(10).await, Duration::from_secs(40) + STALL_TIMEOUT);
    assert_eq!(trickled(500).await, MESSAGE_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn one_origin_does_not_claim_all_the_room() {
    let room = PushRoom::for_tests(ROOM);
    let mut claims: Vec<_> = (0..20).map(|_| Pair::new(room.clone(), true)).collect();
    for pair in &mut claims {
        pair.send(&message(400)[..9]);
        pair.through();
    }
    assert_eq!(claims.iter().map(Pair::held).sum::<usize>(), 4, "half of the room at most");
    assert!(room.try_take(ROOM / 2).is_some());
    let free: Vec<_> = std::iter::from_fn(|| room.try_turn()).collect();
    assert_eq!(free.len(), MAX_TURNS, "nor a turn that others need");
    drop(free);
    // A message that arrives in one piece takes nothing from that quarter.
    let mut whole = Pair::new(room, true);
    whole.send(&message(400));
    assert_eq!(whole.through().len(), 405);
}

#[test]
fn behind_a_proxy_an_address_has_no_share_of_claims() {
    let room = PushRoom::for_tests(1_600);
    let peer = |counts| Peer {
        caller: Caller::anonymous(&"10.0.0.1:1".into(), counts),
        waits: Arc::new(Semaphore::new(1)),
        max_waits: 1,
    };
    let _half = room.try_take(800);
    let here = room_for(Some(&peer(true)), room.clone());
    let claimed = here.try_take_arriving(100).unwrap();
    assert!(here.try_take_arriving(1).is_none(), "half of the room is for other addresses");
    drop(claimed);
    let proxy = room_for(Some(&peer(false)), room);
    let _claimed = proxy.try_take_arriving(100).unwrap();
    assert!(proxy.try_take_arriving(700).is_some(), "all clients come from that address");
}

#[tokio::test]
async fn a_stuck_queue_keeps_no_turns_from_others() {
    let room = PushRoom::for_tests(ROOM);
    let queue = room.of_queue_for_tests();
    let _stuck = queue.try_take(ROOM / QUEUE_SHARE).unwrap();
    let mut waiting: Vec<_> = (0..MAX_TURNS_OF_QUEUE + 1).map(|_| Pair::new(queue.clone(), false)).collect();
    for pair in &mut waiting {
        pair.send(&message(10));
        assert_eq!(pair.through(), [0; 0]);
    }
    let free: Vec<_> = std::iter::from_fn(|| room.try_turn()).collect();
    assert_eq!(free.len(), MAX_TURNS);
    assert!(queue.try_turn().is_none(), "but the queue's own");
}

#[tokio::test]
async fn an_origin_that_waits_for_its_own_claims_keeps_no_turn_of_a_queue() {
    let room = PushRoom::for_tests(ROOM);
    let queue = room.of_queue_for_tests();
    let mut claims: Vec<_> = (0..MAX_TURNS_OF_QUEUE + 2).map(|_| Pair::new(queue.clone(), false)).collect();
    for pair in &mut claims {
        pair.send(&message(150)[..9]);
        pair.through();
    }
    assert_eq!(claims.iter().map(Pair::held).sum::<usize>(), 2, "half of the queue's share at most");
    let free: Vec<_> = std::iter::from_fn(|| queue.try_turn()).collect();
    assert_eq!(free.len(), MAX_TURNS_OF_QUEUE, "streams from elsewhere go on");
    // The queue has room for them.
    assert!(queue.try_take(ROOM / QUEUE_SHARE / 2).is_some());
}

#[tokio::test(start_paused = true)]
async fn all_waits_of_a_message_together_have_one_deadline() {
    let room = PushRoom::for_tests(ROOM);
    let turns: Vec<_> = std::iter::from_fn(|| room.try_turn()).collect();
    let all = room.try_take(ROOM);
    let mut pair = Pair::new(room, true);
    pair.send(&message(10));
    let begun = Instant::now();
    let free = async {
        sleep(ROOM_TIMEOUT * 2 / 3).await;
        drop(turns);
    };
    let (refused, ()) = tokio::join!(pair.frame(), free);
    assert_eq!(code(refused), Code::Overloaded);
    assert_eq!(begun.elapsed(), ROOM_TIMEOUT);
    drop(all);
}

#[tokio::test]
async fn trailers_and_failures_pass() {
    let mut pair = Pair::new(PushRoom::for_tests(ROOM), true);
    pair.send(&message(3));
    pair.client.send(Ok(Frame::trailers(http::HeaderMap::new()))).unwrap();
    assert!(pair.frame().await.unwrap().unwrap().is_data());
    assert!(pair.frame().await.unwrap().unwrap().is_trailers());
    drop(pair.client);
    assert!(poll_fn(|cx| Pin::new(&mut pair.counted).poll_frame(cx)).await.is_none());

    let room = PushRoom::for_tests(ROOM);
    let mut reset = Pair::new(room.clone(), true);
    reset.send(&message(300)[..7]);
    reset.through();
    reset.client.send(Err(axum::Error::new(Status::cancelled("reset")))).unwrap();
    assert!(reset.frame().await.unwrap().is_err());
    drop(reset);
    assert!(room.try_take(ROOM).is_some());
}

//! What a producer sends, and sends again, to brokers that lose acknowledgements, end streams, move and refuse.

mod fake;

use std::time::Duration;

use fake::{PushScript, World, refusal, soon};
use rmom_client::{Client, Connector, Error, Io, NewMessage, Producer, Receipt};
use tonic::Status;

async fn open(world: &World) -> Producer {
    world.client().producer("Orders").open().await.unwrap()
}

/// Sends them all, then waits for all of them.
async fn push_all(producer: &Producer, contents: &[&'static str]) -> Vec<Result<Receipt, Error>> {
    let mut deliveries = Vec::new();
    for &content in contents {
        deliveries.push(producer.send(content).await.unwrap());
    }
    let mut results = Vec::new();
    for delivery in deliveries {
        results.push(soon(delivery).await);
    }
    results
}

#[tokio::test(start_paused = true)]
async fn pushes_are_batched_and_receipts_are_exact() {
    let world = World::new();
    world.store("foreign");
    let producer = open(&world).await;
    let receipt = soon(producer.push("a")).await.unwrap();
    assert_eq!((receipt.sequence, receipt.offset, receipt.duplicate), (1, Some(2), false));
    let receipts = push_all(&producer, &["b", "c", "d"]).await;
    let offsets: Vec<_> = receipts.iter().map(|receipt| receipt.as_ref().unwrap().offset).collect();
    assert_eq!(offsets, [Some(3), Some(4), Some(5)]);
    soon(producer.close()).await.unwrap();
    assert_eq!(world.contents(), ["foreign", "a", "b", "c", "d"]);
    assert_eq!(
        world.seen(),
        ["b1: open Orders p0/0 from 1 queue 0", "b1: run 1..=1 lowest 1", "b1: run 2..=4 lowest 2"]
    );
}

#[tokio::test(start_paused = true)]
async fn offsets_that_others_may_have_taken_are_not_guessed() {
    let world = World::new();
    let producer = open(&world).await;
    soon(producer.push("a")).await.unwrap();
    world.store("foreign");
    let receipts = push_all(&producer, &["b", "c"]).await;
    let offsets: Vec<_> = receipts.iter().map(|receipt| receipt.as_ref().unwrap().offset).collect();
    assert_eq!(offsets, [None, Some(4)]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_acknowledgement_is_resent_with_the_same_sequences_and_stored_once() {
    let world = World::new();
    let unavailable = Status::unavailable("gone");
    world.script_pushes([PushScript::EndAfter { runs: 1, store_last: true, status: unavailable }]);
    let producer = open(&world).await;
    soon(producer.push("a")).await.unwrap();
    let receipts: Vec<_> = push_all(&producer, &["b", "c"]).await.into_iter().map(Result::unwrap).collect();
    assert!(receipts.iter().all(|receipt| receipt.duplicate));
    assert_eq!(receipts.iter().map(|receipt| receipt.offset.unwrap()).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(world.contents(), ["a", "b", "c"]);
    assert_eq!(
        world.seen(),
        [
            "b1: open Orders p0/0 from 1 queue 0",
            "b1: run 1..=1 lowest 1",
            "b1: run 2..=3 lowest 2",
            "b1: open Orders p0/0 from 2 queue 7",
            "b1: run 2..=3 lowest 2",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn what_comes_after_a_failure_keeps_its_place_behind_what_failed() {
    let world = World::new();
    let fenced = refusal("FENCED", &[]);
    world.script_pushes([
        PushScript::EndAfter { runs: 0, store_last: false, status: fenced.clone() },
        PushScript::EndAfter { runs: 1, store_last: true, status: refusal("OUTCOME_UNKNOWN", &[]) },
        PushScript::EndAfter { runs: 0, store_last: true, status: fenced },
    ]);
    let producer = open(&world).await;
    let mut deliveries = Vec::new();
    for i in 0..3_000 {
        deliveries.push(soon(producer.send(format!("{i}"))).await.unwrap());
        if i % 700 == 0 {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }
    for (i, delivery) in deliveries.into_iter().enumerate() {
        assert_eq!(soon(delivery).await.unwrap().sequence, i as u64 + 1);
    }
    assert_eq!(world.contents(), (0..3_000).map(|i| i.to_string()).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_queue_hosted_elsewhere_is_found_by_the_brokers_word() {
    let world = World::new();
    world.script_pushes([PushScript::Refuse(refusal("NOT_HOSTED", &[("host", "b2"), ("port", "1")]))]);
    let producer = open(&world).await;
    let started = tokio::time::Instant::now();
    soon(producer.push("a")).await.unwrap();
    assert!(started.elapsed() < Duration::from_millis(10), "a word of where to go needs no wait");
    assert_eq!(
        world.seen(),
        ["b1: open Orders p0/0 from 1 queue 0", "b2: open Orders p0/0 from 1 queue 0", "b2: run 1..=1 lowest 1"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_dead_broker_is_left_for_the_one_that_the_manager_names() {
    let world = World::new();
    let producer = open(&world).await;
    soon(producer.push("a")).await.unwrap();
    world.seen();
    {
        let mut state = world.state();
        state.up.retain(|&host| host != "b1");
        state.host = Some("b2");
    }
    world.cut("b1");
    soon(producer.push("b")).await.unwrap();
    assert_eq!(world.seen(), ["b2: open Orders p0/0 from 2 queue 7", "b2: run 2..=2 lowest 2"]);
    assert_eq!(world.contents(), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn without_managers_the_last_host_is_tried_again() {
    let world = World::new();
    let producer = open(&world).await;
    soon(producer.push("a")).await.unwrap();
    world.state().up.retain(|&host| host != "m1");
    world.cut("b1");
    soon(producer.push("b")).await.unwrap();
    assert_eq!(world.contents(), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_broker_is_left() {
    let world = World::new();
    world.script_pushes([PushScript::Silence { runs: 0, store_last: true }]);
    let client = world.builder().ack_timeout(Duration::from_secs(5)).build().unwrap();
    let producer = client.producer("orders").open().await.unwrap();
    let started = tokio::time::Instant::now();
    assert!(soon(producer.push("a")).await.unwrap().duplicate);
    assert!((5..6).contains(&started.elapsed().as_secs()));
    assert_eq!(world.contents(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn brokers_that_break_the_protocol_are_left() {
    let world = World::new();
    world.script_pushes([PushScript::BadOpening(5), PushScript::AckTooMuch]);
    let producer = open(&world).await;
    assert!(soon(producer.push("a")).await.unwrap().duplicate);
    assert_eq!(world.contents(), ["a"]);
    assert_eq!(world.seen().iter().filter(|what| what.contains("open")).count(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_never_shares_a_sequence_with_another_message() {
    let world = World::new();
    world.script_pushes([PushScript::Silence { runs: 1, store_last: true }]);
    let client = world.builder().delivery_timeout(Duration::from_secs(10)).build().unwrap();
    let producer = client.producer("orders").open().await.unwrap();
    soon(producer.push("a")).await.unwrap();
    let started = tokio::time::Instant::now();
    let error = soon(producer.push("given up, but stored")).await.unwrap_err();
    assert_eq!(started.elapsed().as_secs(), 10);
    assert_eq!((error.code(), error.outcome_unknown()), ("DELIVERY_TIMEOUT", true));
    // Under the old identity this one would be taken for a duplicate of sequence 2, and lost.
    let receipt = soon(producer.push("b")).await.unwrap();
    assert_eq!((receipt.sequence, receipt.duplicate), (1, false));
    assert_eq!(world.contents(), ["a", "given up, but stored", "b"]);
    assert_eq!(soon(producer.flush()).await.unwrap_err().code(), "DELIVERY_TIMEOUT");
    soon(producer.flush()).await.unwrap();
}

/// The lid was closed for longer than brokers remember producers; tokio's clock saw nothing of that.
#[tokio::test(start_paused = true)]
async fn what_the_broker_may_have_forgotten_is_not_sent_again_after_a_sleep() {
    // While a producer waits for an acknowledgement, and while it opens the next stream.
    for streams_before_it in [1, 2] {
        let world = World::new();
        world.script_pushes([PushScript::Silence { runs: 1, store_last: true }]);
        let uptime = {
            let (world, started) = (world.clone(), tokio::time::Instant::now());
            move || {
                let mut state = world.state();
                let streams = state.seen.iter().filter(|seen| seen.contains("open")).count();
                let asleep = streams >= streams_before_it && started.elapsed() > Duration::from_secs(1);
                if asleep {
                    state.producers.clear();
                }
                Duration::from_secs(if asleep { 70 * 60 } else { 0 })
            }
        };
        let client = world.builder().ack_timeout(Duration::from_secs(5)).uptime(uptime).build().unwrap();
        let producer = client.producer("orders").open().await.unwrap();
        soon(producer.push("a")).await.unwrap();
        let deliveries = [producer.send("stored").await.unwrap(), producer.send("behind it").await.unwrap()];
        for delivery in deliveries {
            let error = soon(delivery).await.unwrap_err();
            assert_eq!((error.code(), error.outcome_unknown()), ("DELIVERY_TIMEOUT", true), "{streams_before_it}");
        }
        // The producer goes on, under another identity.
        assert_eq!(soon(producer.push("b")).await.unwrap().sequence, 1);
        assert_eq!(world.contents(), ["a", "stored", "behind it", "b"], "{streams_before_it}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_never_sent_is_known_not_to_be_stored() {
    let world = World::new();
    world.state().host = None;
    let client = world.builder().delivery_timeout(Duration::from_secs(10)).build().unwrap();
    let producer = client.producer("orders").open().await.unwrap();
    let results = push_all(&producer, &["a", "b"]).await;
    for error in results.into_iter().map(Result::unwrap_err) {
        assert_eq!((error.code(), error.outcome_unknown()), ("DELIVERY_TIMEOUT", false));
        assert!(error.to_string().contains("NO_BROKER"), "{error}");
    }
    world.state().host = Some("b2");
    assert_eq!(soon(producer.push("c")).await.unwrap().sequence, 1);
    assert_eq!(world.seen()[0], "b2: open orders p0/0 from 1 queue 0");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_queue_ends_the_producer() {
    // The second broker does not notice; the client does.
    for script in [PushScript::Normal, PushScript::AnyQueue] {
        let world = World::new();
        world.script_pushes([PushScript::Normal, script]);
        let producer = open(&world).await;
        soon(producer.push("a")).await.unwrap();
        world.state().queue_id = 8;
        world.cut("b1");
        let error = soon(producer.push("b")).await.unwrap_err();
        assert_eq!((error.code(), error.is_retryable()), ("QUEUE_REPLACED", false));
        assert_eq!(soon(producer.send("c")).await.unwrap_err().code(), "QUEUE_REPLACED");
        assert_eq!(world.contents(), ["a"]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_queue_ends_the_producer() {
    let world = World::new();
    world.state().manager_error = Some((404, "QUEUE_NOT_FOUND"));
    let error = soon(open(&world).await.push("a")).await.unwrap_err();
    assert_eq!((error.code(), error.outcome_unknown()), ("QUEUE_NOT_FOUND", false));
}

#[tokio::test(start_paused = true)]
async fn one_producer_too_many_is_known_to_have_stored_nothing() {
    let world = World::new();
    let too_many = || refusal("TOO_MANY_PRODUCERS", &[]);
    world.script_pushes([PushScript::EndAfter { runs: 0, store_last: false, status: too_many() }]);
    for result in push_all(&open(&world).await, &["a", "b"]).await {
        let error = result.unwrap_err();
        assert_eq!((error.code(), error.outcome_unknown()), ("TOO_MANY_PRODUCERS", false), "{error}");
        assert!(error.hint().starts_with("use one producer"), "{}", error.hint());
        assert!(!error.to_string().contains("as far as is known"), "{error}");
    }
    // What an earlier stream carried may still arrive.
    let lost = PushScript::EndAfter { runs: 0, store_last: false, status: Status::unavailable("gone") };
    world.script_pushes([lost, PushScript::EndAfter { runs: 0, store_last: false, status: too_many() }]);
    let error = soon(open(&world).await.push("c")).await.unwrap_err();
    assert_eq!((error.code(), error.outcome_unknown()), ("TOO_MANY_PRODUCERS", true), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_the_broker_refuses_fails_alone() {
    let world = World::new();
    world.state().max_content = Some(4);
    let producer = open(&world).await;
    let results = push_all(&producer, &["a", "b", "too large", "c", "as well", "d"]).await;
    let codes: Vec<_> = results.iter().map(|result| result.as_ref().map_or_else(Error::code, |_| "stored")).collect();
    assert_eq!(codes, ["stored", "stored", "MESSAGE_TOO_LARGE", "stored", "MESSAGE_TOO_LARGE", "stored"]);
    assert!(results.iter().flat_map(Result::as_ref).all(|receipt| !receipt.duplicate));
    assert!(results.iter().filter_map(|result| result.as_ref().err()).all(|error| !error.outcome_unknown()));
    assert_eq!(world.contents(), ["a", "b", "c", "d"]);
}

#[tokio::test(start_paused = true)]
async fn what_no_broker_takes_is_refused_before_it_is_accepted() {
    let world = World::new();
    let client = world.builder().max_message_bytes(1_000).build().unwrap();
    let producer = client.producer("orders").open().await.unwrap();
    assert_eq!(producer.send(vec![0; 1_000]).await.unwrap_err().code(), "MESSAGE_TOO_LARGE");
    let bad = NewMessage::new("x").topic("a\nb");
    assert_eq!(producer.push(bad).await.unwrap_err().code(), "INVALID_NAME");
    assert_eq!(soon(producer.push("a")).await.unwrap().sequence, 1);
    assert_eq!(client.producer("__None__").open().await.unwrap_err().code(), "INVALID_NAME");
}

#[tokio::test(start_paused = true)]
async fn sending_waits_while_too_much_is_in_flight() {
    let world = World::new();
    world.script_pushes([PushScript::Silence { runs: 0, store_last: false }]);
    let client = world.builder().ack_timeout(Duration::from_secs(5)).build().unwrap();
    let producer = client.producer("orders").max_in_flight(2, 1 << 20).open().await.unwrap();
    let _a = producer.send("a").await.unwrap();
    let _b = producer.send("b").await.unwrap();
    let started = tokio::time::Instant::now();
    let _c = soon(producer.send("c")).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(5), "it waited for an acknowledgement");
    soon(producer.close()).await.unwrap();
    assert_eq!(world.contents(), ["a", "b", "c"]);

    let producer = client.producer("orders").max_in_flight(100, 10).open().await.unwrap();
    soon(producer.push("larger than all the room there is")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_named_producer_goes_on_where_it_stopped() {
    let world = World::new();
    let client = world.client();
    let open = || async { soon(client.producer("orders").named("importer").open()).await.unwrap() };
    let first = open().await;
    assert_eq!(first.stored_before(), 0);
    push_all(&first, &["a", "b"]).await;
    let second = open().await;
    assert_eq!(second.stored_before(), 2);
    assert_eq!(soon(second.push("c")).await.unwrap().sequence, 3);
    world.cut("b1");
    assert_eq!(soon(first.push("x")).await.unwrap_err().code(), "PRODUCER_FENCED");
    assert_eq!(soon(second.push("d")).await.unwrap().sequence, 4);
    assert_eq!(world.contents(), ["a", "b", "c", "d"]);
}

#[tokio::test(start_paused = true)]
async fn a_named_producer_stops_when_it_gives_up_what_may_be_stored() {
    for store_last in [true, false] {
        let world = World::new();
        world.script_pushes([PushScript::Silence { runs: 0, store_last }]);
        let client = world.builder().delivery_timeout(Duration::from_secs(10)).build().unwrap();
        let open = || async { soon(client.producer("orders").named("importer").open()).await.unwrap() };
        let producer = open().await;
        let error = soon(producer.push("a")).await.unwrap_err();
        assert!(error.outcome_unknown());
        assert_eq!(producer.push("b").await.unwrap_err().code(), "PRODUCER_POISONED");
        assert_eq!(open().await.stored_before(), u64::from(store_last), "it learns whether it was stored");
    }
}

#[tokio::test(start_paused = true)]
async fn a_named_producer_survives_a_refused_message() {
    let world = World::new();
    world.state().max_content = Some(4);
    let producer = world.client().producer("orders").named("importer").open().await.unwrap();
    let results = push_all(&producer, &["a", "too large", "b"]).await;
    let sequences: Vec<_> = results.iter().map(|r| r.as_ref().map_or(0, |receipt| receipt.sequence)).collect();
    assert_eq!(sequences, [1, 0, 2]);
    assert_eq!(world.contents(), ["a", "b"]);
    let epochs = world.seen().into_iter().filter(|what| what.contains("epoch")).collect::<Vec<_>>();
    assert_eq!(epochs, ["b1: producer p0 takes epoch 1", "b1: producer p0 takes epoch 2"]);
}

#[tokio::test(start_paused = true)]
async fn dropping_a_producer_delivers_what_it_accepted() {
    let world = World::new();
    let producer = open(&world).await;
    let delivery = producer.send("a").await.unwrap();
    let clone = producer.clone();
    drop(producer);
    let _unawaited = clone.send("b").await.unwrap();
    drop(clone);
    soon(delivery).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(world.contents(), ["a", "b"]);
    assert_eq!(world.seen().last().unwrap(), "b1: closed", "the stream is ended in good order");
}

#[tokio::test(start_paused = true)]
async fn a_closed_producer_takes_nothing() {
    let world = World::new();
    let producer = open(&world).await;
    soon(producer.clone().close()).await.unwrap();
    assert_eq!(producer.send("a").await.unwrap_err().code(), "CLOSED");
}

/// Nothing listens, anywhere: connections are refused at once.
struct Refuses;

#[async_trait::async_trait]
impl Connector for Refuses {
    async fn connect(&self, _authority: &str) -> std::io::Result<Box<dyn Io>> {
        Err(std::io::ErrorKind::ConnectionRefused.into())
    }
}

/// Attempts that fail without waiting for anything do not keep a producer from giving up.
#[tokio::test(start_paused = true)]
async fn a_producer_that_is_refused_at_once_gives_up_in_time() {
    let timeout = Duration::from_secs(5);
    let client = Client::builder().managers(["http://m1"]).connector(Refuses).build().unwrap();
    let begun = tokio::time::Instant::now();
    let named = client.producer("orders").named("till").delivery_timeout(timeout).open();
    let error = named.await.map(drop).unwrap_err();
    assert_eq!((error.code(), begun.elapsed() < timeout * 2), ("DELIVERY_TIMEOUT", true), "{error}");
    let producer = client.producer("orders").delivery_timeout(timeout).open().await.unwrap();
    let begun = tokio::time::Instant::now();
    let error = producer.push("lost").await.unwrap_err();
    assert_eq!((error.code(), begun.elapsed() < timeout * 2), ("DELIVERY_TIMEOUT", true), "{error}");
}

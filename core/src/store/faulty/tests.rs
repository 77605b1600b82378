use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{Calls, Fault, FaultyStore, Kind};
use crate::{
    model::{BrokerId, QueueLabel},
    ports::{Catalog as _, CreateQueue, CreateQueueError, StoreError},
    store::conformance::{ManualClock, START},
};

fn store() -> Arc<FaultyStore> {
    FaultyStore::new(Arc::new(ManualClock::new(START)))
}

async fn create(store: &FaultyStore) -> Result<(), CreateQueueError> {
    let label = QueueLabel::parse("q").unwrap();
    let create = CreateQueue { label, assignee: None, request: uuid::Uuid::from_u128(1) };
    store.create_queue(&create).await.map(drop)
}

#[tokio::test(start_paused = true)]
async fn the_newest_fault_befalls_a_call_and_ends_after_as_many_as_it_is_for() {
    let store = store();
    store.fail(Calls::All, Fault::Unavailable);
    store.fail_next(1, Kind::Write, Fault::Refused);
    assert!(matches!(create(&store).await, Err(CreateQueueError::Store(StoreError::Refused(_)))));
    assert!(matches!(create(&store).await, Err(CreateQueueError::Store(StoreError::Unavailable(_)))));
    assert!(matches!(store.queues().await, Err(StoreError::Unavailable(_))));
    store.repair(Calls::All);
    assert_eq!(create(&store).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_belongs_to_a_call_that_was_made_and_a_lost_request_to_none() {
    let store = store();
    for (fault, made) in [(Fault::RequestLost, 0), (Fault::Late(Duration::from_secs(1)), 0), (Fault::AnswerLost, 1)] {
        let empty = store.backup();
        store.fail_next(1, Calls::Administration, fault);
        assert!(matches!(create(&store).await, Err(CreateQueueError::Store(StoreError::Unknown(_)))), "{fault:?}");
        assert_eq!(store.queues().await.unwrap().len(), made, "{fault:?}");
        sleep(Duration::from_secs(2)).await;
        let arrived = usize::from(fault != Fault::RequestLost);
        assert_eq!(store.queues().await.unwrap().len(), arrived, "{fault:?}");
        store.restore(empty);
    }
}

#[tokio::test(start_paused = true)]
async fn calls_are_counted_by_method() {
    let store = store();
    let (a, b) = tokio::join!(store.broker_life(BrokerId::new(1)), store.broker_life(BrokerId::new(1)));
    assert_eq!((a, b, store.queues().await), (Ok(None), Ok(None), Ok(Vec::new())));
    assert_eq!(store.take_calls(), [("broker_life", 2), ("queues", 1)].into());
    assert_eq!((store.take_most_at_once("broker_life"), store.take_most_at_once("queues")), (2, 1));
    assert_eq!(store.take_most_at_once("broker_life"), 0);
}

#[test]
#[should_panic(expected = "no method broker_lives")]
fn a_fault_for_a_method_that_does_not_exist_fails_the_test() {
    store().fail(Calls::Of(&["broker_lives"]), Fault::Hangs);
}

//! The in-memory store passes the conformance suite.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use rmom_core::{
    model::{
        ChannelId, QueueLabel, Start, StoreTime, Topic,
        limits::{MAX_CHANNELS_PER_QUEUE, MAX_QUEUES},
    },
    ports::{Clock, CreateChannel, CreateChannelError, CreateQueue, CreateQueueError, Store},
    store::{
        MemoryStore,
        conformance::{Harness, ManualClock, START},
        memory::State,
    },
};
use uuid::Uuid;

struct MemoryHarness {
    clock: Arc<ManualClock>,
    store: Mutex<Arc<MemoryStore>>,
}

impl MemoryHarness {
    fn start() -> Self {
        let clock = Arc::new(ManualClock::new(START));
        let store = Mutex::new(MemoryStore::new(Arc::clone(&clock) as Arc<dyn Clock>));
        Self { clock, store }
    }

    fn open(&self, store: Arc<MemoryStore>) -> Arc<dyn Store> {
        *self.store.lock() = Arc::clone(&store);
        store
    }
}

#[async_trait]
impl Harness for MemoryHarness {
    async fn fresh(&self) -> Arc<dyn Store> {
        self.clock.set(START);
        self.open(MemoryStore::new(Arc::clone(&self.clock) as Arc<dyn Clock>))
    }

    async fn set_clock(&self, now: StoreTime) {
        self.clock.set(now);
    }

    async fn reopen(&self) -> Arc<dyn Store> {
        let state = self.store.lock().state();
        self.open(MemoryStore::with_state(Arc::clone(&self.clock) as Arc<dyn Clock>, state))
    }
}

rmom_core::conformance_tests!(MemoryHarness::start(), model_cases = 256);

fn create_queue(number: usize) -> CreateQueue {
    let label = QueueLabel::parse(&format!("q{number}")).unwrap();
    CreateQueue { label, assignee: None, request: Uuid::from_u128(number as u128) }
}

// On a database these two limits would take too long: each store's own tests fill the tables.

#[test]
fn there_are_no_more_queues_than_the_limit() {
    let mut state = State::default();
    let mut last = None;
    for number in 0..MAX_QUEUES {
        last = Some(state.create_queue(&create_queue(number)).unwrap());
    }
    assert_eq!(state.create_queue(&create_queue(MAX_QUEUES)), Err(CreateQueueError::TooMany));
    // An earlier request that was granted is still recognized, and a taken label gets its own error.
    let last = last.unwrap();
    assert_eq!(state.create_queue(&create_queue(MAX_QUEUES - 1)).as_ref(), Ok(&last));
    let taken = CreateQueue { request: Uuid::max(), ..create_queue(0) };
    assert_eq!(state.create_queue(&taken), Err(CreateQueueError::Exists));
    assert!(state.delete_queue(StoreTime::default(), last.id));
    assert!(state.create_queue(&create_queue(MAX_QUEUES)).is_ok());
}

#[test]
fn a_queue_has_no_more_channels_than_the_limit() {
    let now = StoreTime::default();
    let mut state = State::default();
    let queue = state.create_queue(&create_queue(0)).unwrap().id;
    let other = state.create_queue(&create_queue(1)).unwrap().id;
    let create = |queue, number: usize| {
        let id = ChannelId::new(Uuid::from_u128(number as u128));
        CreateChannel { id, queue, topic: Topic::NONE, start: Start::Latest, disposable: false }
    };
    for number in 0..MAX_CHANNELS_PER_QUEUE {
        state.create_channel(now, &create(queue, number)).unwrap();
    }
    let one_more = create(queue, MAX_CHANNELS_PER_QUEUE);
    assert_eq!(state.create_channel(now, &one_more), Err(CreateChannelError::TooMany));
    assert!(state.create_channel(now, &create(queue, 0)).is_ok());
    assert!(state.create_channel(now, &create(other, MAX_CHANNELS_PER_QUEUE + 1)).is_ok());
    assert!(state.delete_channel(ChannelId::new(Uuid::from_u128(0))));
    assert!(state.create_channel(now, &one_more).is_ok());
}

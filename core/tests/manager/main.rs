//! Managers over a store in memory and fake brokers, in simulated time.

mod admin;
mod leading;
mod levelling;
mod moving;

use std::time::Duration;

use rmom_core::{
    access::Call,
    manager::{Manager, testing::World},
    model::{BrokerAddr, QueueLabel},
    ports::Catalog as _,
};
use tokio::time::{Instant, sleep};

/// More than a cycle, including all its calls, if none hangs.
const A_WHILE: Duration = Duration::from_millis(2_500);

fn label(raw: &str) -> QueueLabel {
    QueueLabel::parse(raw).unwrap()
}

/// The assignee of a queue, according to the store.
async fn assignee(world: &World, name: &str) -> Option<BrokerAddr> {
    let queue = world.store.queue(&label(name)).await.unwrap().expect("the queue exists");
    queue.assignee.map(|(_, addr)| addr)
}

/// How often a queue was assigned.
async fn assignments(world: &World, name: &str) -> u64 {
    world.store.queue(&label(name)).await.unwrap().expect("the queue exists").assignment.get()
}

/// Waits until a condition holds, and returns how long that took.
async fn until(what: &str, limit: Duration, mut holds: impl AsyncFnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        sleep(Duration::from_millis(5)).await;
    }
    started.elapsed()
}

async fn until_leading(manager: &Manager<Call>) {
    until("the manager leads", Duration::from_secs(10), async || manager.status().leading).await;
}

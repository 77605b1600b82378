//! Turns at what costs the store much, and is done for many queues at once: activations and trims. They are few, so that most
//! of a broker's connections to the store are left to pushes and deliveries.

use tokio::sync::{Semaphore, SemaphorePermit};

/// So many at a time. Callers wait in one of two lanes: the first waits for a turn; of the second one caller at a time
/// joins the first. Thus the first waits for one of the second at most, however many these are.
#[derive(Debug)]
pub(super) struct Turns {
    free: Semaphore,
    turnstile: Semaphore,
}

impl Turns {
    pub(super) fn new(limit: usize) -> Self {
        Self { free: Semaphore::new(limit.max(1)), turnstile: Semaphore::new(1) }
    }

    /// Waits in the first lane. The turn ends when it is dropped.
    pub(super) async fn take_first(&self) -> SemaphorePermit<'_> {
        taken(self.free.acquire().await)
    }

    /// Waits in the second lane, until `hurry` ends; then in the first.
    pub(super) async fn take(&self, hurry: impl Future<Output = ()>) -> SemaphorePermit<'_> {
        if let Ok(turn) = self.free.try_acquire() {
            return turn;
        }
        mark!(TurnAwaited);
        tokio::select! {
            biased;
            () = hurry => self.take_first().await,
            turn = async {
                let _next = taken(self.turnstile.acquire().await);
                self.take_first().await
            } => turn,
        }
    }
}

fn taken<T>(turn: Result<T, tokio::sync::AcquireError>) -> T {
    turn.expect("turns are never closed")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tokio::{sync::Notify, task::JoinSet, time::Duration};

    use super::*;

    /// Lets everybody do what there is to do now.
    async fn settle() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    struct World {
        turns: Arc<Turns>,
        took: Arc<Mutex<Vec<u32>>>,
        waiting: JoinSet<()>,
    }

    impl World {
        /// Somebody who has a turn for ten milliseconds.
        fn enter(&mut self, who: u32, first: bool, hurry: Option<Arc<Notify>>) {
            let (turns, took) = (Arc::clone(&self.turns), Arc::clone(&self.took));
            self.waiting.spawn(async move {
                let _turn = match hurry {
                    Some(hurry) => turns.take(async move { hurry.notified().await }).await,
                    None if first => turns.take_first().await,
                    None => turns.take(std::future::pending()).await,
                };
                took.lock().push(who);
                tokio::time::sleep(Duration::from_millis(10)).await;
            });
        }

        async fn order(mut self) -> Vec<u32> {
            while self.waiting.join_next().await.is_some() {}
            self.took.lock().clone()
        }
    }

    fn world(limit: usize) -> World {
        World { turns: Arc::new(Turns::new(limit)), took: Arc::default(), waiting: JoinSet::new() }
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_have_a_turn_than_there_are() {
        let mut world = world(3);
        for who in 0..10 {
            world.enter(who, who % 2 == 0, None);
        }
        settle().await;
        assert_eq!(world.took.lock().len(), 3);
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(world.took.lock().len(), 6);
        assert_eq!(world.order().await.len(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_lane_waits_for_one_of_the_second_at_most() {
        let mut world = world(1);
        world.enter(0, false, None);
        settle().await;
        for who in 1..50 {
            world.enter(who, false, None);
        }
        world.enter(100, true, None);
        let order = world.order().await;
        let place = order.iter().position(|&who| who == 100).unwrap();
        assert!(place <= 2, "{order:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_hurried_changes_lanes() {
        let mut world = world(1);
        world.enter(0, false, None);
        settle().await;
        for who in 1..50 {
            world.enter(who, false, None);
        }
        let hurry = Arc::new(Notify::new());
        world.enter(100, false, Some(Arc::clone(&hurry)));
        settle().await;
        hurry.notify_one();
        let order = world.order().await;
        assert!(order.iter().position(|&who| who == 100).unwrap() <= 2, "{order:?}");
    }
}

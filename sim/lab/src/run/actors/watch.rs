//! One subscriber per queue, in runs with many queues.

use rmom_client::{Client, Start};
use tokio::time::sleep;

use super::{Actor, LOOK, RETRY, consumer_library::create_channel, consumer_raw::Observer};
use crate::scenario::WATCH;

/// Runs with at least this many queues have a subscriber for each.
const MANY: usize = 10;

/// Reads every queue if there are many. It has a host name of its own: a probe that times out cuts short only the operator's
/// streams.
pub(super) async fn run(actor: Actor, client: Client) {
    let actor = Actor { host: WATCH.to_owned(), ..actor };
    while !actor.run.with(|state| state.ready) {
        sleep(LOOK).await;
    }
    let queues = actor.run.with(|state| state.queues.len());
    if queues < MANY {
        return;
    }
    for index in 0..queues {
        tokio::task::spawn_local(watch(actor.clone(), client.clone(), index));
    }
    std::future::pending::<()>().await;
}

async fn watch(actor: Actor, client: Client, index: usize) {
    let mut observer = Observer::new(&actor, &format!("w{}", index + 1));
    loop {
        let label = actor.run.with(|state| state.queues[index].label.clone());
        if let Some((channel, _, start)) = create_channel(&actor, &client, &label, 0, Start::Earliest).await {
            let mut position = None;
            loop {
                if let Ok(mut stream) = observer.open(&actor, channel, position, start).await {
                    while stream.next(&actor).await.is_ok() {
                        position = stream.position;
                    }
                }
                let last = observer.last_code.take();
                if last.is_some_and(|code| matches!(code.as_str(), "CHANNEL_NOT_FOUND" | "QUEUE_REPLACED")) {
                    break;
                }
                sleep(RETRY).await;
            }
            actor.run.with(|state| state.channels.remove(&channel));
        }
        sleep(RETRY).await;
    }
}

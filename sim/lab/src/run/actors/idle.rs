//! Subscribers that wait after the last push. Their channels are deleted, and no message arrives that could tell them.

use rmom_client::{Client, Start};
use tokio::time::sleep;

use super::{Actor, LOOK, consumer_library::create_channel, consumer_raw::Observer, operator::delete_channel};
use crate::scenario::IDLE;

/// Subscribes to each queue, if the run lingers once everything is in order. It has a host name of its own: a probe that
/// times out cuts short only the operator's streams.
pub(super) async fn run(actor: Actor, client: Client) {
    let actor = Actor { host: IDLE.to_owned(), ..actor };
    while !actor.run.with(|state| state.lingers) {
        sleep(LOOK).await;
    }
    let labels: Vec<String> = actor.run.with(|state| state.queues.iter().map(|queue| queue.label.clone()).collect());
    for label in labels {
        tokio::task::spawn_local(wait(actor.clone(), client.clone(), label));
    }
}

async fn wait(actor: Actor, client: Client, label: String) {
    let Some((channel, _, start)) = create_channel(&actor, &client, &label, 0, Start::Latest).await else { return };
    let mut observer = Observer::new(&actor, &format!("idle-{channel}"));
    if let Ok(mut stream) = observer.open(&actor, channel, None, start).await {
        while !delete_channel(&actor, &client.admin(), channel).await {}
        while stream.next(&actor).await.is_ok() {}
    }
}

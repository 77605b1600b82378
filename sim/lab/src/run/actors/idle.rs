//! Subscribers that wait after the last push. Their channels are deleted, and no message arrives that could tell them.

use rmom_client::{Client, Start};
use tokio::time::sleep;

use super::{LOOK, Me, consumer_library::create_channel, consumer_raw::Observer, operator::delete_channel};
use crate::scenario::IDLE;

/// Subscribes to each queue, if the run lingers once everything is in order. It has a host name of its own: a probe that
/// times out cuts short only the operator's streams.
pub(super) async fn run(me: Me, client: Client) {
    let me = Me { host: IDLE.to_owned(), ..me };
    while !me.stage.with(|state| state.lingers) {
        sleep(LOOK).await;
    }
    let labels: Vec<String> = me.stage.with(|state| state.queues.iter().map(|queue| queue.label.clone()).collect());
    for label in labels {
        tokio::task::spawn_local(wait(me.clone(), client.clone(), label));
    }
}

async fn wait(me: Me, client: Client, label: String) {
    let Some((channel, _, start)) = create_channel(&me, &client, &label, 0, Start::Latest).await else { return };
    let mut observer = Observer::new(&me, &format!("idle-{channel}"));
    if let Ok(mut stream) = observer.open(&me, channel, None, start).await {
        while !delete_channel(&me, &client.admin(), channel).await {}
        while stream.next(&me).await.is_ok() {}
    }
}

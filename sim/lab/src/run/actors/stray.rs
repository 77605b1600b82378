//! A client that asks the wrong brokers: it subscribes from a consumer's current position at any broker, whatever the
//! managers say. Most brokers refuse; a replaced owner that does not know it yet must not serve outdated messages.

use rmom_sim::{BROKER_PORT, broker_host};
use tokio::time::{Duration, sleep, timeout};

use super::{Actor, LOOK, consumer_raw::Observer};
use crate::run::run_state::Place;

/// The pause between two brokers.
const PACE: Duration = Duration::from_millis(250);

/// Asks one broker after the other until pushing ends.
pub(super) async fn run(actor: Actor) {
    let brokers = u64::from(actor.run.scenario.topology.brokers.max(1));
    while actor.may_push() {
        sleep(PACE).await;
        let turn = actor.run.next_op();
        let places = actor.run.with(|state| {
            let place = |place: &Place| place.channel.zip(place.position);
            state.consumers.values().filter_map(place).collect::<Vec<_>>()
        });
        let Some(nth) = usize::try_from(turn).ok().and_then(|turn| turn.checked_rem(places.len())) else { continue };
        let ((channel, _, start), position) = places[nth];
        let number = usize::try_from(turn / 7 % brokers).unwrap_or(0) + 1;
        // A new observer each time, since it does not resume from its own last position.
        let mut observer = Observer::new(&actor, &format!("stray-{turn}"));
        observer.ask_next(format!("{}:{BROKER_PORT}", broker_host(number)));
        if let Ok(mut stream) = observer.open(&actor, channel, Some(position), start).await
            && !timeout(LOOK, stream.next(&actor)).await.is_ok_and(|next| next.is_err())
        {
            stream.end(&actor, "LEFT".to_owned());
        }
    }
}

//! One who asks the wrong brokers: it subscribes where a consumer is by now, at any broker, whatever the managers say. Most
//! refuse; one that was replaced and does not know yet must not serve it anything that is out of date.

use tokio::time::{Duration, sleep, timeout};

use super::{LOOK, Me, consumer_raw::Observer};
use crate::{broker_host, hosts::BROKER_PORT, run::stage::Place};

/// Between two brokers.
const PACE: Duration = Duration::from_millis(250);

/// Asks one broker after the other, until nobody pushes any more.
pub(super) async fn run(me: Me) {
    let brokers = u64::from(me.stage.scenario.topology.brokers.max(1));
    while me.may_push() {
        sleep(PACE).await;
        let turn = me.stage.next_op();
        let places = me.stage.with(|state| {
            let place = |place: &Place| place.channel.zip(place.position);
            state.consumers.values().filter_map(place).collect::<Vec<_>>()
        });
        let Some(nth) = usize::try_from(turn).ok().and_then(|turn| turn.checked_rem(places.len())) else { continue };
        let ((channel, _, start), position) = places[nth];
        let number = usize::try_from(turn / 7 % brokers).unwrap_or(0) + 1;
        // Another one each time: it does not go on where it was.
        let mut observer = Observer::new(&me, &format!("stray-{turn}"));
        observer.ask_next(format!("{}:{BROKER_PORT}", broker_host(number)));
        if let Ok(mut stream) = observer.open(&me, channel, Some(position), start).await
            && !timeout(LOOK, stream.next(&me)).await.is_ok_and(|next| next.is_err())
        {
            stream.end(&me, "LEFT".to_owned());
        }
    }
}

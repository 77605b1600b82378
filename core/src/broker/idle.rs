//! Deleting channels that nobody subscribes to any more, if a setting says after how long.
//!
//! The original's clients make a channel after each break and never come back to the one before. The store knows when such a
//! channel was last in use. A subscription enters its channel as used before it begins ([`use_channel`]), and a broker enters
//! the channels of its subscriptions again and again. The store deletes a channel that was not used for long, and looks at that
//! time as it deletes: a subscription that begins meanwhile either finds its channel gone, or keeps it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, timeout, timeout_at};

use super::{
    api::{BrokerError, BrokerExit},
    count::count,
    inner::Inner,
    moments::Moment,
    queue::{Context, Handle, Phase},
};
use crate::{
    model::{Assignment, ChannelId, QueueId, StoreTime, limits::MAX_LOOKED_UP},
    ports::StoreError,
    repeat::Repeat,
};

/// Clients have so long to come back to a queue that is new here, or as long as a channel may be idle, if that is shorter.
const RETURN_TIME: Duration = Duration::from_secs(3_600);

/// The longest time between two rounds.
const LONGEST_INTERVAL: Duration = Duration::from_secs(600);

/// Channels that one call of the store deletes.
const STEP: u32 = 1_000;

/// Calls of one round that delete; the next round goes on.
const STEPS: u32 = 100;

/// How often it is entered that a channel is in use.
fn interval(expiry: Duration) -> Duration {
    (expiry / 8).min(LONGEST_INTERVAL)
}

/// A channel that was entered within this time is not entered again.
fn fresh(expiry: Duration) -> Duration {
    interval(expiry) / 2
}

/// How long a round may take. It deletes nothing afterwards; the next round goes on.
fn longest_round(expiry: Duration) -> Duration {
    fresh(expiry)
}

/// For how long a channel was not entered before a broker deletes it. The last entry can be older than the end of the last
/// subscription, by an interval, a round and a time that counts as fresh.
fn idle(expiry: Duration) -> Duration {
    expiry + expiry / 4
}

/// The queues that this broker has, and since when without a break. A channel that was in use elsewhere, or before a break, is
/// entered again when its clients come back.
#[derive(Debug, Default)]
struct Owned {
    since: BTreeMap<QueueId, (Assignment, Instant)>,
}

impl Owned {
    /// A round found these queues, each with the number of its assignment.
    fn found(&mut self, hosted: &BTreeMap<QueueId, Assignment>, now: Instant) {
        self.since.retain(|queue, (assignment, _)| hosted.get(queue) == Some(assignment));
        for (&queue, &assignment) in hosted {
            self.since.entry(queue).or_insert((assignment, now));
        }
    }

    /// Those whose clients had time enough to come back.
    fn for_long(&self, expiry: Duration, now: Instant) -> Vec<QueueId> {
        let long = expiry.min(RETURN_TIME);
        let mine = self.since.iter().filter(|(_, (_, since))| now.duration_since(*since) >= long);
        mine.map(|(&queue, _)| queue).collect()
    }
}

/// How long a subscription waits for the entry.
const USE_TIMEOUT: Duration = Duration::from_millis(300);

/// Enters that a channel is in use, before it is subscribed to; false if the channel does not exist. From then on it is not
/// deleted for as long as it may be idle. A store that takes no writes keeps nobody from reading: then the next round enters it.
pub(super) async fn use_channel(inner: &Inner, channel: ChannelId) -> Result<bool, BrokerError> {
    let Some(expiry) = inner.settings.channel_idle_expiry else { return Ok(true) };
    let channels = [channel];
    let used = inner.write(inner.catalog.use_channels(&channels, fresh(expiry)));
    match timeout(USE_TIMEOUT, used).await {
        Ok(Ok(Ok(known))) => Ok(!known.is_empty()),
        Ok(Ok(Err(StoreError::Refused(_)))) | Err(_) => {
            tracing::debug!(%channel, "did not enter that a channel is in use");
            Ok(true)
        }
        Ok(Ok(Err(error))) => Err(error.into()),
        Ok(Err(error)) => Err(error),
    }
}

/// Never ends.
pub(super) async fn delete_idle_channels(inner: Arc<Inner>, context: Arc<Context>, expiry: Duration) -> BrokerExit {
    let interval = interval(expiry);
    let (mut owned, failing) = (Owned::default(), Repeat::default());
    let mut last = None;
    loop {
        tokio::time::sleep(interval).await;
        match round(&inner, &context, expiry, &mut owned, last, &failing).await {
            Ok(clocks) => {
                last = Some(clocks);
                failing.went_well();
            }
            Err(error) => {
                last = None;
                tell(&failing, &error);
            }
        }
    }
}

fn tell(failing: &Repeat, error: &StoreError) {
    if let Some(times) = failing.happened() {
        tracing::warn!(%error, times, "cannot delete channels that nobody subscribes to; trying again");
    }
}

/// This machine's clock and the store's, as a round began.
type Clocks = (Moment, StoreTime);

/// The round before began at `last`, if it went well. It fails if no use could be entered.
async fn round(
    inner: &Inner,
    context: &Context,
    expiry: Duration,
    owned: &mut Owned,
    last: Option<Clocks>,
    failing: &Repeat,
) -> Result<Clocks, StoreError> {
    let now = Instant::now();
    let clocks = (inner.moments.now(), context.within(context.catalog.now()).await?);
    // While this broker did not serve, or its machine slept, nobody could subscribe. And if the store's clock went ahead, what was
    // in use a moment ago seems idle for long.
    let passed = last.map(|(moment, time)| inner.moments.since(moment).max(clocks.1.since(time)));
    if passed.is_none_or(|passed| passed > interval(expiry) * 2) || !inner.lease.is_current() {
        *owned = Owned::default();
    }
    let until = now + longest_round(expiry);
    let (mut hosted, mut subscribed) = (BTreeMap::new(), BTreeSet::new());
    let handles: Vec<Handle> = inner.queues.read().values().cloned().collect();
    for Handle { shared, .. } in &handles {
        if matches!(shared.view.borrow().phase, Phase::Serving(_) | Phase::Recovering(_)) {
            hosted.insert(shared.id, *shared.assignment.lock());
        }
        subscribed.extend(shared.subscribers.lock().values().map(|subscriber| subscriber.channel));
    }
    owned.found(&hosted, now);
    let subscribed: Vec<ChannelId> = subscribed.into_iter().collect();
    for channels in subscribed.chunks(MAX_LOOKED_UP) {
        context.within(context.catalog.use_channels(channels, fresh(expiry))).await?;
    }
    let mut steps = STEPS;
    for queues in owned.for_long(expiry, now).chunks(MAX_LOOKED_UP) {
        loop {
            // A broker that may have been replaced leaves it to the next.
            if steps == 0 || !inner.lease.is_current() {
                return Ok(clocks);
            }
            steps -= 1;
            let step = context.catalog.delete_idle_channels(context.broker, queues, idle(expiry), clocks.1, STEP);
            let Ok(deleted) = timeout_at(until, context.within(step)).await else { return Ok(clocks) };
            let deleted = match deleted {
                Ok(deleted) => deleted,
                Err(error) => {
                    tell(failing, &error);
                    return Ok(clocks);
                }
            };
            if !deleted.is_empty() {
                mark!(IdleChannelsDeleted);
                count(&inner.expired_channels, deleted.len() as u64);
                let channels = deleted.len();
                tracing::info!(channels, ?expiry, "deleted channels that nobody has subscribed to for so long");
                deleted.iter().for_each(|channel| tracing::debug!(%channel, "deleted an idle channel"));
            }
            if deleted.len() < STEP as usize {
                break;
            }
        }
    }
    Ok(clocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn clients_of_a_queue_have_time_to_come_back() {
        let (a, b, begin) = (QueueId::new(1), QueueId::new(2), Instant::now());
        let at = |secs| begin + Duration::from_secs(secs);
        let mut owned = Owned::default();
        let [first, third] = [1, 3].map(Assignment::new);
        owned.found(&[(a, first), (b, first)].into(), at(0));
        owned.found(&[(a, first), (b, third)].into(), at(60));
        let hours = |n: u64| Duration::from_secs(n * 3_600);
        assert_eq!(owned.for_long(hours(1), at(3_599)), []);
        assert_eq!(owned.for_long(hours(1), at(3_600)), [a], "the other went away and came back");
        assert_eq!(owned.for_long(hours(100), at(3_660)), [a, b]);
        assert_eq!(owned.for_long(hours(1) / 60, at(119)), [a]);
        owned.found(&[(b, third)].into(), at(3_660));
        assert_eq!(owned.for_long(hours(1), at(9_000)), [b]);
    }

    #[test]
    fn what_is_in_use_is_entered_often_enough() {
        for secs in [60, 3_600, 30 * 86_400] {
            let expiry = Duration::from_secs(secs);
            assert!(expiry + interval(expiry) + longest_round(expiry) + fresh(expiry) <= idle(expiry), "{secs}");
        }
    }
}

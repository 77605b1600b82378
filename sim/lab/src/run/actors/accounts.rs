//! At the end of a run, reads each broker's counters and the reported state of its queues.

use std::collections::BTreeMap;

use http::Method;
use rmom_sim::{
    BROKER_PORT, broker_host,
    history::{Event, Phase},
};
use tokio::time::{Duration, sleep};

use super::{Actor, LOOK};
use crate::run::wire::exchange;

/// How long a broker may take to answer.
const ANSWER: Duration = Duration::from_secs(1);
/// The prefix and suffix of the names of a queue's counters.
const OF_QUEUES: (&str, &str) = ("rmom_queue_", "_total");
/// Gauges of a queue's present state, without the prefix.
const GAUGES: [&str; 3] = ["depth_messages", "last_offset", "epoch"];

/// Reads every broker's metrics page once, after the last push.
pub(super) async fn run(actor: Actor) {
    while actor.run.phase() != Some(Phase::Drain) {
        sleep(LOOK).await;
    }
    let brokers = usize::from(actor.run.scenario.topology.brokers.max(1));
    for host in (1..=brokers).map(broker_host) {
        if actor.run.with(|state| state.lost.contains(&host)) {
            continue;
        }
        let authority = format!("{host}:{BROKER_PORT}");
        let Ok((200, page)) = exchange(&authority, &Method::GET, "/metrics", [][..].into(), ANSWER).await else {
            continue;
        };
        for (queue, counted) in counters(&String::from_utf8_lossy(&page)) {
            actor.record(Event::Counted { broker: host.clone(), queue, counted });
        }
    }
    actor.run.with(|state| state.accounted = true);
}

/// The counters of each queue on a broker's page, by name without the common prefix and suffix, and some gauges.
fn counters(page: &str) -> BTreeMap<String, BTreeMap<String, u64>> {
    let mut counters: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for line in page.lines() {
        let Some((sample, value)) = line.rsplit_once(' ') else { continue };
        let Some((name, labels)) = sample.split_once('{') else { continue };
        let name = name.strip_prefix(OF_QUEUES.0);
        let name =
            name.and_then(|name| name.strip_suffix(OF_QUEUES.1).or(Some(name).filter(|name| GAUGES.contains(name))));
        let queue = labels.strip_prefix("queue=\"").and_then(|labels| labels.strip_suffix("\"}"));
        if let (Some(name), Some(queue), Ok(value)) = (name, queue, value.parse()) {
            counters.entry(queue.to_owned()).or_default().insert(name.to_owned(), value);
        }
    }
    counters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_from_a_page() {
        let page = "# TYPE rmom_queue_pushed_total counter\nrmom_queue_pushed_total{queue=\"a\"} 3\n\
            rmom_queue_epoch{queue=\"a\"} 1\nrmom_queue_subscribers{queue=\"a\"} 1\nrmom_queue_expired_total{queue=\"b\"} 2\nrmom_connections 4\n";
        let count = |counts: &[(&str, u64)]| counts.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
        let expected = [("a", count(&[("pushed", 3), ("epoch", 1)])), ("b", count(&[("expired", 2)]))];
        assert_eq!(counters(page), expected.map(|(queue, counts)| (queue.to_owned(), counts)).into());
    }
}

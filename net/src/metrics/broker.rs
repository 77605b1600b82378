//! A broker's page.

use rmom_core::broker::{BrokerStatus, QueuePhase, QueueStatus};

use super::text::{Kind, Text, serving};
use crate::serve::ServeStats;

/// Subscribers of one queue that have a sample of their own; the rest share one, whose channel is `other`.
pub const MAX_LISTED_SUBSCRIBERS: usize = 100;

/// What the subscribers beyond [`MAX_LISTED_SUBSCRIBERS`] are called.
const OTHERS: &str = "other";

type Queue = [(&'static str, String); 1];

fn queue(status: &QueueStatus) -> Queue {
    [("queue", status.label.to_string())]
}

/// A counter or gauge of each queue.
type Field = (Kind, &'static str, &'static str, fn(&QueueStatus) -> u64);

const FIELDS: &[Field] = &[
    (Kind::Gauge, "rmom_queue_epoch", "The broker's epoch of the queue.", |queue| queue.epoch.get()),
    (
        Kind::Counter,
        "rmom_queue_moves_total",
        "Times that it went to another broker: failovers and handovers.",
        |queue| queue.moves,
    ),
    (Kind::Gauge, "rmom_queue_last_offset", "Offset of the newest message.", |queue| queue.last_offset.get()),
    (Kind::Gauge, "rmom_queue_depth_messages", "Messages stored and not trimmed.", |queue| queue.depth_messages),
    (Kind::Gauge, "rmom_queue_depth_bytes", "Bytes of the messages stored and not trimmed.", |queue| queue.depth_bytes),
    (Kind::Gauge, "rmom_queue_subscribers", "Subscriptions now.", |queue| queue.subscribers.len() as u64),
    (Kind::Counter, "rmom_queue_pushed_total", "Messages stored.", |queue| queue.counters.pushed),
    (Kind::Counter, "rmom_queue_pushed_bytes_total", "Bytes of messages stored.", |queue| queue.counters.pushed_bytes),
    (Kind::Counter, "rmom_queue_delivered_total", "Messages handed to subscribers' connections.", |queue| {
        queue.counters.delivered
    }),
    (Kind::Counter, "rmom_queue_duplicates_total", "Pushes that had been stored before.", |queue| {
        queue.counters.duplicates
    }),
    (Kind::Counter, "rmom_queue_refused_total", "Pushes refused.", |queue| queue.counters.refused),
    (Kind::Counter, "rmom_queue_expired_total", "Messages trimmed after they expired.", |queue| queue.counters.expired),
    (Kind::Counter, "rmom_queue_unknown_appends_total", "Appends whose outcome was not known at first.", |queue| {
        queue.counters.unknown_appends
    }),
    (Kind::Counter, "rmom_queue_claims_total", "Claims by this broker: activations and recoveries.", |queue| {
        queue.counters.claims
    }),
    (Kind::Counter, "rmom_queue_store_reads_total", "Chunks read from the store for slow subscribers.", |queue| {
        queue.counters.store_reads
    }),
];

const PHASES: [(QueuePhase, &str); 4] = [
    (QueuePhase::Activating, "activating"),
    (QueuePhase::Serving, "serving"),
    (QueuePhase::Recovering, "recovering"),
    (QueuePhase::Halted, "halted"),
];

/// The page of one broker.
#[must_use]
pub fn broker(status: &BrokerStatus, connections: &ServeStats) -> String {
    let mut text = Text::new();
    let flag = u8::from;
    let gauge = Kind::Gauge;
    text.single(gauge, "rmom_broker_lease_current", "1 while the broker may serve.", flag(status.lease_current));
    text.single(gauge, "rmom_broker_draining", "1 while an operator drains it.", flag(status.draining));
    text.single(gauge, "rmom_broker_stopping", "1 once it stops.", flag(status.stopping));
    let (pending, limit) = status.pending_bytes;
    let help = "Bytes of pushes that are being read, or accepted and not stored yet.";
    text.single(gauge, "rmom_broker_pending_bytes", help, pending);
    text.single(gauge, "rmom_broker_pending_bytes_limit", "Beyond it pushes wait.", limit);
    let (waited, refused) = status.room_counts;
    let help = "Pushes that waited for room before they were read.";
    text.single(Kind::Counter, "rmom_broker_pushes_waited_total", help, waited);
    let help = "Pushes refused as OVERLOADED: no room within the deadline, or too many that waited.";
    text.single(Kind::Counter, "rmom_broker_pushes_overloaded_total", help, refused);
    let help = "Renewals of the lease that failed.";
    text.single(Kind::Counter, "rmom_broker_failed_renewals_total", help, status.failed_renewals);
    let help = "Appends that found a later epoch: this broker had been replaced.";
    text.single(Kind::Counter, "rmom_broker_fenced_appends_total", help, status.fenced_appends);
    serving(&mut text, connections);

    let queues = &status.queues;
    let phases = queues.iter().flat_map(|status| {
        let label = status.label.to_string();
        PHASES
            .map(|(phase, name)| ([("queue", label.clone()), ("phase", name.to_owned())], flag(status.phase == phase)))
    });
    text.metric(gauge, "rmom_queue_phase", "1 for what the queue is doing.", phases);
    let ages = queues.iter().map(|status| (queue(status), status.oldest_age.as_secs_f64()));
    text.metric(gauge, "rmom_queue_oldest_age_seconds", "Age of the oldest message not trimmed.", ages);
    for &(kind, name, help, value) in FIELDS {
        text.metric(kind, name, help, queues.iter().map(|status| (queue(status), value(status))));
    }
    let lags = queues.iter().flat_map(subscriber_lags);
    text.metric(gauge, "rmom_subscriber_lag_messages", "Offsets between a subscriber and the newest message.", lags);
    text.finish()
}

type Subscriber = [(&'static str, String); 3];

/// The furthest behind have samples of their own; a channel may have several subscribers, which their peers tell apart.
fn subscriber_lags(status: &QueueStatus) -> Vec<(Subscriber, u64)> {
    let mut subscribers: Vec<_> = status.subscribers.iter().collect();
    subscribers.sort_by_key(|subscriber| std::cmp::Reverse(subscriber.lag));
    let (listed, rest) = subscribers.split_at(subscribers.len().min(MAX_LISTED_SUBSCRIBERS));
    let labels = |channel, peer| [("queue", status.label.to_string()), ("channel", channel), ("peer", peer)];
    let mut lags: Vec<_> = listed
        .iter()
        .map(|subscriber| (labels(subscriber.channel.to_string(), subscriber.peer.clone()), subscriber.lag))
        .collect();
    // Two subscriptions over one connection to one channel would be the same sample twice, which the format forbids.
    lags.sort();
    lags.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1 = kept.1.max(next.1);
        }
        same
    });
    if !rest.is_empty() {
        let sum = rest.iter().fold(0, |sum: u64, subscriber| sum.saturating_add(subscriber.lag));
        lags.push((labels(OTHERS.to_owned(), OTHERS.to_owned()), sum));
    }
    lags
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use rmom_core::{
        broker::QueueCounters,
        model::{ChannelId, Epoch, Offset, QueueId, QueueLabel, Topic},
        ports::SubscriberDescription,
    };

    use super::*;

    fn status(subscribers: usize) -> BrokerStatus {
        let subscriber = |n: usize| SubscriberDescription {
            channel: ChannelId::parse("67e55044-10b1-426f-9247-bb680e5fe0c8").unwrap(),
            topic: Topic::NONE,
            peer: format!("10.0.0.1:{n}"),
            offset: Offset::new(9),
            lag: n as u64,
        };
        BrokerStatus {
            lease_current: true,
            draining: false,
            stopping: false,
            pending_bytes: (5, 64),
            room_counts: (6, 7),
            failed_renewals: 2,
            fenced_appends: 3,
            queues: vec![QueueStatus {
                label: QueueLabel::parse("say \"hi\"").unwrap(),
                queue: QueueId::new(4),
                phase: QueuePhase::Serving,
                epoch: Epoch::new(3),
                moves: 2,
                last_offset: Offset::new(12),
                depth_messages: 7,
                depth_bytes: 700,
                oldest_age: Duration::from_millis(1_500),
                subscribers: (0..subscribers).map(subscriber).collect(),
                counters: QueueCounters { pushed: 12, delivered: 24, store_reads: 6, ..QueueCounters::default() },
            }],
        }
    }

    #[test]
    fn every_number_has_its_line() {
        let page = broker(&status(1), &ServeStats::default());
        for line in [
            "rmom_broker_lease_current 1",
            "rmom_broker_pending_bytes 5",
            "rmom_broker_pushes_waited_total 6",
            "rmom_broker_pushes_overloaded_total 7",
            "rmom_broker_failed_renewals_total 2",
            "rmom_broker_fenced_appends_total 3",
            "rmom_connections 0",
            r#"rmom_queue_phase{queue="say \"hi\"",phase="serving"} 1"#,
            r#"rmom_queue_phase{queue="say \"hi\"",phase="halted"} 0"#,
            r#"rmom_queue_oldest_age_seconds{queue="say \"hi\""} 1.5"#,
            r#"rmom_queue_epoch{queue="say \"hi\""} 3"#,
            r#"rmom_queue_moves_total{queue="say \"hi\""} 2"#,
            r#"rmom_queue_depth_messages{queue="say \"hi\""} 7"#,
            r#"rmom_queue_pushed_total{queue="say \"hi\""} 12"#,
            r#"rmom_queue_store_reads_total{queue="say \"hi\""} 6"#,
            r#"rmom_subscriber_lag_messages{queue="say \"hi\"",channel="67e55044-10b1-426f-9247-bb680e5fe0c8",peer="10.0.0.1:0"} 0"#,
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
        let mut heads = BTreeSet::new();
        let mut samples = BTreeSet::new();
        for line in page.lines() {
            if let Some(head) = line.strip_prefix("# TYPE ") {
                assert!(heads.insert(head.split(' ').next().unwrap()), "twice: {line}");
            } else if !line.starts_with('#') {
                let (sample, value) = line.rsplit_once(' ').unwrap();
                assert!(samples.insert(sample), "twice: {line}");
                assert!(heads.contains(sample.split('{').next().unwrap()), "no head: {line}");
                value.parse::<f64>().unwrap();
            }
        }
    }

    #[test]
    fn subscribers_are_bounded_and_none_is_lost() {
        let lags = |subscribers| subscriber_lags(&status(subscribers).queues[0]);
        assert_eq!(lags(0).len(), 0);
        assert_eq!(lags(MAX_LISTED_SUBSCRIBERS).len(), MAX_LISTED_SUBSCRIBERS);
        let many = lags(MAX_LISTED_SUBSCRIBERS + 3);
        assert_eq!(many.len(), MAX_LISTED_SUBSCRIBERS + 1);
        let others = many.last().unwrap();
        assert_eq!((others.0[1].1.as_str(), others.1), (OTHERS, 3), "0 + 1 + 2");
    }

    #[test]
    fn two_subscriptions_over_one_connection_are_one_sample() {
        let mut status = status(2);
        for subscriber in &mut status.queues[0].subscribers {
            subscriber.peer = "same".into();
        }
        let lags = subscriber_lags(&status.queues[0]);
        assert_eq!(lags.len(), 1);
        assert_eq!(lags[0].1, 1, "the one further behind");
    }
}

//! A broker's pages: one for the broker, one for its queues.
//!
//! The size of a page is bounded, however much is stored and however often clients reconnect: it is made in one go, on a
//! thread that has other work.

use std::collections::BTreeMap;

use rmom_core::{
    broker::{BrokerStatus, QueuePhase, QueueStatus},
    model::ChannelId,
};

use super::text::{Kind, Text, serving};
use crate::serve::ServeStats;

/// Channels of one queue that get samples of their own: those furthest behind. The rest share one, whose channel is `other`.
pub const MAX_LISTED_CHANNELS: usize = 100;
/// Limit on the queues that get samples of their own on a page. A broker with more reports their totals; [`per_object`]
/// reports each.
pub const MAX_LISTED_QUEUES: usize = 1_000;

/// The name under which channels beyond [`MAX_LISTED_CHANNELS`] are reported.
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
        "Moves of the queue to another broker: failovers and handovers.",
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
    (Kind::Counter, "rmom_queue_duplicates_total", "Pushes of messages that were stored already.", |queue| {
        queue.counters.duplicates
    }),
    (Kind::Counter, "rmom_queue_refused_total", "Pushes refused.", |queue| queue.counters.refused),
    (Kind::Counter, "rmom_queue_expired_total", "Messages trimmed after they expired.", |queue| queue.counters.expired),
    (Kind::Counter, "rmom_queue_unknown_appends_total", "Appends whose outcome was unknown at first.", |queue| {
        queue.counters.unknown_appends
    }),
    (Kind::Counter, "rmom_queue_claims_total", "Claims by this broker: activations and recoveries.", |queue| {
        queue.counters.claims
    }),
    (Kind::Counter, "rmom_queue_store_reads_total", "Chunks read from the store for slow subscribers.", |queue| {
        queue.counters.store_reads
    }),
    (
        Kind::Counter,
        "rmom_queue_stale_reads_total",
        "Reads from a standby or an older copy of the database, which lacked stored messages.",
        |queue| queue.counters.stale_reads,
    ),
    (Kind::Counter, "rmom_queue_corrupt_reads_total", "Reads that found a batch that cannot be decoded.", |queue| {
        queue.counters.corrupt_reads
    }),
    (Kind::Counter, "rmom_queue_activation_failures_total", "Failed attempts to activate the queue.", |queue| {
        queue.counters.failed_activations
    }),
    (Kind::Counter, "rmom_queue_trim_failures_total", "Failed trims.", |queue| queue.counters.failed_trims),
    (
        Kind::Gauge,
        "rmom_queue_unserved_seconds",
        "Time since the first failed attempt to activate the queue; 0 once an attempt succeeds.",
        |queue| queue.unserved.map_or(0, |unserved| unserved.as_secs()),
    ),
];

/// A total over all queues of the broker.
type Total = (Kind, &'static str, &'static str, fn(&QueueStatus) -> u64);

const TOTALS: &[Total] = &[
    (Kind::Gauge, "rmom_broker_depth_messages", "Messages stored and not trimmed.", |queue| queue.depth_messages),
    (Kind::Gauge, "rmom_broker_depth_bytes", "Bytes of the messages stored and not trimmed.", |queue| {
        queue.depth_bytes
    }),
    (Kind::Gauge, "rmom_broker_subscribers", "Subscriptions now.", |queue| queue.subscribers.len() as u64),
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
    text.single(gauge, "rmom_broker_draining", "1 while the broker is drained.", flag(status.draining));
    text.single(gauge, "rmom_broker_stopping", "1 once the broker stops.", flag(status.stopping));
    let (pending, limit) = status.pending_bytes;
    let help = "Bytes of pushes that are being read, or accepted and not stored yet.";
    text.single(gauge, "rmom_broker_pending_bytes", help, pending);
    text.single(gauge, "rmom_broker_pending_bytes_limit", "Pushes wait beyond this number of pending bytes.", limit);
    let (waited, refused) = status.room_counts;
    let help = "Pushes that waited for room before they were read.";
    text.single(Kind::Counter, "rmom_broker_pushes_waited_total", help, waited);
    let help = "Pushes refused as OVERLOADED: no room within the deadline, or too many waiting pushes.";
    text.single(Kind::Counter, "rmom_broker_pushes_overloaded_total", help, refused);
    let help = "Failed renewals of the lease.";
    text.single(Kind::Counter, "rmom_broker_failed_renewals_total", help, status.failed_renewals);
    let help = "Appends that found a later epoch: this broker had been replaced.";
    text.single(Kind::Counter, "rmom_broker_fenced_appends_total", help, status.fenced_appends);
    let help = "Channels deleted because they had no subscribers for too long.";
    text.single(Kind::Counter, "rmom_broker_expired_channels_total", help, status.expired_channels);
    serving(&mut text, connections);

    let queues = &status.queues;
    totals(&mut text, queues);
    if queues.len() <= MAX_LISTED_QUEUES {
        per_queue(&mut text, &queues.iter().collect::<Vec<_>>());
    }
    text.finish()
}

/// A page of the broker's queues: the first [`MAX_LISTED_QUEUES`] by label whose labels begin with `prefix` and come after
/// `after`. If there is another page, the last line is a comment that names the label after which it begins.
#[must_use]
pub fn per_object(status: &BrokerStatus, prefix: &str, after: &str) -> String {
    let mut queues: Vec<_> = status.queues.iter().collect();
    queues.retain(|queue| queue.label.as_str().starts_with(prefix) && queue.label.as_str() > after);
    queues.sort_by(|a, b| a.label.cmp(&b.label));
    let more = queues.len() > MAX_LISTED_QUEUES;
    queues.truncate(MAX_LISTED_QUEUES);
    let mut text = Text::new();
    per_queue(&mut text, &queues);
    let next = queues.last().filter(|_| more).map(|last| format!("# next {}\n", last.label));
    text.finish() + &next.unwrap_or_default()
}

fn totals(text: &mut Text, queues: &[QueueStatus]) {
    let gauge = Kind::Gauge;
    let phases = PHASES.map(|(phase, name)| {
        let count = queues.iter().filter(|queue| queue.phase == phase).count();
        ([("phase", name.to_owned())], count)
    });
    text.metric(gauge, "rmom_broker_queues", "Queues by phase.", phases);
    for &(kind, name, help, value) in TOTALS {
        text.single(kind, name, help, queues.iter().fold(0_u64, |sum, queue| sum.saturating_add(value(queue))));
    }
    let oldest = queues.iter().map(|queue| queue.oldest_age).max().unwrap_or_default();
    text.single(
        gauge,
        "rmom_broker_oldest_age_seconds",
        "Age of the oldest message not trimmed.",
        oldest.as_secs_f64(),
    );
    let behind = queues.iter().flat_map(|queue| &queue.subscribers).map(|subscriber| subscriber.lag).max();
    let help = "Offsets between the subscriber that is furthest behind and the newest message.";
    text.single(gauge, "rmom_broker_subscriber_lag_messages", help, behind.unwrap_or_default());
}

fn per_queue(text: &mut Text, queues: &[&QueueStatus]) {
    let (gauge, flag) = (Kind::Gauge, u8::from);
    let phases = queues.iter().flat_map(|status| {
        let label = status.label.to_string();
        PHASES
            .map(|(phase, name)| ([("queue", label.clone()), ("phase", name.to_owned())], flag(status.phase == phase)))
    });
    text.metric(gauge, "rmom_queue_phase", "1 for the queue's current phase.", phases);
    let ages = queues.iter().map(|status| (queue(status), status.oldest_age.as_secs_f64()));
    text.metric(gauge, "rmom_queue_oldest_age_seconds", "Age of the oldest message not trimmed.", ages);
    for &(kind, name, help, value) in FIELDS {
        text.metric(kind, name, help, queues.iter().map(|status| (queue(status), value(status))));
    }
    let channels: Vec<_> = queues.iter().flat_map(|status| channels(status)).collect();
    let counts = channels.iter().map(|(labels, channel)| (labels.clone(), channel.subscribers));
    text.metric(gauge, "rmom_channel_subscribers", "Subscriptions of the channel now.", counts);
    let help = "Offsets between the channel's subscriber that is furthest behind and the newest message.";
    let lags = channels.into_iter().map(|(labels, channel)| (labels, channel.lag));
    text.metric(gauge, "rmom_subscriber_lag_messages", help, lags);
}

/// All subscribers of a channel together. They are not listed by address, since each reconnection brings a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Channel {
    subscribers: u64,
    /// The lag of the subscriber that is furthest behind.
    lag: u64,
}

impl Channel {
    fn and(self, subscribers: u64, lag: u64) -> Self {
        Self { subscribers: self.subscribers + subscribers, lag: self.lag.max(lag) }
    }
}

/// The channels of a queue that have subscribers, those furthest behind first.
fn channels(status: &QueueStatus) -> Vec<([(&'static str, String); 2], Channel)> {
    let mut by_id: BTreeMap<ChannelId, Channel> = BTreeMap::new();
    for subscriber in &status.subscribers {
        let channel = by_id.entry(subscriber.channel).or_default();
        *channel = channel.and(1, subscriber.lag);
    }
    let mut all: Vec<_> = by_id.into_iter().collect();
    all.sort_by_key(|(_, channel)| std::cmp::Reverse(channel.lag));
    let rest = all.split_off(all.len().min(MAX_LISTED_CHANNELS));
    let labels = |channel: String| [("queue", status.label.to_string()), ("channel", channel)];
    let mut listed: Vec<_> = all.into_iter().map(|(id, channel)| (labels(id.to_string()), channel)).collect();
    if !rest.is_empty() {
        let others = rest.iter().fold(Channel::default(), |sum, (_, one)| sum.and(one.subscribers, one.lag));
        listed.push((labels(OTHERS.to_owned()), others));
    }
    listed
}

#[cfg(test)]
pub(super) mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use rmom_core::{
        broker::QueueCounters,
        model::{ChannelId, Epoch, Offset, QueueId, QueueLabel, Topic},
        ports::SubscriberDescription,
    };

    use super::*;

    pub(in crate::metrics) fn status(subscribers: usize) -> BrokerStatus {
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
            expired_channels: 8,
            fenced_appends: 3,
            queues: vec![QueueStatus {
                label: QueueLabel::parse("say \"hi\"").unwrap(),
                queue: QueueId::new(4),
                phase: QueuePhase::Serving,
                unserved: None,
                trims_failing: None,
                undeliverable: None,
                newer: false,
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
            "rmom_broker_expired_channels_total 8",
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
            r#"rmom_subscriber_lag_messages{queue="say \"hi\"",channel="67e55044-10b1-426f-9247-bb680e5fe0c8"} 0"#,
            r#"rmom_channel_subscribers{queue="say \"hi\"",channel="67e55044-10b1-426f-9247-bb680e5fe0c8"} 1"#,
            r#"rmom_broker_queues{phase="serving"} 1"#,
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
    fn a_reconnection_makes_no_new_series() {
        let series = |peer: &str| {
            let mut status = status(2);
            status.queues[0].subscribers[1].peer = peer.into();
            let page = broker(&status, &ServeStats::default());
            page.lines().filter_map(|line| line.rsplit_once(' ')).map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(series("10.0.0.1:5"), series("10.0.0.2:6"));
    }

    #[test]
    fn channels_are_bounded_and_none_is_lost() {
        let of = |count: usize| {
            let mut status = status(count);
            for (n, subscriber) in status.queues[0].subscribers.iter_mut().enumerate() {
                subscriber.channel = ChannelId::new(uuid::Uuid::from_u128(n as u128));
            }
            channels(&status.queues[0])
        };
        assert_eq!(of(0).len(), 0);
        assert_eq!(of(MAX_LISTED_CHANNELS).len(), MAX_LISTED_CHANNELS);
        let many = of(MAX_LISTED_CHANNELS + 3);
        assert_eq!(many.len(), MAX_LISTED_CHANNELS + 1);
        assert_eq!(many[0].1.lag, MAX_LISTED_CHANNELS as u64 + 2);
        let (labels, others) = many.last().unwrap();
        assert_eq!((labels[1].1.as_str(), *others), (OTHERS, Channel { subscribers: 3, lag: 2 }));
    }

    #[test]
    fn a_page_is_bounded_and_the_rest_is_on_the_next() {
        let mut status = status(1);
        let one = status.queues[0].clone();
        let queue = |n: usize| QueueStatus { label: QueueLabel::parse(&format!("q{n:05}")).unwrap(), ..one.clone() };
        status.queues = (0..MAX_LISTED_QUEUES).map(queue).collect();
        let page = |status: &BrokerStatus| broker(status, &ServeStats::default());
        assert!(page(&status).contains("rmom_queue_epoch{queue=\"q00000\"}"));
        status.queues = (0..MAX_LISTED_QUEUES * 5 / 2).rev().map(queue).collect();
        let all = page(&status);
        assert!(!all.contains("rmom_queue_epoch") && all.len() < 10_000, "{} bytes", all.len());
        for line in [
            r#"rmom_broker_queues{phase="serving"} 2500"#,
            "rmom_broker_depth_messages 17500",
            "rmom_broker_subscribers 2500",
            "rmom_broker_oldest_age_seconds 1.5",
            "rmom_broker_subscriber_lag_messages 0",
        ] {
            assert!(all.lines().any(|found| found == line), "{line} is not in\n{all}");
        }
        let mut seen = BTreeSet::new();
        let mut after = String::new();
        for pages in 1.. {
            let page = per_object(&status, "q", &after);
            let labels = page.lines().filter_map(|line| line.strip_prefix("rmom_queue_epoch{queue=\""));
            for label in labels {
                assert!(seen.insert(label.to_owned()), "twice: {label}");
            }
            let Some(next) = page.lines().find_map(|line| line.strip_prefix("# next ")) else {
                assert_eq!(pages, 3);
                break;
            };
            after = next.to_owned();
        }
        assert_eq!(seen.len(), status.queues.len());
        assert_eq!(per_object(&status, "q0001", "").matches("rmom_queue_epoch{").count(), 10);
    }
}

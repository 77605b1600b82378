//! A broker's complaints: shown on `/readyz`, and sent to managers, which report them in `/v1/status`.

use std::time::Duration;

use rmom_core::broker::{BrokerStatus, QueuePhase, QueueStatus};

use super::health::LONGEST_ACTIVATION;
use crate::serve::ServeStats;

/// Limit on the number of complaints. A broker can host many queues, and they often share one trouble.
const MAX_COMPLAINTS: usize = 100;
/// Trims that have failed for longer than this are reported. A failed trim is retried within seconds.
const LONGEST_WITHOUT_TRIM: Duration = Duration::from_secs(60);
/// The reason given for data in a format that only newer versions read.
const NEWER: &str = "stored by a newer version: upgrade this broker";

/// The reasons why this broker is not as it should be: it takes no requests, its connections or those of its store are used
/// up, or one of its queues is stopped or cannot be activated, read or trimmed. There are at most [`MAX_COMPLAINTS`],
/// followed by one that counts the rest.
pub(super) fn complaints(status: &BrokerStatus, connections: &ServeStats) -> Vec<String> {
    let mut complaints = Vec::new();
    if status.stopping {
        complaints.push("stopping".to_owned());
    }
    if !status.lease_current {
        let lease = "the lease is not current: the store cannot be reached, or another process took this address";
        complaints.push(lease.to_owned());
    }
    complaints.extend(connections.complaints());
    let mut of_queues = status.queues.iter().flat_map(of_queue);
    let room = MAX_COMPLAINTS - complaints.len();
    complaints.extend(of_queues.by_ref().take(room));
    match of_queues.count() {
        0 => {}
        more => complaints.push(format!("and {more} more; see rmom_broker_queues in /metrics, and the log")),
    }
    complaints
}

fn of_queue(queue: &QueueStatus) -> impl Iterator<Item = String> {
    let label = &queue.label;
    let halted = (queue.phase == QueuePhase::Halted)
        .then(|| format!("queue {label}: the store was rolled back; nothing is done until an operator looks"));
    let unserved = queue.unserved.filter(|&unserved| queue.newer || unserved > LONGEST_ACTIVATION).map(|unserved| {
        let why = if queue.newer { NEWER } else { "its activation fails, see the log" };
        format!("queue {label}: not served for {} s; {why}", unserved.as_secs())
    });
    let undeliverable = queue.undeliverable.map(|offset| {
        let why = if queue.newer { NEWER } else { "see the log" };
        format!("queue {label}: the batch at offset {offset} cannot be delivered; {why}")
    });
    let untrimmed = queue.trims_failing.filter(|&failing| failing > LONGEST_WITHOUT_TRIM).map(|failing| {
        let seconds = failing.as_secs();
        format!("queue {label}: trims have failed for {seconds} s, so what has expired is not removed; see the log")
    });
    [halted, unserved, undeliverable, untrimmed].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use rmom_core::{
        broker::{QueueCounters, QueueStatus},
        model::{Epoch, Offset, QueueId, QueueLabel},
    };

    use super::*;

    fn said(change: impl FnOnce(&mut QueueStatus)) -> Vec<String> {
        said_of(1, change)
    }

    fn said_of(number: usize, change: impl FnOnce(&mut QueueStatus)) -> Vec<String> {
        let mut queue = QueueStatus {
            label: QueueLabel::parse("news").unwrap(),
            queue: QueueId::new(1),
            phase: QueuePhase::Serving,
            unserved: None,
            trims_failing: None,
            undeliverable: None,
            newer: false,
            epoch: Epoch::new(1),
            moves: 0,
            last_offset: Offset::new(0),
            depth_messages: 0,
            depth_bytes: 0,
            oldest_age: Duration::ZERO,
            subscribers: Vec::new(),
            counters: QueueCounters::default(),
        };
        change(&mut queue);
        let status = BrokerStatus {
            lease_current: true,
            draining: false,
            stopping: false,
            pending_bytes: (0, 1),
            room_counts: (0, 0),
            failed_renewals: 0,
            expired_channels: 0,
            fenced_appends: 0,
            queues: vec![queue; number],
        };
        complaints(&status, &ServeStats::default())
    }

    #[test]
    fn a_queue_that_is_not_well_is_a_complaint() {
        assert_eq!(said(|_| ()), [""; 0]);
        assert_eq!(said(|queue| queue.unserved = Some(LONGEST_ACTIVATION)), [""; 0]);
        let unserved = said(|queue| queue.unserved = Some(LONGEST_ACTIVATION + Duration::from_secs(1)));
        assert_eq!(unserved, ["queue news: not served for 31 s; its activation fails, see the log"]);
        let corrupt = said(|queue| queue.undeliverable = Some(Offset::new(2)));
        assert_eq!(corrupt, ["queue news: the batch at offset 2 cannot be delivered; see the log"]);
        let newer = said(|queue| (queue.unserved, queue.newer) = (Some(Duration::ZERO), true));
        assert_eq!(newer, ["queue news: not served for 0 s; stored by a newer version: upgrade this broker"]);
        assert_eq!(said(|queue| queue.trims_failing = Some(LONGEST_WITHOUT_TRIM)), [""; 0]);
        let untrimmed = said(|queue| queue.trims_failing = Some(Duration::from_secs(61)));
        assert!(untrimmed[0].starts_with("queue news: trims have failed for 61 s"), "{untrimmed:?}");
        assert_eq!(said(|queue| queue.phase = QueuePhase::Halted).len(), 1);
    }

    #[test]
    fn of_many_complaints_most_are_counted() {
        let halted = |queue: &mut QueueStatus| queue.phase = QueuePhase::Halted;
        assert_eq!(said_of(MAX_COMPLAINTS, halted).len(), MAX_COMPLAINTS);
        let said = said_of(30_000, halted);
        assert_eq!(said.len(), MAX_COMPLAINTS + 1);
        assert!(said[MAX_COMPLAINTS].starts_with("and 29900 more"), "{}", said[MAX_COMPLAINTS]);
    }
}

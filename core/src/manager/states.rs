//! The states of a page of queues, as reported by their brokers: one call for each broker, however many of them it hosts.

use std::{collections::BTreeMap, ops::RangeInclusive};

use tokio::time::Instant;

use super::{
    Inner, ManagerError,
    admin::{NotDescribed, Page},
    ask::Answer,
};
use crate::{
    model::{BrokerAddr, QueueId, QueueLabel},
    ports::{ControlError, QueueRecord, QueueState},
};

/// A queue of a list and, if its broker answered, its state there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedQueue {
    /// The store's record.
    pub queue: QueueRecord,
    /// The hosting broker's answer, or the reason why there is none.
    pub live: Result<QueueState, NotDescribed>,
}

/// The labels to ask each broker about: from the first of its queues to the last.
fn questions(queues: &[QueueRecord]) -> BTreeMap<BrokerAddr, RangeInclusive<QueueLabel>> {
    let mut ranges: BTreeMap<&BrokerAddr, (&QueueLabel, &QueueLabel)> = BTreeMap::new();
    for queue in queues {
        let Some((_, addr)) = &queue.assignee else { continue };
        let (first, last) = ranges.entry(addr).or_insert((&queue.label, &queue.label));
        // The store may order labels differently from brokers.
        (*first, *last) = ((*first).min(&queue.label), (*last).max(&queue.label));
    }
    ranges.into_iter().map(|(addr, (first, last))| (addr.clone(), first.clone()..=last.clone())).collect()
}

/// Gives each queue the answer of its own broker.
fn merge(queues: Vec<QueueRecord>, answers: Vec<(BrokerAddr, Answer<Vec<QueueState>>)>) -> Vec<ListedQueue> {
    let mut states: BTreeMap<(BrokerAddr, QueueId), QueueState> = BTreeMap::new();
    let mut silent: BTreeMap<BrokerAddr, ControlError> = BTreeMap::new();
    for (addr, answer) in answers {
        match answer {
            Ok(of_broker) => states.extend(of_broker.into_iter().map(|state| ((addr.clone(), state.queue), state))),
            Err(error) => drop(silent.insert(addr, error)),
        }
    }
    let mut live = |queue: &QueueRecord| {
        let (_, addr) = queue.assignee.as_ref().ok_or(NotDescribed::NoBroker)?;
        match silent.get(addr) {
            Some(error) => Err(NotDescribed::Control(error.clone())),
            None => states.remove(&(addr.clone(), queue.id)).ok_or_else(|| NotDescribed::NotHosted(addr.clone())),
        }
    };
    queues.into_iter().map(|queue| ListedQueue { live: live(&queue), queue }).collect()
}

impl Inner {
    /// A page of queues with their states. This takes as long as the page itself plus `describe_deadline` at most, whatever
    /// the brokers do. Memory grows with the page.
    pub(super) async fn live_queue_page(
        &self,
        after: Option<QueueLabel>,
        limit: u32,
        by: Instant,
    ) -> Result<Page<ListedQueue>, ManagerError> {
        let page = self.queue_page(after, limit, by).await?;
        let ask = |addr: BrokerAddr, labels: RangeInclusive<QueueLabel>, deadline| async move {
            self.control.states(&addr, &labels, deadline).await
        };
        let answers = self.ask_all(questions(&page.items), by, ask).await;
        Ok(Page { items: merge(page.items, answers), more: page.more })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        model::{Assignment, BrokerId, Epoch, Offset},
        ports::QueueActivity,
    };

    fn addr(broker: u64) -> BrokerAddr {
        BrokerAddr { host: format!("b{broker}"), port: 1 }
    }

    fn queue(id: u64, label: &str, broker: Option<u64>) -> QueueRecord {
        QueueRecord {
            id: QueueId::new(id),
            label: QueueLabel::parse(label).unwrap(),
            assignee: broker.map(|broker| (BrokerId::new(broker), addr(broker))),
            assignment: Assignment::new(1),
        }
    }

    fn state(id: u64) -> QueueState {
        QueueState {
            queue: QueueId::new(id),
            activity: QueueActivity::Served,
            reason: None,
            epoch: Epoch::new(1),
            last_offset: Offset::new(id),
            depth_messages: id,
            depth_bytes: id,
            oldest_age: Duration::ZERO,
            subscribers: 0,
            largest_lag: 0,
        }
    }

    #[test]
    fn a_broker_is_asked_once_about_all_of_its_queues() {
        let label = |text: &str| QueueLabel::parse(text).unwrap();
        // Not in the order of bytes, since a database may sort differently.
        let page = [queue(1, "b", Some(1)), queue(2, "a", Some(1)), queue(3, "c", Some(2)), queue(4, "d", None)];
        let asked = questions(&page);
        let expected = [(addr(1), label("a")..=label("b")), (addr(2), label("c")..=label("c"))];
        assert_eq!(asked, BTreeMap::from(expected));
    }

    #[test]
    fn each_queue_is_given_what_its_own_broker_says() {
        let page = vec![
            queue(1, "a", Some(1)),
            queue(2, "b", Some(1)),
            queue(3, "c", Some(2)),
            queue(4, "d", None),
            queue(5, "e", Some(1)),
        ];
        let late = ControlError::DeadlineExceeded { addr: addr(2), deadline: Duration::from_secs(1) };
        // Queue 9 had the label of queue 2 and was deleted.
        let answers = vec![(addr(1), Ok(vec![state(1), state(9), state(5)])), (addr(2), Err(late.clone()))];
        let merged: Vec<_> = merge(page, answers).into_iter().map(|one| (one.queue.id.get(), one.live)).collect();
        let expected = [
            (1, Ok(state(1))),
            (2, Err(NotDescribed::NotHosted(addr(1)))),
            (3, Err(NotDescribed::Control(late))),
            (4, Err(NotDescribed::NoBroker)),
            (5, Ok(state(5))),
        ];
        assert_eq!(merged, expected);
    }
}

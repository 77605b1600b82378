//! The outcome of each message of a batch, and the tasks that wait for it: one allocation per batch, none per message.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use rmom_proto::contract::MessageIds;
use uuid::Uuid;

use crate::Error;

/// A message that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its number within its producer.
    pub sequence: u64,
    /// The message's id, as consumers see it.
    pub id: Uuid,
    /// Its offset in the queue. Acknowledgements are cumulative, so the offset is either exact or absent. It is known for a
    /// [`push`](crate::Producer::push) that is alone in flight, for the last message of an acknowledgement, and for others
    /// if no other producer pushed in between. It is absent for a duplicate so old that the broker remembers only that it is
    /// one.
    pub offset: Option<u64>,
    /// True if an earlier attempt had already stored it. It is stored only once.
    pub duplicate: bool,
}

/// The part of an acknowledgement that concerns one batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acknowledged {
    pub(crate) ids: MessageIds,
    /// Sequence of its first message.
    pub(crate) first_sequence: u64,
    /// Everything up to this sequence had been stored before.
    pub(crate) duplicates_through: u64,
    pub(crate) offsets: Offsets,
}

/// The offsets that an acknowledgement tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offsets {
    Unknown,
    /// Only that of the message with this sequence.
    One {
        sequence: u64,
        offset: u64,
    },
    /// All: offset minus sequence.
    All {
        offset_at_zero: i128,
    },
}

impl Offsets {
    fn at(self, at: u64) -> Option<u64> {
        match self {
            Self::Unknown => None,
            Self::One { sequence, offset } => (sequence == at).then_some(offset),
            Self::All { offset_at_zero } => u64::try_from(offset_at_zero + i128::from(at)).ok(),
        }
    }
}

#[derive(Debug)]
enum Outcome {
    Stored(Acknowledged),
    Failed(Error),
}

/// Outcomes, in the order of the messages.
#[derive(Debug, Default)]
struct State {
    /// Each with the number of messages that had an outcome before it.
    outcomes: Vec<(usize, Outcome)>,
    resolved: usize,
    wakers: Vec<Option<Waker>>,
}

/// The outcomes of a batch.
#[derive(Debug, Default)]
pub(crate) struct Tickets {
    state: Mutex<State>,
}

impl Tickets {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Only a waker's clone can have panicked while it was held, so the state is sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next `count` messages are stored.
    pub(crate) fn stored(&self, count: usize, acknowledged: Acknowledged) {
        self.resolve(count, Outcome::Stored(acknowledged));
    }

    /// The next `count` messages are given up.
    pub(crate) fn failed(&self, count: usize, error: Error) {
        self.resolve(count, Outcome::Failed(error));
    }

    fn resolve(&self, count: usize, outcome: Outcome) {
        let woken: Vec<_> = {
            let mut state = self.lock();
            let before = state.resolved;
            state.outcomes.push((before, outcome));
            state.resolved += count;
            let end = state.resolved.min(state.wakers.len());
            state.wakers.get_mut(before..end).unwrap_or_default().iter_mut().filter_map(Option::take).collect()
        };
        woken.into_iter().for_each(Waker::wake);
    }

    fn poll(&self, index: usize, cx: &mut Context<'_>) -> Poll<Result<Receipt, Error>> {
        let mut state = self.lock();
        if index >= state.resolved {
            if state.wakers.len() <= index {
                state.wakers.resize(index + 1, None);
            }
            match &mut state.wakers[index] {
                Some(waker) => waker.clone_from(cx.waker()),
                vacant => *vacant = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        let at = state.outcomes.partition_point(|(before, _)| *before <= index) - 1;
        let (before, outcome) = &state.outcomes[at];
        Poll::Ready(match outcome {
            Outcome::Failed(error) => Err(error.clone()),
            Outcome::Stored(acknowledged) => {
                let sequence = acknowledged.first_sequence + (index - before) as u64;
                Ok(Receipt {
                    sequence,
                    id: acknowledged.ids.at(sequence),
                    offset: acknowledged.offsets.at(sequence),
                    duplicate: sequence <= acknowledged.duplicates_through,
                })
            }
        })
    }
}

/// The outcome of one message: a future that resolves when the message is stored or given up. The message is pushed even if
/// this is never polled; dropping it cancels nothing.
#[must_use = "a failure is only seen by awaiting the delivery, or by `flush`"]
pub struct Delivery {
    tickets: Arc<Tickets>,
    index: usize,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery").finish_non_exhaustive()
    }
}

impl Delivery {
    pub(crate) fn new(tickets: Arc<Tickets>, index: usize) -> Self {
        Self { tickets, index }
    }
}

impl Future for Delivery {
    type Output = Result<Receipt, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.tickets.poll(self.index, cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_message_learns_its_own_outcome() {
        let tickets = Arc::new(Tickets::default());
        let delivery = |index| Delivery::new(tickets.clone(), index);
        let waiting = tokio::spawn(delivery(2));
        tokio::task::yield_now().await;
        let acknowledged = |first_sequence, duplicates_through, offsets| Acknowledged {
            ids: MessageIds::new(Uuid::from_u128(7), 1),
            first_sequence,
            duplicates_through,
            offsets,
        };
        tickets.stored(2, acknowledged(10, 10, Offsets::One { sequence: 11, offset: 90 }));
        assert!(!waiting.is_finished());
        tickets.stored(2, acknowledged(12, 10, Offsets::All { offset_at_zero: 80 }));
        tickets.failed(1, Error::Closed);
        let receipt = waiting.await.unwrap().unwrap();
        assert_eq!((receipt.sequence, receipt.offset, receipt.duplicate), (12, Some(92), false));
        let first = delivery(0).await.unwrap();
        assert_eq!((first.sequence, first.offset, first.duplicate), (10, None, true));
        assert_eq!(delivery(1).await.unwrap().offset, Some(90));
        assert_eq!(delivery(3).await.unwrap().offset, Some(93));
        assert!(matches!(delivery(4).await, Err(Error::Closed)));
    }
}

//! Subscribing to a channel: where a subscription begins.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::{
    api::{BrokerError, SubscribeRequest},
    handle::Broker,
    queue::Handle,
    reader::Reader,
    subscription::{NewSubscription, Subscription},
};
use crate::{
    access::{Call, Right},
    model::{Epoch, Offset, Position},
};

/// Where a subscription begins.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Resume {
    /// With the channel's first message: after this offset.
    AtChannelStart(Offset),
    /// After the position that the client has reached.
    After(Offset),
    /// Nowhere: the client's position is ahead of what this broker knows of the queue. If that is all there is, the client is
    /// told this.
    Ahead(BrokerError),
}

impl Resume {
    /// Decides for a channel that starts with the offset `start`, on a queue that this broker serves up to `end` under `epoch`.
    fn decide(start: Offset, position: Option<Position>, end: Offset, epoch: Epoch) -> Self {
        match position {
            None => Self::AtChannelStart(Offset::new(start.get().saturating_sub(1))),
            Some(position) if position.offset > end || position.epoch > epoch => {
                Self::Ahead(if position.epoch == Epoch::ZERO {
                    // No broker gave this position: the client names an offset of its own choice.
                    BrokerError::OffsetOutOfRange { offset: position.offset, end }
                } else {
                    BrokerError::StoreRolledBack { end, epoch, confirmed: position.offset }
                })
            }
            Some(position) => Self::After(position.offset),
        }
    }
}

impl Broker<Call> {
    /// Subscribes to a channel of a queue hosted here.
    ///
    /// # Errors
    /// [`BrokerError::ChannelNotFound`], [`BrokerError::NotHosted`], [`BrokerError::QueueReplaced`],
    /// [`BrokerError::OffsetOutOfRange`], [`BrokerError::StoreRolledBack`], [`BrokerError::Overloaded`], and what the store
    /// says.
    pub async fn subscribe(&self, request: SubscribeRequest) -> Result<Subscription, BrokerError> {
        let (inner, permit) = self.admit(Right::Consume.on_channel(request.channel))?;
        let caller = permit.caller().origin();
        inner.ready()?;
        let limit = inner.settings.max_subscriptions;
        let overloaded = |_| BrokerError::Overloaded { what: "subscriptions of this broker", limit };
        let slot = inner.subscriptions.clone().try_acquire_owned().map_err(overloaded)?;
        let (channel, looks) = inner.channel(request.channel, caller).await?;
        if let Some(position) = request.position
            && position.queue != channel.queue
        {
            return Err(BrokerError::QueueReplaced { queue: position.queue });
        }
        let mut handle = inner.hosted_since(&channel.label, channel.queue, caller).await?;
        let mut epoch = handle.served(inner.settings.activation_timeout).await?;
        let resume =
            |handle: &Handle, epoch| Resume::decide(channel.start, request.position, handle.shared.tail.end(), epoch);
        let mut begin = resume(&handle, epoch);
        if matches!(begin, Resume::Ahead(_)) {
            // Either the store was rolled back, or the queue has another owner and this broker does not know yet.
            mark!(PositionAhead);
            inner.lookups.take(caller)?;
            inner.refresh().await?;
            handle = inner.hosted(&channel.label, caller).await?;
            epoch = handle.served(inner.settings.activation_timeout).await?;
            // Nor does the assignment say when another process of this broker has claimed the queue.
            if matches!(resume(&handle, epoch), Resume::Ahead(_))
                && inner.read(inner.logs.of(handle.shared.id).log.tail(handle.shared.id)).await?.epoch > epoch
            {
                return Err(BrokerError::Fenced);
            }
            begin = resume(&handle, epoch);
        }
        if handle.shared.id > channel.queue {
            return Err(BrokerError::ChannelNotFound(request.channel));
        }
        if handle.shared.id < channel.queue {
            return Err(BrokerError::NotHosted { assignee: channel.assignee.map(|(_, addr)| addr) });
        }
        let after = match begin {
            Resume::AtChannelStart(after) => {
                mark!(StartedAtChannelStart);
                after
            }
            Resume::After(offset) => {
                mark!(StartedAfterPosition);
                offset
            }
            Resume::Ahead(error) => {
                mark!(PositionBeyondEnd if matches!(error, BrokerError::OffsetOutOfRange { .. }));
                return Err(error);
            }
        };
        let new = NewSubscription {
            channel: request.channel,
            topic: channel.topic,
            permit: permit.clone(),
            epoch,
            key: inner.next_subscription.fetch_add(1, Relaxed),
            slot,
        };
        let reader = Reader::new(inner.context()?, handle.shared.clone(), after);
        let subscription = Subscription::new(reader, inner.lease.clone(), &handle, new);
        if inner.channel_looks.load(SeqCst) != looks {
            // The channel may have been deleted since it was read, and the look for its subscriptions did not see this one.
            inner.channel(request.channel, caller).await?;
        }
        Ok(subscription)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::QueueId;

    /// Of a queue that is served up to offset 10 under epoch 3, with a channel that starts at offset 4.
    fn resume(position: Option<(u64, u64)>) -> Resume {
        let position = position.map(|(epoch, offset)| Position {
            queue: QueueId::new(1),
            epoch: Epoch::new(epoch),
            offset: Offset::new(offset),
        });
        Resume::decide(Offset::new(4), position, Offset::new(10), Epoch::new(3))
    }

    fn rolled_back(confirmed: u64) -> Resume {
        Resume::Ahead(BrokerError::StoreRolledBack {
            end: Offset::new(10),
            epoch: Epoch::new(3),
            confirmed: Offset::new(confirmed),
        })
    }

    #[test]
    fn without_a_position_a_subscription_begins_at_the_channels_start() {
        assert_eq!(resume(None), Resume::AtChannelStart(Offset::new(3)));
        let begin = Resume::decide(Offset::ZERO, None, Offset::ZERO, Epoch::new(1));
        assert_eq!(begin, Resume::AtChannelStart(Offset::ZERO));
        let begin = Resume::decide(Offset::new(11), None, Offset::new(10), Epoch::new(3));
        assert_eq!(begin, Resume::AtChannelStart(Offset::new(10)), "nothing was pushed since the channel was made");
    }

    #[test]
    fn a_position_is_continued_also_before_the_channels_start_and_at_the_end() {
        for (epoch, offset) in [(0, 0), (1, 2), (3, 5), (3, 10), (0, 10)] {
            assert_eq!(resume(Some((epoch, offset))), Resume::After(Offset::new(offset)), "{epoch} {offset}");
        }
    }

    #[test]
    fn an_offset_beyond_the_end_that_no_broker_gave_is_out_of_range() {
        let beyond = BrokerError::OffsetOutOfRange { offset: Offset::new(11), end: Offset::new(10) };
        assert_eq!(resume(Some((0, 11))), Resume::Ahead(beyond));
    }

    #[test]
    fn a_position_that_a_broker_gave_and_the_log_does_not_have_shows_that_the_store_was_rolled_back() {
        assert_eq!(resume(Some((3, 11))), rolled_back(11));
        assert_eq!(resume(Some((1, 11))), rolled_back(11));
        assert_eq!(resume(Some((4, 5))), rolled_back(5), "of an epoch that this broker does not know");
    }
}

//! Consumers, and the messages that they must receive.

use std::sync::Arc;

use futures_util::FutureExt as _;
use rmom_core::{
    broker::{BrokerError, SubscribeRequest, Subscription},
    model::{ChannelId, Code, Coded as _, Epoch, Offset, Position, QueueId},
};

use super::{
    model::Model,
    play::{Inbox, News},
};
use crate::world::{Process, decode};

/// A channel, as it was created.
#[derive(Clone, Debug)]
pub(crate) struct Channel {
    pub(crate) id: ChannelId,
    pub(crate) queue: u64,
    pub(crate) topic: &'static str,
    /// The first offset that it delivers.
    pub(crate) start: u64,
    pub(crate) deleted: bool,
}

impl Channel {
    /// True if the channel receives messages of that topic.
    fn takes(&self, topic: &str) -> bool {
        self.topic == "__none__" || self.topic == topic
    }

    pub(crate) fn is_gone(&self, model: &Model) -> bool {
        self.deleted || model.queues.get(&self.queue).is_some_and(|queue| queue.deleted)
    }
}

/// A consumer: its progress on a channel, and its connection.
#[derive(Default)]
pub(crate) struct Reader {
    /// The number of the channel; `None` before the first subscription.
    pub(crate) channel: Option<usize>,
    /// It has received everything up to this offset, or did not ask for it.
    have: u64,
    /// The position from which it resumes.
    position: Option<Position>,
    subscription: Option<Subscription>,
    /// The process that it asked last.
    to: Option<Process>,
    /// The number of its last subscription; answers to earlier ones are too late.
    asked: usize,
    /// The greatest offset known to any client when it subscribed.
    known: u64,
}

impl Reader {
    /// Subscribes in the background. `from`: as in `Step::Subscribe`.
    pub(crate) fn subscribe(
        &mut self,
        number: u8,
        (at, channel): (usize, &Channel),
        from: u8,
        to: &Process,
        inbox: &Inbox,
        model: &Model,
    ) {
        let known = model.queues.get(&channel.queue).map_or(0, |queue| queue.known);
        let stored = model.queues.get(&channel.queue).map_or(0, |queue| queue.log.len() as u64);
        if from > 0 || self.channel != Some(at) {
            let after = u64::from(from).saturating_sub(2) * (stored + 2) / 5;
            let queue = QueueId::new(channel.queue);
            (self.have, self.position) = match from {
                0 | 1 => (channel.start - 1, None),
                _ => (after, Some(Position { queue, epoch: Epoch::ZERO, offset: Offset::new(after) })),
            };
        }
        self.channel = Some(at);
        self.subscription = None;
        self.asked += 1;
        self.known = known;
        let request = SubscribeRequest { channel: channel.id, position: self.position };
        let (inbox, asked, broker) = (Arc::clone(inbox), self.asked, to.broker.clone());
        self.to = Some(to.clone());
        tokio::spawn(async move {
            let answer = broker.subscribe(request).await;
            inbox.lock().push(News::Subscribed { reader: number, asked, answer });
        });
    }

    /// Processes the answer to a subscription.
    pub(crate) fn subscribed(
        &mut self,
        asked: usize,
        answer: Result<Subscription, BrokerError>,
        channels: &[Channel],
        model: &Model,
    ) {
        if asked != self.asked {
            return;
        }
        let channel = &channels[self.channel.expect("it asked")];
        match answer {
            Ok(subscription) => {
                promise!(9, subscription.queue().get() == channel.queue, "{channel:?} led to {}", subscription.queue());
                self.subscription = Some(subscription);
            }
            Err(error) => self.refused(&error, channel, model),
        }
    }

    /// Checks the reason why a subscription was refused or ended.
    fn refused(&mut self, error: &BrokerError, channel: &Channel, model: &Model) {
        let gone = channel.is_gone(model);
        match error.code() {
            Code::ChannelNotFound => promise!(8, gone, "{channel:?} is not found"),
            Code::QueueNotFound | Code::QueueReplaced => promise!(9, gone, "{channel:?} lives: {error}"),
            Code::OffsetOutOfRange => {
                promise!(2, gone || self.have > self.known, "{} was known, and had {}: {error}", self.known, self.have);
                // It starts anew.
                self.channel = None;
            }
            Code::StoreRolledBack | Code::StoreCorrupt => panic!("promise 2 is broken: nothing was lost, but: {error}"),
            _ => {}
        }
    }

    /// Takes a chunk; false if none is available.
    pub(crate) fn take(&mut self, channels: &[Channel], model: &mut Model) -> bool {
        let Some(subscription) = &mut self.subscription else { return false };
        let Some(next) = subscription.next().now_or_never() else { return false };
        self.took(next, channels, model)
    }

    /// Waits for a chunk; false if the stream has ended.
    pub(crate) async fn wait(&mut self, channels: &[Channel], model: &mut Model) -> bool {
        let Some(subscription) = &mut self.subscription else { return false };
        let next = subscription.next().await;
        self.took(next, channels, model)
    }

    fn took(&mut self, next: Result<bytes::Bytes, BrokerError>, channels: &[Channel], model: &mut Model) -> bool {
        let channel = &channels[self.channel.expect("it subscribed")];
        let (queue, epoch) = self.subscription.as_ref().map(|open| (open.queue(), open.epoch())).expect("it is open");
        match next {
            Ok(frames) => {
                for message in decode(frames) {
                    self.given(&message, channel, model);
                    self.position = Some(Position { queue, epoch, offset: Offset::new(self.have) });
                }
                true
            }
            Err(error) => {
                self.refused(&error, channel, model);
                self.subscription = None;
                false
            }
        }
    }

    /// Checks a delivered message: it must be the next stored one for this channel.
    fn given(&mut self, message: &crate::world::Delivered, channel: &Channel, model: &mut Model) {
        let queue = model.queues.get_mut(&channel.queue).expect("its channel was created");
        let (have, offset) = (self.have, message.offset);
        promise!(3, offset > have, "{offset} ({}) was delivered after {have}", message.content);
        let index = |offset: u64| usize::try_from(offset).expect("logs are short") - 1;
        let stored = queue.log.get(index(offset));
        let Some(stored) = stored else { panic!("promise 1 is broken: {message:?} was delivered, and is not stored") };
        let same = (stored.body.to_string(), &stored.id, &stored.topic)
            == (message.content.clone(), &message.id, &message.topic);
        promise!(2, same, "{message:?} was delivered, stored is {stored:?}");
        promise!(8, channel.takes(&message.topic), "{message:?} was delivered to {channel:?}");
        let missed = (have + 1..offset).find(|&missed| channel.takes(&queue.log[index(missed)].topic));
        if let Some(missed) = missed {
            let body = queue.log[index(missed)].body;
            panic!("promise 2 is broken: {channel:?} was given {offset} after {have}, without {missed} ({body})");
        }
        self.have = offset;
        queue.known = offset.max(queue.known);
    }

    /// The last offset for a channel.
    pub(crate) fn last_for(channel: &Channel, model: &Model) -> u64 {
        let log = &model.queues[&channel.queue].log;
        let last = log.iter().rposition(|stored| channel.takes(&stored.topic));
        last.map_or(0, |index| index as u64 + 1)
    }

    pub(crate) fn have(&self) -> u64 {
        self.have
    }

    pub(crate) fn is_open(&self) -> bool {
        self.subscription.is_some()
    }

    /// Breaks the connection if its process is gone.
    pub(crate) fn leave_the_dead(&mut self) {
        if self.to.as_ref().is_some_and(Process::is_gone) {
            self.leave();
        }
    }

    /// Breaks the connection.
    pub(crate) fn leave(&mut self) {
        self.subscription = None;
        self.asked += 1;
    }
}

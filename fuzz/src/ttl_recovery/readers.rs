//! Consumers of the one channel.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::FutureExt as _;
use rmom_core::{
    access::{Call, Caller, Right},
    broker::{BrokerError, SubscribeRequest, Subscription},
    model::{ChannelId, Code, Coded as _, Epoch, Offset, Position, QueueId},
};

use super::{
    clocks::{Jumps, Readings},
    model::Model,
    play::{Inbox, News},
};
use crate::world::{Database, Delivered, Process, decode};

/// A consumer: its progress and its connection.
#[derive(Default)]
pub(crate) struct Reader {
    number: usize,
    /// The position from which it resumes.
    position: Option<Position>,
    /// The open subscription has delivered or left out everything up to this offset.
    after: u64,
    open: Option<Subscription>,
    /// The process that it asked last.
    to: Option<Process>,
    /// The number of its last subscription; answers to earlier ones are too late.
    asked: usize,
}

impl Reader {
    pub(crate) fn new(number: usize) -> Self {
        Self { number, ..Self::default() }
    }

    /// Subscribes in the background. `from`: as in `Step::Subscribe`.
    pub(crate) fn subscribe(
        &mut self,
        from: u8,
        (queue, channel): (QueueId, ChannelId),
        to: Process,
        known: u64,
        inbox: &Inbox,
    ) {
        match from {
            0 => {}
            1 => self.position = None,
            _ => {
                let offset = Offset::new(known * u64::from(from - 2) / 3);
                self.position = Some(Position { queue, epoch: Epoch::ZERO, offset });
            }
        }
        self.after = self.position.map_or(0, |position| position.offset.get());
        self.open = None;
        self.asked += 1;
        let request = SubscribeRequest { channel, position: self.position };
        let call = Call::new(Caller::anonymous(&self.number.to_string().into(), false), Right::Consume);
        let (inbox, reader, asked, broker) = (Arc::clone(inbox), self.number, self.asked, to.broker.on_behalf_of(call));
        self.to = Some(to);
        tokio::spawn(async move {
            let answer = broker.subscribe(request).await;
            inbox.lock().push(News::Subscribed { reader, asked, answer });
        });
    }

    /// Processes the answer to a subscription.
    pub(crate) fn subscribed(&mut self, asked: usize, answer: Result<Subscription, BrokerError>) {
        match answer {
            Ok(subscription) if asked == self.asked => self.open = Some(subscription),
            Ok(_) => {}
            Err(error) => refused(&error),
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Takes all available messages.
    pub(crate) fn take(&mut self, model: &mut Model, jumps: &Jumps, database: &Database) -> BTreeMap<u64, Delivered> {
        let mut given = BTreeMap::new();
        let Some(open) = &mut self.open else { return given };
        let (queue, epoch) = (open.queue(), open.epoch());
        let error = loop {
            match open.next().now_or_never() {
                None => break None,
                Some(Err(error)) => break Some(error),
                Some(Ok(frames)) => {
                    for message in decode(frames) {
                        let (offset, last) = (message.offset, self.position.map_or(0, |last| last.offset.get()));
                        promise!(3, offset > self.after.max(last), "{offset} was delivered after {last}");
                        self.position = Some(Position { queue, epoch, offset: Offset::new(offset) });
                        given.insert(offset, message);
                    }
                }
            }
        };
        let last = given.last_key_value().map_or(self.after, |(&offset, _)| offset);
        let to = self.to.as_ref().expect("it asked somebody");
        // Messages that the broker left out after the last delivered one are known only while it still lists the subscriber.
        let through = if error.is_some() { last } else { listed(to, self.number).unwrap_or(last).max(last) };
        model.passed((self.after, through), &given, database.now(), &Readings(to.line.readings()), jumps);
        self.after = through;
        if let Some(error) = error {
            refused(&error);
            self.open = None;
        }
        given
    }
}

/// The offset through which a subscriber was served, according to its broker.
fn listed(to: &Process, reader: usize) -> Option<u64> {
    let status = to.broker.status();
    let mut subscribers = status.queues.iter().flat_map(|queue| &queue.subscribers);
    subscribers.find(|found| found.peer == reader.to_string()).map(|found| found.offset.get())
}

/// No message is ever lost or deleted here.
fn refused(error: &BrokerError) {
    let lost = matches!(
        error.code(),
        Code::ChannelNotFound
            | Code::QueueNotFound
            | Code::QueueReplaced
            | Code::OffsetOutOfRange
            | Code::StoreRolledBack
            | Code::StoreCorrupt
    );
    promise!(2, !lost, "nothing was lost, but a subscriber was told: {error}");
}

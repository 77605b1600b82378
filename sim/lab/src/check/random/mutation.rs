//! Mistakes, each of which breaks a promise.

use proptest::sample::Index as Pick;
use rmom_sim::history::{Event, Record, StoredMessage};
use uuid::Uuid;

use crate::check::Promise::{self, *};

/// A single mistake that a correct system cannot make.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mutation {
    DropDelivery,
    RepeatOnStream,
    RepeatToConsumer,
    SwapDeliveries,
    OtherBodyDelivered,
    OtherIdDelivered,
    ResumeOneTooFar,
    OtherOffsetAcked,
    OtherIdAcked,
    AckBeforeStore,
    DropStored,
    StoreAgain,
    StoreUnderOldEpoch,
    StoreByAnother,
    DropFromAudit,
    DropChannelFromAudit,
    RenameTopicInAudit,
    TrimLive,
    StoreAfterDelete,
    DropOutcome,
    CallStoredRefused,
    DropConverged,
}

impl Mutation {
    pub(super) const ALL: [Self; 22] = [
        Self::DropDelivery,
        Self::RepeatOnStream,
        Self::RepeatToConsumer,
        Self::SwapDeliveries,
        Self::OtherBodyDelivered,
        Self::OtherIdDelivered,
        Self::ResumeOneTooFar,
        Self::OtherOffsetAcked,
        Self::OtherIdAcked,
        Self::AckBeforeStore,
        Self::DropStored,
        Self::StoreAgain,
        Self::StoreUnderOldEpoch,
        Self::StoreByAnother,
        Self::DropFromAudit,
        Self::DropChannelFromAudit,
        Self::RenameTopicInAudit,
        Self::TrimLive,
        Self::StoreAfterDelete,
        Self::DropOutcome,
        Self::CallStoredRefused,
        Self::DropConverged,
    ];

    /// The promise that the mistake breaks, and the other promises that it may break as well.
    pub(super) fn breaks(self) -> (Promise, &'static [Promise]) {
        match self {
            Self::DropDelivery => (NoLoss, &[]),
            Self::RepeatOnStream | Self::OtherBodyDelivered | Self::OtherOffsetAcked => (Order, &[]),
            Self::RepeatToConsumer | Self::OtherIdDelivered | Self::ResumeOneTooFar => (DeliveredOnce, &[]),
            // A reader that receives the second message first has missed the first.
            Self::SwapDeliveries => (Order, &[NoLoss]),
            Self::OtherIdAcked | Self::AckBeforeStore | Self::DropFromAudit => (Durable, &[]),
            // The missing message leaves a gap, although it was delivered.
            Self::DropStored => (Durable, &[Order, NoLoss]),
            // The copy is in no audit and reaches no reader.
            Self::StoreAgain => (PushedOnce, &[Durable, NoLoss]),
            Self::StoreUnderOldEpoch | Self::StoreByAnother => (OneWriter, &[]),
            Self::DropChannelFromAudit | Self::RenameTopicInAudit => (ChannelsSurvive, &[]),
            Self::TrimLive => (TimeToLive, &[]),
            // The owner that stores it may have been replaced.
            Self::StoreAfterDelete => (DeletesAreFinal, &[PushedOnce, OneWriter]),
            Self::DropOutcome | Self::CallStoredRefused => (NothingSilent, &[]),
            Self::DropConverged => (Convergence, &[]),
        }
    }

    /// Applies the mistake at some record; false if no record is suitable.
    #[expect(clippy::too_many_lines, reason = "one arm each")]
    pub(super) fn apply(self, history: &mut Vec<Record>, pick: Pick) -> bool {
        let places: Vec<usize> = (0..history.len()).filter(|&at| self.fits(history, at)).collect();
        if places.is_empty() {
            return false;
        }
        let at = *pick.get(&places);
        match self {
            Self::DropDelivery
            | Self::DropStored
            | Self::DropChannelFromAudit
            | Self::DropOutcome
            | Self::DropConverged => {
                history.remove(at);
            }
            Self::RepeatOnStream | Self::RepeatToConsumer => history.insert(at, history[at].clone()),
            Self::SwapDeliveries => {
                let next = next_of_reader(history, at).expect("it fits");
                let (first, second) = (history[at].event.clone(), history[next].event.clone());
                (history[at].event, history[next].event) = (second, first);
            }
            Self::OtherBodyDelivered => {
                if let Event::StreamMessage { body, .. } | Event::Delivered { body, .. } = &mut history[at].event {
                    body.push('x');
                }
            }
            Self::OtherIdDelivered => {
                if let Event::StreamMessage { id, .. } | Event::Delivered { id, .. } = &mut history[at].event {
                    *id = Uuid::nil();
                }
            }
            Self::ResumeOneTooFar => {
                for record in &mut history[at..=at + 1] {
                    if let Event::StreamAsked { after: Some(after), .. }
                    | Event::StreamOpened { after: Some(after), .. } = &mut record.event
                    {
                        after.offset += 1;
                    }
                }
            }
            Self::OtherOffsetAcked => {
                if let Event::PushAcked { offset, .. } = &mut history[at].event {
                    *offset = offset.map(|offset| offset + 1);
                }
            }
            Self::OtherIdAcked => {
                if let Event::PushAcked { id, .. } = &mut history[at].event {
                    *id = Some(Uuid::nil());
                }
            }
            Self::AckBeforeStore => {
                let (first, second) = (history[at].event.clone(), history[at + 1].event.clone());
                (history[at].event, history[at + 1].event) = (second, first);
            }
            Self::StoreAgain | Self::StoreAfterDelete => {
                let (queue, mut copy) =
                    stored(&history[at]).map(|(queue, message)| (queue, message.clone())).expect("it fits");
                copy.offset = end(history, queue) + 1;
                let after = if matches!(self, Self::StoreAgain) {
                    last_stored(history, queue)
                } else {
                    tombstone(history, queue)
                };
                let after = after.expect("it fits");
                let mut record = history[last_stored(history, queue).expect("it fits")].clone();
                if let Event::Stored { messages, .. } = &mut record.event {
                    *messages = vec![copy];
                }
                record.at_micros = history[after].at_micros;
                history.insert(after + 1, record);
            }
            Self::StoreUnderOldEpoch => {
                if let Event::Stored { epoch, .. } = &mut history[at].event {
                    *epoch -= 1;
                }
            }
            Self::StoreByAnother => {
                if let Event::Stored { by, .. } = &mut history[at].event {
                    *by = "broker-9".to_owned();
                }
            }
            Self::DropFromAudit => {
                if let Event::AuditQueue { messages, .. } = &mut history[at].event {
                    let lasting = messages.iter().position(|message| message.expires_at_millis.is_none());
                    messages.remove(lasting.expect("it fits"));
                }
            }
            Self::RenameTopicInAudit => {
                if let Event::AuditChannel { topic, .. } = &mut history[at].event {
                    *topic = "news".to_owned();
                }
            }
            Self::TrimLive => {
                let (queue_id, message) = stored(&history[at]).expect("it fits");
                let trimmed = Event::Trimmed { queue_id, through: message.offset, at_millis: 0 };
                let last = history.len() - 1;
                let record = Record { at_micros: history[last].at_micros, host: "database".into(), event: trimmed };
                history.push(record);
            }
            Self::CallStoredRefused => {
                if let Event::PushFailed { unknown, .. } = &mut history[at].event {
                    *unknown = false;
                }
            }
        }
        true
    }

    /// True if applying the mistake to this record makes a difference.
    fn fits(self, history: &[Record], at: usize) -> bool {
        let event = &history[at].event;
        let lasting = || stored(&history[at]).is_some_and(|(_, message)| message.expires_at_millis.is_none());
        match self {
            Self::DropDelivery | Self::SwapDeliveries => {
                delivered(event).is_some_and(|body| lasts(history, body)) && next_of_reader(history, at).is_some()
            }
            Self::RepeatOnStream => matches!(event, Event::StreamMessage { .. }),
            Self::RepeatToConsumer => matches!(event, Event::Delivered { .. }),
            Self::OtherBodyDelivered | Self::OtherIdDelivered => delivered(event).is_some(),
            Self::ResumeOneTooFar => {
                let Event::StreamAsked { stream, after: Some(after), .. } = event else { return false };
                let first = history.iter().find_map(|record| match &record.event {
                    Event::StreamMessage { stream: of, offset, .. } if of == stream => Some(*offset),
                    _ => None,
                });
                first == Some(after.offset + 1)
            }
            Self::OtherOffsetAcked | Self::OtherIdAcked => matches!(event, Event::PushAcked { .. }),
            Self::AckBeforeStore => {
                matches!(event, Event::Stored { .. })
                    && history.get(at + 1).is_some_and(|next| matches!(next.event, Event::PushAcked { .. }))
            }
            Self::DropStored => history.get(at + 1).is_some_and(|next| {
                matches!(event, Event::Stored { .. }) && matches!(next.event, Event::PushAcked { .. })
            }),
            // A push without a producer may be stored twice.
            Self::StoreAgain => {
                let stamped = stored(&history[at]).filter(|(_, message)| message.producer == Uuid::from_u128(0xa1));
                lasting() && stamped.is_some_and(|(queue, _)| tombstone(history, queue).is_none())
            }
            Self::StoreUnderOldEpoch => matches!(event, Event::Stored { epoch: 2.., .. }),
            Self::StoreByAnother => matches!(event, Event::Stored { .. }),
            Self::DropFromAudit => matches!(event, Event::AuditQueue { messages, .. }
                if messages.iter().any(|message| message.expires_at_millis.is_none())),
            Self::DropChannelFromAudit | Self::RenameTopicInAudit => matches!(event, Event::AuditChannel { .. }),
            Self::TrimLive => lasting(),
            Self::StoreAfterDelete => {
                lasting() && stored(&history[at]).is_some_and(|(queue, _)| tombstone(history, queue).is_some())
            }
            Self::DropOutcome => matches!(event, Event::PushAcked { .. } | Event::PushFailed { .. }),
            Self::CallStoredRefused => {
                let Event::PushFailed { push, unknown: true, .. } = event else { return false };
                let body = history.iter().find_map(|record| match &record.event {
                    Event::PushSent { push: of, body, .. } if of == push => Some(body),
                    _ => None,
                });
                let attempts = history
                    .iter()
                    .filter(|record| matches!(&record.event, Event::PushSent { body: of, .. } if Some(of) == body));
                attempts.count() == 1 && body.is_some_and(|body| is_stored(history, body))
            }
            Self::DropConverged => matches!(event, Event::Converged),
        }
    }
}

fn delivered(event: &Event) -> Option<&str> {
    match event {
        Event::StreamMessage { body, .. } | Event::Delivered { body, .. } => Some(body),
        _ => None,
    }
}

/// The next message of the same stream or consumer.
fn next_of_reader(history: &[Record], at: usize) -> Option<usize> {
    let same = |event: &Event| match (&history[at].event, event) {
        (Event::StreamMessage { stream: one, .. }, Event::StreamMessage { stream: other, .. }) => one == other,
        (Event::Delivered { consumer: one, .. }, Event::Delivered { consumer: other, .. }) => one == other,
        _ => false,
    };
    (at + 1..history.len()).find(|&next| same(&history[next].event))
}

fn stored(record: &Record) -> Option<(u64, &StoredMessage)> {
    match &record.event {
        Event::Stored { queue_id, messages, .. } => Some((*queue_id, &messages[0])),
        _ => None,
    }
}

fn is_stored(history: &[Record], body: &str) -> bool {
    history.iter().filter_map(stored).any(|(_, message)| message.body == body)
}

/// True if the message was stored exactly once, without a lifetime.
fn lasts(history: &[Record], body: &str) -> bool {
    let mut copies = history.iter().filter_map(stored).filter(|(_, message)| message.body == body);
    copies.next().is_some_and(|(_, message)| message.expires_at_millis.is_none()) && copies.next().is_none()
}

fn end(history: &[Record], queue: u64) -> u64 {
    let of_queue = history.iter().filter_map(stored).filter(|(of, _)| *of == queue);
    of_queue.map(|(_, message)| message.offset).max().unwrap_or(0)
}

fn last_stored(history: &[Record], queue: u64) -> Option<usize> {
    (0..history.len()).rev().find(|&at| stored(&history[at]).is_some_and(|(of, _)| of == queue))
}

fn tombstone(history: &[Record], queue: u64) -> Option<usize> {
    history.iter().position(|record| matches!(record.event, Event::QueueTombstoned { queue_id } if queue_id == queue))
}

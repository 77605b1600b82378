//! Histories at random: lawful ones, in which no checker finds anything, and those with one thing wrong, in which the right
//! one does.

use proptest::{collection::vec, prelude::*, sample::Index as Pick, strategy::ValueTree as _, test_runner::TestRunner};
use uuid::Uuid;

use super::{
    Promise::{self, *},
    testing::{Run, broken},
};
use crate::history::{Event, Record, StoredMessage};

/// What can go on in a lawful world.
#[derive(Clone, Copy, Debug)]
enum Act {
    Push(Fate, Option<u64>),
    Wait(u64),
    SetClock(i64),
    Fault,
    TakeOver,
    Trim,
    Replace,
    /// The observer's stream breaks; it goes on after what it has, or begins again.
    Break(bool),
    /// The application comes back with its position, or without.
    Restart(bool),
    /// The observer, and the application, take so many messages.
    Take(usize, usize),
}

/// What becomes of a push.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Acknowledged,
    UnknownAndStored,
    UnknownAndLost,
    RetriedAsDuplicate,
    RetriedAfterRefusal,
    /// Without a producer; stored twice, since it was pushed twice.
    PlainTwice,
}

fn act() -> impl Strategy<Value = Act> {
    let fate = prop_oneof![
        6 => Just(Fate::Acknowledged),
        1 => Just(Fate::UnknownAndStored),
        1 => Just(Fate::UnknownAndLost),
        1 => Just(Fate::RetriedAsDuplicate),
        1 => Just(Fate::RetriedAfterRefusal),
        1 => Just(Fate::PlainTwice),
    ];
    prop_oneof![
        10 => (fate, proptest::option::weighted(0.3, 1_u64..3_000)).prop_map(|(fate, ttl)| Act::Push(fate, ttl)),
        3 => (1_u64..2_000).prop_map(Act::Wait),
        1 => (-3_000_i64..3_000).prop_map(Act::SetClock),
        1 => Just(Act::Fault),
        2 => Just(Act::TakeOver),
        2 => Just(Act::Trim),
        1 => Just(Act::Replace),
        2 => any::<bool>().prop_map(Act::Break),
        2 => any::<bool>().prop_map(Act::Restart),
        6 => (0_usize..6, 0_usize..6).prop_map(|(stream, consumer)| Act::Take(stream, consumer)),
    ]
}

/// A world in which all is well.
struct World {
    run: Run,
    bodies: u64,
    faults: usize,
    stream: u64,
    stream_at: u64,
    consumer: u64,
    consumer_at: u64,
}

impl World {
    /// What these acts lead to, to the end, when everybody has everything.
    fn history(acts: &[Act]) -> Vec<Record> {
        let mut world =
            Self { run: Run::new(), bodies: 0, faults: 0, stream: 0, stream_at: 0, consumer: 0, consumer_at: 0 };
        world.open(0);
        world.start(0);
        for &act in acts {
            world.act(act);
        }
        world.take(usize::MAX, usize::MAX);
        // In time for the last to expire, and to be trimmed.
        world.trim();
        world.run.finish();
        world.run.history
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Push(fate, ttl) => self.push(fate, ttl),
            Act::Wait(millis) => {
                self.run.wait(millis);
                self.trim();
            }
            Act::SetClock(by) => {
                self.run.set_clock(by);
            }
            Act::Fault => {
                self.run.fault(self.faults).wait(10).mend(self.faults);
                self.faults += 1;
            }
            Act::TakeOver => {
                let other = 3 - self.run.log().owner;
                self.run.take_over(other);
                self.break_stream("FENCED");
                self.open(self.stream_at);
            }
            Act::Trim => self.trim(),
            Act::Replace => self.replace(),
            Act::Break(resumes) => {
                self.break_stream("UNAVAILABLE");
                self.open(if resumes { self.stream_at } else { 0 });
            }
            Act::Restart(resumes) => {
                let code = (!resumes).then_some("CRASHED");
                self.run.stop(&format!("b{}", self.consumer), code);
                self.start(if resumes { self.consumer_at } else { 0 });
            }
            Act::Take(stream, consumer) => self.take(stream, consumer),
        }
    }

    fn push(&mut self, fate: Fate, ttl: Option<u64>) {
        self.bodies += 1;
        let body = format!("m{}", self.bodies);
        let run = &mut self.run;
        let plain = matches!(fate, Fate::PlainTwice);
        let push = match ttl {
            _ if plain => run.send_plain(&body),
            Some(ttl) => run.send_for(&body, ttl),
            None => run.send(&body),
        };
        // The clock never goes back within a queue.
        if run.clock_millis + 100 < self.latest() {
            let behind = self.latest() - self.run.clock_millis;
            self.run.wait(behind);
        }
        let run = &mut self.run;
        match fate {
            Fate::Acknowledged => run.store(&body).ack(push),
            Fate::UnknownAndStored => run.store(&body).fail(push, "OUTCOME_UNKNOWN", true),
            Fate::UnknownAndLost => run.fail(push, "OUTCOME_UNKNOWN", true),
            Fate::RetriedAsDuplicate => {
                run.store(&body).fail(push, "OUTCOME_UNKNOWN", true);
                let again = run.retry(push);
                run.ack(again)
            }
            Fate::RetriedAfterRefusal => {
                run.fail(push, "FENCED", false);
                let again = run.retry(push);
                run.store(&body).ack(again)
            }
            Fate::PlainTwice => {
                run.store(&body).fail(push, "OUTCOME_UNKNOWN", true);
                let again = run.retry(push);
                run.store(&body).fail(again, "OUTCOME_UNKNOWN", true)
            }
        };
    }

    /// When the last message was stored, or later.
    fn latest(&mut self) -> u64 {
        let stored = self.run.history.iter().rev().find_map(|record| match record.event {
            Event::Stored { stored_at_millis, .. } => Some(stored_at_millis),
            _ => None,
        });
        stored.map_or(0, |stored| stored + 100)
    }

    fn is_live(&self, message: &StoredMessage) -> bool {
        message.expires_at_millis.is_none_or(|expiry| expiry > self.run.clock_millis + 1)
    }

    /// As the store does it: whatever has expired goes, but the last batch not before all others.
    fn trim(&mut self) {
        let mut left = self.run.log().left.clone();
        let last = left.last_key_value().map(|(&offset, _)| offset);
        left.retain(|offset, message| self.is_live(message) || Some(*offset) == last);
        if left.len() == 1 {
            left.retain(|_, message| self.is_live(message));
        }
        if left.len() < self.run.log().left.len() {
            let through = left.first_key_value().map_or(self.run.log().end, |(first, _)| first - 1);
            self.run.trim(through).log().left = left;
        }
    }

    fn replace(&mut self) {
        self.run.delete();
        self.break_stream("QUEUE_REPLACED");
        self.run.stop(&format!("b{}", self.consumer), Some("QUEUE_REPLACED"));
        let id = self.run.queue + 1;
        self.run.create(id);
        self.run.current = Uuid::from_u128(0xc100 + u128::from(id));
        self.run.channel(self.run.current, "", 0);
        self.open(0);
        self.start(0);
    }

    fn break_stream(&mut self, code: &str) {
        self.run.end(self.stream, code);
    }

    fn open(&mut self, after: u64) {
        self.stream += 1;
        self.stream_at = after;
        match after {
            0 => self.run.stream(self.stream),
            after => self.run.resume(self.stream, after),
        };
    }

    fn start(&mut self, after: u64) {
        self.consumer += 1;
        self.consumer_at = after;
        self.run.consumer(&format!("b{}", self.consumer), Some(after).filter(|&after| after > 0));
    }

    fn take(&mut self, stream: usize, consumer: usize) {
        while let Some(offset) = self.next(self.stream_at).filter(|_| stream > 0) {
            self.run.see(self.stream, [offset]);
            self.stream_at = offset;
            if stream != usize::MAX && self.stream_at as usize % (stream + 1) == 0 {
                break;
            }
        }
        while let Some(offset) = self.next(self.consumer_at).filter(|_| consumer > 0) {
            self.run.deliver(&format!("b{}", self.consumer), [offset]);
            self.consumer_at = offset;
            if consumer != usize::MAX && self.consumer_at as usize % (consumer + 1) == 0 {
                break;
            }
        }
    }

    /// What comes after an offset for a subscriber.
    fn next(&mut self, after: u64) -> Option<u64> {
        let log = &self.run.queues[&self.run.queue];
        let live = log.left.range(after + 1..).find(|(_, message)| self.is_live(message));
        live.map(|(&offset, _)| offset)
    }
}

/// One thing that cannot be.
#[derive(Clone, Copy, Debug)]
enum Wrong {
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

impl Wrong {
    const ALL: [Self; 22] = [
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

    /// Which promise it breaks, and which others may have to be broken by it, too.
    fn breaks(self) -> (Promise, &'static [Promise]) {
        match self {
            Self::DropDelivery => (NoLoss, &[]),
            Self::RepeatOnStream | Self::OtherBodyDelivered | Self::OtherOffsetAcked => (Order, &[]),
            Self::RepeatToConsumer | Self::OtherIdDelivered | Self::ResumeOneTooFar => (DeliveredOnce, &[]),
            // Who is given the second first was not given the first.
            Self::SwapDeliveries => (Order, &[NoLoss]),
            Self::OtherIdAcked | Self::AckBeforeStore | Self::DropFromAudit => (Durable, &[]),
            // It leaves a gap, and was delivered all the same.
            Self::DropStored => (Durable, &[Order, NoLoss]),
            // The copy is in no audit, and reaches nobody.
            Self::StoreAgain => (PushedOnce, &[Durable, NoLoss]),
            Self::StoreUnderOldEpoch | Self::StoreByAnother => (OneWriter, &[]),
            Self::DropChannelFromAudit | Self::RenameTopicInAudit => (ChannelsSurvive, &[]),
            Self::TrimLive => (TimeToLive, &[]),
            // By an owner that may have been replaced.
            Self::StoreAfterDelete => (DeletesAreFinal, &[PushedOnce, OneWriter]),
            Self::DropOutcome | Self::CallStoredRefused => (NothingSilent, &[]),
            Self::DropConverged => (Convergence, &[]),
        }
    }

    /// Does it somewhere; false if there is no place for it.
    #[expect(clippy::too_many_lines, reason = "one arm each")]
    fn apply(self, history: &mut Vec<Record>, pick: Pick) -> bool {
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

    /// True if it can be done to this record, so that it matters.
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
            // Of what names no producer two may be stored.
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

/// Stored, once, without an end to its life.
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn lawful_histories_are_innocent(acts in vec(act(), 0..80)) {
        let history = World::history(&acts);
        prop_assert_eq!(super::check(&history), []);
    }
}

/// Each mistake on its own, so that none hides behind the others.
#[test]
fn what_is_wrong_is_found() {
    let mut runner = TestRunner::deterministic();
    for wrong in Wrong::ALL {
        let mut made = 0;
        for _ in 0..100 {
            let tree = (vec(act(), 0..60), any::<Pick>()).new_tree(&mut runner).expect("nothing is filtered");
            let (acts, pick) = tree.current();
            let mut history = World::history(&acts);
            if !wrong.apply(&mut history, pick) {
                continue;
            }
            made += 1;
            let (promise, others) = wrong.breaks();
            let found = broken(&history);
            assert!(found.contains(&promise), "{wrong:?} is not found, but {found:?}, after {acts:#?}");
            let mut violations = super::check(&history);
            violations.retain(|violation| violation.promise != promise && !others.contains(&violation.promise));
            assert!(violations.is_empty(), "{wrong:?} is taken for {violations:#?}, after {acts:#?}");
        }
        assert!(made >= 25, "{wrong:?} found a place in only {made} of 100 histories");
    }
}

//! Random histories: valid ones, in which no checker finds a violation, and ones with a single mistake, which the
//! responsible checker finds.

mod mutation;

use proptest::{collection::vec, prelude::*, sample::Index as Pick, strategy::ValueTree as _, test_runner::TestRunner};
use rmom_sim::history::{Event, Record, StoredMessage};
use uuid::Uuid;

use self::mutation::Mutation;
use super::testing::{HistoryBuilder, broken};

/// An action that a correct system can take.
#[derive(Clone, Copy, Debug)]
enum Act {
    Push(PushOutcome, Option<u64>),
    Wait(u64),
    SetClock(i64),
    Fault,
    TakeOver,
    Trim,
    Replace,
    /// The observer's stream breaks; the observer resumes after its last message or starts again.
    Break(bool),
    /// The application restarts with or without its position.
    Restart(bool),
    /// The observer and the application each take this many messages.
    Take(usize, usize),
}

/// The outcome of a push.
#[derive(Clone, Copy, Debug)]
enum PushOutcome {
    Acknowledged,
    UnknownAndStored,
    UnknownAndLost,
    RetriedAsDuplicate,
    RetriedAfterRefusal,
    /// Without a producer; stored twice because it was pushed twice.
    PlainTwice,
}

fn act() -> impl Strategy<Value = Act> {
    let outcome = prop_oneof![
        6 => Just(PushOutcome::Acknowledged),
        1 => Just(PushOutcome::UnknownAndStored),
        1 => Just(PushOutcome::UnknownAndLost),
        1 => Just(PushOutcome::RetriedAsDuplicate),
        1 => Just(PushOutcome::RetriedAfterRefusal),
        1 => Just(PushOutcome::PlainTwice),
    ];
    prop_oneof![
        10 => (outcome, proptest::option::weighted(0.3, 1_u64..3_000)).prop_map(|(outcome, ttl)| Act::Push(outcome, ttl)),
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

/// A world without faults.
struct World {
    run: HistoryBuilder,
    bodies: u64,
    faults: usize,
    stream: u64,
    stream_at: u64,
    consumer: u64,
    consumer_at: u64,
}

impl World {
    /// The history that these actions produce, continued until all readers have everything.
    fn history(acts: &[Act]) -> Vec<Record> {
        let mut world = Self {
            run: HistoryBuilder::new(),
            bodies: 0,
            faults: 0,
            stream: 0,
            stream_at: 0,
            consumer: 0,
            consumer_at: 0,
        };
        world.open(0);
        world.start(0);
        for &act in acts {
            world.act(act);
        }
        world.take(usize::MAX, usize::MAX);
        // Late enough for the last messages to have expired, so that they are trimmed.
        world.trim();
        world.run.finish();
        world.run.history
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Push(outcome, ttl) => self.push(outcome, ttl),
            Act::Wait(millis) => {
                self.run.wait(millis);
                self.trim();
            }
            Act::SetClock(by) => {
                self.run.set_clock(by);
            }
            Act::Fault => {
                self.run.fault(self.faults).wait(10).end_fault(self.faults);
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

    fn push(&mut self, outcome: PushOutcome, ttl: Option<u64>) {
        self.bodies += 1;
        let body = format!("m{}", self.bodies);
        let run = &mut self.run;
        let plain = matches!(outcome, PushOutcome::PlainTwice);
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
        match outcome {
            PushOutcome::Acknowledged => run.store(&body).ack(push),
            PushOutcome::UnknownAndStored => run.store(&body).fail(push, "OUTCOME_UNKNOWN", true),
            PushOutcome::UnknownAndLost => run.fail(push, "OUTCOME_UNKNOWN", true),
            PushOutcome::RetriedAsDuplicate => {
                run.store(&body).fail(push, "OUTCOME_UNKNOWN", true);
                let again = run.retry(push);
                run.ack(again)
            }
            PushOutcome::RetriedAfterRefusal => {
                run.fail(push, "FENCED", false);
                let again = run.retry(push);
                run.store(&body).ack(again)
            }
            PushOutcome::PlainTwice => {
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

    /// Trims like the store: expired batches go, but the last batch only when no other is left.
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
        for _ in 0..stream {
            let Some(offset) = self.next(self.stream_at) else { break };
            self.run.see(self.stream, [offset]);
            self.stream_at = offset;
        }
        for _ in 0..consumer {
            let Some(offset) = self.next(self.consumer_at) else { break };
            self.run.deliver(&format!("b{}", self.consumer), [offset]);
            self.consumer_at = offset;
        }
    }

    /// The next offset for a subscriber after `after`.
    fn next(&mut self, after: u64) -> Option<u64> {
        let log = &self.run.queues[&self.run.queue];
        let live = log.left.range(after + 1..).find(|(_, message)| self.is_live(message));
        live.map(|(&offset, _)| offset)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn valid_histories_have_no_violation(acts in vec(act(), 0..80)) {
        let history = World::history(&acts);
        prop_assert_eq!(super::check(&history), []);
    }
}

/// Tests each mistake on its own, so that none hides behind another.
#[test]
fn each_mutation_is_found() {
    let mut runner = TestRunner::deterministic();
    for mutation in Mutation::ALL {
        let mut made = 0;
        for _ in 0..100 {
            let tree = (vec(act(), 0..60), any::<Pick>()).new_tree(&mut runner).expect("nothing is filtered");
            let (acts, pick) = tree.current();
            let mut history = World::history(&acts);
            if !mutation.apply(&mut history, pick) {
                continue;
            }
            made += 1;
            let (promise, others) = mutation.breaks();
            let found = broken(&history);
            assert!(found.contains(&promise), "{mutation:?} is not found, but {found:?}, after {acts:#?}");
            let mut violations = super::check(&history);
            violations.retain(|violation| violation.promise != promise && !others.contains(&violation.promise));
            assert!(violations.is_empty(), "{mutation:?} is taken for {violations:#?}, after {acts:#?}");
        }
        assert!(made >= 25, "{mutation:?} found a place in only {made} of 100 histories");
    }
}

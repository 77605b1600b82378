//! Histories of a few lines, as pictures.

use rmom_sim::history::{Phase as Part, Pos, StoredMessage};
use uuid::Uuid;

use super::{arrows::ArrowKind, faults::FaultKind, *};
use crate::{
    check::Violation,
    scenario::{Action, Host, Scenario, Step},
};

/// A history with one record per millisecond.
#[derive(Default)]
struct HistoryBuilder(Vec<Record>);

impl HistoryBuilder {
    /// Two brokers, and a queue that the first one owns.
    fn begun() -> Self {
        let mut history = Self::default();
        for broker_id in 1..=2 {
            history.registered(broker_id, "first");
        }
        history.record("database", Event::QueueAdded { queue_id: 7, label: "orders".into() });
        history.claimed(1, 1);
        history
    }

    fn record(&mut self, host: &str, event: Event) -> usize {
        let at_micros = (self.0.len() as u64 + 1) * 1_000;
        self.0.push(Record { at_micros, host: host.into(), event });
        self.0.len() - 1
    }

    fn registered(&mut self, broker_id: u64, incarnation: &str) -> usize {
        let (broker, incarnation) = (format!("broker-{broker_id}"), format!("{incarnation}-{broker_id}"));
        self.record("database", Event::Registered { broker, broker_id, incarnation })
    }

    fn claimed(&mut self, epoch: u64, broker_id: u64) -> usize {
        let incarnation = format!("first-{broker_id}");
        self.record("database", Event::Claimed { queue_id: 7, epoch, broker_id, incarnation })
    }

    fn sent(&mut self, push: u64, body: &str) -> usize {
        let (label, topic, producer) = ("Orders".into(), String::new(), Some("p1".into()));
        let sent = Event::PushSent {
            push,
            label,
            topic,
            body: body.into(),
            producer,
            sequence: push,
            ttl_millis: None,
            queue_id: None,
            tries_millis: None,
            expected: None,
        };
        self.record("producer-1", sent)
    }

    fn stored(&mut self, bodies: &[&str], first: u64) -> usize {
        let messages = bodies.iter().zip(first..).map(|(body, offset)| StoredMessage {
            id: Uuid::from_u128(offset.into()),
            offset,
            topic: String::new(),
            body: (*body).into(),
            producer: Uuid::nil(),
            sequence: offset,
            expires_at_millis: None,
        });
        let (messages, by) = (messages.collect(), "broker-1".into());
        self.record("database", Event::Stored { queue_id: 7, epoch: 1, stored_at_millis: 0, messages, by })
    }

    fn acked(&mut self, push: u64, offset: u64) -> usize {
        let offset = Some(offset);
        self.record("producer-1", Event::PushAcked { push, queue_id: Some(7), id: None, offset, duplicate: false })
    }

    fn fault(&mut self, step: usize, hosts: &[&str]) -> usize {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        self.record("runner", Event::FaultBegan { step, what: "something".into(), hosts })
    }

    fn over(&mut self, step: usize) -> usize {
        self.record("runner", Event::FaultEnded { step })
    }

    fn at(&self, mark: usize) -> u64 {
        self.0[mark].at_micros
    }

    fn model(&self, actions: &[Action], violations: &[Violation]) -> Model {
        let steps = actions.iter().map(|action| Step { at_millis: 0, for_millis: 1, action: action.clone() });
        let scenario = Scenario { steps: steps.collect(), ..Scenario::from_seed(1) };
        let scenario = (!actions.is_empty()).then_some(&scenario);
        Model::of(&Picture { history: &self.0, scenario, verdict: None, violations, commit: "", replay: "" })
    }
}

fn lane(model: &Model, host: &str) -> usize {
    model.lanes.iter().position(|lane| lane.name == host).unwrap()
}

#[test]
fn clients_are_above_brokers_and_brokers_above_the_database() {
    let mut history = HistoryBuilder::begun();
    history.fault(0, &["manager-1", "broker-10"]);
    history.sent(1, "a");
    history.record("billing", Event::Note { text: "charged".into() });
    let lanes: Vec<_> = history.model(&[], &[]).lanes.into_iter().map(|lane| lane.name).collect();
    let expected = ["runner", "billing", "producer-1", "broker-1", "broker-2", "broker-10", "database", "manager-1"];
    assert_eq!(lanes, expected);
}

#[test]
fn a_crash_is_a_band_on_its_lane() {
    let mut history = HistoryBuilder::begun();
    let (began, over) = (history.fault(0, &["broker-1"]), history.over(0));
    history.record("runner", Event::Converged);
    let model = history.model(&[Action::Crash(Host::Broker(1))], &[]);
    let [fault] = model.faults.as_slice() else { panic!("{:?}", model.faults) };
    assert_eq!((fault.lane, fault.kind, fault.mark), (lane(&model, "broker-1"), FaultKind::Down, began));
    assert_eq!((fault.from, fault.to), (history.at(began), history.at(over)));
}

#[test]
fn a_cut_tells_each_side_what_it_is_cut_off_from() {
    let mut history = HistoryBuilder::begun();
    history.fault(0, &["broker-1", "database"]);
    history.fault(1, &["broker-1", "broker-2"]);
    let end = history.record("runner", Event::Converged);
    let cut = Action::Cut { between: vec![Host::Broker(1)], and: vec![Host::Database] };
    let oneway = Action::CutOneway { from: vec![Host::Broker(1)], to: vec![Host::Broker(2)] };
    let model = history.model(&[cut, oneway], &[]);
    let texts: Vec<_> = model.faults.iter().map(|fault| fault.text.as_str()).collect();
    assert_eq!(
        texts,
        ["cut off from database", "cut off from broker-1", "does not reach broker-2", "receives nothing from broker-1"]
    );
    let rows: Vec<_> = model.faults.iter().map(|fault| fault.row).collect();
    assert_eq!(rows, [0, 0, 1, 0], "those at the same time are side by side");
    assert!(model.faults.iter().all(|fault| fault.to == history.at(end)), "what is never over lasts to the end");
}

#[test]
fn without_a_scenario_a_fault_says_what_the_history_says() {
    let mut history = HistoryBuilder::begun();
    history.fault(0, &["broker-1"]);
    let model = history.model(&[], &[]);
    assert_eq!((model.faults[0].kind, model.faults[0].text.as_str()), (FaultKind::Unknown, "something"));
}

#[test]
fn a_claim_ends_the_epoch_before() {
    let mut history = HistoryBuilder::begun();
    let claimed = history.claimed(2, 2);
    let deleted = history.record("database", Event::QueueTombstoned { queue_id: 7 });
    history.record("runner", Event::Converged);
    let model = history.model(&[], &[]);
    let [first, second] = model.tenures.as_slice() else { panic!("{:?}", model.tenures) };
    assert_eq!((first.lane, first.epoch, first.to), (lane(&model, "broker-1"), 1, history.at(claimed)));
    assert_eq!((second.lane, second.epoch, second.to), (lane(&model, "broker-2"), 2, history.at(deleted)));
    assert_eq!((first.alive, second.alive), (first.to, second.to));
}

#[test]
fn an_epoch_outlives_the_process_that_claimed_it() {
    let mut history = HistoryBuilder::begun();
    let crashed = history.fault(0, &["broker-1"]);
    history.over(0);
    history.registered(1, "second");
    let claimed = history.claimed(2, 2);
    let replaced = history.registered(2, "second");
    let model = history.model(&[Action::Crash(Host::Broker(1))], &[]);
    let times: Vec<_> = model.tenures.iter().map(|tenure| (tenure.alive, tenure.to)).collect();
    assert_eq!(times, [(history.at(crashed), history.at(claimed)), (history.at(replaced), history.at(replaced))]);
}

#[test]
fn arrows_join_push_store_acknowledgement_and_delivery() {
    let mut history = HistoryBuilder::begun();
    let channel = Uuid::from_u128(1);
    let (first, second) = (history.sent(1, "a"), history.sent(2, "b"));
    let stored = history.stored(&["a", "b"], 1);
    let acked = history.acked(1, 1);
    let asked = Event::StreamAsked { stream: 3, observer: "o".into(), channel, after: None };
    let asked = history.record("consumer-1", asked);
    let position = Some(Pos { queue_id: 7, epoch: 1, offset: 0 });
    let (observer, broker) = ("o".into(), "broker-1".into());
    let opened = Event::StreamOpened { stream: 3, observer, channel, after: None, broker, position };
    let opened = history.record("consumer-1", opened);
    let received =
        Event::StreamMessage { stream: 3, id: Uuid::from_u128(2), offset: 2, topic: String::new(), body: "b".into() };
    let received = history.record("consumer-1", received);
    let model = history.model(&[], &[]);
    let via = Some(lane(&model, "broker-1"));
    let arrow = |from, to, via, kind| Arrow { from, to, via, kind };
    let expected = [
        arrow(first, stored, via, ArrowKind::Store),
        arrow(second, stored, via, ArrowKind::Store),
        arrow(stored, acked, via, ArrowKind::Ack),
        arrow(first, acked, None, ArrowKind::Outcome),
        arrow(asked, opened, via, ArrowKind::Stream),
        arrow(stored, received, via, ArrowKind::Delivery),
    ];
    assert_eq!(model.arrows, expected);
    assert_eq!(model.marks[stored].messages, [0, 1]);
    assert_eq!(model.marks[received].messages, [1]);
    assert_eq!(model.marks[first].queue, Some(0), "labels are folded");
}

#[test]
fn a_retry_is_the_same_message_and_stored_by_its_last_attempt() {
    let mut history = HistoryBuilder::begun();
    let first = history.sent(1, "a");
    let failed = history.record("producer-1", Event::PushFailed { push: 1, code: "X".into(), unknown: true });
    let (again, stored) = (history.sent(2, "a"), history.stored(&["a"], 1));
    let model = history.model(&[], &[]);
    assert_eq!(model.messages.len(), 1);
    let joined: Vec<_> = model.arrows.iter().map(|arrow| (arrow.from, arrow.to)).collect();
    assert_eq!(joined, [(first, failed), (again, stored)]);
}

#[test]
fn an_acknowledgement_of_what_was_not_stored_has_no_cause() {
    let mut history = HistoryBuilder::begun();
    let (sent, acked) = (history.sent(1, "a"), history.acked(1, 1));
    let stored = history.stored(&["a"], 1);
    let model = history.model(&[], &[]);
    assert_eq!(model.arrows[0], Arrow { from: sent, to: acked, via: None, kind: ArrowKind::Unfounded });
    assert_eq!((model.arrows[1].from, model.arrows[1].to), (sent, stored));
}

#[test]
fn a_violation_names_the_marks_that_show_it() {
    let mut history = HistoryBuilder::begun();
    let (sent, acked) = (history.sent(1, "a"), history.acked(1, 1));
    let records = vec![sent, acked, 99];
    let violation = Violation { promise: Promise::Durable, what: "a is gone".into(), records };
    let model = history.model(&[], &[violation]);
    assert_eq!(model.violations[0].marks, [sent, acked], "records that do not exist are left out");
    assert_eq!(model.violations[0].promise, "promise 1 (durable)");
    assert_eq!(model.marks.len(), history.0.len(), "a mark for each record");
}

#[test]
fn streams_last_from_asking_to_their_end() {
    let mut history = HistoryBuilder::begun();
    let channel = Uuid::from_u128(1);
    let asked = Event::StreamAsked { stream: 3, observer: "o".into(), channel, after: None };
    let asked = history.record("consumer-1", asked);
    let resumed = None;
    let (consumer, application) = ("c1.1".to_owned(), "c1".to_owned());
    history.record("consumer-1", Event::ConsumerStarted { consumer, application, channel, resumed });
    let ended = history.record("consumer-1", Event::StreamEnded { stream: 3, code: "LEFT".into() });
    history.record("runner", Event::PhaseBegan { phase: Part::Healed });
    let model = history.model(&[], &[]);
    let [stream, consumer] = model.stretches.as_slice() else { panic!("{:?}", model.stretches) };
    assert_eq!((stream.from, stream.to, stream.row), (history.at(asked), history.at(ended), 0));
    assert_eq!((consumer.text.as_str(), consumer.to, consumer.row), ("c1.1", model.end, 1));
    assert_eq!(model.phases.last(), Some(&Phase { from: model.end, name: "healed" }));
}

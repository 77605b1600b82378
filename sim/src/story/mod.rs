//! What happened, told: a history as lines that a person reads from top to bottom.
//!
//! What matters (faults, epochs, failovers, broken promises) has a line of its own. The traffic between two of those is
//! summarised, a line for each host: "pushed 40 messages (a … b), 38 acknowledged".

mod failure;
mod names;
mod promises;
mod sentence;
mod traffic;

use std::fmt;

pub use failure::failure;
pub use names::Names;
pub use promises::{promise, promise_name};
pub use sentence::sentence;
pub(crate) use sentence::shown;

use self::traffic::Traffic;
use crate::{
    check::Violation,
    history::{Event, Record},
};

/// How a line should strike the eye.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// A promise is broken.
    Broken,
    /// Something befalls the world, or is over.
    Fault,
    /// Who owns what changes, or the run enters another phase.
    Turn,
    /// Something that happens now and then.
    Plain,
    /// Traffic, summarised or in detail.
    Traffic,
}

/// Simulated time since the start, in microseconds, shown as `mm:ss.mmm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct At(pub u64);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0 / 1_000;
        write!(f, "{:02}:{:02}.{:03}", millis / 60_000, millis / 1_000 % 60, millis % 1_000)
    }
}

/// A line of a story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When it happened, or began.
    pub at: At,
    /// When it ended, if it lasted.
    pub until: Option<At>,
    /// Who did or saw it.
    pub host: String,
    /// What it was.
    pub text: String,
    /// How it should strike the eye.
    pub tone: Tone,
}

impl Line {
    fn of(record: &Record, names: &Names) -> Self {
        Self {
            at: At(record.at_micros),
            until: None,
            host: record.host.clone(),
            text: sentence(&record.event, names),
            tone: tone(&record.event),
        }
    }
}

/// Tells a history, with the traffic summarised, and each broken promise where it became visible.
#[must_use]
pub fn tell(history: &[Record], violations: &[Violation]) -> Vec<Line> {
    let names = Names::of(history);
    let mut lines = Vec::new();
    // Since the last event that is worth an interruption: lines as they come, and traffic that is still being counted.
    let mut scene = Vec::new();
    let mut traffic = Traffic::default();
    for (index, record) in history.iter().enumerate() {
        let event = &record.event;
        if traffic.takes(record, &names) {
            // It is in the summary.
        } else if matches!(tone(event), Tone::Fault | Tone::Turn) {
            end_scene(&mut lines, &mut scene, &mut traffic);
            lines.push(Line::of(record, &names));
        } else if is_worth_telling(event) {
            scene.push(Line::of(record, &names));
        }
        for violation in broken_at(violations, index) {
            end_scene(&mut lines, &mut scene, &mut traffic);
            lines.push(broken(violation, record));
        }
    }
    end_scene(&mut lines, &mut scene, &mut traffic);
    lines
}

/// Tells every single record.
#[must_use]
pub fn tell_all(history: &[Record], violations: &[Violation]) -> Vec<Line> {
    let names = Names::of(history);
    let tell_one = |(index, record)| {
        let broken = broken_at(violations, index).map(move |violation| broken(violation, record));
        std::iter::once(Line::of(record, &names)).chain(broken).collect::<Vec<_>>()
    };
    history.iter().enumerate().flat_map(tell_one).collect()
}

/// The records that show a violation, each as a line and with its index; indices beyond the history are left out.
#[must_use]
pub fn evidence(history: &[Record], violation: &Violation) -> Vec<(usize, Line)> {
    let names = Names::of(history);
    let shown = violation.records.iter().filter_map(|&index| Some((index, history.get(index)?)));
    shown.map(|(index, record)| (index, Line::of(record, &names))).collect()
}

/// What was summarised comes where it began.
fn end_scene(lines: &mut Vec<Line>, scene: &mut Vec<Line>, traffic: &mut Traffic) {
    scene.extend(traffic.summarised());
    scene.sort_by_key(|line| line.at);
    lines.append(scene);
}

fn broken_at(violations: &[Violation], index: usize) -> impl Iterator<Item = &Violation> {
    violations.iter().filter(move |violation| violation.records.last() == Some(&index))
}

fn broken(violation: &Violation, record: &Record) -> Line {
    Line {
        at: At(record.at_micros),
        until: None,
        host: record.host.clone(),
        text: format!("{} is broken: {}", promise(violation.promise), violation.what),
        tone: Tone::Broken,
    }
}

/// How an event should strike the eye.
#[must_use]
pub fn tone(event: &Event) -> Tone {
    match event {
        Event::FaultBegan { .. } | Event::FaultEnded { .. } | Event::StoreClock { .. } | Event::StoreWentBack => {
            Tone::Fault
        }
        Event::Began { .. }
        | Event::PhaseBegan { .. }
        | Event::Converged
        | Event::TimeUp { .. }
        | Event::Claimed { .. } => Tone::Turn,
        Event::PushSent { .. }
        | Event::PushAcked { .. }
        | Event::PushFailed { .. }
        | Event::Delivered { .. }
        | Event::StreamMessage { .. }
        | Event::Stored { .. } => Tone::Traffic,
        _ => Tone::Plain,
    }
}

/// What goes as expected, and often, is left to those who ask for every event.
fn is_worth_telling(event: &Event) -> bool {
    match event {
        Event::Health { healthy, expected, .. } => expected.is_some_and(|expected| expected != *healthy),
        Event::BadInput { expected, got, .. } => expected != got,
        Event::QueueCreating { .. }
        | Event::QueueAdded { .. }
        | Event::QueueDeleting { .. }
        | Event::ChannelDeleting { .. }
        | Event::ChannelSeen { topic: Some(_), .. }
        | Event::StreamAsked { .. } => false,
        _ => true,
    }
}

//! The result of a run, and its history as text: lines to be read from top to bottom.
//!
//! Important events (faults, epochs, failovers, broken promises) have a line of their own. The traffic between two of them
//! is summarized, in a line for each host: "pushed 40 messages (a … b), 38 acknowledged".

mod commit;
mod failure;
mod names;
mod promises;
mod result;
mod sentence;
mod traffic;

use std::fmt;

pub use commit::commit;
pub use failure::failure;
pub use names::Names;
pub use promises::promise;
pub use result::{Counts, Report, Symptom, Verdict};
use rmom_sim::history::{Event, Record};
pub use sentence::sentence;
pub(crate) use sentence::shown;

use self::traffic::Traffic;
use crate::check::Violation;

/// The emphasis of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emphasis {
    /// A promise is broken.
    Broken,
    /// A fault begins or ends.
    Fault,
    /// A queue changes its owner, or the run enters another phase.
    Transition,
    /// An occasional event.
    Plain,
    /// Traffic, summarized or in detail.
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

/// A line of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When it happened, or began.
    pub at: At,
    /// When it ended, if it lasted.
    pub until: Option<At>,
    /// The host that caused or observed it.
    pub host: String,
    /// The event.
    pub text: String,
    /// Its emphasis.
    pub emphasis: Emphasis,
}

impl Line {
    fn of(record: &Record, names: &Names) -> Self {
        Self {
            at: At(record.at_micros),
            until: None,
            host: record.host.clone(),
            text: sentence(&record.event, names),
            emphasis: emphasis(&record.event),
        }
    }
}

/// The history as lines, with the traffic summarized, and each broken promise at the place where it became visible.
#[must_use]
pub fn summary(history: &[Record], violations: &[Violation]) -> Vec<Line> {
    let names = Names::of(history);
    let mut lines = Vec::new();
    // Lines since the last important event, and traffic that is still being counted.
    let mut section = Vec::new();
    let mut traffic = Traffic::default();
    for (index, record) in history.iter().enumerate() {
        let event = &record.event;
        if traffic.takes(record, &names) {
            // Ordinary events are in the summary.
        } else if matches!(emphasis(event), Emphasis::Fault | Emphasis::Transition) {
            end_section(&mut lines, &mut section, &mut traffic);
            lines.push(Line::of(record, &names));
        } else if is_shown(event) {
            section.push(Line::of(record, &names));
        }
        for violation in broken_at(violations, index) {
            end_section(&mut lines, &mut section, &mut traffic);
            lines.push(broken(violation, record));
        }
    }
    end_section(&mut lines, &mut section, &mut traffic);
    lines
}

/// Every record as a line.
#[must_use]
pub fn all_lines(history: &[Record], violations: &[Violation]) -> Vec<Line> {
    let names = Names::of(history);
    let lines_of = |(index, record)| {
        let broken = broken_at(violations, index).map(move |violation| broken(violation, record));
        std::iter::once(Line::of(record, &names)).chain(broken).collect::<Vec<_>>()
    };
    history.iter().enumerate().flat_map(lines_of).collect()
}

/// The records that show a violation, each as a line and with its index; indices beyond the history are left out.
#[must_use]
pub fn evidence(history: &[Record], violation: &Violation) -> Vec<(usize, Line)> {
    let names = Names::of(history);
    let shown = violation.records.iter().filter_map(|&index| Some((index, history.get(index)?)));
    shown.map(|(index, record)| (index, Line::of(record, &names))).collect()
}

/// A summary is placed at the beginning of its traffic.
fn end_section(lines: &mut Vec<Line>, section: &mut Vec<Line>, traffic: &mut Traffic) {
    section.extend(traffic.summarised());
    section.sort_by_key(|line| line.at);
    lines.append(section);
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
        emphasis: Emphasis::Broken,
    }
}

/// The emphasis of an event.
#[must_use]
pub fn emphasis(event: &Event) -> Emphasis {
    match event {
        Event::FaultBegan { .. } | Event::FaultEnded { .. } | Event::StoreClock { .. } | Event::StoreRolledBack => {
            Emphasis::Fault
        }
        Event::Began { .. }
        | Event::PhaseBegan { .. }
        | Event::Converged
        | Event::TimeUp { .. }
        | Event::Claimed { .. } => Emphasis::Transition,
        Event::PushSent { .. }
        | Event::PushAcked { .. }
        | Event::PushFailed { .. }
        | Event::Delivered { .. }
        | Event::StreamMessage { .. }
        | Event::Stored { .. } => Emphasis::Traffic,
        _ => Emphasis::Plain,
    }
}

/// Frequent events that go as expected are shown only by [`all_lines`].
fn is_shown(event: &Event) -> bool {
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

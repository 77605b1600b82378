//! Themes: combinations of faults. Some corners need several faults in a row, which independent choices rarely produce.

mod moves;
mod store;

use super::{Action, Host, Scenario, Step, generate::Draw};

/// The theme of a seed, in addition to its other steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Theme {
    /// The queues of one broker share its appends, and some of the queues are deleted meanwhile.
    SharedAppends,
    /// A queue moves from a broker to another and back before the first broker has learnt of it.
    ThereAndBack,
    /// A queue is created while its broker cannot serve it.
    StillBorn,
    /// Several slow managers find the same work.
    Rivals,
    /// A queue is deleted and created again before its broker has learnt of either.
    Reborn,
    /// Brokers are drained while pushes are on their way into the store.
    HandOver,
    /// Brokers lose the store while the answer to the renewal of a lease is in transit.
    LateAnswers,
    /// The store lets brokers claim queues, but stores nothing.
    FailingAppends,
    /// The database's clock is set while messages expire.
    ClockSet,
}

impl Theme {
    const ALL: [Self; 9] = [
        Self::SharedAppends,
        Self::ThereAndBack,
        Self::StillBorn,
        Self::Rivals,
        Self::Reborn,
        Self::HandOver,
        Self::LateAnswers,
        Self::FailingAppends,
        Self::ClockSet,
    ];

    /// Themes take turns.
    pub(super) fn of(turn: u64) -> Self {
        Self::ALL[usize::try_from(turn % Self::ALL.len() as u64).unwrap_or(0)]
    }

    /// Adds the theme to a drawn scenario.
    pub(super) fn add_to(self, scenario: &mut Scenario, draw: &mut Draw) {
        let steps = match self {
            Self::SharedAppends => store::shared_appends(scenario, draw),
            Self::ThereAndBack => moves::there_and_back(scenario, draw),
            Self::StillBorn => moves::still_born(scenario, draw),
            Self::Rivals => moves::rivals(scenario, draw),
            Self::Reborn => moves::reborn(scenario, draw),
            Self::HandOver => moves::hand_over(scenario, draw),
            Self::LateAnswers => store::late_answers(scenario, draw),
            Self::FailingAppends => store::failing_appends(draw),
            Self::ClockSet => store::clock_set(scenario, draw),
        };
        scenario.steps.extend(steps);
        scenario.steps.sort_by_key(|step| step.at_millis);
    }
}

/// Latencies with which steps planned to the millisecond work out.
const QUICK: (u64, u64) = (1, 5);

fn step(at_millis: u64, for_millis: u64, action: Action) -> Step {
    Step { at_millis, for_millis, action }
}

fn slow(a: Host, b: Host, latency_millis: u64) -> Action {
    Action::Slow { between: vec![a], and: vec![b], latency_millis }
}

fn brokers(scenario: &Scenario) -> Vec<Host> {
    (1..=scenario.topology.brokers).map(Host::Broker).collect()
}

fn managers(scenario: &Scenario) -> Vec<Host> {
    (1..=scenario.topology.managers).map(Host::Manager).collect()
}

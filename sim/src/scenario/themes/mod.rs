//! Things that go wrong together: some corners need several faults in a row, which no independent choice brings about often.

mod moves;
mod store;

use super::{Action, Host, Scenario, Step, generate::Draw};

/// What a seed is about, beside what befalls it otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Theme {
    /// The queues of one broker share its appends, and some of them are deleted meanwhile.
    SharedAppends,
    /// A queue goes from a broker to another and back, before the first has heard of it.
    ThereAndBack,
    /// A queue is created just where its broker cannot serve it.
    StillBorn,
    /// Several managers, slow as they are, find the same work.
    Rivals,
    /// A queue is deleted and created again before its broker has heard of either.
    Reborn,
    /// Brokers are drained while pushes are on their way into the store.
    HandOver,
    /// Brokers lose the store when the answer to the renewal of a lease is under way.
    LateAnswers,
    /// The store lets queues be claimed, and stores nothing.
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

    /// They come one after the other, again and again.
    pub(super) fn of(turn: u64) -> Self {
        Self::ALL[usize::try_from(turn % Self::ALL.len() as u64).unwrap_or(0)]
    }

    /// Adds itself to what was drawn.
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

/// Latencies with which what is planned to the millisecond works out.
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

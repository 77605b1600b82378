//! Things that go wrong together: some corners need several faults in a row, which no independent choice brings about often.

use super::{Action, DatabaseFault, Host, ProducerKind, ProducerPlan, Scenario, Step, Topology, generate::Draw};

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
}

impl Theme {
    pub(super) const ALL: [Self; 5] =
        [Self::SharedAppends, Self::ThereAndBack, Self::StillBorn, Self::Rivals, Self::Reborn];

    /// Adds itself to what was drawn.
    pub(super) fn add_to(self, scenario: &mut Scenario, draw: &mut Draw) {
        let steps = match self {
            Self::SharedAppends => shared_appends(scenario, draw),
            Self::ThereAndBack => there_and_back(&mut scenario.topology, draw),
            Self::StillBorn => still_born(scenario, draw),
            Self::Rivals => rivals(scenario, draw),
            Self::Reborn => reborn(scenario, draw),
        };
        scenario.steps.extend(steps);
        scenario.steps.sort_by_key(|step| step.at_millis);
    }
}

fn step(at_millis: u64, for_millis: u64, action: Action) -> Step {
    Step { at_millis, for_millis, action }
}

fn slow(a: Host, b: Host, latency_millis: u64) -> Action {
    Action::Slow { between: vec![a], and: vec![b], latency_millis }
}

fn shared_appends(scenario: &mut Scenario, draw: &mut Draw) -> Vec<Step> {
    scenario.topology.brokers = draw.one_of(&[1, 1, 2]);
    let workload = &mut scenario.workload;
    // A broker sends two appends at once: only what more queues have ready shares one.
    workload.queues = 5;
    let like = workload.producers[0].clone();
    workload.producers = (1..=workload.queues)
        .map(|queue| {
            let kind = draw.one_of(&[ProducerKind::Library, ProducerKind::Library, ProducerKind::Named]);
            ProducerPlan { kind, queue, pushes: 80, pace_millis: draw.between(40, 90), burst: 1, ..like.clone() }
        })
        .collect();
    let begin = draw.between(500, 3_000);
    let mut steps = vec![step(begin, 4_000, Action::Database(DatabaseFault::Slow { millis: draw.between(80, 400) }))];
    for nth in 0..3 {
        let at = begin + 300 + 1_000 * nth + draw.between(0, 500);
        steps.push(step(at, draw.between(100, 600), Action::RecreateQueue(draw.number(5))));
    }
    steps
}

fn there_and_back(topology: &mut Topology, draw: &mut Draw) -> Vec<Step> {
    topology.brokers = 2;
    let (one, other) = (Host::Broker(1), Host::Broker(2));
    let begin = draw.between(500, 4_000);
    let deaf = draw.one_of(&[one, other]);
    // So slow that a look at the store is out of date when it is there, and not so slow that the lease runs out.
    let mut steps = vec![step(begin, 6_000, slow(deaf, Host::Database, draw.between(200, 300)))];
    if draw.chance(50) {
        // An append gets lost on the way, and is looked for while the queue is elsewhere.
        let fault = draw.one_of(&[DatabaseFault::LoseReplies, DatabaseFault::AbortWrites]);
        steps.push(step(begin + draw.between(0, 1_000), draw.between(2_000, 4_500), Action::Database(fault)));
    }
    let mut at = begin + 200;
    for nth in 0..6 {
        let lasts = draw.between(400, 700);
        steps.push(step(
            at,
            lasts,
            Action::Drain(if nth % 2 == 0 {
                deaf
            } else if deaf == one {
                other
            } else {
                one
            }),
        ));
        at += lasts;
    }
    steps
}

fn still_born(scenario: &mut Scenario, draw: &mut Draw) -> Vec<Step> {
    let topology = &mut scenario.topology;
    topology.brokers = topology.brokers.max(2);
    let mut steps = Vec::new();
    // It takes some luck, so it is tried twice.
    for begin in [draw.between(500, 3_000), draw.between(7_000, 9_000)] {
        let queue = draw.number(usize::from(scenario.workload.queues));
        let absent = draw.between(300, 1_200);
        steps.push(step(begin, absent, Action::RecreateQueue(queue)));
        // All but one go, when the managers still count them in.
        let survivor = draw.number(usize::from(topology.brokers));
        for number in (1..=topology.brokers).filter(|number| *number != survivor) {
            let at = begin + absent.saturating_sub(draw.between(0, 300));
            let action = match draw.between(0, 2) {
                0 => Action::Crash(Host::Broker(number)),
                1 => Action::PowerLoss(Host::Broker(number)),
                _ => Action::Freeze(Host::Broker(number)),
            };
            steps.push(step(at, draw.between(2_000, 5_000), action));
        }
    }
    steps
}

fn rivals(scenario: &mut Scenario, draw: &mut Draw) -> Vec<Step> {
    let topology = &mut scenario.topology;
    topology.managers = topology.managers.max(2);
    topology.brokers = topology.brokers.max(3);
    let begin = draw.between(500, 3_000);
    let mut steps = Vec::new();
    for number in 1..=topology.managers {
        if draw.chance(70) {
            steps.push(step(begin, 6_000, slow(Host::Manager(number), Host::Database, draw.between(100, 450))));
        }
    }
    // Now and then there is something to do, and what was to be moved goes away.
    for nth in 0..4 {
        let at = begin + 1_200 * nth + draw.between(0, 800);
        steps.push(step(at, draw.between(600, 1_500), Action::Crash(Host::Broker(draw.number(3)))));
        if draw.chance(50) {
            let queue = draw.number(usize::from(scenario.workload.queues));
            steps.push(step(at + draw.between(300, 1_500), draw.between(100, 800), Action::RecreateQueue(queue)));
        }
    }
    steps
}

fn reborn(scenario: &mut Scenario, draw: &mut Draw) -> Vec<Step> {
    let topology = &mut scenario.topology;
    topology.brokers = draw.one_of(&[1, 2]);
    let begin = draw.between(500, 3_000);
    let brokers: Vec<Host> = (1..=topology.brokers).map(Host::Broker).collect();
    // What they see in the store is out of date, and they keep their leases.
    let deaf = Action::Slow { between: brokers, and: vec![Host::Database], latency_millis: draw.between(200, 300) };
    let mut steps = vec![step(begin, 7_000, deaf)];
    for nth in 0..4 {
        let queue = draw.number(usize::from(scenario.workload.queues));
        let at = begin + 200 + 1_700 * nth + draw.between(0, 600);
        steps.push(step(at, draw.between(1, 150), Action::RecreateQueue(queue)));
    }
    steps
}

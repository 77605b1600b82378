//! The scenario that a command's arguments select.

use std::path::Path;

use rmom_sim_lab::scenario::{Action, Scenario};

use crate::{
    args::{FaultArgs, FaultKind, ScenarioArgs, WhatArgs},
    error::Error,
    exit::Exit,
    files,
    output::Out,
};

/// Prints a seed's scenario.
pub(crate) fn print(args: &ScenarioArgs) -> Result<Exit, Error> {
    let mut out = Out::new();
    out.line(files::scenario_text(&of_seed(args.seed, &args.faults)).trim_end())?;
    out.flush()?;
    Ok(Exit::Passed)
}

/// A seed's scenario, with only the selected faults.
pub(crate) fn of_seed(seed: u64, faults: &FaultArgs) -> Scenario {
    let mut scenario = Scenario::from_seed(seed);
    keep_faults(&mut scenario, faults);
    scenario
}

/// The scenario that the arguments select.
pub(crate) fn wanted(what: &WhatArgs) -> Result<Scenario, Error> {
    match (what.seed, &what.scenario) {
        (Some(seed), _) => Ok(of_seed(seed, &what.faults)),
        (None, Some(path)) => from_file(path, &what.faults),
        (None, None) => Err(Error::Usage("a seed or a scenario is needed".into())),
    }
}

/// A file's scenario, with only the selected faults.
pub(crate) fn from_file(path: &Path, faults: &FaultArgs) -> Result<Scenario, Error> {
    let mut scenario = files::read_scenario(path)?;
    keep_faults(&mut scenario, faults);
    Ok(scenario)
}

fn keep_faults(scenario: &mut Scenario, faults: &FaultArgs) {
    if !faults.faults.is_empty() {
        scenario.steps.retain(|step| faults.faults.contains(&kind(&step.action)));
    }
}

fn kind(action: &Action) -> FaultKind {
    match action {
        Action::Crash(_) => FaultKind::Crash,
        Action::PowerLoss(_) => FaultKind::PowerLoss,
        Action::Lose(_) => FaultKind::Loss,
        Action::Cut { .. } | Action::CutOneway { .. } | Action::CutOff(_) => FaultKind::Cut,
        Action::Hold { .. } => FaultKind::Hold,
        Action::Slow { .. } => FaultKind::Slow,
        Action::Freeze(_) => FaultKind::Freeze,
        Action::ClockJump { .. } => FaultKind::Clock,
        Action::Database(_) => FaultKind::Database,
        Action::Drain(_) | Action::DrainForGood(_) => FaultKind::Drain,
        Action::Twin(_) => FaultKind::Twin,
        Action::RecreateQueue(_) | Action::ChurnChannels { .. } | Action::DeleteChannel(_) => FaultKind::Churn,
        Action::StallConsumer(_) | Action::LeaveConsumer(_) => FaultKind::Consumers,
    }
}

/// The arguments that select these faults again, with a leading space.
pub(crate) fn fault_arguments(faults: &FaultArgs) -> String {
    use clap::ValueEnum as _;
    let name = |kind: &FaultKind| kind.to_possible_value().map(|value| value.get_name().to_owned());
    let names: Vec<_> = faults.faults.iter().filter_map(name).collect();
    if names.is_empty() { String::new() } else { format!(" --faults {}", names.join(",")) }
}

/// The size of a scenario, in a line.
pub(crate) fn outline(scenario: &Scenario) -> String {
    let of = |number: usize, what: &str| crate::output::plural(number as u64, what);
    let (topology, workload) = (&scenario.topology, &scenario.workload);
    let pushes: u64 = workload.producers.iter().map(|producer| u64::from(producer.pushes)).sum();
    [
        of(topology.managers.into(), "manager"),
        of(topology.brokers.into(), "broker"),
        of(workload.queues.into(), "queue"),
        of(workload.producers.len(), "producer"),
        of(workload.consumers.len(), "consumer"),
        crate::output::plural(pushes, "message") + " to push",
        of(scenario.steps.len(), "fault"),
    ]
    .join(", ")
}

#[cfg(test)]
mod tests {
    use rmom_sim_lab::scenario::{Host, Step};

    use super::*;

    #[test]
    fn only_the_wanted_faults_stay() {
        let step = |action| Step { at_millis: 0, for_millis: 1, action };
        let mut scenario = Scenario::from_seed(1);
        scenario.steps = vec![step(Action::Crash(Host::Broker(1))), step(Action::Freeze(Host::Broker(2)))];
        let all = scenario.clone();
        keep_faults(&mut scenario, &FaultArgs::default());
        assert_eq!(scenario, all);
        keep_faults(&mut scenario, &FaultArgs { faults: vec![FaultKind::Freeze, FaultKind::Cut] });
        assert_eq!(scenario.steps, all.steps[1..]);
        keep_faults(&mut scenario, &FaultArgs { faults: vec![FaultKind::None] });
        assert_eq!(scenario.steps, []);
    }

    #[test]
    fn selected_faults_can_be_selected_again() {
        assert_eq!(fault_arguments(&FaultArgs::default()), "");
        let faults = FaultArgs { faults: vec![FaultKind::PowerLoss, FaultKind::Cut] };
        assert_eq!(fault_arguments(&faults), " --faults power-loss,cut");
    }
}

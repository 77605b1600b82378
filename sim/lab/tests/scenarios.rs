//! Scenarios from proptest, which no seed draws. One that fails is shrunk and kept in `sim/lab/regressions`, where it is
//! replayed from then on.
#![allow(clippy::print_stdout, reason = "a test that fails, or hangs, shows what it printed")]

use std::{
    cell::Cell,
    env, fs,
    path::Path,
    time::{Duration, Instant},
};

use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};
use rmom_sim_lab::{
    check::Promise,
    report::{self, Report, Symptom, Verdict, commit},
    run,
    scenario::{self, Action, Host, Scenario},
    shrink::shrink,
};

/// The number of scenarios, unless [`CASES_VARIABLE`] sets another.
const CASES: u32 = 80;
/// See [`CASES`].
const CASES_VARIABLE: &str = "PROPTEST_CASES";
/// If a smaller share of the runs proves anything, in percent, the strategy is at fault. About four in five do: some draw
/// consumers of a queue to which no producer pushes.
const MIN_TELLING_PERCENT: u32 = 60;
/// The longest time for shrinking: a test that takes too long is killed, and reports nothing.
const SHRINKING: Duration = Duration::from_secs(90);
/// The most smaller scenarios tried in that time.
const ATTEMPTS: usize = 500;

/// The smallest scenario with a symptom that was found among `cases`.
fn find(cases: u32, symptom: impl Fn(&Scenario) -> Option<Symptom>) -> Option<Scenario> {
    // Proptest would shrink, too, but it needs more attempts, and its record of a failure is not readable.
    let config = Config { cases, max_shrink_iters: 0, failure_persistence: None, ..Config::default() };
    let found = TestRunner::new(config).run(&scenario::strategy(), |scenario| match symptom(&scenario) {
        None => Ok(()),
        Some(_) => Err(TestCaseError::fail("")),
    });
    let scenario = match found {
        Ok(()) => return None,
        Err(TestError::Fail(_, scenario)) => scenario,
        Err(TestError::Abort(why)) => panic!("{why}"),
    };
    let wanted = symptom(&scenario).expect("a scenario that failed fails again");
    let began = Instant::now();
    Some(shrink(&scenario, ATTEMPTS, |smaller| {
        began.elapsed() < SHRINKING && symptom(smaller).is_some_and(|other| other.is_like(&wanted))
    }))
}

/// Writes the scenario to the regressions, and returns a message about it.
fn keep(mut scenario: Scenario) -> String {
    let Report { verdict, violations, .. } = run::run(&scenario);
    let lines = |replay: &str| report::failure(&format!("seed {}", scenario.seed), &verdict, &violations, replay);
    scenario.about = match (&verdict, violations.first()) {
        (Verdict::Crashed(why), _) => why.clone(),
        (_, Some(violation)) => format!("{}: {}", report::promise(violation.promise), violation.what),
        (_, None) => String::new(),
    };
    scenario.about = format!("Found by proptest at commit {}. {}.", commit(), scenario.about);
    let promise = violations.first().map(|violation| violation.promise.name().replace(' ', "-"));
    let name = format!("{}-{}.json", promise.unwrap_or_else(|| "crash".to_owned()), scenario.seed);
    let text = serde_json::to_string_pretty(&scenario).unwrap() + "\n";
    fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions").join(&name), &text).unwrap();
    let replay = format!("cargo run --profile sim -p rmom-sim-lab -- replay --scenario sim/lab/regressions/{name}");
    format!(
        "\n{}\n\nsim/lab/regressions/{name}, which `cargo test` replays from now on:\n{text}",
        lines(&replay).join("\n")
    )
}

#[test]
fn scenarios_keep_all_promises() {
    let cases = if env::var_os(CASES_VARIABLE).is_some() { Config::default().cases } else { CASES };
    let vacuous = Cell::new(0);
    let found = find(cases, |scenario| {
        let report = run::run(scenario);
        vacuous.set(vacuous.get() + u32::from(matches!(report.verdict, Verdict::Vacuous(_))));
        Symptom::of(&report.verdict, &report.violations)
    });
    if let Some(scenario) = found {
        panic!("{}", keep(scenario));
    }
    let telling = cases - vacuous.get();
    println!("{telling} of {cases} scenarios say something");
    assert!(cases < CASES || telling * 100 >= cases * MIN_TELLING_PERCENT, "the scenarios say too little");
}

/// A failure that depends only on a certain fault.
#[test]
fn what_is_found_is_small() {
    let is_cause = |action: &Action| matches!(action, Action::Freeze(_));
    let symptom = |scenario: &Scenario| {
        let fails = scenario.steps.iter().any(|step| is_cause(&step.action) && step.for_millis > 1_000);
        fails.then(|| Symptom::Safety([Promise::OneWriter].into()))
    };
    let scenario = find(10_000, symptom).expect("among so many there is one");
    let [step] = &scenario.steps[..] else { panic!("{:?}", scenario.steps) };
    assert_eq!((&step.action, step.at_millis, step.for_millis), (&Action::Freeze(Host::Broker(1)), 0, 1_100));
    assert!(scenario.workload.producers.is_empty() && scenario.workload.consumers.is_empty());
    assert_eq!(find(100, |_| None), None);
}

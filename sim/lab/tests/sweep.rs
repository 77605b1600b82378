//! A sweep of many seeds: some fixed, and some that are new in each run.
//!
//! `rmom-sim run` does the same faster, and more of it: CI runs both.
#![allow(clippy::print_stdout, reason = "a test that fails, or hangs, shows what it printed")]

use rand::Rng as _;
use rmom_sim_lab::{
    report::{self, Verdict, commit},
    run,
    scenario::Scenario,
};

/// The number of fixed seeds, from 0, so that every developer sees the same failures.
const FIXED: u64 = 30;
/// The number of fresh seeds, unless [`FRESH_VARIABLE`] sets another.
const FRESH: u64 = 15;
/// See [`FRESH`].
const FRESH_VARIABLE: &str = "RMOM_SIM_SEEDS";
/// Fresh seeds are below this, which is short enough to be read out.
const SEEDS: u64 = 1_000_000_000_000;
/// If a greater share of the fixed seeds is vacuous, in percent, the generator is at fault. Fresh seeds may be vacuous by
/// chance.
const MAX_VACUOUS_PERCENT: usize = 5;

#[test]
fn seeds_keep_all_promises() {
    let fresh = std::env::var(FRESH_VARIABLE).map_or(FRESH, |number| number.parse().expect("a number of seeds"));
    let first = rand::rng().random_range(0..SEEDS);
    println!("seeds 0 … {}, and {fresh} from {first} on, at commit {}", FIXED - 1, commit());

    let (mut failures, mut vacuous) = (Vec::new(), Vec::new());
    for seed in (0..FIXED).chain(first..first + fresh) {
        let report = run::run(&Scenario::from_seed(seed));
        match &report.verdict {
            Verdict::Passed => {}
            Verdict::Vacuous(_) => vacuous.push(seed),
            failed => {
                let replay = format!("cargo run --profile sim -p rmom-sim-lab -- replay {seed}");
                failures.extend(report::failure(&format!("seed {seed}"), failed, &report.violations, &replay));
            }
        }
    }
    println!("vacuous: {vacuous:?}");
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    let idle = vacuous.iter().filter(|seed| **seed < FIXED).count();
    assert!(
        idle * 100 <= usize::try_from(FIXED).unwrap() * MAX_VACUOUS_PERCENT,
        "{idle} of {FIXED} seeds are vacuous: the scenarios say too little"
    );
}

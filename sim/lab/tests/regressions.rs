//! Earlier findings do not return: the scenarios in `sim/lab/regressions` keep all promises.
#![allow(clippy::print_stdout, reason = "a test that fails, or hangs, shows what it printed")]

use std::{fs, path::Path};

use rmom_sim_lab::{
    report::{self, Symptom},
    run,
    scenario::Scenario,
};

#[test]
fn what_was_mended_stays_mended() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    assert!(!files.is_empty(), "the regressions are elsewhere");

    let mut failures = Vec::new();
    for path in files {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        let scenario: Scenario =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file} is no scenario: {error}"));
        let report = run::run(&scenario);
        println!("{file}: {:?} after {:?}", report.verdict, report.took);
        if Symptom::of(&report.verdict, &report.violations).is_some() {
            let replay =
                format!("cargo run --profile sim -p rmom-sim-lab -- replay --scenario sim/lab/regressions/{file}");
            failures.extend(report::failure(&file, &report.verdict, &report.violations, &replay));
            failures.push(format!("  when it was kept: {}", scenario.about));
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

//! The table of results, for the docs.

use std::{fmt::Write as _, time::Duration};

use super::{Trial, TrialOutcome};
use crate::check::Promise;

/// A table in Markdown: each bug, its rule, the promises that caught it, the number of seeds, and the time that it took.
#[must_use]
pub fn markdown(trials: &[Trial]) -> String {
    let mut table = String::from("| bug | mistake | rule | caught by | seeds | time |\n|---|---|---|---|--:|--:|\n");
    for trial in trials {
        let (name, mistake, rule) = match &trial.bug {
            Some(bug) => (format!("`{}`", bug.name), bug.mistake.as_str(), bug.rule.as_str()),
            None => ("none".to_owned(), "No bug is planted: a failure in this row is a real one.", ""),
        };
        let (by, seeds) = match &trial.outcome {
            TrialOutcome::Caught { seeds, promises, .. } => (caught_by(promises), seeds.to_string()),
            TrialOutcome::Missed { seeds } if trial.bug.is_none() => {
                ("none, as expected".to_owned(), seeds.to_string())
            }
            TrialOutcome::Missed { seeds } => ("**none**".to_owned(), seeds.to_string()),
            TrialOutcome::NotBuilt { .. } => ("**the compiler**".to_owned(), String::new()),
        };
        let time = seconds(trial.sweeping);
        // Writing to a string cannot fail.
        let _ = writeln!(table, "| {name} | {mistake} | {rule} | {by} | {seeds} | {time} |");
    }
    table
}

fn caught_by(promises: &[Promise]) -> String {
    if promises.is_empty() {
        return "a crash".to_owned();
    }
    let words = |promise: &Promise| format!("{} {}", promise.number(), promise.name());
    promises.iter().map(words).collect::<Vec<_>>().join(", ")
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_names_the_promises_that_caught_the_bug() {
        let trial =
            |outcome| Trial { bug: None, outcome, building: Duration::ZERO, sweeping: Duration::from_millis(1_250) };
        let caught = |promises| TrialOutcome::Caught { seed: 3, seeds: 4, promises, what: String::new() };
        let table = markdown(&[
            trial(caught(vec![Promise::Durable, Promise::OneWriter])),
            trial(caught(vec![])),
            trial(TrialOutcome::Missed { seeds: 500 }),
        ]);
        let rows: Vec<_> = table.lines().skip(2).collect();
        assert!(rows[0].ends_with("| 1 durable, 6 one writer | 4 | 1.2 s |"), "{}", rows[0]);
        assert!(rows[1].contains("| a crash | 4 |"), "{}", rows[1]);
        assert!(rows[2].contains("| none, as expected | 500 |"), "{}", rows[2]);
    }
}

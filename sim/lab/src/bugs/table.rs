//! The table of results, for the docs.

use std::{fmt::Write as _, time::Duration};

use super::{Fate, Trial};
use crate::check::Promise;

/// A table in Markdown: each bug, its rule, the promises that caught it, the number of seeds, and the time that it took.
#[must_use]
pub fn markdown(trials: &[Trial]) -> String {
    let mut table =
        String::from("| bug | what is done wrong | rule | caught by | seeds | time |\n|---|---|---|---|--:|--:|\n");
    for trial in trials {
        let (name, mistake, rule) = match &trial.bug {
            Some(bug) => (format!("`{}`", bug.name), bug.mistake.as_str(), bug.rule.as_str()),
            None => ("none".to_owned(), "Nothing is: what is found then is no planted bug.", ""),
        };
        let (by, seeds) = match &trial.fate {
            Fate::Caught { seeds, promises, .. } => (catchers(promises), seeds.to_string()),
            Fate::Missed { seeds } if trial.bug.is_none() => ("nobody, as it should be".to_owned(), seeds.to_string()),
            Fate::Missed { seeds } => ("**nobody**".to_owned(), seeds.to_string()),
            Fate::NotBuilt { .. } => ("**the compiler**".to_owned(), String::new()),
        };
        let time = seconds(trial.sweeping);
        // Writing to a string cannot fail.
        let _ = writeln!(table, "| {name} | {mistake} | {rule} | {by} | {seeds} | {time} |");
    }
    table
}

fn catchers(promises: &[Promise]) -> String {
    if promises.is_empty() {
        return "a crash".to_owned();
    }
    let words = |promise: &Promise| format!("{} {}", promise.number(), name(*promise));
    promises.iter().map(words).collect::<Vec<_>>().join(", ")
}

/// The name that the README uses.
fn name(promise: Promise) -> &'static str {
    match promise {
        Promise::Durable => "durable",
        Promise::NoLoss => "no loss",
        Promise::Order => "order",
        Promise::PushedOnce => "pushed once",
        Promise::DeliveredOnce => "delivered once",
        Promise::OneWriter => "one writer",
        Promise::TimeToLive => "time to live",
        Promise::ChannelsSurvive => "channels survive",
        Promise::DeletesAreFinal => "deletes are final",
        Promise::Convergence => "convergence",
        Promise::NothingSilent => "nothing silent",
        Promise::BadInput => "bad input",
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_tells_who_caught_it() {
        let trial = |fate| Trial { bug: None, fate, building: Duration::ZERO, sweeping: Duration::from_millis(1_250) };
        let caught = |promises| Fate::Caught { seed: 3, seeds: 4, promises, what: String::new() };
        let table = markdown(&[
            trial(caught(vec![Promise::Durable, Promise::OneWriter])),
            trial(caught(vec![])),
            trial(Fate::Missed { seeds: 500 }),
        ]);
        let rows: Vec<_> = table.lines().skip(2).collect();
        assert!(rows[0].ends_with("| 1 durable, 6 one writer | 4 | 1.2 s |"), "{}", rows[0]);
        assert!(rows[1].contains("| a crash | 4 |"), "{}", rows[1]);
        assert!(rows[2].contains("| nobody, as it should be | 500 |"), "{}", rows[2]);
    }
}

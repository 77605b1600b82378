//! The results of a sweep, for readers and for programs.

use std::time::Duration;

use rmom_sim_lab::report;
use serde_json::json;

use super::tally::{MAX_VACUOUS_PERCENT, Tally};
use crate::{
    args::{FaultArgs, RunArgs},
    commit::{command, commit},
    error::Error,
    exit::Exit,
    output::{Colour, Out, count, duration, eprint, plural},
    scenario::fault_arguments,
    worker::Outcome,
};

/// Reports a failed seed at once.
pub(super) fn print_failure(outcome: &Outcome, faults: &FaultArgs) {
    for line in failure(outcome, faults) {
        eprint(line);
    }
}

/// Prints the summary of the sweep.
pub(super) fn print(out: &mut Out, tally: &Tally, took: Duration, args: &RunArgs) -> Result<(), Error> {
    if !tally.failures.is_empty() {
        out.line("\nFailures")?;
        for outcome in &tally.failures {
            let mut lines = failure(outcome, &args.faults).into_iter();
            if let Some(head) = lines.next() {
                out.line(format_args!("  {}", out.paint(Colour::Red, head)))?;
            }
            for line in lines {
                out.line(format_args!("  {line}"))?;
            }
        }
    }
    marks(out, tally)?;
    out.line(format_args!("\n{} at commit {} in {}", plural(tally.seeds, "seed"), commit(), duration(took)))?;
    for (name, value) in rows(tally, took) {
        out.line(format_args!("  {name:<32}  {value}"))?;
    }
    let verdicts = [("passed", tally.passed, Colour::Green), ("vacuous", tally.vacuous, Colour::Yellow)];
    for (name, number, colour) in verdicts {
        out.line(format_args!("  {name:<32}  {}", out.paint(colour, count(number))))?;
    }
    let failed = match tally.failed() {
        0 => "0".to_owned(),
        failed => format!(
            "{}: {} of safety, {} of liveness, {} crashed",
            count(failed),
            tally.safety,
            tally.liveness,
            tally.crashed
        ),
    };
    let colour = if tally.failed() > 0 { Colour::Red } else { Colour::Green };
    out.line(format_args!("  {:<32}  {}", "failed", out.paint(colour, failed)))?;
    if tally.too_vacuous() {
        out.line(out.paint(
            Colour::Yellow,
            format!("\nMore than {MAX_VACUOUS_PERCENT} % of the runs were vacuous, so the sweep fails."),
        ))?;
        for (why, times) in &tally.vacuous_for {
            out.line(format_args!("  {times:>6}  {why}"))?;
        }
    }
    if args.require_marks && !tally.never_reached().is_empty() {
        out.line(out.paint(Colour::Yellow, "\nSome marks were never reached, so the sweep fails."))?;
    }
    if let Some(dir) = &args.keep
        && tally.failed() > 0
    {
        out.line(format_args!("\nThe files of the failures are in {}", dir.display()))?;
    }
    Ok(())
}

fn rows(tally: &Tally, took: Duration) -> Vec<(&'static str, String)> {
    let counts = &tally.counts;
    let simulated = Duration::from_millis(counts.simulated_millis);
    let per_minute = tally.seeds as f64 * 60.0 / took.as_secs_f64().max(0.001);
    let cpu = tally.cpu_micros as f64 / 1e6;
    let faster =
        if cpu > 0.0 { format!(", {:.0} s for each on a core", simulated.as_secs_f64() / cpu) } else { String::new() };
    vec![
        (
            "scenarios per minute per core",
            tally.per_minute_per_core().map_or_else(|| "–".to_owned(), |speed| format!("{speed:.0}")),
        ),
        ("scenarios per minute in all", format!("{per_minute:.0}")),
        ("simulated time", duration(simulated) + &faster),
        ("pushes", format!("{}, {} acknowledged", count(counts.pushes), count(counts.acknowledgements))),
        ("deliveries", count(counts.deliveries)),
        (
            "faults",
            format!("{}, {} of them with pushes in flight", count(counts.faults), count(counts.faults_in_flight)),
        ),
        ("failovers", count(counts.failovers)),
    ]
}

fn marks(out: &mut Out, tally: &Tally) -> Result<(), Error> {
    let (reached, all) = tally.marks_reached();
    if all == 0 {
        return Ok(());
    }
    out.line(format_args!("\nMarks: {reached} of {all} reached"))?;
    for (mark, times) in tally.marks.iter().filter(|(_, times)| **times > 0) {
        out.line(format_args!("  {:>12}  {mark}", count(*times)))?;
    }
    for mark in tally.never_reached() {
        out.line(format_args!("  {:>12}  {mark}", out.paint(Colour::Yellow, "never")))?;
    }
    Ok(())
}

fn failure(outcome: &Outcome, faults: &FaultArgs) -> Vec<String> {
    let seed = outcome.seed;
    let replay = command(&format!("replay {seed}{}", fault_arguments(faults)));
    report::failure(&format!("seed {seed}"), &outcome.verdict, &outcome.violations, &replay)
}

/// The last line of JSON.
pub(super) fn print_json(out: &mut Out, tally: &Tally, took: Duration, exit: Exit) -> Result<(), Error> {
    let summary = json!({
        "summary": tally,
        "commit": commit(),
        "took_millis": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        "scenarios_per_minute_per_core": tally.per_minute_per_core(),
        "never_reached": tally.never_reached(),
        "failed_seeds": tally.failures.iter().map(|outcome| outcome.seed).collect::<Vec<_>>(),
        "exit_code": exit.code(),
    });
    out.line(summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_tells_how_to_see_it_again() {
        let outcome = Outcome::crashed(17, "signal 6".into(), 0);
        let lines = failure(&outcome, &FaultArgs { faults: vec![crate::args::FaultKind::Crash] });
        assert!(lines[0].starts_with("seed 17 crashed at commit "), "{lines:?}");
        assert!(lines[0].ends_with("signal 6"), "{lines:?}");
        assert!(lines[1].contains("replay 17 --faults crash"), "{lines:?}");
    }
}

//! `rmom-sim shrink`: the smallest scenario that still fails in the same way.

use std::{
    io::{self, IsTerminal as _, Write as _},
    ops::ControlFlow,
    time::Duration,
};

use rmom_sim::{check::Promise, report::Verdict, scenario::Scenario, shrink};

use crate::{
    args::{FaultArgs, ShrinkArgs},
    commit::command,
    error::Error,
    exit::Exit,
    files,
    output::{Out, tell},
    scenario,
    sweep::pool::{News, Pool},
    worker::{Job, Outcome},
};

pub(crate) fn run(args: &ShrinkArgs) -> Result<Exit, Error> {
    let scenario = scenario::wanted(&args.what)?;
    tell(format_args!("seed {}: {}", scenario.seed, scenario::outline(&scenario)));
    // A scenario that aborts or never ends must not take the program along.
    let pool = Pool::new(1, Duration::from_secs(args.deadline), None, FaultArgs::default());
    let mut runner = Runner { pool, error: None };
    let Some(failure) = runner.outcome(&scenario).filter(Outcome::failed) else {
        return match runner.error {
            Some(error) => Err(error),
            None => Err(Error::Usage("this scenario does not fail: there is nothing to shrink".into())),
        };
    };
    tell(format_args!("it fails: {}", in_short(&failure)));

    let mut progress = Progress { tried: 0, of: args.attempts, terminal: io::stderr().is_terminal() };
    let smallest = shrink::shrink(&scenario, args.attempts, |candidate| {
        let fails = runner.outcome(candidate).is_some_and(|outcome| is_like(&outcome, &failure));
        progress.show(candidate, fails);
        fails
    });
    progress.end();
    if let Some(error) = runner.error {
        return Err(error);
    }

    tell(format_args!("smallest: {}", scenario::outline(&smallest)));
    let text = files::scenario_text(&smallest);
    match &args.out {
        Some(path) => {
            files::write(path, |out| out.write_all(text.as_bytes()))?;
            let name = path.display();
            tell(format_args!("replay it: {}", command(&format!("replay --scenario {name}"))));
            tell(format_args!("keep it:   copy {name} to sim/regressions, and `cargo test` replays it for ever after"));
        }
        None => {
            let mut out = Out::new();
            out.line(text.trim_end())?;
            out.flush()?;
            tell("keep it: --out sim/regressions/NAME, and `cargo test` replays it for ever after");
        }
    }
    Ok(Exit::of(&failure.verdict))
}

struct Runner {
    pool: Pool,
    error: Option<Error>,
}

impl Runner {
    fn outcome(&mut self, scenario: &Scenario) -> Option<Outcome> {
        let mut outcome = None;
        let job = Job::Scenario(Box::new(scenario.clone()));
        let result = self.pool.run([job], |news| {
            if let News::Outcome(told) = news {
                outcome = Some(told);
            }
            Ok(ControlFlow::Continue(()))
        });
        self.error = self.error.take().or(result.err());
        outcome
    }
}

/// A smaller scenario that breaks another promise would be another bug.
fn is_like(outcome: &Outcome, failure: &Outcome) -> bool {
    let broken =
        |outcome: &Outcome| outcome.violations.iter().map(|violation| violation.promise).collect::<Vec<Promise>>();
    match (&outcome.verdict, &failure.verdict) {
        (Verdict::Crashed(_), Verdict::Crashed(_)) | (Verdict::Liveness, Verdict::Liveness) => true,
        (Verdict::Safety, Verdict::Safety) => {
            let wanted = broken(failure);
            broken(outcome).iter().any(|promise| wanted.contains(promise) && !promise.is_liveness())
        }
        _ => false,
    }
}

fn in_short(failure: &Outcome) -> String {
    match (&failure.verdict, failure.violations.first()) {
        (Verdict::Crashed(why), _) => why.clone(),
        (_, Some(violation)) => format!("{}: {}", rmom_sim::story::promise(violation.promise), violation.what),
        (verdict, None) => format!("{verdict:?}"),
    }
}

/// A line for each success; on a terminal also one that is written over.
struct Progress {
    tried: usize,
    of: usize,
    terminal: bool,
}

impl Progress {
    fn show(&mut self, candidate: &Scenario, fails: bool) {
        self.tried += 1;
        if fails {
            self.end();
            tell(format_args!("{:>4}  still fails with {}", self.tried, scenario::outline(candidate)));
        }
        if self.terminal {
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "\r\x1b[Ktried {} of at most {}", self.tried, self.of).and_then(|()| stderr.flush());
        }
    }

    fn end(&self) {
        if self.terminal {
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "\r\x1b[K").and_then(|()| stderr.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use rmom_sim::check::Violation;

    use super::*;

    fn outcome(verdict: Verdict, promises: &[Promise]) -> Outcome {
        let violation = |&promise| Violation { promise, what: String::new(), records: Vec::new() };
        let crashed = Outcome::crashed(1, String::new(), 0);
        Outcome { verdict, violations: promises.iter().map(violation).collect(), ..crashed }
    }

    #[test]
    fn another_bug_is_not_the_same_failure() {
        let lost = outcome(Verdict::Safety, &[Promise::NoLoss, Promise::Convergence]);
        assert!(is_like(&outcome(Verdict::Safety, &[Promise::Order, Promise::NoLoss]), &lost));
        assert!(!is_like(&outcome(Verdict::Safety, &[Promise::Order, Promise::Convergence]), &lost));
        assert!(!is_like(&outcome(Verdict::Liveness, &[Promise::Convergence]), &lost));
        assert!(!is_like(&outcome(Verdict::Passed, &[]), &lost));
        let crashed = outcome(Verdict::Crashed("one".into()), &[]);
        assert!(is_like(&outcome(Verdict::Crashed("other".into()), &[]), &crashed));
    }
}

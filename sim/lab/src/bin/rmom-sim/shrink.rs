//! `rmom-sim shrink`: the smallest scenario that still fails in the same way.

use std::{
    io::{self, IsTerminal as _, Write as _},
    ops::ControlFlow,
    path::Path,
    time::{Duration, Instant},
};

use rmom_sim_lab::{report::Verdict, scenario::Scenario, shrink};

use crate::{
    args::{FaultArgs, ShrinkArgs},
    commit::{command, commit},
    error::Error,
    exit::Exit,
    files,
    output::{Out, duration, eprint, plural},
    scenario,
    sweep::pool::{Pool, PoolEvent},
    worker::{Job, Outcome},
};

pub(crate) fn run(args: &ShrinkArgs) -> Result<Exit, Error> {
    let scenario = scenario::wanted(&args.what)?;
    eprint(format_args!("seed {}: {}", scenario.seed, scenario::outline(&scenario)));
    // In a worker, a scenario that aborts or never ends does not end the program.
    let pool = Pool::new(1, Duration::from_secs(args.deadline), None, FaultArgs::default());
    let mut runner = Runner { pool, error: None };
    let outcome = runner.outcome(&scenario);
    let Some((failure, symptom)) = outcome.and_then(|outcome| outcome.symptom().map(|symptom| (outcome, symptom)))
    else {
        return match runner.error {
            Some(error) => Err(error),
            None => Err(Error::Usage("this scenario does not fail: there is nothing to shrink".into())),
        };
    };
    eprint(format_args!("the scenario fails: {}", in_short(&failure)));

    let started = Instant::now();
    let (outline, terminal) = (scenario::outline(&scenario), io::stderr().is_terminal());
    let mut progress = Progress { tried: 0, of: args.attempts, outline, terminal };
    let mut of_smallest = failure;
    let mut smallest = shrink::shrink(&scenario, args.attempts, |candidate| {
        let outcome = runner.outcome(candidate);
        let fails = outcome.filter(|outcome| outcome.symptom().is_some_and(|other| other.is_like(&symptom)));
        progress.show(candidate, fails.is_some());
        fails.map(|outcome| of_smallest = outcome).is_some()
    });
    progress.end();
    if let Some(error) = runner.error {
        return Err(error);
    }

    let (tried, took) = (plural(progress.tried as u64, "smaller scenario"), duration(started.elapsed()));
    eprint(format_args!("tried {tried} in {took}; the smallest failing scenario: {}", scenario::outline(&smallest)));
    smallest.about = format!("Found as seed {} at commit {}. {}.", scenario.seed, commit(), in_short(&of_smallest));
    keep(args.out.as_deref(), &smallest)?;
    Ok(Exit::of(&of_smallest.verdict))
}

fn keep(file: Option<&Path>, smallest: &Scenario) -> Result<(), Error> {
    let text = files::scenario_text(smallest);
    match file {
        Some(path) => {
            files::write(path, |out| out.write_all(text.as_bytes()))?;
            let name = path.display();
            eprint(format_args!("replay it: {}", command(&format!("replay --scenario {name}"))));
            eprint(format_args!(
                "keep it:   {name} as sim/lab/regressions/NAME.json, and `cargo test` replays it from then on"
            ));
        }
        None => {
            let mut out = Out::new();
            out.line(text.trim_end())?;
            out.flush()?;
            eprint("keep it: --out sim/lab/regressions/NAME.json, and `cargo test` replays it from then on");
        }
    }
    Ok(())
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
            if let PoolEvent::Outcome(received) = news {
                outcome = Some(received);
            }
            Ok(ControlFlow::Continue(()))
        });
        self.error = self.error.take().or(result.err());
        outcome
    }
}

fn in_short(failure: &Outcome) -> String {
    match (&failure.verdict, failure.violations.first()) {
        (Verdict::Crashed(why), _) => why.clone(),
        (_, Some(violation)) => format!("{}: {}", rmom_sim_lab::report::promise(violation.promise), violation.what),
        (verdict, None) => format!("{verdict:?}"),
    }
}

/// Prints a line for each success that leaves something out; on a terminal also a line that is overwritten.
struct Progress {
    tried: usize,
    of: usize,
    outline: String,
    terminal: bool,
}

impl Progress {
    fn show(&mut self, candidate: &Scenario, fails: bool) {
        self.tried += 1;
        let outline = scenario::outline(candidate);
        if fails && outline != self.outline {
            self.end();
            eprint(format_args!("{:>4}  still fails with {outline}", self.tried));
            self.outline = outline;
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

//! The sandbox: a copy of the sources, in which one bug after the other is planted, built and swept.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use serde::Deserialize;

use super::{Bug, BugError};
use crate::{
    check::{Promise, Violation},
    report::Verdict,
};

/// The folder of the copy and its build, below the workspace.
const FOLDER: &str = "target/bugs";
/// The number of lines of compiler output that are kept.
const COMPILER_LINES: usize = 30;

/// A copy of the sources of a workspace. It remains after this is dropped, so that the next build is faster.
#[derive(Debug)]
pub struct Sandbox {
    workspace: PathBuf,
    tree: PathBuf,
    built: PathBuf,
}

/// The extent of the search for a bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// The number of seeds, from 0 on.
    pub seeds: u64,
    /// The number of concurrent runs; `None` means one per core.
    pub jobs: Option<usize>,
}

/// The trial of a planted bug.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The bug; `None` if none was planted, to verify that nothing is found.
    pub bug: Option<Bug>,
    /// The result.
    pub outcome: TrialOutcome,
    /// The build time.
    pub building: Duration,
    /// The duration of the search.
    pub sweeping: Duration,
}

/// The result of a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrialOutcome {
    /// A seed failed.
    Caught {
        /// The seed.
        seed: u64,
        /// The number of seeds tried, including this one.
        seeds: u64,
        /// The broken promises, in their order; empty if the run crashed.
        promises: Vec<Promise>,
        /// The failure, in a sentence.
        what: String,
    },
    /// All seeds passed.
    Missed {
        /// The number of seeds.
        seeds: u64,
    },
    /// The code does not compile, so the bug is unusable.
    NotBuilt {
        /// The compiler's errors.
        errors: String,
    },
}

/// The part of a sweep's output for a seed that matters here.
#[derive(Deserialize)]
struct SeedOutcome {
    seed: u64,
    verdict: Verdict,
    violations: Vec<Violation>,
}

impl Sandbox {
    /// Creates or updates the copy: all files that git tracks or does not ignore.
    ///
    /// # Errors
    /// [`BugError::Program`] for git, [`BugError::File`].
    pub fn open(workspace: &Path) -> Result<Self, BugError> {
        let folder = workspace.join(FOLDER);
        let sandbox = Self { workspace: workspace.to_owned(), tree: folder.join("tree"), built: folder.join("target") };
        let listed = sandbox.git(&["ls-files", "-z", "--cached", "--others", "--exclude-standard"])?;
        let files: BTreeSet<PathBuf> = listed.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect();
        for file in files.iter().filter(|file| workspace.join(file).is_file()) {
            sandbox.restore(file)?;
        }
        sandbox.remove_others(&sandbox.tree, &files)?;
        Ok(sandbox)
    }

    /// Plants a bug, or none, searches for it, and removes it again.
    ///
    /// # Errors
    /// [`BugError::Unplantable`], [`BugError::File`], [`BugError::Program`] if cargo cannot be run or the sweep's output
    /// cannot be parsed.
    pub fn try_bug(&self, bug: Option<&Bug>, sweep: Sweep) -> Result<Trial, BugError> {
        let planted = bug.map_or(Ok(Vec::new()), |bug| bug.planted(&self.workspace))?;
        for (file, text) in &planted {
            write(&self.tree.join(file), text.as_bytes())?;
        }
        let started = Instant::now();
        let errors = self.build();
        let building = started.elapsed();
        // The copy is restored even if the build failed.
        let (outcome, sweeping) = match errors {
            Ok(None) => {
                let started = Instant::now();
                (self.sweep(sweep), started.elapsed())
            }
            Ok(Some(errors)) => (Ok(TrialOutcome::NotBuilt { errors }), Duration::ZERO),
            Err(error) => (Err(error), Duration::ZERO),
        };
        for (file, _) in &planted {
            self.restore(file)?;
        }
        Ok(Trial { bug: bug.cloned(), outcome: outcome?, building, sweeping })
    }

    /// The compiler's errors, if there are any.
    fn build(&self) -> Result<Option<String>, BugError> {
        let mut cargo = Command::new("cargo");
        cargo.args([
            "build",
            "--locked",
            "--quiet",
            "--profile",
            "sim",
            "--package",
            "rmom-sim-lab",
            "--bin",
            "rmom-sim",
        ]);
        cargo.arg("--target-dir").arg(&self.built).current_dir(&self.tree);
        let output = run(&mut cargo)?;
        let errors = || {
            let said = String::from_utf8_lossy(&output.stderr);
            let lines = said.lines().skip_while(|line| !line.starts_with("error")).take(COMPILER_LINES);
            lines.collect::<Vec<_>>().join("\n")
        };
        Ok((!output.status.success()).then(errors))
    }

    fn sweep(&self, Sweep { seeds, jobs }: Sweep) -> Result<TrialOutcome, BugError> {
        let mut program = Command::new(self.built.join("sim/rmom-sim"));
        program.args(["run", "--until-first-failure", "--json", "--seeds", &seeds.to_string()]);
        if let Some(jobs) = jobs {
            program.args(["--jobs", &jobs.to_string()]);
        }
        let output = run(program.current_dir(&self.tree))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let outcomes: Vec<SeedOutcome> = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        if outcomes.is_empty() {
            let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(BugError::Program { program: "rmom-sim run".into(), reason });
        }
        Ok(trial_outcome(&outcomes))
    }

    fn git(&self, arguments: &[&str]) -> Result<String, BugError> {
        let output = run(Command::new("git").args(arguments).current_dir(&self.workspace))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(BugError::Program { program: "git".into(), reason })
    }

    /// Copies a file from the workspace unless it is unchanged, since cargo compares modification times.
    fn restore(&self, file: &Path) -> Result<(), BugError> {
        let (from, to) = (self.workspace.join(file), self.tree.join(file));
        let text = fs::read(&from).map_err(BugError::file(&from))?;
        if fs::read(&to).is_ok_and(|known| known == text) { Ok(()) } else { write(&to, &text) }
    }

    /// Removes files that are no longer in the workspace.
    fn remove_others(&self, folder: &Path, files: &BTreeSet<PathBuf>) -> Result<(), BugError> {
        for entry in fs::read_dir(folder).map_err(BugError::file(folder))? {
            let path = entry.map_err(BugError::file(folder))?.path();
            if path.is_dir() {
                self.remove_others(&path, files)?;
            } else if !path.strip_prefix(&self.tree).is_ok_and(|file| files.contains(file)) {
                fs::remove_file(&path).map_err(BugError::file(&path))?;
            }
        }
        Ok(())
    }
}

fn trial_outcome(outcomes: &[SeedOutcome]) -> TrialOutcome {
    let failed = |outcome: &&SeedOutcome| !matches!(outcome.verdict, Verdict::Passed | Verdict::Vacuous(_));
    let Some(outcome) = outcomes.iter().find(failed) else {
        return TrialOutcome::Missed { seeds: outcomes.len() as u64 };
    };
    let promises: BTreeSet<Promise> = outcome.violations.iter().map(|violation| violation.promise).collect();
    let what = match (&outcome.verdict, outcome.violations.first()) {
        (Verdict::Crashed(message), _) => message.lines().next().unwrap_or_default().to_owned(),
        (_, Some(violation)) => violation.what.clone(),
        (_, None) => String::new(),
    };
    let seeds = outcomes.iter().position(|other| other.seed == outcome.seed).map_or(0, |at| at as u64 + 1);
    TrialOutcome::Caught { seed: outcome.seed, seeds, promises: promises.into_iter().collect(), what }
}

fn run(program: &mut Command) -> Result<Output, BugError> {
    let output = program.output();
    output.map_err(|error| BugError::Program {
        program: program.get_program().to_string_lossy().into_owned(),
        reason: error.to_string(),
    })
}

fn write(path: &Path, text: &[u8]) -> Result<(), BugError> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(BugError::file(folder))?;
    fs::write(path, text).map_err(BugError::file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(line: &str) -> SeedOutcome {
        serde_json::from_str(line).unwrap()
    }

    #[test]
    fn the_first_failing_seed_catches_a_bug() {
        let passed = r#"{"seed":4,"verdict":"passed","violations":[],"counts":{}}"#;
        let vacuous = r#"{"seed":5,"verdict":{"vacuous":"nothing"},"violations":[]}"#;
        let broken = r#"{"seed":7,"verdict":"safety","violations":[
            {"promise":"order","what":"back","records":[1]},{"promise":"durable","what":"gone","records":[]}]}"#;
        let crashed = r#"{"seed":9,"verdict":{"crashed":"a panic\nand more"},"violations":[]}"#;
        assert_eq!(trial_outcome(&[passed, vacuous].map(outcome)), TrialOutcome::Missed { seeds: 2 });
        assert_eq!(
            trial_outcome(&[vacuous, passed, broken, crashed].map(outcome)),
            TrialOutcome::Caught {
                seed: 7,
                seeds: 3,
                promises: vec![Promise::Durable, Promise::Order],
                what: "back".into()
            }
        );
        assert_eq!(
            trial_outcome(&[crashed].map(outcome)),
            TrialOutcome::Caught { seed: 9, seeds: 1, promises: vec![], what: "a panic".into() }
        );
    }
}

//! The files that describe a failure.

use std::{io::Write as _, path::Path};

use rmom_sim_lab::{
    diagram::{self, Picture},
    report::{self, Report},
};

use crate::{
    commit::{command, commit},
    error::Error,
    files,
};

/// Writes scenario, history, report and diagram of a run to a directory, named after its seed.
pub(crate) fn report(dir: &Path, report: &Report) -> Result<(), Error> {
    let seed = report.scenario.seed;
    let file = |extension: &str| dir.join(format!("seed-{seed}.{extension}"));
    files::write(&file("scenario"), |out| out.write_all(files::scenario_text(&report.scenario).as_bytes()))?;
    files::write_history(&file("jsonl"), &report.history)?;
    files::write(&file("txt"), |out| {
        for line in report::summary(&report.history, &report.violations) {
            writeln!(out, "{}  {:<12}  {}", line.at, line.host, line.text)?;
        }
        Ok(())
    })?;
    let picture = Picture {
        history: &report.history,
        scenario: Some(&report.scenario),
        verdict: Some(&report.verdict),
        violations: &report.violations,
        commit: commit(),
        replay: &command(&format!("replay --scenario seed-{seed}.scenario")),
    };
    files::write(&file("html"), |out| out.write_all(diagram::html(&picture).as_bytes()))
}

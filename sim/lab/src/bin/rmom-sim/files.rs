//! Histories and scenarios in files.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, BufWriter, Read as _, Write as _},
    path::Path,
};

use rmom_sim::history::{Record, read_jsonl, write_jsonl};
use rmom_sim_lab::scenario::Scenario;

use crate::error::Error;

/// Reads a history; `-` is standard input.
pub(crate) fn read_history(path: &Path) -> Result<Vec<Record>, Error> {
    read_jsonl(open(path)?).map_err(|error| Error::reading(path, error))
}

/// Writes a history as JSON lines.
pub(crate) fn write_history(path: &Path, history: &[Record]) -> Result<(), Error> {
    write(path, |out| write_jsonl(history, out))
}

/// Reads a scenario; `-` is standard input.
pub(crate) fn read_scenario(path: &Path) -> Result<Scenario, Error> {
    let mut text = String::new();
    open(path)?.read_to_string(&mut text).map_err(|error| Error::reading(path, error))?;
    serde_json::from_str(&text).map_err(|error| Error::reading(path, io::Error::other(format!("no scenario: {error}"))))
}

/// A scenario in its file format.
pub(crate) fn scenario_text(scenario: &Scenario) -> String {
    let json = serde_json::to_string_pretty(scenario);
    json.expect("a scenario has only string keys, and nothing in it fails to serialise") + "\n"
}

/// Writes a file through `fill`, and creates its parent directories.
pub(crate) fn write(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<(), Error> {
    let written = || {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut out = BufWriter::new(File::create(path)?);
        fill(&mut out)?;
        out.flush()
    };
    written().map_err(|error| Error::writing(path, error))
}

fn open(path: &Path) -> Result<Box<dyn BufRead>, Error> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    let file = File::open(path).map_err(|error| Error::reading(path, error))?;
    Ok(Box::new(BufReader::new(file)))
}

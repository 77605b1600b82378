//! The history of a run: the evidence for the checkers.
//!
//! A history is a list of [`Record`]s in the order of events. In a file, each record is a JSON object on a line of its own,
//! so that a checker in any language can read it. Its sources are independent of the brokers and managers under test:
//! clients on the application's side, observers that speak the raw wire protocol, and the simulated database, which reports
//! its commits. A broker's own view is not evidence.

mod event;
mod journal;
mod recorder;

pub use event::{Event, Phase, Pos, Record, StoredMessage, body_text};
pub use journal::Journal;
pub use recorder::Recorder;

use std::io::{self, BufRead, Write};

/// Writes a history as JSON lines.
///
/// # Errors
/// If `out` fails.
pub fn write_jsonl(records: &[Record], out: &mut impl Write) -> io::Result<()> {
    for record in records {
        serde_json::to_writer(&mut *out, record)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// Reads a history that [`write_jsonl`] wrote.
///
/// # Errors
/// If `input` fails, or a line is not a record.
pub fn read_jsonl(input: impl BufRead) -> io::Result<Vec<Record>> {
    input.lines().map(|line| Ok(serde_json::from_str(&line?)?)).collect()
}

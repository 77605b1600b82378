//! What happened in a run: the evidence that the checkers look at.
//!
//! A history is a list of [`Record`]s in the order in which things happened, one JSON object a line when written down, so
//! that a checker in any language can read it. It is written by those who stand outside of what is judged: by the clients
//! on the application's side, by observers that speak the raw wire protocol beside them, and by the simulated database,
//! which tells what it committed. What a broker believes is no evidence.

mod event;
mod recorder;

pub use event::{Event, Phase, Pos, Record, StoredMessage, told};
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

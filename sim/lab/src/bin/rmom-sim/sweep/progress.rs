//! The progress of a sweep: an overwritten line on a terminal, an occasional line elsewhere.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use super::tally::Tally;
use crate::output::{count, duration};

/// The interval of lines where they cannot be overwritten.
const PLAIN_EVERY: Duration = Duration::from_secs(10);
/// The assumed width of a terminal that does not report it.
const USUAL_COLUMNS: usize = 80;

/// Writes to standard error; failures are ignored.
pub(super) struct Progress {
    of: u64,
    kind: Kind,
}

enum Kind {
    /// One line, overwritten.
    Line,
    /// Separate lines, the last one after this much time.
    Plain(Duration),
    Silent,
}

impl Progress {
    pub(super) fn new(of: u64, silent: bool) -> Self {
        let kind = match (silent, io::stderr().is_terminal()) {
            (true, _) => Kind::Silent,
            (false, true) => Kind::Line,
            (false, false) => Kind::Plain(Duration::ZERO),
        };
        Self { of, kind }
    }

    pub(super) fn show(&mut self, tally: &Tally, elapsed: Duration) {
        let mut stderr = io::stderr().lock();
        match &mut self.kind {
            Kind::Silent => {}
            Kind::Line => {
                let line: String = line(tally, self.of, elapsed).chars().take(columns() - 1).collect();
                let _ = write!(stderr, "\r\x1b[K{line}").and_then(|()| stderr.flush());
            }
            Kind::Plain(last) => {
                if elapsed.saturating_sub(*last) >= PLAIN_EVERY {
                    *last = elapsed;
                    let _ = writeln!(stderr, "{}", line(tally, self.of, elapsed));
                }
            }
        }
    }

    /// Lets other text be written to standard error.
    pub(super) fn interrupt(&mut self, other: impl FnOnce()) {
        self.end();
        other();
    }

    /// Erases the line.
    pub(super) fn end(&mut self) {
        if matches!(self.kind, Kind::Line) {
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "\r\x1b[K").and_then(|()| stderr.flush());
        }
    }
}

fn line(tally: &Tally, of: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(0.001);
    let (reached, marks) = tally.marks_reached();
    let per_core = tally.per_minute_per_core().map_or_else(|| "–".to_owned(), |speed| format!("{speed:.0}"));
    let left = match tally.seeds {
        0 => String::new(),
        done => format!(", {} left", duration(elapsed.mul_f64((of - done.min(of)) as f64 / done as f64))),
    };
    format!(
        "{}/{} seeds, {} failed, {:.1} seeds/s, {per_core}/min/core, {} faults, {reached}/{marks} marks{left}",
        count(tally.seeds),
        count(of),
        count(tally.failed()),
        tally.seeds as f64 / seconds,
        count(tally.counts.faults),
    )
}

#[cfg(unix)]
fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stderr());
    size.map_or(USUAL_COLUMNS, |size| usize::from(size.ws_col)).max(2)
}

#[cfg(not(unix))]
fn columns() -> usize {
    USUAL_COLUMNS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_how_far_how_fast_and_how_bad() {
        let tally = Tally { seeds: 250, passed: 248, safety: 2, cpu_micros: 50_000_000, ..Tally::default() };
        let line = line(&tally, 1_000, Duration::from_secs(100));
        let marks = rmom_sim_lab::run::marks::all().count();
        let expected =
            format!("250/1,000 seeds, 2 failed, 2.5 seeds/s, 300/min/core, 0 faults, 0/{marks} marks, 5 min 0 s left");
        assert_eq!(line, expected);
    }
}

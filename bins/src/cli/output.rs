//! Standard output: lines, tables, and readable numbers.

use std::{
    io::{self, BufWriter, IsTerminal as _, StdoutLock, Write as _},
    time::Duration,
};

use super::error::CliError;

/// Standard output, buffered.
pub(super) struct Out(BufWriter<StdoutLock<'static>>);

impl Out {
    pub(super) fn new() -> Self {
        Self(BufWriter::with_capacity(64 << 10, io::stdout().lock()))
    }

    /// Writes bytes and a newline.
    pub(super) fn line(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), CliError> {
        self.0.write_all(bytes.as_ref())?;
        Ok(self.0.write_all(b"\n")?)
    }

    /// Writes bytes unchanged.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        Ok(self.0.write_all(bytes)?)
    }

    /// Writes rows in columns, below a header.
    pub(super) fn table<const N: usize>(&mut self, header: [&str; N], rows: &[[String; N]]) -> Result<(), CliError> {
        let width = |column: usize| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.chain([header[column].len()]).max().unwrap_or_default()
        };
        let widths: [usize; N] = std::array::from_fn(width);
        let line = |cells: [&str; N]| {
            let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.line(line(header))?;
        rows.iter().try_for_each(|row| self.line(line(std::array::from_fn(|column| row[column].as_str()))))
    }

    pub(super) fn flush(&mut self) -> Result<(), CliError> {
        Ok(self.0.flush()?)
    }
}

/// Writes a line to standard error; a failure to write is ignored.
pub(super) fn tell(line: impl std::fmt::Display) {
    let mut stderr = io::stderr().lock();
    // The progress of a push may be on this line; it is drawn again below.
    let clear = if stderr.is_terminal() { "\r\x1b[2K" } else { "" };
    let _ = writeln!(stderr, "{clear}{line}");
}

/// `1234567` as `1,234,567`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(|g| std::str::from_utf8(g).unwrap_or("")).collect();
    groups.join(",")
}

/// `1 message`, `2 messages`.
pub(super) fn plural(number: u64, what: &str) -> String {
    format!("{} {what}{}", count(number), if number == 1 { "" } else { "s" })
}

/// A size in the largest unit that gives at least one.
pub(super) fn bytes(number: u64) -> String {
    let mut shown = number as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if shown < 1024.0 {
            return if unit == "B" { format!("{number} B") } else { format!("{shown:.1} {unit}") };
        }
        shown /= 1024.0;
    }
    format!("{shown:.1} TiB")
}

/// `1.2 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 if duration.is_zero() => "0 s".to_owned(),
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([plural(1, "message"), plural(2_000, "message")], ["1 message", "2,000 messages"]);
        assert_eq!([0, 1_023, 1_536, 5 << 30, 3 << 40].map(bytes), ["0 B", "1023 B", "1.5 KiB", "5.0 GiB", "3.0 TiB"]);
        let shown = [0, 20, 1_250, 200_000, 7_500_000, 273_600_000].map(|ms| duration(Duration::from_millis(ms)));
        assert_eq!(shown, ["0 s", "20 ms", "1.2 s", "3 min 20 s", "2 h 5 min", "3 d 4 h"]);
    }
}

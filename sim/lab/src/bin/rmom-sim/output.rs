//! Standard output: lines, colours, and readable numbers.

use std::{
    fmt::{self, Display},
    io::{self, BufWriter, IsTerminal as _, StdoutLock, Write as _},
    time::Duration,
};

use crate::error::Error;

/// Standard output, buffered.
pub(crate) struct Out {
    lines: BufWriter<StdoutLock<'static>>,
    colours: bool,
}

impl Out {
    pub(crate) fn new() -> Self {
        let stdout = io::stdout().lock();
        let colours = stdout.is_terminal() && wants_colour();
        Self { lines: BufWriter::with_capacity(64 << 10, stdout), colours }
    }

    /// Writes a line.
    pub(crate) fn line(&mut self, line: impl Display) -> Result<(), Error> {
        Ok(writeln!(self.lines, "{line}")?)
    }

    /// A text in a colour, if the output has colours.
    pub(crate) fn paint<T: Display>(&self, colour: Colour, text: T) -> Painted<T> {
        Painted { colour: self.colours.then_some(colour), text }
    }

    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        Ok(self.lines.flush()?)
    }
}

/// See <https://no-color.org>.
fn wants_colour() -> bool {
    let unset = |name| std::env::var_os(name).is_none_or(|value| value.is_empty());
    unset("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// A colour of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    Red,
    Yellow,
    Green,
    Bold,
    Dim,
}

/// A text with or without a colour.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Painted<T> {
    colour: Option<Colour>,
    text: T,
}

impl<T: Display> Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = match self.colour {
            None => return self.text.fmt(f),
            Some(Colour::Red) => "1;31",
            Some(Colour::Yellow) => "33",
            Some(Colour::Green) => "32",
            Some(Colour::Bold) => "1",
            Some(Colour::Dim) => "2",
        };
        write!(f, "\x1b[{code}m")?;
        self.text.fmt(f)?;
        f.write_str("\x1b[0m")
    }
}

/// Writes a line to standard error; a failure is ignored.
pub(crate) fn eprint(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// `1234567` as `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `1 seed`, `2 seeds`.
pub(crate) fn plural(number: u64, what: &str) -> String {
    format!("{} {what}{}", count(number), if number == 1 { "" } else { "s" })
}

/// `1.2 s`, `3 min 20 s`, `2 h 5 min`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", count(seconds / 3_600), seconds % 3_600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([plural(1, "seed"), plural(2_000, "seed")], ["1 seed", "2,000 seeds"]);
        let shown = [0, 1_250, 200_000, 7_500_000].map(|ms| duration(Duration::from_millis(ms)));
        assert_eq!(shown, ["0.0 s", "1.2 s", "3 min 20 s", "2 h 5 min"]);
    }

    #[test]
    fn colours_are_left_out_when_nobody_wants_them() {
        assert_eq!(Painted { colour: None, text: "x" }.to_string(), "x");
        assert_eq!(Painted { colour: Some(Colour::Bold), text: "x" }.to_string(), "\x1b[1mx\x1b[0m");
    }
}

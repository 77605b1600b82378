//! A run as a picture: a space-time diagram in one HTML file that opens in any browser.

use crate::{check::Violation, history::Record, report::Verdict, scenario::Scenario};

/// What a diagram shows.
#[derive(Clone, Copy, Debug)]
pub struct Picture<'a> {
    /// The evidence.
    pub history: &'a [Record],
    /// What was run, if it is known: it tells which side of a cut a host was on.
    pub scenario: Option<&'a Scenario>,
    /// How it ended, if it was judged.
    pub verdict: Option<&'a Verdict>,
    /// Which promises were broken.
    pub violations: &'a [Violation],
    /// The commit of the build.
    pub commit: &'a str,
    /// The command that plays it again.
    pub replay: &'a str,
}

/// The whole file.
#[must_use]
pub fn html(_picture: &Picture<'_>) -> String {
    String::new()
}

//! A run as a picture: a space-time diagram in one HTML file that opens in any browser.
//!
//! Time runs to the right, and every host has a lane. `model` turns a history into lanes, bands, marks and arrows; `page`
//! puts them into a file, with the scripts that draw them and a summary as text for readers without scripts.

mod model;
mod page;

use rmom_sim::history::Record;

use crate::{check::Violation, report::Verdict, scenario::Scenario};

/// The contents of a diagram.
#[derive(Clone, Copy, Debug)]
pub struct Picture<'a> {
    /// The evidence.
    pub history: &'a [Record],
    /// The scenario, if it is known: it says which side of a cut a host was on.
    pub scenario: Option<&'a Scenario>,
    /// The verdict, if the run was checked.
    pub verdict: Option<&'a Verdict>,
    /// The broken promises.
    pub violations: &'a [Violation],
    /// The commit of the build.
    pub commit: &'a str,
    /// The command that replays the run.
    pub replay: &'a str,
}

/// The whole file. It needs no other file, and no network.
#[must_use]
pub fn html(picture: &Picture<'_>) -> String {
    page::page(picture)
}

//! Tests rmom in the simulated world of [`rmom_sim`].
//!
//! A seed becomes a scenario ([`scenario`]). A run ([`run`]) carries it out and records a history, in which checkers
//! ([`check`]) look for broken promises. The result is shown as text ([`report`]) and as a picture ([`diagram`]), and a
//! scenario that failed is made smaller ([`shrink`]). Planted bugs ([`bugs`]) show that the checkers notice mistakes. The
//! program `rmom-sim` does all of this from the command line.

pub mod bugs;
pub mod check;
pub mod diagram;
pub mod report;
pub mod run;
pub mod scenario;
pub mod shrink;

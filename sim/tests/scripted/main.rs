//! What went wrong elsewhere, and has to go right here: one test for each mistake of the system that rmom re-implements, and
//! for each that Jepsen and others found in other brokers.
//!
//! Each brings about the very situation: it waits until something has happened, and does something about it in that instant.
//! Where a workload of the simulation will do, all checkers judge the run (`support::play`). Each fails if it does not get
//! where it wants to.

mod applications;
mod findings;
mod original;
mod store_went_back;
mod support;

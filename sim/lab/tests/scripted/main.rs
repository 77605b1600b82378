//! Mistakes of other systems that rmom must not make: one test for each mistake of the system that rmom re-implements, and
//! for each that Jepsen and others found in other brokers.
//!
//! Each test forces the exact situation: it waits for an event, and acts in that instant. Where a workload of the simulation
//! is enough, all checkers check the run (`support::run`). A test fails if it does not reach its situation.

mod applications;
mod findings;
mod original;
mod store_rolled_back;
mod support;

//! Metrics in Prometheus' text format.
//!
//! Written by hand: the numbers live in the core, so there is nothing to register, only to print.

mod broker;
mod manager;
mod store;
mod text;

pub use broker::{MAX_LISTED_CHANNELS, MAX_LISTED_QUEUES, broker, per_object};
pub use manager::{manager, manager_metrics};
pub use store::{Lane, Wait};
pub use text::{Kind, TEXT_FORMAT, Text};

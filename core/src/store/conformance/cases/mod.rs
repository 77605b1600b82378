//! The scripted cases, by subject.

pub mod appends;
pub mod brokers;
pub mod channels;
pub mod claims;
pub mod deletion;
pub mod leadership;
pub mod queues;
pub mod reads;
pub mod trims;

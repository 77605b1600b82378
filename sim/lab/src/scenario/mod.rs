//! A run as data: its hosts, its workload and its faults.

mod actors;
mod extend;
mod generate;
mod model;
mod renumber;
#[cfg(feature = "proptest")]
mod strategy;
mod themes;

pub(crate) use actors::{IDLE, WATCH, runs_on};
pub use model::{
    Action, ConsumerKind, ConsumerPlan, Host, Limits, ProducerKind, ProducerPlan, Scenario, Step, Topology, Workload,
};
#[cfg(feature = "proptest")]
pub use strategy::strategy;

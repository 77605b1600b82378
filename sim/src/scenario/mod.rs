//! A run as data: its hosts, its workload and its faults.

mod extend;
mod generate;
mod model;
mod renumber;
#[cfg(feature = "proptest")]
mod strategy;
mod themes;

pub use model::{
    Action, ConsumerKind, ConsumerPlan, DatabaseFault, Host, Limits, ProducerKind, ProducerPlan, Scenario, Step,
    Topology, Workload,
};
#[cfg(feature = "proptest")]
pub use strategy::strategy;

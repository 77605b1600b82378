//! Actions with renumbered hosts and queues.

use super::{Action, Host};

impl Action {
    /// The same action with other hosts and queues, including the consumers that stall or leave. Hosts and queues without a
    /// new number are left out; if none is left, so is the action.
    pub(crate) fn renumbered(
        &self,
        host: impl Fn(Host) -> Option<Host>,
        queue: impl Fn(u8) -> Option<u8>,
    ) -> Option<Self> {
        let group = |hosts: &[Host]| {
            let left: Vec<Host> = hosts.iter().copied().filter_map(&host).collect();
            (!left.is_empty()).then_some(left)
        };
        let groups = |one: &[Host], other: &[Host]| group(one).zip(group(other));
        let consumer = |number: u8| match host(Host::Consumer(number)) {
            Some(Host::Consumer(number)) => Some(number),
            _ => None,
        };
        match self {
            Self::Crash(one) => host(*one).map(Self::Crash),
            Self::PowerLoss(one) => host(*one).map(Self::PowerLoss),
            Self::Lose(one) => host(*one).map(Self::Lose),
            Self::CutOff(one) => host(*one).map(Self::CutOff),
            Self::Freeze(one) => host(*one).map(Self::Freeze),
            Self::Drain(one) => host(*one).map(Self::Drain),
            Self::DrainForGood(one) => host(*one).map(Self::DrainForGood),
            Self::ClockJump { host: one, millis } => host(*one).map(|host| Self::ClockJump { host, millis: *millis }),
            Self::Cut { between, and } => groups(between, and).map(|(between, and)| Self::Cut { between, and }),
            Self::CutOneway { from, to } => groups(from, to).map(|(from, to)| Self::CutOneway { from, to }),
            Self::Hold { between, and } => groups(between, and).map(|(between, and)| Self::Hold { between, and }),
            Self::Slow { between, and, latency_millis } => {
                groups(between, and).map(|(between, and)| Self::Slow { between, and, latency_millis: *latency_millis })
            }
            Self::Database(fault) => Some(Self::Database(*fault)),
            Self::RecreateQueue(number) => queue(*number).map(Self::RecreateQueue),
            Self::ChurnChannels { queue: number, count } => {
                queue(*number).map(|queue| Self::ChurnChannels { queue, count: *count })
            }
            Self::StallConsumer(number) => consumer(*number).map(Self::StallConsumer),
            Self::LeaveConsumer(number) => consumer(*number).map(Self::LeaveConsumer),
            Self::DeleteChannel(number) => consumer(*number).map(Self::DeleteChannel),
            Self::Twin(one) => host(*one).map(Self::Twin),
        }
    }
}

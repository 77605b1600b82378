//! What befalls the world, in words.

use std::fmt;

use super::{Action, DatabaseFault, Host};

impl Action {
    /// The hosts that it befalls.
    pub fn hosts(&self) -> impl Iterator<Item = Host> + '_ {
        let (ones, others): (&[Host], &[Host]) = match self {
            Self::Crash(host) | Self::PowerLoss(host) | Self::Freeze(host) | Self::Drain(host) => {
                (std::slice::from_ref(host), &[])
            }
            Self::ClockJump { host, .. } => (std::slice::from_ref(host), &[]),
            Self::Cut { between, and } | Self::Hold { between, and } | Self::Slow { between, and, .. } => {
                (between, and)
            }
            Self::CutOneway { from, to } => (from, to),
            Self::Database(_) => (&[Host::Database], &[]),
            Self::RecreateQueue(_) | Self::ChurnChannels { .. } => (&[Host::Operator], &[]),
            Self::StallConsumer(_) | Self::LeaveConsumer(_) => (&[], &[]),
        };
        let consumer = match self {
            Self::StallConsumer(number) | Self::LeaveConsumer(number) => Some(Host::Consumer(*number)),
            _ => None,
        };
        ones.iter().chain(others).copied().chain(consumer)
    }
}

/// `broker-1, broker-2`
struct Group<'a>(&'a [Host]);

impl fmt::Display for Group<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, host) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{host}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crash(host) => write!(f, "{host} crashes"),
            Self::PowerLoss(host) => write!(f, "{host} loses its power"),
            Self::Cut { between, and } => write!(f, "{} and {} are cut apart", Group(between), Group(and)),
            Self::CutOneway { from, to } => write!(f, "nothing gets from {} to {}", Group(from), Group(to)),
            Self::Hold { between, and } => {
                write!(f, "what is sent between {} and {} is held", Group(between), Group(and))
            }
            Self::Slow { between, and, latency_millis } => {
                write!(f, "the link between {} and {} takes {latency_millis} ms", Group(between), Group(and))
            }
            Self::Freeze(host) => write!(f, "{host} stands still"),
            Self::ClockJump { host, millis } => write!(f, "the clock of {host} is set by {millis:+} ms"),
            Self::Database(fault) => fault.fmt(f),
            Self::Drain(host) => write!(f, "{host} is drained"),
            Self::RecreateQueue(queue) => write!(f, "queue {queue} is deleted, and created again in the end"),
            Self::ChurnChannels { queue, count } => {
                write!(f, "{count} channels are created on queue {queue}, and deleted in the end")
            }
            Self::StallConsumer(number) => write!(f, "consumer-{number} takes nothing, and keeps its stream"),
            Self::LeaveConsumer(number) => write!(f, "consumer-{number} leaves, and comes back in the end"),
        }
    }
}

impl fmt::Display for DatabaseFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slow { millis } => write!(f, "the database takes {millis} ms longer"),
            Self::Full => f.write_str("the database is full"),
            Self::Refuse => f.write_str("the database refuses connections"),
            Self::LoseReplies => f.write_str("the database loses its answers to writes"),
            Self::AbortWrites => f.write_str("the database aborts every other write"),
            Self::StallWrites => f.write_str("writes stand still in the database"),
        }
    }
}

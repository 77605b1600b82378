//! What the logic needs from outside, as traits; each has one implementation per world.
//!
//! - [`Catalog`] and [`Log`]: what is durable. The authority on everything. Logic holds them apart ([`Databases`]); a [`Store`]
//!   is both in one database.
//! - [`Transport`]: byte streams. TCP or TLS in production, turmoil's in simulation.
//! - [`BrokerControl`]: what a manager asks of a broker. A gRPC client in both worlds.
//! - [`Clock`] and [`Entropy`]: wall time and chance.
//!
//! None of these is called once per message, so the box that `async-trait` puts around each future costs nothing.

mod catalog;
mod control;
mod databases;
mod error;
mod log;
mod world;

pub use crate::frame::{BatchHeader, StoredBatch};
pub use catalog::{
    Assign, AssignError, Assigned, BrokerLife, BrokerRecord, BrokerState, Catalog, ChannelRecord, CreateChannel,
    CreateChannelError, CreateQueue, CreateQueueError, ForgetError, Leadership, QueueRecord, REQUEST_MEMORY, Register,
    RegisterError, Registration, RenewError, Renewal, check_assignments, check_lookup,
};
pub use control::{BrokerControl, ControlError, QueueActivity, QueueDescription, QueueState, SubscriberDescription};
pub use databases::{Databases, Store};
pub use error::StoreError;
pub use log::{
    AppendBatch, Appended, Claim, ClaimError, Claimed, Log, LogError, LogTail, MAX_CLOCK_AHEAD_MILLIS,
    MAX_NAMED_PRODUCERS, MAX_READ_SPAN, MAX_TRIM_SPAN, Opened, Page, Purged, Removed, Trim, Trimmed,
};
pub use world::{BoxIo, Clock, Entropy, Io, Listener, NeverSuspended, Transport, Uptime};

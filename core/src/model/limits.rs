//! All limits that are part of the contract with clients. Those that clients check beforehand are defined in
//! [`rmom_proto::contract`]. Limits that can be changed by a setting are in the settings.

pub use rmom_proto::contract::{
    MAX_NAME_BYTES,
    limits::{GRPC_DEFAULT_MAX_MESSAGE_BYTES, MAX_DELIVERY_TIMEOUT, MAX_HEADER_NAME_BYTES, MAX_HEADERS, MAX_TTL},
};

/// Default for the size of the largest encoded message, framing included. gRPC clients accept 4 MiB by default; 4 KiB less leave
/// a broker room for what it adds to a message that it delivers.
pub const DEFAULT_MAX_MESSAGE_BYTES: usize = GRPC_DEFAULT_MAX_MESSAGE_BYTES - 4_096;
/// Limit on the messages in one stored batch.
pub const MAX_BATCH_MESSAGES: usize = 8_192;
/// Limit on the frame bytes in one stored batch, unless a single message is larger.
pub const MAX_BATCH_BYTES: usize = 4_194_304;
/// Limit on the queues in one group append.
pub const MAX_GROUP_QUEUES: usize = 1_024;
/// Limit on the frame bytes in one group append, unless a single batch is larger.
pub const MAX_GROUP_BYTES: usize = 16_777_216;
/// Limit on the queues in a cluster.
pub const MAX_QUEUES: usize = 100_000;
/// Limit on the queues that one call of the store assigns.
pub const MAX_ASSIGNED_QUEUES: usize = 100;
/// Limit on the ids that one call of the store looks up.
pub const MAX_LOOKED_UP: usize = 1_000;
/// Limit on the queues whose states a broker reports at once: twice a page of a list, as some may have been created since it
/// was read.
pub const MAX_QUEUE_STATES: usize = 2_000;
/// Limit on the channels of one queue.
pub const MAX_CHANNELS_PER_QUEUE: usize = 100_000;

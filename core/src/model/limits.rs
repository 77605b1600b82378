//! All limits that are part of the contract with clients. Limits that can be changed by a setting are in the settings.

use std::time::Duration;

/// Longest label or topic, in bytes after folding.
pub const MAX_NAME_BYTES: usize = 255;
/// Default for the size of the largest encoded message, framing included. gRPC clients accept 4 MiB by default; 4 KiB less leave
/// a broker room for what it adds to a message that it delivers.
pub const DEFAULT_MAX_MESSAGE_BYTES: usize = 4_194_304 - 4_096;
/// Limit on the headers of one message.
pub const MAX_HEADERS: usize = 64;
/// Longest header name in bytes.
pub const MAX_HEADER_NAME_BYTES: usize = 255;
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
/// Longest lifetime of a message: a hundred years, so that no sum of times overflows.
pub const MAX_TTL: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// The longest time for which a client goes on retrying a push; producers are remembered for longer than that.
pub const MAX_DELIVERY_TIMEOUT: Duration = Duration::from_secs(600);

//! Limits that servers enforce and clients check beforehand.

use std::time::Duration;

/// The largest message that gRPC clients accept by default, framing included. Clients of rmom push and accept messages up to
/// this size unless they are told otherwise.
pub const GRPC_DEFAULT_MAX_MESSAGE_BYTES: usize = 4_194_304;
/// Limit on the headers of one message.
pub const MAX_HEADERS: usize = 64;
/// Longest header name in bytes.
pub const MAX_HEADER_NAME_BYTES: usize = 255;
/// Longest name of a producer in bytes. Only its id is sent.
pub const MAX_PRODUCER_NAME_BYTES: usize = 255;
/// Longest lifetime of a message: a hundred years, so that no sum of times overflows.
pub const MAX_TTL: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// The longest time for which a client goes on retrying a push; producers are remembered for longer than that.
pub const MAX_DELIVERY_TIMEOUT: Duration = Duration::from_secs(600);

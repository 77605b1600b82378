//! The contract between servers and clients beside the messages: codes, limits, rules for names, message ids, header names.
//! Servers and the Rust client use these definitions; a test compares the Python client with them.

mod code;
mod id;
pub mod limits;
mod name;

pub use code::Code;
pub use id::{MessageIds, producer_id};
pub use name::{MAX_NAME_BYTES, NO_TOPIC, NameFault, check_label, check_topic};

/// The domain of rmom's codes in the `google.rpc.ErrorInfo` of a gRPC status.
pub const ERROR_DOMAIN: &str = "rmom";

/// The header `retry-after` of every REST problem document with status 503: seconds after which a client should try again.
pub const RETRY_AFTER_SECS: &str = "1";

/// Bytes in front of each gRPC message: a compression flag (0 for none) and the length, big-endian.
pub const FRAME_PREFIX_BYTES: usize = 5;

/// Response header of a subscription with the id of the channel's queue, for positions.
pub const QUEUE_ID_HEADER: &str = "rmom-queue-id";
/// Response header of a subscription with the epoch under which it is served, for positions.
pub const EPOCH_HEADER: &str = "rmom-epoch";

/// The authority of a URL, `host:port`. An IPv6 address gets brackets unless it has them.
#[must_use]
pub fn authority(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_hosts_get_brackets() {
        assert_eq!(authority("::1", 5), "[::1]:5");
        assert_eq!(authority("[::1]", 5), "[::1]:5");
        assert_eq!(authority("b1", 5), "b1:5");
    }
}

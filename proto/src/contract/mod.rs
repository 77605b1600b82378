//! The contract between servers and clients beside the messages: codes, limits, rules for names, message ids, header names.
//! Servers and the Rust client use these definitions; a test compares the Python client with them.

mod code;

pub use code::Code;

/// The domain of rmom's codes in the `google.rpc.ErrorInfo` of a gRPC status.
pub const ERROR_DOMAIN: &str = "rmom";

/// The header `retry-after` of every REST answer with status 503: seconds after which a client should try again.
pub const RETRY_AFTER_SECS: &str = "1";

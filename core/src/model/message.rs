//! Messages as clients push them.

use std::time::Duration;

use bytes::Bytes;

use super::Topic;

/// A header of a message, defined by the application and passed through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its name, up to [`MAX_HEADER_NAME_BYTES`](super::limits::MAX_HEADER_NAME_BYTES).
    pub name: String,
    /// Its value; it counts towards the message's size.
    pub value: Bytes,
}

/// A message as pushed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewMessage {
    /// The payload.
    pub content: Bytes,
    /// Its topic.
    pub topic: Topic,
    /// At most [`MAX_HEADERS`](super::limits::MAX_HEADERS).
    pub headers: Vec<Header>,
    /// Lifetime. `None` means the broker's default.
    pub ttl: Option<Duration>,
}

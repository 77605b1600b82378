//! Messages, as pushed and as delivered.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use rmom_proto::{
    contract::{
        FRAME_PREFIX_BYTES,
        limits::{MAX_HEADER_NAME_BYTES, MAX_HEADERS, MAX_TTL},
    },
    messages as wire,
};
use uuid::Uuid;

use crate::{Error, names::check_topic};

/// The least that delivery adds to a pushed message: its id, its offset, gRPC's prefix.
const DELIVERY_OVERHEAD: usize = 38 + 2 + FRAME_PREFIX_BYTES;

/// A message for pushing.
///
/// ```
/// # use std::time::Duration;
/// use rmom_client::NewMessage;
///
/// let message = NewMessage::new("rain in Bergen").topic("weather").header("lang", "en").ttl(Duration::from_secs(60));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewMessage(pub(crate) wire::PushMessage);

impl NewMessage {
    /// A message with this content, without a topic, and with the broker's default lifetime.
    #[must_use]
    pub fn new(content: impl Into<Bytes>) -> Self {
        Self(wire::PushMessage { content: content.into(), ..wire::PushMessage::default() })
    }

    /// Sets the topic (case-insensitive). Channels with a topic receive only messages with the same topic.
    #[must_use]
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.0.topic = topic.into();
        self
    }

    /// Adds a header, which is passed on to the receivers. At most [`MAX_HEADERS`].
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.0.headers.push(wire::Header { name: name.into(), value: value.into() });
        self
    }

    /// Sets how long it lives once it is stored: at least a millisecond, at most [`MAX_TTL`].
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        // A value out of range stays out of range, for `check` to find.
        self.0.ttl_millis = u64::try_from(ttl.as_millis()).ok().filter(|&millis| millis > 0).unwrap_or(u64::MAX);
        self
    }

    /// Refuses messages that every broker would refuse, and returns the message's size as it travels.
    pub(crate) fn check(&self, max_message_bytes: usize) -> Result<usize, Error> {
        let message = &self.0;
        check_topic(&message.topic)?;
        let invalid = |field, reason| Err(Error::InvalidArgument { field, reason });
        if message.headers.len() > MAX_HEADERS {
            return invalid("headers", format!("there are {}; the limit is {MAX_HEADERS}", message.headers.len()));
        }
        if let Some(header) = message.headers.iter().find(|h| !(1..=MAX_HEADER_NAME_BYTES).contains(&h.name.len())) {
            let bytes = header.name.len();
            return invalid("headers", format!("a name has {bytes} bytes; it takes 1 to {MAX_HEADER_NAME_BYTES}"));
        }
        if u128::from(message.ttl_millis) > MAX_TTL.as_millis() {
            return invalid("ttl", format!("it takes 1 to {} milliseconds", MAX_TTL.as_millis()));
        }
        let bytes = message.encoded_len();
        if bytes + DELIVERY_OVERHEAD > max_message_bytes {
            return Err(Error::MessageTooLarge { bytes: bytes + DELIVERY_OVERHEAD, limit: max_message_bytes });
        }
        Ok(bytes)
    }
}

macro_rules! from_content {
    ($($type:ty),*) => {$(
        impl From<$type> for NewMessage {
            fn from(content: $type) -> Self {
                Self::new(content)
            }
        }
    )*};
}

from_content!(Bytes, Vec<u8>, String, &'static str, &'static [u8]);

/// A header of a message, defined by the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Bytes,
}

/// A message as delivered to a consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The same for every copy of one push.
    pub id: Uuid,
    /// Its position in the queue: 1, 2, 3 …; a consumer sees them strictly increasing.
    pub offset: u64,
    /// The payload.
    pub content: Bytes,
    /// Its topic, in lower case.
    pub topic: Option<String>,
    /// The headers that the application added when pushing.
    pub headers: Vec<Header>,
    /// Its lifetime, which is the broker's default if the push had none. `None` means for ever.
    pub ttl: Option<Duration>,
}

impl Message {
    /// The value of the first header with this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&Bytes> {
        self.headers.iter().find(|header| header.name == name).map(|header| &header.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_broker_takes_is_refused_with_the_field_and_the_limit() {
        let refusal = |message: NewMessage| message.check(1_000).unwrap_err().to_string();
        assert_eq!(NewMessage::new("x").topic("t").header("h", "v").ttl(MAX_TTL).check(1_000).unwrap(), 3 + 3 + 8 + 7);
        assert_eq!(
            refusal(NewMessage::new(vec![0; 1_000])),
            "the message takes at least 1048 bytes as it is delivered; the limit is 1000"
        );
        assert!(refusal(NewMessage::new("x").topic("a\nb")).starts_with("topic has a character"));
        assert_eq!(refusal(NewMessage::new("x").header("", "v")), "headers: a name has 0 bytes; it takes 1 to 255");
        let many = (0..65).fold(NewMessage::new("x"), |message, _| message.header("h", "v"));
        assert_eq!(refusal(many), "headers: there are 65; the limit is 64");
        for ttl in [Duration::ZERO, Duration::from_micros(999), MAX_TTL + Duration::from_millis(1), Duration::MAX] {
            assert_eq!(refusal(NewMessage::new("x").ttl(ttl)), "ttl: it takes 1 to 3153600000000 milliseconds");
        }
    }
}

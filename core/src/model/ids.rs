//! Identifiers. Each has a type of its own, so that they cannot be mixed up.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{ProducerEpoch, Sequence, counters::counter};

/// A value from outside that is not a valid id or counter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not a UUID.
    #[error("{field} is not a UUID: {found:?}")]
    NotAUuid {
        /// The name of the field, as clients know it.
        field: &'static str,
        /// The value, cut to 64 characters.
        found: String,
    },
    /// A field for 16 bytes has another length.
    #[error("{field} has {bytes} bytes; it takes 16")]
    Not16Bytes {
        /// The name of the field, as clients know it.
        field: &'static str,
        /// Its length in bytes.
        bytes: usize,
    },
    /// A number does not fit a signed 64-bit column, as counters have to.
    #[error("{field} is {found}; the limit is {}", i64::MAX)]
    TooLarge {
        /// The name of the field, as clients know it.
        field: &'static str,
        /// The number.
        found: u64,
    },
}

counter! {
    /// A queue's id, given by the store and never used again.
    QueueId, "queue_id"
}
counter! {
    /// A broker's id, given by the store to its host and port.
    BrokerId, "broker_id"
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID.
            #[must_use]
            pub const fn new(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// Reads the usual forms of a UUID.
            ///
            /// # Errors
            /// [`IdError::NotAUuid`].
            pub fn parse(raw: &str) -> Result<Self, IdError> {
                Uuid::parse_str(raw).map(Self).map_err(|_| IdError::NotAUuid {
                    field: $field,
                    found: raw.chars().take(64).collect(),
                })
            }

            /// Reads the 16 bytes of a UUID.
            ///
            /// # Errors
            /// [`IdError::Not16Bytes`].
            pub fn from_slice(raw: &[u8]) -> Result<Self, IdError> {
                Uuid::from_slice(raw)
                    .map(Self)
                    .map_err(|_| IdError::Not16Bytes { field: $field, bytes: raw.len() })
            }

            /// The UUID.
            #[must_use]
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

uuid_id! {
    /// A channel's id.
    ChannelId, "channel_id"
}
uuid_id! {
    /// One run of a broker process.
    Incarnation, "incarnation"
}
uuid_id! {
    /// One run of a manager process.
    ManagerId, "manager_id"
}
uuid_id! {
    /// Names one attempt to claim a queue, so that an attempt of unknown outcome can be repeated safely.
    ClaimId, "claim_id"
}
uuid_id! {
    /// A producer's id: random per process, or derived from a name.
    ProducerId, "producer_id"
}
uuid_id! {
    /// A message's id: a function of its producer and sequence, so that every copy of a push has the same id.
    MessageId, "message_id"
}

/// A producer in one of its epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerKey {
    /// The producer.
    pub id: ProducerId,
    /// Its epoch; a later one fences the earlier ones.
    pub epoch: ProducerEpoch,
}

impl ProducerKey {
    /// The id of the message that this producer pushes to `queue` as `sequence`.
    ///
    /// Version 8 of RFC 9562: the upper 60 free bits are a SHA-1 of producer and queue, the lower 62 the sequence, so
    /// ids of one producer and queue never collide.
    #[must_use]
    pub fn message_id(self, queue: QueueId, sequence: Sequence) -> MessageId {
        self.message_ids(queue).at(sequence)
    }

    /// Like [`ProducerKey::message_id`], but hashes once for many sequences.
    #[must_use]
    pub fn message_ids(self, queue: QueueId) -> MessageIds {
        let mut name = [0; 8];
        name.copy_from_slice(&queue.get().to_be_bytes());
        // The epoch is left out: a named producer continues counting where its predecessor stopped.
        let hash = Uuid::new_v5(&self.id.uuid(), &name);
        MessageIds { high: hash.as_u64_pair().0 }
    }
}

/// The message ids of one producer in one queue.
#[derive(Clone, Copy, Debug)]
pub struct MessageIds {
    high: u64,
}

impl MessageIds {
    /// The id at a sequence.
    #[must_use]
    pub fn at(self, sequence: Sequence) -> MessageId {
        let high = (self.high & !0xF000) | 0x8000;
        let low = (sequence.get() & (u64::MAX >> 2)) | (0b10 << 62);
        MessageId::new(Uuid::from_u64_pair(high, low))
    }
}

/// The address at which clients and managers reach a broker: the original's `external_host` and `external_port`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BrokerAddr {
    /// A host name or an IP address.
    pub host: String,
    /// A TCP port.
    pub port: u16,
}

impl BrokerAddr {
    /// The address as the authority of a URL: IPv6 addresses in brackets.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for BrokerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_ids_are_stable_distinct_and_valid() {
        let producer = ProducerKey { id: ProducerId::new(Uuid::from_u128(7)), epoch: ProducerEpoch::new(3) };
        let id = |queue, sequence| producer.message_id(QueueId::new(queue), Sequence::new(sequence));
        assert_eq!(id(1, 1), id(1, 1));
        assert_eq!(
            ProducerKey { epoch: ProducerEpoch::new(4), ..producer }.message_id(QueueId::new(1), Sequence::new(1)),
            id(1, 1)
        );
        let all = [id(1, 1), id(1, 2), id(2, 1), id(1, 1 << 40)];
        for (i, a) in all.iter().enumerate() {
            assert_eq!(a.uuid().get_version_num(), 8);
            assert_eq!(a.uuid().get_variant(), uuid::Variant::RFC4122);
            assert!(all[i + 1..].iter().all(|b| a != b));
        }
    }

    #[test]
    fn malformed_uuids_name_the_field() {
        let error = ChannelId::parse("nonsense").unwrap_err();
        assert_eq!(error.to_string(), "channel_id is not a UUID: \"nonsense\"");
    }

    #[test]
    fn ipv6_hosts_get_brackets() {
        assert_eq!(BrokerAddr { host: "::1".into(), port: 5 }.authority(), "[::1]:5");
    }
}

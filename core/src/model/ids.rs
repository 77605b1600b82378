//! Identifiers. Each has a type of its own, so that they cannot be mixed up.

use std::fmt;

use rmom_proto::contract;
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
    #[must_use]
    pub fn message_id(self, queue: QueueId, sequence: Sequence) -> MessageId {
        self.message_ids(queue).at(sequence)
    }

    /// Like [`ProducerKey::message_id`], but hashes once for many sequences.
    #[must_use]
    pub fn message_ids(self, queue: QueueId) -> MessageIds {
        MessageIds(contract::MessageIds::new(self.id.uuid(), queue.get()))
    }
}

/// The message ids of one producer in one queue.
#[derive(Clone, Copy, Debug)]
pub struct MessageIds(contract::MessageIds);

impl MessageIds {
    /// The id at a sequence.
    #[must_use]
    pub const fn at(self, sequence: Sequence) -> MessageId {
        MessageId::new(self.0.at(sequence.get()))
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
        contract::authority(&self.host, self.port)
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
    fn a_message_id_does_not_depend_on_the_epoch() {
        let id = |epoch| {
            let producer = ProducerKey { id: ProducerId::new(Uuid::from_u128(7)), epoch };
            producer.message_id(QueueId::new(1), Sequence::new(1)).to_string()
        };
        assert_eq!(id(ProducerEpoch::ZERO), "6b85be3e-5935-85c6-8000-000000000001");
        assert_eq!(id(ProducerEpoch::new(4)), id(ProducerEpoch::ZERO));
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

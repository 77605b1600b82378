//! Stable codes of all refusals, and what a client does about each. `docs/protocol.md` has the table for authors of clients; tests
//! compare the table, and the Python client, with this file.

use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// The reason of a refusal, as a code that programs can rely on. It is in the details of a gRPC status
        /// (`ErrorInfo.reason`, domain `rmom`) and in the field `code` of a REST problem. Codes are added, but never changed
        /// or removed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The code as written on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Reads the text that [`Code::as_str`] returns.
            #[must_use]
            pub fn from_wire(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$name),)* _ => None }
            }
        }
    };
}

codes! {
    /// A label or topic is empty, too long, not printable or reserved.
    InvalidName = "INVALID_NAME",
    /// An id, offset, sequence or other field is malformed or contradicts another.
    InvalidArgument = "INVALID_ARGUMENT",
    /// A message is larger than the limit.
    MessageTooLarge = "MESSAGE_TOO_LARGE",
    /// No such queue.
    QueueNotFound = "QUEUE_NOT_FOUND",
    /// A queue with this label exists.
    QueueExists = "QUEUE_EXISTS",
    /// The queue with the client's id was deleted; the label may name a new queue.
    QueueReplaced = "QUEUE_REPLACED",
    /// No such channel.
    ChannelNotFound = "CHANNEL_NOT_FOUND",
    /// A named limit on the number of queues or channels is reached.
    LimitReached = "LIMIT_REACHED",
    /// The queue has reached its limit on recent producers, or on named ones.
    TooManyProducers = "TOO_MANY_PRODUCERS",
    /// Another broker hosts the queue (`host` and `port` are in the details), or none does yet.
    NotHosted = "NOT_HOSTED",
    /// This broker was replaced as the queue's owner.
    Fenced = "FENCED",
    /// This broker's lease ran out: it is cut off from the store, or was paused.
    LeaseExpired = "LEASE_EXPIRED",
    /// A producer skipped sequences; `expected` is in the details.
    SequenceGap = "SEQUENCE_GAP",
    /// A later epoch of this named producer exists.
    ProducerFenced = "PRODUCER_FENCED",
    /// The offset is beyond the end of the queue.
    OffsetOutOfRange = "OFFSET_OUT_OF_RANGE",
    /// The store made no change: it could not be reached, or rolled back. Try again.
    StoreUnavailable = "STORE_UNAVAILABLE",
    /// The store has no room, or is read-only.
    StoreRefused = "STORE_REFUSED",
    /// It is not known whether the store made the change. A retry with the same producer and sequence is safe.
    OutcomeUnknown = "OUTCOME_UNKNOWN",
    /// The store holds less than it had confirmed: an older copy was restored, or data was lost.
    StoreRolledBack = "STORE_ROLLED_BACK",
    /// Stored data cannot be read: damaged, or written by a later version.
    StoreCorrupt = "STORE_CORRUPT",
    /// No live broker can host the queue.
    NoBroker = "NO_BROKER",
    /// No such broker.
    BrokerNotFound = "BROKER_NOT_FOUND",
    /// The broker is alive, or has queues: it cannot be forgotten.
    BrokerInUse = "BROKER_IN_USE",
    /// The cluster is in a state that has to pass first; try again later.
    Unsettled = "UNSETTLED",
    /// The process is stopping.
    ShuttingDown = "SHUTTING_DOWN",
    /// A buffer limit is reached; try again later.
    Overloaded = "OVERLOADED",
    /// The server has too many connections, or too many from this address. This connection is closed; try again later on a
    /// new one.
    TooManyConnections = "TOO_MANY_CONNECTIONS",
    /// The deadline passed before there was an answer.
    DeadlineExceeded = "DEADLINE_EXCEEDED",
    /// A defect of rmom.
    Internal = "INTERNAL",
}

impl Code {
    /// True if the same request may succeed later, here or at another broker, with nothing changed: clients retry. A code that
    /// a client does not know is final.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::NotHosted
                | Self::Fenced
                | Self::LeaseExpired
                | Self::SequenceGap
                | Self::StoreUnavailable
                | Self::StoreRefused
                | Self::OutcomeUnknown
                | Self::NoBroker
                | Self::Unsettled
                | Self::ShuttingDown
                | Self::Overloaded
                | Self::TooManyConnections
                | Self::DeadlineExceeded
        )
    }

    /// True if the request may have been carried out nevertheless, or may still be. All other codes are definite, for the
    /// attempt that they answer.
    #[must_use]
    pub const fn outcome_unknown(self) -> bool {
        // When a deadline passes at the server, work begun there may go on.
        matches!(self, Self::OutcomeUnknown | Self::DeadlineExceeded)
    }

    /// True if a broker refused a message because of its own properties, before it stored any part of it: a producer fails
    /// the message and goes on with others.
    #[must_use]
    pub const fn blames_a_message(self) -> bool {
        matches!(self, Self::MessageTooLarge | Self::InvalidName | Self::InvalidArgument)
    }

    /// True if it ends a consumer, because no later subscription at the same position can succeed.
    #[must_use]
    pub const fn ends_a_subscription(self) -> bool {
        matches!(
            self,
            Self::ChannelNotFound
                | Self::QueueNotFound
                | Self::QueueReplaced
                | Self::OffsetOutOfRange
                | Self::StoreRolledBack
                | Self::MessageTooLarge
                | Self::InvalidName
                | Self::InvalidArgument
        )
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_read_back() {
        for &code in Code::ALL {
            assert_eq!(Code::from_wire(code.as_str()), Some(code));
        }
        assert_eq!(Code::from_wire("nonsense"), None);
    }

    #[test]
    fn retries_never_repeat_what_cannot_succeed() {
        for &code in Code::ALL {
            let is_final = code.blames_a_message() || code.ends_a_subscription();
            assert!(!(is_final && code.is_retryable()), "{code}");
            assert!(code.is_retryable() || !code.outcome_unknown(), "{code}");
        }
    }
}

//! The client's errors, and their remedies. `docs/protocol.md` has the table of codes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rmom_proto::contract::{Code, ERROR_DOMAIN, authority};
use tonic_types::StatusExt as _;

/// The reason why a call failed. Clones are cheap, so one failure can be handed to many waiters.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting of the client, producer or consumer is invalid.
    #[error("{setting}: {reason}")]
    Config {
        /// The setting.
        setting: &'static str,
        /// The fault, and the expected value.
        reason: String,
    },
    /// A label, topic or producer name that every broker would refuse. Nothing was sent.
    #[error("{field} {reason}")]
    InvalidName {
        /// The field.
        field: &'static str,
        /// The fault, and the limit.
        reason: String,
    },
    /// A field of a message that every broker would refuse. Nothing was sent.
    #[error("{field}: {reason}")]
    InvalidArgument {
        /// The field.
        field: &'static str,
        /// The fault, and the limit.
        reason: String,
    },
    /// The message is larger than `max_message_bytes`. Nothing was sent.
    #[error("the message takes at least {bytes} bytes as it is delivered; the limit is {limit}")]
    MessageTooLarge {
        /// The least number of bytes that the message takes.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A broker or a manager refused, with one of rmom's codes.
    #[error("{by} refused: {message} ({code})")]
    Refused {
        /// Its `host:port`.
        by: String,
        /// The stable code, such as `QUEUE_NOT_FOUND`.
        code: String,
        /// Its message.
        message: String,
        /// Facts for programs, such as `host` and `port`, or `expected`.
        details: BTreeMap<String, String>,
    },
    /// A gRPC call failed without one of rmom's codes; usually because a connection broke.
    #[error("the call to {authority} failed: {message} ({status:?})")]
    Call {
        /// The `host:port` called.
        authority: String,
        /// The gRPC code.
        status: tonic::Code,
        /// The message of the library or the server.
        message: String,
    },
    /// There was no connection, or it broke before the answer.
    #[error("cannot reach {authority}: {reason}")]
    Unreachable {
        /// The `host:port`.
        authority: String,
        /// The transport's message.
        reason: String,
        /// True if the request may have been read and carried out.
        sent: bool,
    },
    /// There was no answer in time.
    #[error("{what} took longer than {after:?}")]
    DeadlineExceeded {
        /// The awaited event.
        what: String,
        /// The time allowed for it.
        after: Duration,
        /// True if the request may have been read and carried out.
        sent: bool,
    },
    /// The other end broke the protocol: it is not rmom, an incompatible version, or has a defect.
    #[error("{authority} broke the protocol: {reason}")]
    Protocol {
        /// Its `host:port`.
        authority: String,
        /// The violation.
        reason: String,
    },
    /// A message was given up.
    #[error("the message was not delivered{}: {reason}", if *.outcome_unknown { ", as far as is known" } else { "" })]
    NotDelivered {
        /// The reason.
        reason: Arc<Error>,
        /// True if it may have been stored nevertheless, or may still be.
        outcome_unknown: bool,
    },
    /// The delivery timeout passed.
    #[error("no acknowledgement within {after:?}{}", .last.as_ref().map_or_else(String::new, |e| format!("; the last failure: {e}")))]
    DeliveryTimeout {
        /// The timeout.
        after: Duration,
        /// The failure that was being retried, if any.
        last: Option<Arc<Error>>,
    },
    /// A consumer could not reconnect in the time allowed.
    #[error("gave up after {after:?}; the last failure: {last}")]
    GaveUp {
        /// The time allowed.
        after: Duration,
        /// The failure that was being retried.
        last: Arc<Error>,
    },
    /// A named producer gave up a message without knowing its outcome, and stopped, so that the sequence is not used for
    /// another message.
    #[error("the named producer stopped: the outcome of sequence {sequence} is unknown")]
    Poisoned {
        /// The lowest sequence whose outcome is unknown.
        sequence: u64,
    },
    /// The producer was closed.
    #[error("the producer is closed")]
    Closed,
}

impl Error {
    /// A stable code for programs: rmom's own if a broker or manager gave one, a similar one for failures on this side, and
    /// otherwise the gRPC code.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Config { .. } => "INVALID_CONFIG",
            Self::InvalidName { .. } => Code::InvalidName.as_str(),
            Self::InvalidArgument { .. } => Code::InvalidArgument.as_str(),
            Self::MessageTooLarge { .. } => Code::MessageTooLarge.as_str(),
            Self::Refused { code, .. } => code,
            Self::Call { status, .. } => grpc_code(*status),
            Self::Unreachable { .. } => "UNREACHABLE",
            Self::DeadlineExceeded { .. } => Code::DeadlineExceeded.as_str(),
            Self::Protocol { .. } => "PROTOCOL_VIOLATION",
            Self::NotDelivered { reason, .. } => reason.code(),
            Self::DeliveryTimeout { .. } => "DELIVERY_TIMEOUT",
            Self::GaveUp { .. } => "GAVE_UP",
            Self::Poisoned { .. } => "PRODUCER_POISONED",
            Self::Closed => "CLOSED",
        }
    }

    /// True if the same request may succeed later with nothing changed. Producers and consumers have already retried when
    /// they return an error.
    ///
    /// If [`Error::outcome_unknown`] is also true for a push, pushing the message again may store it twice.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused { .. } => self.refused_with(Code::is_retryable),
            Self::Call { status, .. } => retryable_status(*status),
            Self::Unreachable { .. }
            | Self::DeadlineExceeded { .. }
            | Self::DeliveryTimeout { .. }
            | Self::GaveUp { .. }
            // A failing server can send anything; the next one may be sound.
            | Self::Protocol { .. } => true,
            Self::NotDelivered { reason, .. } => reason.is_retryable(),
            Self::Config { .. }
            | Self::InvalidName { .. }
            | Self::InvalidArgument { .. }
            | Self::MessageTooLarge { .. }
            | Self::Poisoned { .. }
            | Self::Closed => false,
        }
    }

    /// True if the request may have been carried out nevertheless, or may still be.
    #[must_use]
    pub fn outcome_unknown(&self) -> bool {
        match self {
            Self::NotDelivered { outcome_unknown, .. } => *outcome_unknown,
            Self::Unreachable { sent, .. } | Self::DeadlineExceeded { sent, .. } => *sent,
            Self::Refused { .. } => self.refused_with(Code::outcome_unknown),
            Self::Call { status, .. } => retryable_status(*status),
            Self::Protocol { .. } | Self::Poisoned { .. } => true,
            _ => false,
        }
    }

    /// The remedy, in a sentence.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        if let Self::NotDelivered { reason, outcome_unknown: false } = self {
            return reason.hint();
        }
        let later = "try again later; the dashboard or the broker's log says what is down";
        let Some(code) = Code::from_wire(self.code()) else {
            return match self.code() {
                "INVALID_CONFIG" => "correct the named field",
                "PRODUCER_POISONED" => "open the named producer again; it learns what was stored, so go on from there",
                "UNREACHABLE" => "check the address, and that something listens there",
                "DELIVERY_TIMEOUT" => MAY_BE_STORED,
                "PROTOCOL_VIOLATION" | "UNIMPLEMENTED" => "check that the address is rmom's, and the versions match",
                "UNAUTHENTICATED" | "PERMISSION_DENIED" => "check the credentials",
                "CLOSED" => "open a new producer",
                _ if self.is_retryable() => later,
                _ => "see the message",
            };
        };
        match code {
            Code::InvalidName | Code::InvalidArgument => "correct the named field",
            Code::MessageTooLarge => "send less, or raise max_message_bytes of brokers and clients",
            Code::QueueNotFound => "create the queue, or look for a typing error in its label",
            Code::QueueExists => "use the queue that exists, or choose another label",
            Code::QueueReplaced => "the queue was deleted; start anew with the one that has its label now",
            Code::ChannelNotFound => "create a new channel: this one was deleted, or its queue was",
            Code::LimitReached => "delete what is not used any more",
            Code::TooManyProducers => "use one producer for many pushes, instead of a new one for each",
            Code::ProducerFenced => "another producer of the same name took over; run one at a time",
            Code::OffsetOutOfRange | Code::StoreRolledBack => {
                "an older copy of the store was restored, or the position is from elsewhere; see the operators' page"
            }
            Code::StoreCorrupt => "look at the broker's log and the operators' page",
            Code::NoBroker => "start a broker, or look why none is live (rmom broker list)",
            Code::OutcomeUnknown => MAY_BE_STORED,
            Code::Internal => "this is a defect of rmom; please report it with the broker's log",
            Code::BrokerNotFound | Code::BrokerInUse => "see the message",
            Code::NotHosted
            | Code::Fenced
            | Code::LeaseExpired
            | Code::SequenceGap
            | Code::StoreUnavailable
            | Code::StoreRefused
            | Code::Unsettled
            | Code::ShuttingDown
            | Code::Overloaded
            | Code::TooManyConnections
            | Code::DeadlineExceeded => later,
        }
    }

    /// True if a server refused with one of the codes that this version knows, and `is` says so of the code. A code that this
    /// version does not know is final and definite.
    fn refused_with(&self, is: fn(Code) -> bool) -> bool {
        matches!(self, Self::Refused { code, .. } if Code::from_wire(code).is_some_and(is))
    }

    /// Reads a gRPC status from `authority`.
    pub(crate) fn from_status(authority: &str, status: &tonic::Status) -> Self {
        match status.get_details_error_info() {
            Some(info) if info.domain == ERROR_DOMAIN => Self::Refused {
                by: authority.to_owned(),
                code: info.reason,
                message: status.message().to_owned(),
                details: info.metadata.into_iter().collect(),
            },
            _ => Self::Call { authority: authority.to_owned(), status: status.code(), message: describe(status) },
        }
    }

    /// The address at which the queue is, according to the broker that refused.
    pub(crate) fn hosted_at(&self) -> Option<String> {
        let Self::Refused { code, details, .. } = self else { return None };
        if code != Code::NotHosted.as_str() {
            return None;
        }
        let port = details.get("port")?.parse().ok().filter(|&port| port != 0)?;
        Some(authority(details.get("host").filter(|host| !host.is_empty())?, port))
    }

    /// True if a broker refused because of a message's own properties, before it stored any part of it.
    pub(crate) fn blames_a_message(&self) -> bool {
        match self {
            Self::Refused { .. } => self.refused_with(Code::blames_a_message),
            // tonic's own limit on decoding, which has none of rmom's codes.
            Self::Call { status, .. } => matches!(status, tonic::Code::OutOfRange | tonic::Code::InvalidArgument),
            _ => false,
        }
    }

    /// True if a broker has no room for another unknown producer. It has stored nothing of this one.
    pub(crate) fn admits_no_producer(&self) -> bool {
        self.refused_with(|code| code == Code::TooManyProducers)
    }

    /// True if retrying cannot help a consumer.
    pub(crate) fn ends_a_subscription(&self) -> bool {
        match self {
            Self::Refused { .. } => self.refused_with(Code::ends_a_subscription),
            Self::Call { status, .. } => matches!(
                status,
                tonic::Code::Unimplemented
                    | tonic::Code::Unauthenticated
                    | tonic::Code::PermissionDenied
                    | tonic::Code::InvalidArgument
            ),
            Self::Config { .. } | Self::GaveUp { .. } => true,
            _ => false,
        }
    }
}

/// The remedy after an outcome that is not known.
const MAY_BE_STORED: &str =
    "the message may be stored; pushing it again may store it twice, unless the receivers drop duplicates";

/// The status and its causes, because tonic's own text is often just "transport error".
fn describe(status: &tonic::Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

/// The statuses that broken connections are reported as.
fn retryable_status(status: tonic::Code) -> bool {
    use tonic::Code;
    matches!(
        status,
        Code::Unavailable
            | Code::Unknown
            | Code::Internal
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
    )
}

fn grpc_code(status: tonic::Code) -> &'static str {
    use tonic::Code;
    match status {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        // "INTERNAL" is rmom's own code for its defects, and a broken connection must not look like one.
        Code::Internal => "TRANSPORT",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

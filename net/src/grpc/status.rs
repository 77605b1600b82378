//! Errors as gRPC statuses, and back.
//!
//! Each of our statuses carries a `google.rpc.ErrorInfo`: the reason is the stable code, the domain is [`ERROR_DOMAIN`], and the
//! metadata are facts for programs. The gRPC code is for clients that know nothing of rmom, and for generic retry policies.

use std::{borrow::Cow, collections::BTreeMap};

use prost::Message as _;
use rmom_core::model::{Code, Coded};
use rmom_proto::contract::ERROR_DOMAIN;
use tonic::Status;

const ERROR_INFO_URL: &str = "type.googleapis.com/google.rpc.ErrorInfo";

/// `google.rpc.Status`. These messages are spelled out here because the generated ones keep metadata in a map whose order
/// differs from run to run.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.ErrorInfo`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ErrorInfo {
    /// A stable code, as returned by [`Code::as_str`].
    #[prost(string, tag = "1")]
    pub reason: String,
    /// The domain that defines the code.
    #[prost(string, tag = "2")]
    pub domain: String,
    /// Facts for programs, such as `host` and `port`.
    #[prost(btree_map = "string, string", tag = "3")]
    pub metadata: BTreeMap<String, String>,
}

/// The gRPC code of a stable code.
#[must_use]
pub const fn grpc_code(code: Code) -> tonic::Code {
    match code {
        // Not "resource exhausted": repeating a request that is too large never succeeds.
        Code::InvalidName | Code::InvalidArgument | Code::MessageTooLarge => tonic::Code::InvalidArgument,
        Code::QueueNotFound | Code::ChannelNotFound | Code::BrokerNotFound => tonic::Code::NotFound,
        Code::QueueExists => tonic::Code::AlreadyExists,
        Code::QueueReplaced | Code::ProducerFenced | Code::BrokerInUse => tonic::Code::FailedPrecondition,
        Code::LimitReached | Code::TooManyProducers | Code::Overloaded | Code::StoreRefused => {
            tonic::Code::ResourceExhausted
        }
        // Generic retry policies understand this code. A queue that is being moved may be here a moment later; a client that
        // reads the details asks the manager, or goes to `host` and `port`.
        Code::NotHosted
        | Code::Fenced
        | Code::LeaseExpired
        | Code::StoreUnavailable
        | Code::NoBroker
        | Code::Unsettled
        | Code::TooManyConnections
        | Code::ShuttingDown => tonic::Code::Unavailable,
        Code::SequenceGap => tonic::Code::Aborted,
        Code::OffsetOutOfRange => tonic::Code::OutOfRange,
        Code::OutcomeUnknown => tonic::Code::Unknown,
        Code::StoreRolledBack | Code::StoreCorrupt => tonic::Code::DataLoss,
        Code::DeadlineExceeded => tonic::Code::DeadlineExceeded,
        Code::Internal => tonic::Code::Internal,
    }
}

/// An error as a client sees it.
pub fn to_status(error: &impl Coded) -> Status {
    status(error.code(), error.to_string(), error.details())
}

/// A status from its parts.
pub(crate) fn status(code: Code, message: String, details: Vec<(&'static str, Cow<'static, str>)>) -> Status {
    let info = ErrorInfo {
        reason: code.as_str().to_owned(),
        domain: ERROR_DOMAIN.to_owned(),
        metadata: details.into_iter().map(|(name, value)| (name.to_owned(), value.into_owned())).collect(),
    };
    let rpc = RpcStatus {
        code: grpc_code(code) as i32,
        message: message.clone(),
        details: vec![Any { type_url: ERROR_INFO_URL.to_owned(), value: info.encode_to_vec() }],
    };
    Status::with_details(grpc_code(code), message, rpc.encode_to_vec().into())
}

/// Our `ErrorInfo` in a status, if it has one.
#[must_use]
pub fn error_info(status: &Status) -> Option<ErrorInfo> {
    let rpc = RpcStatus::decode(status.details()).ok()?;
    rpc.details
        .iter()
        .filter(|any| any.type_url == ERROR_INFO_URL)
        .filter_map(|any| ErrorInfo::decode(any.value.as_slice()).ok())
        .find(|info| info.domain == ERROR_DOMAIN)
}

/// The stable code in a status, if an rmom process made it.
#[must_use]
pub fn stable_code(status: &Status) -> Option<Code> {
    Code::from_wire(&error_info(status)?.reason)
}

#[cfg(test)]
mod tests {
    use rmom_core::{
        broker::BrokerError,
        model::{BrokerAddr, Sequence},
    };
    use tonic_types::StatusExt as _;

    use super::*;

    #[test]
    fn every_code_reads_back() {
        for &code in Code::ALL {
            let status = status(code, "why".into(), Vec::new());
            assert_eq!(stable_code(&status), Some(code));
            assert_eq!(status.code(), grpc_code(code));
            assert_ne!(status.code(), tonic::Code::Ok);
            assert_eq!(status.message(), "why");
        }
        assert_eq!(stable_code(&Status::unavailable("somebody else's")), None);
    }

    #[test]
    fn what_may_be_retried_never_looks_final() {
        use tonic::Code::{AlreadyExists, DataLoss, FailedPrecondition, InvalidArgument, NotFound, OutOfRange};
        for &code in Code::ALL {
            let is_final = [AlreadyExists, DataLoss, FailedPrecondition, InvalidArgument, NotFound, OutOfRange]
                .contains(&grpc_code(code));
            assert!(!(is_final && code.is_retryable()), "{code}");
        }
    }

    #[test]
    fn others_can_read_the_details() {
        let error = BrokerError::NotHosted { assignee: Some(BrokerAddr { host: "b2".into(), port: 50051 }) };
        let status = to_status(&error);
        assert_eq!(status.message(), "the queue is hosted by b2:50051, not here");
        let info = status.get_details_error_info().expect("tonic-types understands it");
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("NOT_HOSTED", "rmom"));
        assert_eq!(info.metadata["host"], "b2");
        assert_eq!(info.metadata["port"], "50051");
        assert_eq!(error_info(&status).unwrap().metadata.len(), 2);

        let gap = BrokerError::SequenceGap { expected: Sequence::new(4), found: Sequence::new(9) };
        assert_eq!(error_info(&to_status(&gap)).unwrap().metadata["expected"], "4");
    }

    #[test]
    fn foreign_details_are_left_alone() {
        let foreign = tonic_types::ErrorDetails::with_error_info("FENCED", "another.org", []);
        let status = Status::with_error_details(tonic::Code::Aborted, "no", foreign);
        assert_eq!(stable_code(&status), None);
        let garbage = Status::with_details(tonic::Code::Aborted, "no", vec![0xFF; 9].into());
        assert_eq!(stable_code(&garbage), None);
    }
}

//! Errors that clients of the REST API get.

use std::{borrow::Cow, sync::Arc, time::Duration};

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, Method, StatusCode, header};
use rmom_core::{
    manager::ManagerError,
    model::{Code, Coded, IdError, NameError},
};
use rmom_proto::contract::RETRY_AFTER_SECS;
use serde_json::{Map, Value};

/// Why a request was refused.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum RestError {
    /// A reason given by the manager.
    #[error(transparent)]
    Manager(#[from] ManagerError),
    /// A label or topic is wrong.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A malformed id in the path.
    #[error(transparent)]
    Id(#[from] IdError),
    /// The path is not percent-encoded text.
    #[error("path: {reason} at byte {at}; labels and topics have to be percent-encoded UTF-8")]
    Path {
        /// The fault.
        reason: &'static str,
        /// The position in bytes from the start of the path.
        at: usize,
    },
    /// A field of the body is wrong.
    #[error("{field}: {reason}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// The fault, and the expected value.
        reason: String,
    },
    /// The body is not the expected JSON.
    #[error("body: {0}")]
    Json(String),
    /// The body could not be read to its end.
    #[error("body: it could not be read: {0}")]
    Body(String),
    /// The body is of the wrong type.
    #[error("content-type: it has to be application/json, not {}", .0.as_deref().unwrap_or("absent"))]
    ContentType(Option<String>),
    /// The body is too large.
    #[error("body: it is larger than {0} bytes, which is the limit")]
    BodyTooLarge(usize),
    /// No such route.
    #[error("there is no such route; GET /v1/openapi.json lists all")]
    NoSuchRoute,
    /// The route takes other methods only.
    #[error("the route does not take {0}; the header Allow lists what it takes")]
    MethodNotAllowed(Method),
    /// The request's deadline passed.
    #[error("the request was not finished within {0:?}")]
    DeadlineExceeded(Duration),
    /// A handler panicked.
    #[error("a defect of rmom; the manager's log has more")]
    Panicked,
}

impl RestError {
    /// The stable code: one of the model's, or one that only HTTP has.
    fn code(&self) -> &'static str {
        match self {
            Self::Manager(error) => error.code().as_str(),
            Self::Name(_) => Code::InvalidName.as_str(),
            Self::Id(_) | Self::Path { .. } | Self::Field { .. } | Self::Json(_) | Self::Body(_) => {
                Code::InvalidArgument.as_str()
            }
            Self::ContentType(_) => "UNSUPPORTED_MEDIA_TYPE",
            Self::BodyTooLarge(_) => "BODY_TOO_LARGE",
            Self::NoSuchRoute => "NO_SUCH_ROUTE",
            Self::MethodNotAllowed(_) => "METHOD_NOT_ALLOWED",
            Self::DeadlineExceeded(_) => Code::DeadlineExceeded.as_str(),
            Self::Panicked => Code::Internal.as_str(),
        }
    }

    /// The status under `/v1/`.
    fn status(&self) -> StatusCode {
        match self {
            Self::Manager(error) => status_of(error.code()),
            Self::Name(_) | Self::Id(_) | Self::Path { .. } | Self::Field { .. } | Self::Json(_) | Self::Body(_) => {
                StatusCode::BAD_REQUEST
            }
            Self::ContentType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NoSuchRoute => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::DeadlineExceeded(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The status on the original's routes: its clients know 400 where HTTP has more precise codes, and its framework
    /// answered a malformed UUID with 422.
    fn original_status(&self) -> StatusCode {
        match self {
            Self::Id(_) => StatusCode::UNPROCESSABLE_ENTITY,
            _ => match self.status() {
                StatusCode::CONFLICT => StatusCode::BAD_REQUEST,
                status => status,
            },
        }
    }

    /// The error as a problem document.
    pub(super) fn as_problem(&self) -> Response {
        let mut response = self.render(self.status());
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }

    /// The same document for the original's clients.
    pub(super) fn as_original(&self) -> Response {
        self.render(self.original_status())
    }

    fn render(&self, status: StatusCode) -> Response {
        let details: Vec<(&str, Cow<'_, str>)> = match self {
            Self::Manager(error) => error.details(),
            Self::BodyTooLarge(limit) => vec![("limit", limit.to_string().into())],
            _ => Vec::new(),
        };
        let mut document: Map<String, Value> =
            details.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        let title = status.canonical_reason().unwrap_or("Error");
        let members: [(&str, Value); 5] = [
            // With this type, the title is the status in words, and the code identifies the problem.
            ("type", "about:blank".into()),
            ("title", title.into()),
            ("status", status.as_u16().into()),
            ("detail", self.to_string().into()),
            ("code", self.code().into()),
        ];
        document.extend(members.map(|(name, value)| (name.to_owned(), value)));
        let mut response = (status, Json(document)).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECS));
        }
        response
    }
}

/// The status of a code under `/v1/`.
pub(super) fn status_of(code: Code) -> StatusCode {
    match code {
        Code::InvalidName | Code::InvalidArgument | Code::OffsetOutOfRange => StatusCode::BAD_REQUEST,
        Code::QueueNotFound | Code::ChannelNotFound | Code::BrokerNotFound => StatusCode::NOT_FOUND,
        Code::QueueExists
        | Code::QueueReplaced
        | Code::LimitReached
        | Code::TooManyProducers
        | Code::SequenceGap
        | Code::ProducerFenced
        | Code::BrokerInUse
        | Code::Fenced => StatusCode::CONFLICT,
        Code::MessageTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::NotHosted
        | Code::NoBroker
        | Code::Unsettled
        | Code::LeaseExpired
        | Code::StoreUnavailable
        | Code::StoreRefused
        | Code::OutcomeUnknown
        | Code::ShuttingDown
        | Code::TooManyConnections
        | Code::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::StoreRolledBack | Code::StoreCorrupt | Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for RestError {
    /// Leaves rendering to the guard, which knows the form in which the route answers.
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

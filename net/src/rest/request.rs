//! Reading requests: paths and bodies.

use axum::{
    body::to_bytes,
    extract::{FromRequest, Query, Request},
};
use http::{Uri, header};
use percent_encoding::percent_decode_str;
use rmom_core::model::{BrokerId, IdError, Offset, Start};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{Api, error::RestError};

/// Refuses a path that is not percent-encoded UTF-8. After this check the router's decoding cannot fail, nor accept a
/// malformed escape as text.
pub(super) fn check_encoding(path: &str) -> Result<(), RestError> {
    let bytes = path.as_bytes();
    for (at, _) in path.match_indices('%') {
        if !bytes.get(at + 1..at + 3).is_some_and(|escape| escape.iter().all(u8::is_ascii_hexdigit)) {
            return Err(RestError::Path { reason: "% is not followed by two hexadecimal digits", at });
        }
    }
    let mut start = 0;
    for segment in path.split('/') {
        if percent_decode_str(segment).decode_utf8().is_err() {
            return Err(RestError::Path { reason: "invalid UTF-8 in the segment", at: start });
        }
        start += segment.len() + 1;
    }
    Ok(())
}

/// A broker's id as a segment of a path.
pub(super) fn broker_id(raw: &str) -> Result<BrokerId, RestError> {
    let number = raw.parse().map_err(|_| RestError::Field {
        field: "broker_id",
        reason: format!("it has to be a number, not {:?}", raw.chars().take(64).collect::<String>()),
    })?;
    Ok(BrokerId::parse(number)?)
}

/// Limit on the entries of a page, and the number that a caller gets by default.
const MAX_PAGE: u32 = 1_000;

/// The requested part of a list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listing {
    /// The part begins after this entry.
    pub(super) after: Option<String>,
    limit: Option<String>,
}

/// The requested part of the list of queues, and whether to ask the brokers about them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QueueListing {
    /// The part begins after this entry.
    pub(super) after: Option<String>,
    limit: Option<String>,
    live: Option<String>,
}

impl QueueListing {
    /// The requested limit on the entries.
    pub(super) fn limit(&self) -> Result<u32, RestError> {
        limit(self.limit.as_deref())
    }

    /// True if the brokers have to be asked.
    pub(super) fn live(&self) -> Result<bool, RestError> {
        match self.live.as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(raw) => {
                let shown: String = raw.chars().take(64).collect();
                Err(RestError::Field { field: "live", reason: format!("it has to be true or false, not {shown:?}") })
            }
        }
    }
}

impl Listing {
    /// The requested limit on the entries.
    pub(super) fn limit(&self) -> Result<u32, RestError> {
        limit(self.limit.as_deref())
    }
}

fn limit(raw: Option<&str>) -> Result<u32, RestError> {
    let Some(raw) = raw else { return Ok(MAX_PAGE) };
    raw.parse().ok().filter(|limit| (1..=MAX_PAGE).contains(limit)).ok_or_else(|| RestError::Field {
        field: "limit",
        reason: format!(
            "it has to be a number from 1 to {MAX_PAGE}, not {:?}",
            raw.chars().take(64).collect::<String>()
        ),
    })
}

/// The query, which follows the question mark.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, RestError> {
    let query = Query::try_from_uri(uri);
    query.map(|Query(query)| query).map_err(|error| RestError::Field { field: "query", reason: error.body_text() })
}

/// A body of JSON.
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Api> for JsonBody<T> {
    type Rejection = RestError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, RestError> {
        let limit = api.settings.max_body_bytes;
        check_content_type(&request)?;
        let bytes = to_bytes(request.into_body(), limit).await.map_err(|error| {
            let cause = error.into_inner();
            if cause.is::<http_body_util::LengthLimitError>() {
                RestError::BodyTooLarge(limit)
            } else {
                RestError::Body(cause.to_string())
            }
        })?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| RestError::Json(error.to_string()))
    }
}

fn check_content_type(request: &Request) -> Result<(), RestError> {
    let found = request.headers().get(header::CONTENT_TYPE);
    let text = found.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let essence = text.as_deref().unwrap_or("").split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        return Ok(());
    }
    Err(RestError::ContentType(text.map(|text| text.chars().take(128).collect())))
}

/// A field of a body that has to be text.
pub(super) fn text<'a>(field: &'static str, value: &'a Value) -> Result<&'a str, RestError> {
    value
        .as_str()
        .ok_or_else(|| RestError::Field { field, reason: format!("it has to be a string, not {}", kind(value)) })
}

/// The field `start` of a body.
pub(super) fn start(value: &Value) -> Result<Start, RestError> {
    let malformed = || RestError::Field {
        field: "start",
        reason: "it has to be \"earliest\", \"latest\" or an offset (1, 2, 3 …)".to_owned(),
    };
    match value {
        Value::Null => Ok(Start::default()),
        Value::String(word) if word == "earliest" => Ok(Start::Earliest),
        Value::String(word) if word == "latest" => Ok(Start::Latest),
        Value::Number(number) => {
            let offset = number.as_u64().filter(|offset| *offset > 0).ok_or_else(malformed)?;
            Offset::parse(offset)
                .map(Start::At)
                .map_err(|error: IdError| RestError::Field { field: "start", reason: error.to_string() })
        }
        _ => Err(malformed()),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_percent_encoded_utf8() {
        for path in ["/queues/a%20b", "/queues/%C3%A4", "/queues/a%2Fb", "/"] {
            assert!(check_encoding(path).is_ok(), "{path}");
        }
        for (path, expected) in [
            ("/queues/%zz", "path: % is not followed by two hexadecimal digits at byte 8"),
            ("/queues/a%", "path: % is not followed by two hexadecimal digits at byte 9"),
            ("/queues/a%4", "path: % is not followed by two hexadecimal digits at byte 9"),
            ("/queues/%ff", "path: invalid UTF-8 in the segment at byte 8"),
            // The two halves of a letter do not join across a slash.
            ("/queues/%C3/%A4", "path: invalid UTF-8 in the segment at byte 8"),
        ] {
            let message = check_encoding(path).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
    }
}

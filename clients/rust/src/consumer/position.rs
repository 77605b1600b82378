//! A consumer's position.

use std::{fmt, str::FromStr};

use rmom_proto::messages as wire;
use serde::{Deserialize, Serialize};

/// The position of the last message that a consumer received, from which another can continue. Store it with the result of
/// processing the message, in the same transaction if possible: then every message is processed exactly once.
///
/// It can be written in any format of serde, or as text:
///
/// ```
/// use rmom_client::Position;
///
/// let position: Position = "7:3:1042".parse()?;
/// assert_eq!(position, Position { queue_id: 7, epoch: 3, offset: 1042 });
/// assert_eq!(position.to_string(), "7:3:1042");
/// # Ok::<(), rmom_client::ParsePositionError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The queue's id. A later queue with the same label has another id.
    pub queue_id: u64,
    /// How often the queue had been activated when the message was delivered. A store with a smaller number has been rolled
    /// back.
    pub epoch: u64,
    /// The message's offset.
    pub offset: u64,
}

/// The text is not a [`Position`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no position; it has to look like QUEUE_ID:EPOCH:OFFSET, three numbers")]
pub struct ParsePositionError(String);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.queue_id, self.epoch, self.offset)
    }
}

impl FromStr for Position {
    type Err = ParsePositionError;

    fn from_str(text: &str) -> Result<Self, ParsePositionError> {
        let refuse = || ParsePositionError(text.chars().take(64).collect());
        let mut parts = text.split(':').map(|part| match part.as_bytes() {
            [b'0'..=b'9', ..] => part.parse().map_err(|_| refuse()),
            _ => Err(refuse()),
        });
        let mut part = || parts.next().ok_or_else(refuse)?;
        let position = Self { queue_id: part()?, epoch: part()?, offset: part()? };
        if parts.next().is_some() { Err(refuse()) } else { Ok(position) }
    }
}

impl From<Position> for wire::Position {
    fn from(position: Position) -> Self {
        Self { queue_id: position.queue_id, epoch: position.epoch, offset: position.offset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_survive_being_written_down() {
        let position = Position { queue_id: 7, epoch: 3, offset: u64::MAX };
        assert_eq!(position.to_string().parse(), Ok(position));
        let json = serde_json::to_string(&position).unwrap();
        assert_eq!(json, r#"{"queue_id":7,"epoch":3,"offset":18446744073709551615}"#);
        assert_eq!(serde_json::from_str::<Position>(&json).unwrap(), position);
        for bad in ["", "1:2", "1:2:3:4", "1:2:x", "1:2:-3", "1:2:+3", "1:2:18446744073709551616", " 1:2:3"] {
            assert!(bad.parse::<Position>().is_err(), "{bad:?}");
        }
    }
}

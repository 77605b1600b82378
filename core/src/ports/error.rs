//! How a store fails.

use crate::frame::FrameError;

/// Why a store did not answer as asked. It tells a definite failure from an unknown outcome, because the two need
/// different care: the first may simply be tried again, the second may already have happened.
///
/// Reads never answer [`StoreError::Unknown`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Nothing was done: the store could not be reached, was too busy, or rolled back.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// The write may have happened, may happen yet, or may never: the answer was lost.
    #[error("the outcome is not known: {0}")]
    Unknown(String),
    /// Nothing was done, and trying again will not help until somebody acts: no room, read-only, no permission.
    #[error("the store refused: {0}")]
    Refused(String),
    /// What is stored cannot be read: it is damaged.
    #[error("the store's content cannot be read: {0}")]
    Corrupt(String),
}

impl StoreError {
    /// True if the write may have happened.
    #[must_use]
    pub const fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }

    /// The code a client is told.
    #[must_use]
    pub const fn code(&self) -> crate::model::Code {
        use crate::model::Code;
        match self {
            Self::Unavailable(_) => Code::StoreUnavailable,
            Self::Unknown(_) => Code::OutcomeUnknown,
            Self::Refused(_) => Code::StoreRefused,
            Self::Corrupt(_) => Code::StoreCorrupt,
        }
    }
}

impl From<FrameError> for StoreError {
    /// What a newer version stored is whole. It can be read once this binary was upgraded.
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Newer { .. } => Self::Unavailable(error.to_string()),
            _ => Self::Corrupt(error.to_string()),
        }
    }
}

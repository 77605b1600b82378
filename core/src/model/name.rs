//! Queue labels and topics: case-insensitive names, folded once.

use std::{fmt, sync::Arc};

pub use rmom_proto::contract::NO_TOPIC;
use rmom_proto::contract::{NameFault, check_label, check_topic};

/// The reason why a label or topic is refused. The texts name the field, so that they can be shown to a user unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {fault}")]
pub struct NameError {
    /// The name of the field, as clients know it.
    pub field: &'static str,
    /// Its fault.
    pub fault: NameFault,
}

/// Lower-casing is not full case folding: "ΑΣ" and "ασ" are two names, since a final sigma has a lower case of its own.
fn fold(name: &str) -> Arc<str> {
    name.to_lowercase().into()
}

/// The unique, case-insensitive name of a queue: 1 to [`MAX_NAME_BYTES`](super::limits::MAX_NAME_BYTES) bytes of printable text, in lower case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueLabel(Arc<str>);

impl QueueLabel {
    /// Folds and checks a label as written by a client.
    ///
    /// # Errors
    /// [`NameError`]; the field is called `queue_label`.
    pub fn parse(raw: &str) -> Result<Self, NameError> {
        check_label(raw).map_err(|fault| NameError { field: "queue_label", fault })?;
        Ok(Self(fold(raw)))
    }

    /// The folded label.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for QueueLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for QueueLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// The topic of a message or channel: none, or up to [`MAX_NAME_BYTES`](super::limits::MAX_NAME_BYTES) bytes of printable text, in lower case.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Option<Arc<str>>);

impl Topic {
    /// The absence of a topic.
    pub const NONE: Self = Self(None);

    /// Folds and checks a topic as written by a client. Empty and `__none__` (in any case) are [`Topic::NONE`].
    ///
    /// # Errors
    /// [`NameError`]; the field is called `topic`.
    pub fn parse(raw: &str) -> Result<Self, NameError> {
        if raw.is_empty() {
            return Ok(Self::NONE);
        }
        check_topic(raw).map_err(|fault| NameError { field: "topic", fault })?;
        Ok(if raw.eq_ignore_ascii_case(NO_TOPIC) { Self::NONE } else { Self(Some(fold(raw))) })
    }

    /// The folded topic, if there is one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// The original's spelling: [`NO_TOPIC`] if there is no topic.
    #[must_use]
    pub fn as_wire(&self) -> &str {
        self.name().unwrap_or(NO_TOPIC)
    }

    /// True if a channel with this topic receives a message with that one. A channel without a topic receives all messages.
    #[must_use]
    pub fn accepts(&self, message: &Self) -> bool {
        self.0.is_none() || self == message
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_wire())
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_wire())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lower-casing, not full case folding: names that Unicode equates only after folding are different names. This is the
    /// original's rule, and the rule for every stored name; another rule would make two queues of one, or one of two.
    #[test]
    fn names_are_lower_cased_and_no_more() {
        let label = |raw: &str| QueueLabel::parse(raw).unwrap();
        assert_eq!(label("ÄΣΑ"), label("äσα"));
        // A sigma at the end of a word has a lower case of its own.
        assert_eq!(label("ΑΣ"), label("ας"));
        assert_ne!(label("ΑΣ"), label("ασ"));
        assert_ne!(label("STRASSE"), label("straße"));
        // Folding twice changes nothing: a label that is read back stays the same.
        for raw in ["ΑΣ", "İ", "ẞ", "ǅ", "Ω"] {
            assert_eq!(label(label(raw).as_str()), label(raw));
        }
    }

    #[test]
    fn labels_are_folded() {
        assert_eq!(QueueLabel::parse("News-Queue").unwrap().as_str(), "news-queue");
        assert_eq!(QueueLabel::parse("ÉTÉ a").unwrap().as_str(), "été a");
    }

    #[test]
    fn bad_names_name_field_and_limit() {
        assert_eq!(QueueLabel::parse("").unwrap_err().to_string(), "queue_label is empty; give it 1 to 255 bytes");
        let long = Topic::parse(&"x".repeat(256)).unwrap_err().to_string();
        assert_eq!(long, "topic has 256 bytes after lower-casing; the limit is 255");
    }

    #[test]
    fn no_topic_has_two_spellings() {
        for raw in ["", "__none__", "__NoNe__"] {
            assert_eq!(Topic::parse(raw), Ok(Topic::NONE));
        }
        assert_eq!(Topic::NONE.as_wire(), "__none__");
    }

    #[test]
    fn a_channel_without_topic_accepts_all() {
        let (a, b) = (Topic::parse("A").unwrap(), Topic::parse("b").unwrap());
        assert!(Topic::NONE.accepts(&a) && Topic::NONE.accepts(&Topic::NONE));
        assert!(a.accepts(&Topic::parse("a").unwrap()));
        assert!(!a.accepts(&b) && !a.accepts(&Topic::NONE));
    }
}

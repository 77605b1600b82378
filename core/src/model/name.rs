//! Queue labels and topics: case-insensitive names, folded once.

use std::{fmt, sync::Arc};

use super::limits::MAX_NAME_BYTES;

/// The spelling of "no topic" on the wire; the empty string means the same.
pub const NO_TOPIC: &str = "__none__";

/// The reason why a label or topic is refused. The texts name the field, so that they can be shown to a user unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A label needs at least one character.
    #[error("{field} is empty; give it 1 to {MAX_NAME_BYTES} bytes")]
    Empty {
        /// The name of the field, as clients know it.
        field: &'static str,
    },
    /// Longer than [`MAX_NAME_BYTES`] after folding.
    #[error("{field} has {bytes} bytes after lower-casing; the limit is {MAX_NAME_BYTES}")]
    TooLong {
        /// The name of the field, as clients know it.
        field: &'static str,
        /// Its length in bytes after folding.
        bytes: usize,
    },
    /// Control characters, line separators, or white space at either end.
    #[error("{field} has a character that cannot be printed, or white space at an end: {found:?} at byte {at}")]
    NotPrintable {
        /// The name of the field, as clients know it.
        field: &'static str,
        /// The first such character.
        found: char,
        /// Its position in bytes from the start.
        at: usize,
    },
    /// `__none__` means "no topic" and cannot be a label.
    #[error("{field} is the reserved word {NO_TOPIC:?}; choose another")]
    Reserved {
        /// The name of the field, as clients know it.
        field: &'static str,
    },
}

fn fold(field: &'static str, raw: &str) -> Result<Arc<str>, NameError> {
    let unprintable = raw.char_indices().find(|&(at, c)| {
        let at_an_end = at == 0 || at + c.len_utf8() == raw.len();
        c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') || (at_an_end && c.is_whitespace())
    });
    if let Some((at, found)) = unprintable {
        return Err(NameError::NotPrintable { field, found, at });
    }
    // Lower-casing is not full case folding: "ΑΣ" and "ασ" are two names, since a final sigma has a lower case of its own.
    // Lower-casing can lengthen a name ("İ" becomes three bytes), so the limit applies to the stored form.
    let folded = raw.to_lowercase();
    if folded.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong { field, bytes: folded.len() });
    }
    Ok(folded.into())
}

/// The unique, case-insensitive name of a queue: 1 to [`MAX_NAME_BYTES`] bytes of printable text, in lower case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueLabel(Arc<str>);

impl QueueLabel {
    /// Folds and checks a label as written by a client.
    ///
    /// # Errors
    /// [`NameError`]; the field is called `queue_label`.
    pub fn parse(raw: &str) -> Result<Self, NameError> {
        let field = "queue_label";
        if raw.is_empty() {
            return Err(NameError::Empty { field });
        }
        let folded = fold(field, raw)?;
        if &*folded == NO_TOPIC {
            return Err(NameError::Reserved { field });
        }
        Ok(Self(folded))
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

/// The topic of a message or channel: none, or up to [`MAX_NAME_BYTES`] bytes of printable text, in lower case.
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
        let folded = fold("topic", raw)?;
        Ok(if &*folded == NO_TOPIC { Self::NONE } else { Self(Some(folded)) })
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
    fn bad_labels_name_field_and_limit() {
        let message = |raw: &str| QueueLabel::parse(raw).unwrap_err().to_string();
        assert_eq!(message(""), "queue_label is empty; give it 1 to 255 bytes");
        assert_eq!(message(&"x".repeat(256)), "queue_label has 256 bytes after lower-casing; the limit is 255");
        assert!(QueueLabel::parse(&"x".repeat(255)).is_ok());
        for raw in ["a\nb", "\u{7f}", " a", "a ", "a\u{2028}b"] {
            assert!(matches!(QueueLabel::parse(raw), Err(NameError::NotPrintable { .. })), "{raw:?}");
        }
        for raw in ["__none__", "__NONE__", "__None__"] {
            assert_eq!(QueueLabel::parse(raw), Err(NameError::Reserved { field: "queue_label" }));
        }
    }

    #[test]
    fn the_limit_counts_bytes_after_folding() {
        // 85 three-byte letters fit; "İ" (2 bytes) becomes "i̇" (3 bytes).
        assert!(QueueLabel::parse(&"İ".repeat(85)).is_ok());
        assert_eq!(QueueLabel::parse(&"İ".repeat(86)), Err(NameError::TooLong { field: "queue_label", bytes: 258 }));
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

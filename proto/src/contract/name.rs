//! The rules for labels and topics.

use std::fmt;

/// Longest label or topic, in bytes after lower-casing.
pub const MAX_NAME_BYTES: usize = 255;
/// The spelling of "no topic" on the wire; the empty string means the same.
pub const NO_TOPIC: &str = "__none__";

/// The fault of a label or topic. Its text completes a sentence that begins with the name of the field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameFault {
    /// A label needs at least one character.
    Empty,
    /// Longer than [`MAX_NAME_BYTES`] after lower-casing.
    TooLong {
        /// Its length in bytes after lower-casing.
        bytes: usize,
    },
    /// Control characters, line separators, or white space at either end.
    NotPrintable {
        /// The first such character.
        found: char,
        /// Its position in bytes from the start.
        at: usize,
    },
    /// [`NO_TOPIC`] means "no topic" and cannot be a label.
    Reserved,
}

impl fmt::Display for NameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "is empty; give it 1 to {MAX_NAME_BYTES} bytes"),
            Self::TooLong { bytes } => {
                write!(f, "has {bytes} bytes after lower-casing; the limit is {MAX_NAME_BYTES}")
            }
            Self::NotPrintable { found, at } => {
                write!(f, "has a character that cannot be printed, or white space at an end: {found:?} at byte {at}")
            }
            Self::Reserved => write!(f, "is the reserved word {NO_TOPIC:?}; choose another"),
        }
    }
}

impl std::error::Error for NameFault {}

/// Checks a label as written by a user.
///
/// # Errors
/// [`NameFault`].
pub fn check_label(label: &str) -> Result<(), NameFault> {
    if label.is_empty() {
        return Err(NameFault::Empty);
    }
    if label.eq_ignore_ascii_case(NO_TOPIC) {
        return Err(NameFault::Reserved);
    }
    check_topic(label)
}

/// Checks a topic as written by a user. Empty and [`NO_TOPIC`] (in any case) mean "no topic", and pass.
///
/// # Errors
/// [`NameFault`].
pub fn check_topic(topic: &str) -> Result<(), NameFault> {
    // The most common kind of name needs no allocation.
    if topic.len() <= MAX_NAME_BYTES && topic.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    let unprintable = topic.char_indices().find(|&(at, c)| {
        let at_an_end = at == 0 || at + c.len_utf8() == topic.len();
        c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') || (at_an_end && c.is_whitespace())
    });
    if let Some((at, found)) = unprintable {
        return Err(NameFault::NotPrintable { found, at });
    }
    // Lower-casing can lengthen a name ("İ" becomes three bytes), so the limit applies to the stored form.
    let bytes = topic.to_lowercase().len();
    if bytes > MAX_NAME_BYTES { Err(NameFault::TooLong { bytes }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names_pass() {
        for good in ["News-Queue", "ÉTÉ a", &"x".repeat(255), &"İ".repeat(85)] {
            assert_eq!((check_label(good), check_topic(good)), (Ok(()), Ok(())), "{good:?}");
        }
        for no_topic in ["", NO_TOPIC, "__NoNe__"] {
            assert_eq!(check_topic(no_topic), Ok(()));
        }
    }

    #[test]
    fn bad_names_are_refused_with_the_limit() {
        let message = |label: &str| check_label(label).unwrap_err().to_string();
        assert_eq!(message(""), "is empty; give it 1 to 255 bytes");
        assert_eq!(message(&"x".repeat(256)), "has 256 bytes after lower-casing; the limit is 255");
        assert_eq!(check_label(&"İ".repeat(86)), Err(NameFault::TooLong { bytes: 258 }));
        for (bad, found, at) in [("a\nb", '\n', 1), ("\u{7f}", '\u{7f}', 0), (" a", ' ', 0), ("a ", ' ', 1)] {
            assert_eq!(check_label(bad), Err(NameFault::NotPrintable { found, at }), "{bad:?}");
            assert_eq!(check_topic(bad), Err(NameFault::NotPrintable { found, at }), "{bad:?}");
        }
        assert!(matches!(check_topic("a\u{2028}b"), Err(NameFault::NotPrintable { at: 1, .. })));
        for reserved in [NO_TOPIC, "__NONE__", "__None__"] {
            assert_eq!(check_label(reserved), Err(NameFault::Reserved));
        }
    }
}

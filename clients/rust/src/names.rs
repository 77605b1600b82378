//! The brokers' requirements on labels and topics. They are checked here as well, so that a bad name fails before it takes a
//! sequence.

use crate::Error;

/// Longest label or topic in bytes, after lower-casing.
pub const MAX_NAME_BYTES: usize = 255;
/// The spelling of "no topic" on the wire; the empty string means the same.
pub const NO_TOPIC: &str = "__none__";

pub(crate) fn check_label(label: &str) -> Result<(), Error> {
    let field = "queue_label";
    if label.is_empty() {
        return Err(Error::InvalidName { field, reason: format!("is empty; give it 1 to {MAX_NAME_BYTES} bytes") });
    }
    if label.eq_ignore_ascii_case(NO_TOPIC) {
        return Err(Error::InvalidName { field, reason: format!("is the reserved word {NO_TOPIC:?}; choose another") });
    }
    check_text(field, label)
}

/// An empty string means "no topic", and passes.
pub(crate) fn check_topic(topic: &str) -> Result<(), Error> {
    check_text("topic", topic)
}

fn check_text(field: &'static str, text: &str) -> Result<(), Error> {
    // The most common kind of name costs no allocation.
    if text.len() <= MAX_NAME_BYTES && text.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    let unprintable = text.char_indices().find(|&(at, c)| {
        let at_an_end = at == 0 || at + c.len_utf8() == text.len();
        c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') || (at_an_end && c.is_whitespace())
    });
    if let Some((at, found)) = unprintable {
        let reason =
            format!("has a character that cannot be printed, or white space at an end: {found:?} at byte {at}");
        return Err(Error::InvalidName { field, reason });
    }
    let bytes = text.to_lowercase().len();
    if bytes > MAX_NAME_BYTES {
        let reason = format!("has {bytes} bytes after lower-casing; the limit is {MAX_NAME_BYTES}");
        return Err(Error::InvalidName { field, reason });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_as_brokers_do() {
        for good in ["News-Queue", "ÉTÉ a", &"x".repeat(255), &"İ".repeat(85)] {
            assert!(check_label(good).is_ok(), "{good:?}");
        }
        let long = "x".repeat(256);
        for bad in ["", "__none__", "__NONE__", "a\nb", " a", "a ", "a\u{2028}b", &long, &"İ".repeat(86)] {
            assert_eq!(check_label(bad).unwrap_err().code(), "INVALID_NAME", "{bad:?}");
        }
        assert_eq!(
            check_label(&long).unwrap_err().to_string(),
            "queue_label has 256 bytes after lower-casing; the limit is 255"
        );
        assert!(check_topic("").is_ok() && check_topic("__none__").is_ok());
        assert!(check_topic("a\tb").is_err());
    }
}

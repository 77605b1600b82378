//! The brokers' requirements on labels and topics. They are checked here as well, so that a bad name fails before it takes a
//! sequence.

use rmom_proto::contract;

use crate::Error;

pub(crate) fn check_label(label: &str) -> Result<(), Error> {
    contract::check_label(label).map_err(|fault| Error::InvalidName { field: "queue_label", reason: fault.to_string() })
}

/// An empty string means "no topic", and passes.
pub(crate) fn check_topic(topic: &str) -> Result<(), Error> {
    contract::check_topic(topic).map_err(|fault| Error::InvalidName { field: "topic", reason: fault.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_names_name_the_field() {
        let long = check_label(&"x".repeat(256)).unwrap_err();
        assert_eq!(long.code(), "INVALID_NAME");
        assert_eq!(long.to_string(), "queue_label has 256 bytes after lower-casing; the limit is 255");
        assert!(check_topic("a\tb").unwrap_err().to_string().starts_with("topic has a character"));
    }
}

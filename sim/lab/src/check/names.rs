//! Names and bodies, in the forms that checkers compare and print.

/// Lower case, as labels and topics are compared; `__none__` means no topic.
pub(super) fn folded(name: &str) -> String {
    let folded = name.to_lowercase();
    if folded == "__none__" { String::new() } else { folded }
}

/// True if a channel with the topic `channel` receives a message with the topic `message`.
pub(super) fn accepts(channel: &str, message: &str) -> bool {
    let channel = folded(channel);
    channel.is_empty() || channel == folded(message)
}

/// A body, shortened for use in a sentence.
pub(super) fn brief(body: &str) -> String {
    const LONGEST: usize = 40;
    if body.chars().count() <= LONGEST {
        return format!("{body:?}");
    }
    format!("{:?}…", body.chars().take(LONGEST).collect::<String>())
}

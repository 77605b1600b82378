//! Names and bodies, as checkers compare and tell them.

/// Lower case, as labels and topics are compared; `__none__` is no topic.
pub(super) fn folded(name: &str) -> String {
    let folded = name.to_lowercase();
    if folded == "__none__" { String::new() } else { folded }
}

/// True if a channel with this topic receives a message with that one.
pub(super) fn accepts(channel: &str, message: &str) -> bool {
    let channel = folded(channel);
    channel.is_empty() || channel == folded(message)
}

/// A body for sentences: it may be long.
pub(super) fn brief(body: &str) -> String {
    const LONGEST: usize = 40;
    if body.chars().count() <= LONGEST {
        return format!("{body:?}");
    }
    format!("{:?}…", body.chars().take(LONGEST).collect::<String>())
}

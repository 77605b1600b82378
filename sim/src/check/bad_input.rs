//! Promise 12: bad input gets a clear error and changes nothing.

use super::{Promise, Violation, index::Index};
use crate::history::Event;

/// The code is the expected one, the message names what it has to, and nothing is stored of what was sent: no word of its
/// description is the body of a stored message.
pub(super) fn check(index: &Index<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (at, record) in index.history.iter().enumerate() {
        let Event::BadInput { what: sent, expected, got, message, names } = &record.event else { continue };
        if got != expected {
            let what = format!("{sent} was answered {got}, not {expected}");
            violations.push(index.violation(Promise::BadInput, what, [at]));
        } else if let Some(missing) = names.iter().find(|name| !message.contains(name.as_str())) {
            let what = format!("{sent} was refused with a message that does not name {missing:?}: {message:?}");
            violations.push(index.violation(Promise::BadInput, what, [at]));
        }
        let bodies = std::iter::once(sent.as_str()).chain(sent.split_whitespace());
        let stored = bodies.filter_map(|body| index.bodies.get(body)).find_map(|body| body.stored.first());
        if let Some((queue, message)) = stored {
            let what = format!("{sent} was answered {got}, but is stored in {}", index.queue_name(*queue));
            violations.push(index.violation(Promise::BadInput, what, [message.at, at]));
        }
    }
    violations
}

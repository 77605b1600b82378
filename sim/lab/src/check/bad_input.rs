//! Promise 12: bad input gets a clear error and changes nothing.

use rmom_sim::history::Event;

use super::{
    Promise, Violation,
    index::{Index, Outcome, Push, brief},
};

/// The push fails with the expected code, the message names the field or limit at fault, and nothing of the push is stored:
/// no word of its description is the body of a stored message.
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
    violations.extend(index.pushes.iter().filter_map(|(&number, push)| taken(index, number, push)));
    violations
}

/// A push that should have been refused, and was acknowledged or stored.
fn taken(index: &Index<'_>, number: u64, push: &Push<'_>) -> Option<Violation> {
    let expected = push.expected?;
    let stored = index.bodies[push.body].stored.first().map(|(_, message)| message.at);
    let acked = push.outcome.filter(|(_, outcome)| matches!(outcome, Outcome::Acked { .. })).map(|(at, _)| at);
    let at = stored.or(acked)?;
    let what =
        format!("push {number} of {} should have been refused with {expected}, but was accepted", brief(push.body));
    Some(index.violation(Promise::BadInput, what, [push.at, at]))
}

#[cfg(test)]
mod tests {
    use rmom_sim::history::Event;

    use crate::check::{
        Promise::BadInput,
        testing::{HistoryBuilder, assert_broken, assert_kept},
    };

    fn refused(run: &mut HistoryBuilder, got: &str, message: &str) {
        let event = Event::BadInput {
            what: "a push of bad-1 with a line break in its topic".into(),
            expected: "INVALID_NAME".into(),
            got: got.into(),
            message: message.into(),
            names: vec!["topic".into()],
        };
        run.record("operator", event);
    }

    #[test]
    fn bad_input_is_refused_with_the_name_of_the_field() {
        let mut run = HistoryBuilder::new();
        refused(&mut run, "INVALID_NAME", "topic has a character that cannot be printed");
        assert_kept(run.push("good-1").finish());
    }

    #[test]
    fn bad_input_is_accepted_or_refused_with_another_code() {
        for got in ["ok", "INTERNAL"] {
            let mut run = HistoryBuilder::new();
            refused(&mut run, got, "topic");
            assert_broken(&run, BadInput);
        }
    }

    #[test]
    fn a_refusal_does_not_name_the_field() {
        let mut run = HistoryBuilder::new();
        refused(&mut run, "INVALID_NAME", "bad input");
        assert!(assert_broken(&run, BadInput).contains(r#"does not name "topic""#));
    }

    #[test]
    fn bad_input_is_refused_and_stored() {
        let mut run = HistoryBuilder::new();
        run.store("bad-1");
        refused(&mut run, "INVALID_NAME", "topic has a character that cannot be printed");
        assert_broken(&run, BadInput);
    }
}

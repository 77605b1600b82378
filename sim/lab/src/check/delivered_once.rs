//! Promise 5: an application receives each message once, and a raw client can recognize copies by their id.

use std::collections::BTreeMap;

use super::{
    Promise, Violation,
    index::{Index, Reader, brief},
};

/// A reader that resumes after a position does not receive messages before it; no consumer receives an offset twice; every
/// copy of a message has the id under which it is stored. Messages that are stored twice are for
/// [`pushed_once`](super::pushed_once).
pub(super) fn check(index: &Index<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for reader in &index.readers {
        violations.extend(before_position(index, reader));
        if reader.is_consumer() {
            violations.extend(twice(index, reader));
        }
        violations.extend(ids(index, reader));
    }
    violations
}

fn before_position(index: &Index<'_>, reader: &Reader<'_>) -> Option<Violation> {
    let after = reader.after.filter(|after| index.queue_of(reader) == Some(after.queue_id))?;
    // An offset that is used again after the database was rolled back is another message.
    let again = reader.received.iter().find(|received| received.offset <= after.offset)?;
    if index.rolled_back.iter().any(|&went| went < again.at) {
        return None;
    }
    let what = format!(
        "{} resumed after offset {}, but received {} ({})",
        reader.name(),
        after.offset,
        again.offset,
        brief(again.body),
    );
    Some(index.violation(Promise::DeliveredOnce, what, [reader.began, again.at]))
}

fn twice(index: &Index<'_>, reader: &Reader<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut given = BTreeMap::new();
    for received in &reader.received {
        let Some(first) = given.insert(received.offset, received.at) else { continue };
        if index.lost_between(first, received.at) {
            continue;
        }
        let (name, body) = (reader.name(), brief(received.body));
        let what = format!("{name} received offset {} ({body}) twice", received.offset);
        violations.push(index.violation(Promise::DeliveredOnce, what, [first, received.at]));
    }
    violations
}

fn ids(index: &Index<'_>, reader: &Reader<'_>) -> Vec<Violation> {
    let Some(queue) = index.queue_of(reader).and_then(|id| index.queues.get(&id)) else { return Vec::new() };
    let mut violations = Vec::new();
    for received in &reader.received {
        let mut copies = queue.at_offset(received.offset).filter(|message| message.stored.body == received.body);
        let Some(first) = copies.next() else { continue };
        if first.stored.id == received.id || copies.any(|copy| copy.stored.id == received.id) {
            continue;
        }
        let what = format!(
            "{} received offset {} ({}) with id {}, but it is stored with {}",
            reader.name(),
            received.offset,
            brief(received.body),
            received.id,
            first.stored.id,
        );
        violations.push(index.violation(Promise::DeliveredOnce, what, [first.at, received.at]));
    }
    violations
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use crate::check::{
        Promise::DeliveredOnce,
        testing::{CHANNEL, HistoryBuilder, assert_broken, assert_kept},
    };

    fn three() -> HistoryBuilder {
        let mut run = HistoryBuilder::new();
        run.push("a").push("b").push("c");
        run
    }

    #[test]
    fn restarted_applications_receive_each_message_once() {
        let mut run = three();
        run.consumer("b1", None).deliver("b1", [1, 2]).stop("b1", Some("CRASHED")).consumer("b2", Some(2));
        assert_kept(run.deliver("b2", [3]).finish());
    }

    #[test]
    fn an_application_resumes_after_the_older_position_that_it_kept() {
        let mut run = three();
        run.consumer("b1", None).deliver("b1", [1, 2]).stop("b1", Some("CRASHED")).consumer("b2", Some(1));
        assert_kept(run.deliver("b2", [2, 3]).finish());
    }

    #[test]
    fn an_application_without_a_position_receives_all_messages() {
        let mut run = three();
        run.consumer("b1", None).deliver("b1", [1, 2]).stop("b1", None).consumer("b2", None);
        assert_kept(run.deliver("b2", [1, 2, 3]).finish());
    }

    #[test]
    fn a_consumer_receives_a_message_twice() {
        assert_eq!(
            assert_broken(three().consumer("b1", None).deliver("b1", [1, 2, 2, 3]), DeliveredOnce),
            r#"consumer b1 of billing received offset 2 ("b") twice"#
        );
        assert_broken(three().consumer("b1", None).deliver("b1", [1, 2, 3, 1]), DeliveredOnce);
    }

    #[test]
    fn a_restarted_application_receives_a_message_again() {
        let mut run = three();
        run.consumer("b1", None).deliver("b1", [1, 2]).stop("b1", None).consumer("b2", Some(2));
        assert_broken(run.deliver("b2", [2, 3]).finish(), DeliveredOnce);
    }

    #[test]
    fn a_stream_begins_at_its_position_instead_of_after() {
        assert_broken(three().resume(1, 2).see(1, [2, 3]), DeliveredOnce);
        assert_kept(three().resume(1, 2).see(1, [3]));
    }

    #[test]
    fn streams_from_the_start_receive_all_messages_again() {
        let mut run = three();
        run.stream(1).see(1, [1, 2]).end(1, "UNAVAILABLE");
        let channel = Uuid::from_u128(0xc2);
        assert_kept(run.channel(channel, "", 0).stream_of(2, channel, None).see(2, [1, 2, 3]).finish());
    }

    #[test]
    fn a_copy_has_another_id() {
        let mut run = three();
        let mut copy = run.log().all[&1].clone();
        copy.id = Uuid::from_u128(9);
        run.stream_of(1, CHANNEL, None).see(1, [1]).end(1, "UNAVAILABLE");
        assert_broken(run.stream(2).see_message(2, copy), DeliveredOnce);
    }
}

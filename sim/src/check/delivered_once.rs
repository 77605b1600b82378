//! Promise 5: an application is given each message once, and copies that a raw client sees can be told by their id.

use std::collections::BTreeMap;

use super::{
    Promise, Violation,
    index::{Index, Reader, brief},
};

/// Nobody who goes on after a position is given what lies before it; no consumer is given an offset twice; every copy of a
/// message has the id under which it is stored. What is stored twice is for [`pushed_once`](super::pushed_once).
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
    // An offset that is used again after the database went back is another message.
    let again = reader.received.iter().find(|received| received.offset <= after.offset)?;
    if index.went_back.iter().any(|&went| went < again.at) {
        return None;
    }
    let what = format!(
        "{} went on after offset {}, and was given {} ({})",
        reader.name(),
        after.offset,
        again.offset,
        brief(again.body),
    );
    Some(index.violation(Promise::DeliveredOnce, what, [reader.began(), again.at]))
}

fn twice(index: &Index<'_>, reader: &Reader<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut given = BTreeMap::new();
    for received in &reader.received {
        let Some(first) = given.insert(received.offset, received.at) else { continue };
        if index.went_back.iter().any(|&went| first < went && went < received.at) {
            continue;
        }
        let (name, body) = (reader.name(), brief(received.body));
        let what = format!("{name} was given offset {} ({body}) twice", received.offset);
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
            "{} was given offset {} ({}) with id {}, but it is stored with {}",
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

//! Promise 2: stored messages reach every matching subscription, and nothing else does.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Promise, Violation,
    durable::and_others,
    index::{At, Created, Index, Message, Queue, Reader, ReaderKind, Received, accepts, brief},
    served,
};

/// The code of a stream that its observer ended.
const LEFT: &str = "LEFT";

/// A reader that received an offset had received every live, matching message between its start and that offset. At the end
/// every reader that is still connected has everything. No reader receives a message that is not stored.
pub(super) fn check(index: &Index<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    // How far an owner's reader of a channel had got.
    let mut reached = BTreeMap::new();
    for reader in &index.readers {
        let (Some(id), Some(channel)) = (index.queue_of(reader), index.channel(reader.channel)) else { continue };
        let Some(queue) = index.queues.get(&id) else { continue };
        let key = (reader.owner, reader.channel);
        // A reader that resumes beyond its last message has lost the messages between.
        let from = match reader.after {
            Some(after) if after.queue_id != id => continue,
            Some(after) => after.offset.min(reached.get(&key).copied().unwrap_or(u64::MAX)),
            None => channel.start,
        };
        let reading = Reading { index, id, queue, channel, reader };
        violations.extend(reading.gaps(from));
        violations.extend(reading.phantoms());
        violations.extend(reading.dismissal());
        if reader.opened.is_some() {
            let last = reader.received.iter().map(|received| received.offset).max();
            reached.insert(key, last.unwrap_or(from).max(from));
        }
    }
    violations.extend(index.last_readers().into_values().filter_map(|reader| left_out(index, reader)));
    violations.extend(index.channels.values().filter_map(|channel| starts_beyond_end(index, channel.created?)));
    violations.extend(served::withheld(index));
    violations
}

/// A reader and everything that the checker compares it with.
struct Reading<'i, 'a> {
    index: &'i Index<'a>,
    id: u64,
    queue: &'i Queue<'a>,
    channel: Created<'a>,
    reader: &'i Reader<'a>,
}

impl Reading<'_, '_> {
    /// Messages that were left out between two received ones.
    fn gaps(&self, from: u64) -> Vec<Violation> {
        let mut violations = Vec::new();
        let (mut last, mut last_at) = (from, self.reader.opened.unwrap_or_default());
        for received in &self.reader.received {
            if received.offset <= last {
                continue;
            }
            let mut missing = self.queue.between(last, received.offset).filter(|message| {
                message.at < received.at
                    && accepts(self.channel.topic, &message.stored.topic)
                    && !self.index.is_excused(self.queue, message, received.at)
            });
            if let Some(first) = missing.next() {
                let what = format!(
                    "{} received offset {} of {} after {last}, but not {} ({}){}",
                    self.reader.name(),
                    received.offset,
                    self.index.queue_name(self.id),
                    first.stored.offset,
                    brief(&first.stored.body),
                    and_others(missing.count()),
                );
                violations.push(self.index.violation(Promise::NoLoss, what, [first.at, last_at, received.at]));
            }
            (last, last_at) = (received.offset, received.at);
        }
        violations
    }

    /// Messages that were delivered without being stored.
    fn phantoms(&self) -> impl Iterator<Item = Violation> {
        self.reader.received.iter().filter_map(|received| {
            let stored: Vec<_> = self.queue.at_offset(received.offset).collect();
            if stored.iter().any(|message| message.at < received.at)
                || self.index.is_of_another_queue(received, self.id)
            {
                return None;
            }
            let name = self.reader.name();
            let queue = self.index.queue_name(self.id);
            let Received { at, offset, body, .. } = *received;
            let (when, mut records) = match stored.first() {
                Some(late) => ("before it was stored", vec![late.at]),
                None => ("which was never stored", Vec::new()),
            };
            records.extend([self.reader.began, at]);
            let what = format!("{name} received offset {offset} of {queue} ({}) {when}", brief(body));
            Some(self.index.violation(Promise::NoLoss, what, records))
        })
    }

    /// A reader that was dismissed because of a loss that did not happen.
    fn dismissal(&self) -> Option<Violation> {
        let (at, code) = self.reader.ended?;
        let code = code.filter(|code| matches!(*code, "STORE_ROLLED_BACK" | "OFFSET_OUT_OF_RANGE"))?;
        if !self.index.rolled_back.is_empty() || self.queue.tombstoned.is_some() {
            return None;
        }
        let what = format!("{} was told {code}, although the database lost nothing", self.reader.name());
        Some(self.index.violation(Promise::NoLoss, what, [self.reader.began, at]))
    }
}

/// Messages that the last reader of an observer or application lacks at the end. Messages that earlier readers of the same
/// owner received count: an observer that starts again from the beginning may not have caught up yet.
fn left_out(index: &Index<'_>, last: &Reader<'_>) -> Option<Violation> {
    let at = judged_at(index, last)?;
    let id = index.queue_of(last)?;
    let (channel, queue) = (index.channel(last.channel)?, index.queues.get(&id)?);
    let from = match last.after {
        Some(after) if after.queue_id != id => return None,
        after => after.map_or(channel.start, |after| after.offset),
    };
    let of_owner =
        index.readers.iter().filter(|reader| reader.owner == last.owner && index.queue_of(reader) == Some(id));
    let given: BTreeSet<u64> =
        of_owner.flat_map(|reader| reader.received.iter().map(|received| received.offset)).collect();
    // After this record the run considers all readers complete: later messages need not have reached any of them.
    let due = at.min(index.milestones.drain?);
    let lacks = |message: &&Message<'_>| {
        message.at < due
            && accepts(channel.topic, &message.stored.topic)
            && !given.contains(&message.stored.offset)
            && !index.is_excused(queue, message, at)
    };
    let mut missing = queue.between(from, u64::MAX).filter(lacks);
    let first = missing.next()?;
    let (offset, body) = (first.stored.offset, brief(&first.stored.body));
    let queue = index.queue_name(id);
    let others = and_others(missing.count());
    let what = format!("{} never received offset {offset} of {queue} ({body}){others}", last.name());
    Some(index.violation(Promise::NoLoss, what, [first.at, last.began, at]))
}

/// The record at which an owner must have received everything: the beginning of the audit, when the run reports that all
/// readers have, or the end of its stream shortly before. `None` if the owner had left before, or left of its own accord.
fn judged_at(index: &Index<'_>, last: &Reader<'_>) -> Option<At> {
    let milestones = &index.milestones;
    if milestones.time_up.is_some() || milestones.converged.is_none() {
        return None;
    }
    let (drain, audit) = (milestones.drain?, milestones.audit?);
    match last.ended {
        None => Some(audit),
        Some((_, Some(_))) if matches!(last.kind, ReaderKind::Consumer(_)) => None,
        Some((_, Some(LEFT))) => None,
        Some((at, _)) => (at > drain).then_some(at.min(audit)),
    }
}

/// A channel that starts beyond the end of the log misses the next messages.
fn starts_beyond_end(index: &Index<'_>, channel: Created<'_>) -> Option<Violation> {
    let queue = index.queues.get(&channel.queue_id)?;
    let before = queue.messages.partition_point(|message| message.at < channel.at);
    let end = queue.messages[..before].last().map_or(0, |message| message.stored.offset);
    if channel.start <= end || !index.rolled_back.is_empty() {
        return None;
    }
    let name = index.queue_name(channel.queue_id);
    let what = format!("a channel of {name} starts after offset {}, beyond the end, {end}", channel.start);
    Some(index.violation(Promise::NoLoss, what, [channel.at]))
}

#[cfg(test)]
mod tests {
    use rmom_sim::history::{Event, Phase};
    use uuid::Uuid;

    use crate::check::{
        Promise::{Convergence, NoLoss},
        testing::{CHANNEL, HistoryBuilder, assert_broken, assert_kept},
    };

    fn three() -> HistoryBuilder {
        let mut run = HistoryBuilder::new();
        run.push("a").push("b").push("c");
        run
    }

    #[test]
    fn every_reader_receives_every_message() {
        let mut run = three();
        run.stream(1).see(1, [1, 2]).end(1, "UNAVAILABLE").resume(2, 2).see(2, [3]);
        run.consumer("b1", None).deliver("b1", [1]).stop("b1", None).consumer("b2", Some(1)).deliver("b2", [2, 3]);
        assert_kept(run.finish());
    }

    #[test]
    fn a_message_is_left_out() {
        let mut run = three();
        run.stream(1).see(1, [1, 3]);
        let what = assert_broken(&run, NoLoss);
        assert_eq!(what, r#"stream 1 of o1 received offset 3 of queue "orders" (1) after 1, but not 2 ("b")"#);
    }

    #[test]
    fn the_first_message_is_left_out() {
        let mut run = three();
        run.consumer("b1", None).deliver("b1", [2, 3]);
        assert_broken(&run, NoLoss);
    }

    #[test]
    fn resuming_leaves_one_out() {
        let mut run = three();
        run.stream(1).see(1, [1]).end(1, "UNAVAILABLE").resume(2, 1).see(2, [3]);
        assert_broken(&run, NoLoss);
    }

    #[test]
    fn a_position_is_saved_before_the_delivery() {
        let mut run = three();
        run.consumer("b1", None).deliver("b1", [1]).stop("b1", None).consumer("b2", Some(2)).deliver("b2", [3]);
        assert_broken(&run, NoLoss);
    }

    #[test]
    fn a_message_without_an_acknowledgement_reaches_all_readers_or_none() {
        let mut run = three();
        let push = run.send("d");
        run.store("d").fail(push, "OUTCOME_UNKNOWN", true).push("e");
        run.stream(1).see(1, [1, 2, 3, 4, 5]).consumer("b1", None).deliver("b1", [1, 2, 3, 5]);
        assert!(assert_broken(&run, NoLoss).contains(r#"("d")"#));
    }

    #[test]
    fn the_last_messages_never_arrive() {
        let mut run = three();
        run.stream(1).see(1, [1]).end(1, "UNAVAILABLE").resume(2, 1);
        let what = assert_broken(run.finish(), NoLoss);
        assert_eq!(what, r#"stream 2 of o1 never received offset 2 of queue "orders" (1) ("b") and another message"#);
        // The consumer stops by itself when the run reports that all is done.
        let mut run = three();
        run.consumer("b1", None).deliver("b1", [1]).phase(Phase::Healed).record("runner", Event::Converged);
        run.phase(Phase::Drain).stop("b1", None).phase(Phase::Audit).audit();
        assert_broken(&run, NoLoss);
    }

    #[test]
    fn a_reader_that_left_misses_no_message() {
        let mut run = three();
        run.stream(1).see(1, [1]).end(1, "UNAVAILABLE");
        run.consumer("b1", None).deliver("b1", [1]).stop("b1", None);
        assert_kept(run.finish());
    }

    #[test]
    fn a_reader_that_leaves_during_the_last_messages_misses_none() {
        let drain = |code| {
            let mut run = three();
            run.stream(1).see(1, [1]).phase(Phase::Healed).record("runner", Event::Converged);
            run.phase(Phase::Drain).end(1, code).phase(Phase::Audit).audit();
            run
        };
        assert_kept(&drain("LEFT"));
        assert_broken(&drain("RUN_OVER"), NoLoss);
    }

    #[test]
    fn a_run_out_of_time_breaks_convergence_alone() {
        let mut run = three();
        run.stream(1).see(1, [1]).phase(Phase::Healed).record("runner", Event::Converged);
        run.phase(Phase::Drain).record("runner", Event::TimeUp { pending: "two messages".into() });
        assert_broken(run.phase(Phase::Audit).audit(), Convergence);
    }

    #[test]
    fn an_observer_that_began_again_had_it_before() {
        let mut run = three();
        run.stream(1).see(1, [1, 2, 3]).end(1, "UNAVAILABLE");
        let channel = Uuid::from_u128(0xc2);
        run.channel(channel, "", 0).stream_of(2, channel, None).see(2, [1]);
        assert_kept(run.finish());
    }

    #[test]
    fn expired_messages_need_not_arrive() {
        // Expired.
        let mut run = HistoryBuilder::new();
        run.push("a").push_for("b", 50).push("c").wait(100).stream(1).see(1, [1, 3]);
        assert_kept(run.finish());
        // Trimmed.
        assert_kept(HistoryBuilder::new().push_for("a", 50).push("b").wait(100).trim(1).stream(1).see(1, [2]).finish());
        // The clock was set back, and the broker did not know yet.
        let mut run = HistoryBuilder::new();
        run.push("a").push_for("b", 1_000).push("c").wait(999).set_clock(-5_000).wait(500);
        assert_kept(run.stream(1).see(1, [1, 3]));
        // Deleted.
        assert_kept(three().delete().stream(1).see(1, [3]).end(1, "QUEUE_REPLACED"));
        // Lost when the database was rolled back.
        let mut run = three();
        run.record("database", Event::StoreRolledBack);
        assert_kept(run.stream(1).see(1, [3]));
    }

    #[test]
    fn messages_stored_after_the_clock_was_set_back_must_arrive() {
        let mut run = HistoryBuilder::new();
        run.wait(2_000).set_clock(-5_000).push("a").push_for("b", 1_000).push("c").wait(500);
        assert_broken(run.clone().stream(1).see(1, [1, 3]), NoLoss);
        assert_kept(run.wait(500).stream(1).see(1, [1, 3]));
    }

    #[test]
    fn live_messages_must_arrive() {
        let mut run = HistoryBuilder::new();
        run.push("a").push_for("b", 1_000).push("c").wait(100).stream(1).see(1, [1, 3]);
        assert_broken(&run, NoLoss);
    }

    #[test]
    fn topics_are_compared_in_lower_case() {
        let channel = Uuid::from_u128(0xc2);
        let mut run = HistoryBuilder::new();
        for (body, topic) in [("a", "News"), ("b", "news"), ("c", "sport"), ("d", "__none__"), ("e", "NEWS")] {
            let push = run.send(body);
            run.store_with(body, |message| message.topic = topic.into()).ack(push);
        }
        run.channel(channel, "nEWs", 0);
        assert_kept(run.clone().stream_of(1, channel, None).see(1, [1, 2, 5]).finish());
        assert_broken(run.clone().stream_of(1, channel, None).see(1, [1, 5]), NoLoss);
    }

    #[test]
    fn a_late_start_is_a_start() {
        let channel = Uuid::from_u128(0xc2);
        assert_kept(three().channel(channel, "", 2).stream_of(1, channel, None).see(1, [3]).finish());
        assert!(assert_broken(three().channel(channel, "", 4), NoLoss).contains("beyond the end, 3"));
    }

    #[test]
    fn delivered_messages_are_stored() {
        let mut run = three();
        let phantom = run.clone().push("d").log().all[&4].clone();
        run.stream(1).see(1, [1, 2, 3]).see_message(1, phantom.clone());
        assert!(assert_broken(&run, NoLoss).ends_with("which was never stored"));

        let mut run = three();
        run.stream(1).see(1, [1, 2, 3]).see_message(1, phantom);
        run.push("d");
        assert!(assert_broken(&run, NoLoss).ends_with("before it was stored"));
    }

    #[test]
    fn a_reader_is_refused_for_a_loss_that_did_not_happen() {
        assert_broken(three().stream(1).see(1, [1]).end(1, "STORE_ROLLED_BACK"), NoLoss);
        let mut run = three();
        run.consumer("b1", Some(3)).stop("b1", Some("OFFSET_OUT_OF_RANGE"));
        assert_broken(&run, NoLoss);
        let mut run = three();
        run.record("database", Event::StoreRolledBack);
        assert_kept(run.stream(1).end(1, "STORE_ROLLED_BACK"));
    }

    #[test]
    fn a_refused_stream_is_none() {
        let mut run = three();
        let (stream, observer, broker) = (1, "o1".to_owned(), "broker-2".to_owned());
        run.record(
            "consumer-1",
            Event::StreamAsked { stream, observer: observer.clone(), channel: CHANNEL, after: None },
        );
        let opened = Event::StreamOpened { stream, observer, channel: CHANNEL, after: None, broker, position: None };
        run.record("consumer-1", opened);
        assert_kept(run.end(1, "NOT_HOSTED").finish());
    }
}

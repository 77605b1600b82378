//! Promise 6: a queue has one writer, and a replaced owner stops.

use super::{
    Promise, Violation,
    index::{At, Claim, Index, Queue, Reader, brief},
};

/// Each claim raises the epoch by one; it is made by the broker to which the queue is assigned, in its latest run. Nothing
/// is stored under any epoch but the latest, or by any broker but the one that claimed it. A broker from which a queue was
/// taken delivers none of its successors' messages, and ends its streams.
pub(super) fn check(index: &Index<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (&id, queue) in &index.queues {
        violations.extend(claims(index, id, queue));
        violations.extend(appends(index, id, queue));
    }
    for reader in &index.readers {
        violations.extend(reads_on(index, reader));
        violations.extend(lingers(index, reader));
    }
    violations
}

fn claims(index: &Index<'_>, id: u64, queue: &Queue<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut last: Option<&Claim<'_>> = None;
    for claim in &queue.claims {
        let before = last.map_or(0, |last| last.epoch);
        // A claim whose answer was lost is repeated, and creates no epoch.
        let again = last.is_some_and(|last| last.epoch == claim.epoch && last.incarnation == claim.incarnation);
        let lost = index.lost_between(last.map_or(queue.born, |last| last.at), claim.at);
        if claim.epoch != before + 1 && !again && !lost {
            let host = host(index, claim.broker_id);
            let queue = index.queue_name(id);
            let what = format!("{host} claimed {queue} under epoch {}, after epoch {before}", claim.epoch);
            let records: Vec<_> = last.map(|last| last.at).into_iter().chain([claim.at]).collect();
            violations.push(index.violation(Promise::OneWriter, what, records));
        }
        let assigned = queue.assignments.iter().rev().find(|(at, _)| *at < claim.at);
        if let Some(&(at, broker)) = assigned
            && broker != claim.broker_id
            && !again
            && !index.lost_between(at, claim.at)
        {
            let (host, assignee) = (host(index, claim.broker_id), host(index, broker));
            let what = format!("{host} claimed {}, which is assigned to {assignee}", index.queue_name(id));
            violations.push(index.violation(Promise::OneWriter, what, [at, claim.at]));
        }
        if !again {
            violations.extend(by_the_replaced(index, id, claim));
        }
        last = Some(claim);
    }
    violations
}

/// A claim by a run of a broker after a later run had registered.
fn by_the_replaced(index: &Index<'_>, id: u64, claim: &Claim<'_>) -> Option<Violation> {
    let registrations = index.registrations.get(&claim.broker_id)?;
    let (at, latest) = *registrations[..registrations.partition_point(|&(at, _)| at < claim.at)].last()?;
    if latest == claim.incarnation || index.lost_between(at, claim.at) {
        return None;
    }
    let host = host(index, claim.broker_id);
    let what = format!(
        "a process of {host} claimed {} under epoch {}, although another process had registered in its place",
        index.queue_name(id),
        claim.epoch,
    );
    Some(index.violation(Promise::OneWriter, what, [at, claim.at]))
}

fn host(index: &Index<'_>, broker: u64) -> String {
    index.brokers.get(&broker).map_or_else(|| format!("broker {broker}"), |&host| host.to_owned())
}

fn appends(index: &Index<'_>, id: u64, queue: &Queue<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut last_batch = None;
    for message in &queue.messages {
        if last_batch.replace(message.at) == Some(message.at) {
            continue;
        }
        let name = index.queue_name(id);
        let (by, offset, epoch) = (message.by, message.stored.offset, message.epoch);
        let Some(claim) = queue.claim_before(message.at) else {
            let what =
                format!("{by} stored offset {offset} of {name} under epoch {epoch}, which no broker had claimed");
            violations.push(index.violation(Promise::OneWriter, what, [message.at]));
            continue;
        };
        if index.lost_between(claim.at, message.at) {
            continue;
        }
        let owner = host(index, claim.broker_id);
        if epoch != claim.epoch {
            let what = format!(
                "{by} stored offset {offset} of {name} under epoch {epoch}, when {owner} had claimed epoch {}",
                claim.epoch,
            );
            violations.push(index.violation(Promise::OneWriter, what, [claim.at, message.at]));
        } else if index.brokers.contains_key(&claim.broker_id) && owner != by {
            let what = format!("{by} stored offset {offset} of {name} under epoch {epoch}, which {owner} had claimed");
            violations.push(index.violation(Promise::OneWriter, what, [claim.at, message.at]));
        }
    }
    violations
}

/// A broker delivers messages that another broker stored after it, without having claimed the queue since.
fn reads_on(index: &Index<'_>, reader: &Reader<'_>) -> Option<Violation> {
    let broker = reader.broker?;
    let (id, queue) = index.queue_of(reader).and_then(|id| Some((id, index.queues.get(&id)?)))?;
    // Both lists are in order: this finds the latest claim of this broker at each message.
    let own: Vec<_> =
        queue.claims.iter().filter(|claim| index.brokers.get(&claim.broker_id) == Some(&broker)).collect();
    reader.received.iter().find_map(|received| {
        let claim = own[..own.partition_point(|claim| claim.at < received.at)].last()?;
        let message = queue.at_offset(received.offset).find(|message| message.stored.body == received.body)?;
        // The epoch identifies the broker that stored the message, unless the database lost epochs.
        if message.epoch <= claim.epoch || message.by == broker || !index.rolled_back.is_empty() {
            return None;
        }
        let what = format!(
            "{} received offset {} of {} ({}) by {broker}, which {} stored under epoch {}; {broker} has epoch {} at best",
            reader.name(),
            received.offset,
            index.queue_name(id),
            brief(received.body),
            message.by,
            message.epoch,
            claim.epoch,
        );
        Some(index.violation(Promise::OneWriter, what, [claim.at, message.at, received.at]))
    })
}

/// A stream that should have ended at another broker's claim: there was enough time, and nothing was in the way.
fn lingers(index: &Index<'_>, reader: &Reader<'_>) -> Option<Violation> {
    let (opened, broker) = (reader.opened?, reader.broker?);
    let (id, queue) = index.queue_of(reader).and_then(|id| Some((id, index.queues.get(&id)?)))?;
    let is_its = |claim: &&Claim<'_>| index.brokers.get(&claim.broker_id) == Some(&broker);
    // The broker that opened it may already have been replaced.
    let owned = queue.claims.partition_point(|claim| claim.at < opened).saturating_sub(1);
    let takeover = queue.claims[owned..].iter().find(|claim| !is_its(claim))?;
    let overdue = overdue(index, reader, takeover.at.max(opened), index.bounds.convergence)?;
    let claimed_again = queue.claims.iter().any(|claim| claim.at > takeover.at && claim.at < overdue && is_its(&claim));
    if claimed_again || queue.tombstoned.is_some() {
        return None;
    }
    let what = format!(
        "{} stays open at {broker}, although {} claimed {} under epoch {}",
        reader.name(),
        host(index, takeover.broker_id),
        index.queue_name(id),
        takeover.epoch,
    );
    Some(index.violation(Promise::OneWriter, what, [opened, takeover.at, overdue]))
}

/// The record that proves that a stream is still open although an event should have ended it: it has been quiet since, and
/// for longer than the bound no fault prevented its end. A stream that still receives messages in transit gets more time.
pub(super) fn overdue(index: &Index<'_>, reader: &Reader<'_>, since: At, bound_millis: u64) -> Option<At> {
    let until = match (reader.ended, index.milestones.audit) {
        (Some((at, _)), Some(audit)) => at.min(audit),
        (Some((at, _)), None) => at,
        (None, Some(audit)) => audit,
        (None, None) => index.history.len() - 1,
    };
    let last = reader.received.last().map_or(since, |received| received.at.max(since));
    let bound = bound_millis.saturating_mul(1_000);
    let deadline = index.faults.quiet_for(bound, index.micros(last));
    (index.micros(until) > deadline).then_some(until)
}

#[cfg(test)]
mod tests {
    use rmom_sim::history::Event;

    use crate::check::{
        Promise::OneWriter,
        testing::{HistoryBuilder, assert_broken, assert_kept},
    };

    /// Stores under another broker or epoch than the current one.
    fn store_as(run: &mut HistoryBuilder, body: &str, owner: u64, epoch: u64) {
        let rightful = (run.log().owner, run.log().epoch);
        (run.log().owner, run.log().epoch) = (owner, epoch);
        run.store(body);
        (run.log().owner, run.log().epoch) = rightful;
    }

    #[test]
    fn owners_write_one_after_the_other() {
        let mut run = HistoryBuilder::new();
        run.push("a").take_over(2).push("b").take_over(1).take_over(1).push("c");
        assert_kept(run.finish());
    }

    #[test]
    fn the_old_owner_appends() {
        let mut run = HistoryBuilder::new();
        run.push("a").take_over(2);
        let push = run.send("b");
        store_as(&mut run, "b", 1, 1);
        assert_eq!(
            assert_broken(run.ack(push).finish(), OneWriter),
            r#"broker-1 stored offset 2 of queue "orders" (1) under epoch 1, when broker-2 had claimed epoch 2"#
        );
    }

    #[test]
    fn a_broker_appends_under_anothers_epoch() {
        let mut run = HistoryBuilder::new();
        let push = run.send("a");
        store_as(&mut run, "a", 2, 1);
        assert_broken(run.ack(push).finish(), OneWriter);
    }

    #[test]
    fn an_append_under_an_epoch_without_a_claim() {
        let mut run = HistoryBuilder::new();
        let push = run.send("a");
        store_as(&mut run, "a", 1, 2);
        assert_broken(run.ack(push).finish(), OneWriter);
    }

    #[test]
    fn an_append_just_before_the_claim_is_accepted() {
        let mut run = HistoryBuilder::new();
        let push = run.send("a");
        assert_kept(run.store("a").take_over(2).ack(push).finish());
    }

    fn claim(run: &mut HistoryBuilder, epoch: u64, broker_id: u64) {
        let incarnation = format!("run-{broker_id}");
        run.record("database", Event::Claimed { queue_id: 1, epoch, broker_id, incarnation });
    }

    #[test]
    fn claims_count_up() {
        let mut run = HistoryBuilder::new();
        claim(&mut run, 3, 1);
        assert!(assert_broken(&run, OneWriter).ends_with("under epoch 3, after epoch 1"));
        let mut run = HistoryBuilder::new();
        claim(&mut run, 1, 1);
        assert_kept(&run);
        claim(&mut run, 2, 2);
        assert!(assert_broken(&run, OneWriter).ends_with("which is assigned to broker-1"));
    }

    #[test]
    fn a_replaced_process_claims() {
        let mut run = HistoryBuilder::new();
        let registered = |incarnation: &str| Event::Registered {
            broker: "broker-1".into(),
            broker_id: 1,
            incarnation: incarnation.into(),
        };
        run.record("database", registered("run-1"));
        assert_kept(run.clone().take_over(1));
        // A repeated claim creates no epoch.
        run.take_over(1).record("database", registered("later"));
        claim(&mut run, 2, 1);
        assert_kept(&run);
        claim(&mut run, 3, 1);
        assert!(assert_broken(&run, OneWriter).ends_with("although another process had registered in its place"));
    }

    #[test]
    fn the_old_owner_delivers_messages_of_the_new_owner() {
        let mut run = HistoryBuilder::new();
        run.push("a").stream(1).see(1, [1]).take_over(2).push("b");
        assert_broken(run.clone().see(1, [2]), OneWriter);
        // The broker owns the queue again.
        assert_kept(run.take_over(1).see(1, [2]));
    }

    #[test]
    fn the_old_owner_delivers_its_own_messages() {
        let mut run = HistoryBuilder::new();
        assert_kept(
            run.push("a").push("b").stream(1).see(1, [1]).take_over(2).wait(3_000).see(1, [2]).end(1, "FENCED"),
        );
    }

    #[test]
    fn the_old_owner_keeps_its_subscribers() {
        let mut run = HistoryBuilder::new();
        run.push("a").stream(1).see(1, [1]).take_over(2).wait(6_000);
        assert!(assert_broken(run.clone().end(1, "FENCED"), OneWriter).contains("stays open at broker-1"));
        assert_kept(run.clone().take_over(1).wait(1_000).end(1, "UNAVAILABLE"));
    }

    #[test]
    fn the_old_owner_takes_new_subscribers() {
        let mut run = HistoryBuilder::new();
        run.push("a").take_over(2).wait(9_000);
        (run.log().owner, run.log().epoch) = (1, 1);
        run.stream(1);
        (run.log().owner, run.log().epoch) = (2, 2);
        assert_kept(run.clone().wait(1_000).end(1, "FENCED"));
        assert_broken(run.wait(6_000).end(1, "FENCED"), OneWriter);
    }

    #[test]
    fn a_subscriber_that_crashed_tells_no_end() {
        let mut run = HistoryBuilder::new();
        run.push("a").stream(1).see(1, [1]).take_over(2).wait(1_000).stream(2).see(2, [1]).wait(9_000);
        assert_kept(run.finish());
    }

    #[test]
    fn the_old_owner_has_time_to_notice() {
        assert_kept(HistoryBuilder::new().stream(1).take_over(2).wait(4_000).end(1, "FENCED"));
        // A fault was in the way, or the subscriber was slow to read messages in transit.
        assert_kept(
            HistoryBuilder::new()
                .stream(1)
                .take_over(2)
                .fault(0)
                .wait(6_000)
                .end_fault(0)
                .wait(4_000)
                .end(1, "UNAVAILABLE"),
        );
        let mut run = HistoryBuilder::new();
        run.push("a").push("b").stream(1).take_over(2).see(1, [1]).wait(4_000).see(1, [2]).wait(4_000);
        assert_kept(run.end(1, "FENCED"));
    }

    #[test]
    fn an_owner_claims_again_after_an_unknown_append() {
        assert_kept(
            HistoryBuilder::new()
                .push("a")
                .stream(1)
                .see(1, [1])
                .take_over(1)
                .wait(9_000)
                .push("b")
                .see(1, [2])
                .finish(),
        );
    }

    #[test]
    fn a_database_that_was_rolled_back_gives_epochs_again() {
        let mut run = HistoryBuilder::new();
        run.push("a").take_over(2).take_over(1);
        run.record("database", Event::StoreRolledBack);
        run.log().epoch = 1;
        run.take_over(2);
        let push = run.send("b");
        assert_kept(run.store("b").ack(push).finish());
    }
}

//! Promise 7: no message is dropped before it expires, delivered long after, or left behind.

use std::collections::BTreeMap;

use rmom_core::ports::MAX_CLOCK_AHEAD_MILLIS;

use super::{
    Promise, Violation,
    index::{At, Index, Message, Push, Queue, Reader, brief},
};

/// The window of an observer's stream: how much may be in transit to an observer that takes nothing.
const WINDOW_BYTES: usize = 65_535;
/// How much of its window an observer may have read without having a whole message: an HTTP/2 frame.
const READ_BYTES: usize = 16_384;
/// The most that a message takes besides its body.
const FRAME_BYTES: usize = 500;

/// Trims remove only messages that have expired on the database's clock; a message lives as long as its producer asked;
/// times in a queue do not go back. A reader that asks long after a message expired does not receive it; neither does an
/// observer that reads on, unless the message may have been in transit before. Expired messages leave the store in the end.
pub(super) fn check(index: &Index<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (&id, queue) in &index.queues {
        violations.extend(trims(index, id, queue));
        violations.extend(times(index, id, queue));
        violations.extend(left_behind(index, id, queue));
    }
    violations.extend(index.pushes.values().filter_map(|push| lifetime(index, push)));
    violations.extend(index.readers.iter().filter_map(|reader| late(index, reader)));
    violations
}

fn trims(index: &Index<'_>, id: u64, queue: &Queue<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut through = 0;
    for trim in &queue.trims {
        let trimmed = queue.between(through, trim.through.saturating_add(1)).filter(|message| message.at < trim.at);
        for message in trimmed {
            let expiry = message.stored.expires_at_millis;
            if expiry.is_some_and(|expiry| expiry <= trim.at_millis) || index.rolled_back_after(message.at) {
                continue;
            }
            let when = expiry
                .map_or("never expires".to_owned(), |expiry| format!("expires {} ms later", expiry - trim.at_millis));
            let (queue, offset) = (index.queue_name(id), message.stored.offset);
            let what = format!("offset {offset} of {queue} ({}) was trimmed, but {when}", brief(&message.stored.body));
            violations.push(index.violation(Promise::TimeToLive, what, [message.at, trim.at]));
        }
        through = through.max(trim.through);
    }
    violations
}

/// The times at which messages were stored, by offset.
fn times(index: &Index<'_>, id: u64, queue: &Queue<'_>) -> Vec<Violation> {
    // Once a message is trimmed, its time is forgotten too.
    let forgotten = |earlier: &Message<'_>, later: &Message<'_>| {
        queue.trimmed_by(earlier.stored.offset).is_some_and(|trim| trim.at < later.at)
    };
    let back = queue.messages.windows(2).filter(|pair| {
        // A log that is further ahead of the database's clock than this is not followed.
        let back = pair[0].stored_at_millis.saturating_sub(pair[1].stored_at_millis);
        (1..=MAX_CLOCK_AHEAD_MILLIS).contains(&back)
            && !forgotten(&pair[0], &pair[1])
            && !index.rolled_back_after(pair[0].at)
    });
    let violation = |pair: &[Message<'_>]| {
        let what = format!(
            "in {}, offset {} was stored {} ms before {}",
            index.queue_name(id),
            pair[1].stored.offset,
            pair[0].stored_at_millis - pair[1].stored_at_millis,
            pair[0].stored.offset,
        );
        index.violation(Promise::TimeToLive, what, [pair[0].at, pair[1].at])
    };
    back.map(violation).collect()
}

/// A message lives as long as its producer asked.
fn lifetime(index: &Index<'_>, push: &Push<'_>) -> Option<Violation> {
    // On the wire, 0 means that no lifetime is given.
    let asked = push.ttl_millis.filter(|&millis| millis > 0)?;
    let stored = index.bodies[push.body].stored.iter().map(|(_, message)| message);
    let message = stored
        .filter(|message| message.at > push.at)
        .find(|message| message.stored.expires_at_millis != Some(message.stored_at_millis.saturating_add(asked)))?;
    let lives = message.stored.expires_at_millis.map_or("for ever".to_owned(), |expiry| {
        format!("for {} ms", i128::from(expiry) - i128::from(message.stored_at_millis))
    });
    let what = format!("{} should live for {asked} ms, but is stored to live {lives}", brief(push.body));
    Some(index.violation(Promise::TimeToLive, what, [push.at, message.at]))
}

/// A message that was sent when it had been expired for longer than the bound.
fn late(index: &Index<'_>, reader: &Reader<'_>) -> Option<Violation> {
    let queue = index.queues.get(&index.queue_of(reader)?)?;
    let sent_after = sent_after(reader, queue, reader.asked?);
    reader.received.iter().zip(sent_after).find_map(|(received, asked_at)| {
        let asked = index.micros(asked_at);
        let message = queue.at_offset(received.offset).find(|message| message.stored.body == received.body)?;
        let expiry = message.stored.expires_at_millis?;
        let (from, to) = (expired_by(index, asked), index.micros(received.at));
        let earliest = index.clock.at_least(from, to);
        if index.micros(message.at) > from || earliest < expiry {
            return None;
        }
        let what = format!(
            "{} received offset {} ({}), which had expired {} ms before it could take it",
            reader.name(),
            received.offset,
            brief(received.body),
            index.clock.at_least(asked, asked).saturating_sub(expiry),
        );
        Some(index.violation(Promise::TimeToLive, what, [message.at, asked_at, received.at]))
    })
}

/// For each message received on a stream: the last record that is known to precede its handover by the broker. That is the
/// stream's request or, on a stream on which only a limited amount can be in transit, a message that the observer took
/// earlier.
///
/// A broker hands over a batch at a time, and hyper takes a chunk before there is room for it. So a stalled stream holds a
/// full window, the rest of the chunk that has begun, and the next chunk. Everything before those two chunks has left the
/// broker: it is in the window, or the observer has read it.
fn sent_after(reader: &Reader<'_>, queue: &Queue<'_>, asked_at: At) -> Vec<At> {
    let received = &reader.received;
    if reader.is_consumer() {
        return vec![asked_at; received.len()];
    }
    let batch = |nth: usize| {
        let stored = queue.at_offset(received[nth].offset);
        stored.filter(|message| message.stored.body == received[nth].body).last().map(|message| message.at)
    };
    let largest = received.iter().map(|message| message.body.len()).max().unwrap_or(0);
    let room = WINDOW_BYTES + READ_BYTES + largest + FRAME_BYTES;
    // The indices at which the previous batch and this one begin; the number of messages taken; the bytes from there to the
    // previous batch.
    let (mut before, mut this) = (0, 0);
    let (mut taken, mut between) = (0, 0);
    (0..received.len())
        .map(|nth| {
            if batch(nth) != batch(this) {
                between += received[before..this].iter().map(|message| message.body.len()).sum::<usize>();
                (before, this) = (this, nth);
            }
            while between > room && taken < before {
                between -= received[taken].body.len();
                taken += 1;
            }
            taken.checked_sub(1).map_or(asked_at, |last| received[last].at)
        })
        .collect()
}

/// The latest time such that a reader which asks at `asked` must not receive messages that had expired by then and stayed
/// expired since.
fn expired_by(index: &Index<'_>, asked: u64) -> u64 {
    let bound = index.bounds.expiry.saturating_mul(1_000);
    let to_notice = index.bounds.clock.saturating_mul(1_000);
    let before = asked.saturating_sub(bound);
    if index.clock.was_set_after(before.saturating_sub(to_notice)) { before.saturating_sub(to_notice) } else { before }
}

/// Batches that should have been trimmed by the time of the audit.
fn left_behind(index: &Index<'_>, id: u64, queue: &Queue<'_>) -> Option<Violation> {
    index.milestones.converged?;
    let audit = queue.audit?;
    let now = index.micros(audit.at);
    let claim = queue.claims.last()?;
    let mut batches: BTreeMap<u64, Batch<'_>> = BTreeMap::new();
    for left in audit.messages {
        let Some(message) = queue.at_offset(left.offset).last() else { continue };
        let batch = batches.entry(message.at as u64).or_insert(Batch { first: *message, expiry: Some(0) });
        batch.expiry = batch.expiry.zip(left.expires_at_millis).map(|(latest, expiry)| latest.max(expiry));
    }
    let (count, all) = (batches.len(), batches.values().collect::<Vec<_>>());
    let overdue = all.iter().enumerate().find(|&(nth, batch)| {
        // The last batch keeps the end of the log until all earlier ones are gone.
        if nth + 1 == count && count > 1 {
            return false;
        }
        // A batch was the last one until the next one was stored.
        let next = all.get(nth + 1).map_or(batch.first.at, |next| next.first.at);
        let since = index.micros(batch.first.at.max(next));
        let set = index.clock.was_set_after(since);
        let bound = index.bounds.trim.saturating_add(if set { index.bounds.sleep } else { 0 }).saturating_mul(1_000);
        let from = now.saturating_sub(bound);
        let hosted = index.micros(claim.at) <= from && index.faults.quiet_for(bound, from) <= now;
        let expired = batch.expiry.is_some_and(|expiry| expiry <= index.clock.at_least(from, now));
        since <= from && hosted && expired
    });
    let (_, Batch { first, .. }) = overdue?;
    let (queue, offset) = (index.queue_name(id), first.stored.offset);
    let what =
        format!("offset {offset} of {queue} ({}) has expired long ago and is still stored", brief(&first.stored.body));
    Some(index.violation(Promise::TimeToLive, what, [first.at, claim.at, audit.at]))
}

/// The remains of a batch: messages that were stored together and are removed together.
struct Batch<'a> {
    first: Message<'a>,
    /// When the last of them expires, or `None` if one never does.
    expiry: Option<u64>,
}

#[cfg(test)]
mod tests {
    use crate::check::{
        Promise::TimeToLive,
        testing::{HistoryBuilder, assert_broken, assert_kept},
    };

    #[test]
    fn expired_messages_are_trimmed() {
        let mut run = HistoryBuilder::new();
        run.push_for("a", 100).push("b").stream(1).see(1, [1, 2]).wait(200).trim(1);
        assert_kept(run.finish());
    }

    #[test]
    fn a_live_message_is_trimmed() {
        let mut run = HistoryBuilder::new();
        run.push_for("a", 100).push("b").wait(50);
        assert!(assert_broken(run.clone().trim(1).finish(), TimeToLive).contains("was trimmed, but expires "));
        run.wait(200);
        assert!(assert_broken(run.trim(2).finish(), TimeToLive).ends_with("was trimmed, but never expires"));
    }

    #[test]
    fn the_databases_clock_decides() {
        assert_kept(HistoryBuilder::new().push_for("a", 100).push("b").set_clock(200).trim(1).finish());
        assert_broken(
            HistoryBuilder::new().push_for("a", 100).push("b").set_clock(-200).wait(150).trim(1).finish(),
            TimeToLive,
        );
    }

    #[test]
    fn a_message_lives_as_long_as_was_asked() {
        let mut run = HistoryBuilder::new();
        let push = run.send_for("a", 100);
        run.store_with("a", |message| message.expires_at_millis = message.expires_at_millis.map(|at| at - 1)).ack(push);
        assert_eq!(assert_broken(&run, TimeToLive), r#""a" should live for 100 ms, but is stored to live for 99 ms"#);
        let mut run = HistoryBuilder::new();
        let push = run.send_for("a", 100);
        assert_broken(run.store_with("a", |message| message.expires_at_millis = None).ack(push), TimeToLive);
        assert_kept(HistoryBuilder::new().push_for("a", 100));
    }

    #[test]
    fn times_go_back() {
        let mut run = HistoryBuilder::new();
        run.push("a").set_clock(-500);
        let push = run.send("b");
        assert_broken(run.store("b").ack(push), TimeToLive);
        // A queue does not follow a clock that was set back by more than a minute.
        assert_kept(HistoryBuilder::new().push("a").set_clock(-70_000).push("b"));
        // Trimmed messages leave nothing from which the broker could tell.
        assert_kept(HistoryBuilder::new().push_for("a", 50).wait(100).trim(1).set_clock(-500).push("b"));
    }

    #[test]
    fn a_late_request_receives_no_expired_messages() {
        let mut run = HistoryBuilder::new();
        run.push_for("a", 100).push("b").wait(1_000);
        assert!(assert_broken(run.clone().stream(1).see(1, [1, 2]), TimeToLive).contains("which had expired"));
        assert_broken(run.clone().consumer("b1", None).deliver("b1", [1, 2]), TimeToLive);
        assert_kept(run.stream(1).see(1, [2]));
    }

    #[test]
    fn messages_sent_before_their_expiry_may_arrive() {
        // Within the bound.
        assert_kept(HistoryBuilder::new().push_for("a", 100).wait(250).stream(1).see(1, [1]));
        // Sent in time to an observer that read it late.
        assert_kept(HistoryBuilder::new().push_for("a", 100).stream(1).wait(3_000).see(1, [1]));
        // The clock was set forward just now, or set back since.
        assert_kept(
            HistoryBuilder::new().push_for("a", 1_000).wait(100).set_clock(5_000).wait(500).stream(1).see(1, [1]),
        );
        assert_kept(HistoryBuilder::new().push_for("a", 1_000).wait(6_000).set_clock(-6_000).stream(1).see(1, [1]));
    }

    #[test]
    fn an_open_stream_receives_no_expired_messages() {
        let large = "x".repeat(30_000);
        let body = |nth: u64| format!("{nth}{large}");
        let mut run = HistoryBuilder::new();
        run.stream(1);
        for nth in 1..=12 {
            run.push_for(&body(nth), 100);
        }
        run.wait(3_000);
        // Three messages fill the window and the observer's buffer, one has begun, and one waits to begin.
        assert_kept(run.clone().see(1, 1..=5));
        // The first was taken before the sixth was in transit.
        assert!(assert_broken(run.clone().see(1, 1..=6), TimeToLive).contains("before it could take it"));
        // Messages that are taken before they expire make room for others that have not expired.
        let mut run = HistoryBuilder::new();
        run.stream(1);
        for nth in 1..=12 {
            run.push_for(&body(nth), 100).see(1, [nth]).wait(50);
        }
        assert_kept(run.finish());
    }

    #[test]
    fn a_batch_is_delivered_as_a_whole() {
        let mut run = HistoryBuilder::new();
        run.stream(1);
        let bodies: Vec<_> = (1..=12).map(|nth| format!("{nth}{}", "x".repeat(30_000))).collect();
        let pushes: Vec<_> = bodies.iter().map(|body| run.send_for(body, 100)).collect();
        run.store_together(&bodies);
        for push in pushes {
            run.ack(push);
        }
        assert_kept(run.wait(3_000).see(1, 1..=12));
    }

    #[test]
    fn the_clock_was_set_forward_long_ago() {
        let mut run = HistoryBuilder::new();
        run.push_for("a", 20_000).wait(100).set_clock(25_000).wait(1_500);
        assert_broken(run.stream(1).see(1, [1]), TimeToLive);
    }

    #[test]
    fn expired_messages_stay_too_long() {
        let mut run = HistoryBuilder::new();
        run.push_for("a", 100).push("b").wait(5_000);
        assert!(assert_broken(run.finish(), TimeToLive).ends_with("has expired long ago and is still stored"));
    }

    #[test]
    fn expired_messages_may_stay_for_a_while() {
        // In turn: it has not expired for long; no broker hosted the queue for long; a fault was in the way; the clock was
        // set; it is the last one.
        assert_kept(HistoryBuilder::new().push_for("a", 100).push("b").wait(1_500).finish());
        assert_kept(HistoryBuilder::new().push_for("a", 100).push("b").wait(5_000).take_over(2).finish());
        assert_kept(
            HistoryBuilder::new().push_for("a", 100).push("b").fault(0).wait(5_000).end_fault(0).wait(1_000).finish(),
        );
        assert_kept(HistoryBuilder::new().push_for("a", 60_000).push("b").set_clock(70_000).wait(5_000).finish());
        assert_kept(HistoryBuilder::new().push("a").push_for("b", 100).wait(5_000).finish());
    }

    #[test]
    fn a_batch_is_trimmed_as_a_whole() {
        let mut run = HistoryBuilder::new();
        let (a, b) = (run.send_for("a", 100), run.send("b"));
        run.store_together(&["a", "b"]);
        assert_kept(run.ack(a).ack(b).push("c").wait(5_000).finish());
    }
}

//! Promise 8: channels keep their ids, topics and starts.

use rmom_sim::history::Event;
use uuid::Uuid;

use super::{
    Promise, Violation,
    index::{At, Call, CallKind, Channel, Created, Index, Reader, accepts, folded},
};

/// A channel that no caller asked to delete, of a queue that is not deleted, still exists at the end as it was created.
/// Managers know it, no stream or consumer is told that it does not exist, and its readers get only messages of its topic
/// after its start. The only exception is a disposable channel that had no subscriber for long.
pub(super) fn check(index: &Index<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (&id, channel) in &index.channels {
        violations.extend(in_the_end(index, id, channel));
    }
    violations.extend(index.history.iter().enumerate().filter_map(|(at, record)| match &record.event {
        Event::ChannelSeen { channel, topic } => seen(index, at, *channel, topic.as_deref()),
        _ => None,
    }));
    violations.extend(index.calls.values().filter_map(|call| starts_too_early(index, call)));
    for reader in &index.readers {
        violations.extend(denied(index, reader));
        violations.extend(misled(index, reader));
    }
    violations
}

/// The channel as it was created, if it must still exist at that record.
fn alive<'a>(index: &Index<'a>, id: Uuid, at: At) -> Option<Created<'a>> {
    let channel = index.channels.get(&id)?;
    let created = channel.created.filter(|created| created.at < at)?;
    let before = |earlier: Option<At>| earlier.is_some_and(|earlier| earlier < at);
    let tombstoned = index.queues.get(&created.queue_id).and_then(|queue| queue.tombstoned);
    let expired = || channel.removed.is_some_and(|removed| removed < at && is_idle(index, id, channel, removed));
    let gone =
        before(channel.deleting) || before(tombstoned) || index.rolled_back.iter().any(|&went| went < at) || expired();
    (!gone).then_some(created)
}

/// True if a disposable channel was created, and last used, so long ago that a broker may delete it.
fn is_idle(index: &Index<'_>, id: Uuid, channel: &Channel<'_>, at: At) -> bool {
    let Some(added) = channel.disposable else { return false };
    let readers = index.readers.iter().filter(|reader| reader.channel == id && reader.opened.is_some_and(|it| it < at));
    let used = readers.map(|reader| last_use(index, reader, at)).fold(added, At::max);
    // Brokers do not notice that the store's clock was set by a small amount.
    let clock_was_set = index.history.iter().any(|record| matches!(record.event, Event::StoreClock { .. }));
    let least = if clock_was_set { index.bounds.idle / 2 } else { index.bounds.idle };
    index.micros(at) - index.micros(used) >= least.saturating_mul(1_000)
}

/// The last time before a record at which a reader certainly had a subscription: when the last message was stored that its
/// broker sent it, or when it asked. A client can hear of the end of its subscription much later.
fn last_use(index: &Index<'_>, reader: &Reader<'_>, before: At) -> At {
    let asked = reader.asked.unwrap_or(reader.began);
    let queue = index.queue_of(reader).and_then(|id| index.queues.get(&id));
    let stored = |offset| queue.and_then(|queue| queue.at_offset(offset).last()).map(|message| message.at);
    let sent = reader.received.iter().filter_map(|received| stored(received.offset)).filter(|&at| at < before);
    sent.fold(asked, At::max)
}

fn in_the_end(index: &Index<'_>, id: Uuid, channel: &Channel<'_>) -> Option<Violation> {
    let done = index.milestones.audit_done?;
    let created = alive(index, id, done)?;
    let queue = index.queue_name(created.queue_id);
    let (what, at) = match channel.audit {
        None => (format!("channel {id} of {queue} is gone, although no client deleted it"), done),
        Some(found) if found.queue_id != created.queue_id => {
            let now = index.queue_name(found.queue_id);
            (format!("channel {id} was created for {queue}, but belongs to {now}"), found.at)
        }
        Some(found) if folded(found.topic) != folded(created.topic) => {
            let (was, is) = (created.topic, found.topic);
            (format!("channel {id} of {queue} was created with topic {was:?}, but has {is:?}"), found.at)
        }
        Some(found) if starts_elsewhere(index, created, found) => {
            let (was, is) = (created.start, found.start);
            (
                format!("channel {id} of {queue} was created to start after offset {was}, but starts after {is}"),
                found.at,
            )
        }
        Some(_) => return None,
    };
    Some(index.violation(Promise::ChannelsSurvive, what, [created.at, at]))
}

/// A later start is equivalent if every offset between the two was already gone when the channel was created; its creator
/// may not have been told which of them was used.
fn starts_elsewhere(index: &Index<'_>, created: Created<'_>, found: Created<'_>) -> bool {
    let Some(queue) = index.queues.get(&created.queue_id) else { return found.start != created.start };
    let mut between = queue.between(created.start, found.start.saturating_add(1));
    found.start < created.start || between.any(|message| !index.is_excused(queue, message, created.at))
}

/// A channel that should start with messages pushed from now on, but starts with messages stored before it was requested.
fn starts_too_early(index: &Index<'_>, call: &Call<'_>) -> Option<Violation> {
    let CallKind::CreateChannel { latest: true, .. } = call.what else { return None };
    let answered = call.outcome?;
    let Event::ChannelCreated { channel, queue_id, start, .. } = &index.history[answered].event else { return None };
    let queue = index.queues.get(queue_id)?;
    let mut before = queue.messages.iter().filter(|message| message.at < call.at && message.stored.offset > *start);
    let last = before.next_back().filter(|message| !index.rolled_back_after(message.at))?;
    let (name, offset) = (index.queue_name(*queue_id), last.stored.offset);
    let what = format!(
        "channel {channel} of {name} should start with the latest message, but starts after {start}, although {offset} was stored"
    );
    Some(index.violation(Promise::ChannelsSurvive, what, [last.at, call.at, answered]))
}

fn seen(index: &Index<'_>, at: At, id: Uuid, topic: Option<&str>) -> Option<Violation> {
    let created = alive(index, id, at)?;
    let queue = index.queue_name(created.queue_id);
    let what = match topic {
        None => format!("a manager does not know channel {id} of {queue}, which no client deleted"),
        Some(topic) if folded(topic) != folded(created.topic) => {
            format!(
                "a manager says that channel {id} of {queue} has topic {topic:?}; it was created with {:?}",
                created.topic
            )
        }
        Some(_) => return None,
    };
    Some(index.violation(Promise::ChannelsSurvive, what, [created.at, at]))
}

fn denied(index: &Index<'_>, reader: &Reader<'_>) -> Option<Violation> {
    let (at, code) = reader.ended?;
    code.filter(|code| matches!(*code, "CHANNEL_NOT_FOUND" | "NOT_FOUND"))?;
    let created = alive(index, reader.channel, at)?;
    let (name, id) = (reader.name(), reader.channel);
    let what = format!("{name} was answered that channel {id} does not exist, although no client deleted it");
    Some(index.violation(Promise::ChannelsSurvive, what, [created.at, reader.began, at]))
}

/// A message that is not for the channel.
fn misled(index: &Index<'_>, reader: &Reader<'_>) -> Option<Violation> {
    let created = index.channel(reader.channel)?;
    reader.received.iter().find_map(|received| {
        let why = if !accepts(created.topic, received.topic) {
            format!("of topic {:?}, on a channel with topic {:?}", received.topic, created.topic)
        } else if reader.after.is_none() && received.offset <= created.start {
            format!("on a channel that starts after {}", created.start)
        } else {
            return None;
        };
        let what = format!("{} received offset {} {why}", reader.name(), received.offset);
        Some(index.violation(Promise::ChannelsSurvive, what, [created.at, received.at]))
    })
}

#[cfg(test)]
mod tests {
    use rmom_sim::history::Event;
    use uuid::Uuid;

    use crate::check::{
        Promise::ChannelsSurvive,
        testing::{CHANNEL, HistoryBuilder, assert_broken, assert_kept},
    };

    const OTHER: Uuid = Uuid::from_u128(0xc2);

    fn seen(run: &mut HistoryBuilder, channel: Uuid, topic: Option<&str>) {
        run.record("operator", Event::ChannelSeen { channel, topic: topic.map(Into::into) });
    }

    #[test]
    fn channels_survive() {
        let mut run = HistoryBuilder::new();
        run.channel(OTHER, "News", 0).take_over(2);
        run.channels.get_mut(&OTHER).expect("it was created").1 = "news".into();
        seen(&mut run, OTHER, Some("news"));
        seen(&mut run, CHANNEL, Some("__none__"));
        assert_kept(run.stream(1).finish());
    }

    #[test]
    fn a_channel_is_gone() {
        let mut run = HistoryBuilder::new();
        run.channels.clear();
        assert!(assert_broken(run.finish(), ChannelsSurvive).ends_with("is gone, although no client deleted it"));
    }

    #[test]
    fn a_channel_has_another_topic_start_or_queue() {
        let mut run = HistoryBuilder::new();
        run.push("a");
        for changed in [(1, "news", 0), (1, "", 1), (2, "", 0)] {
            let mut run = run.clone();
            run.channels.insert(CHANNEL, (changed.0, changed.1.into(), changed.2));
            assert_broken(run.finish(), ChannelsSurvive);
        }
        run.channel(OTHER, "", 1).channels.insert(OTHER, (1, String::new(), 0));
        assert_broken(run.finish(), ChannelsSurvive);
    }

    #[test]
    fn a_start_missing_in_the_answer_lies_after_trimmed_messages() {
        let mut run = HistoryBuilder::new();
        run.push_for("a", 50).push("b").wait(100).trim(1).channel(OTHER, "", 0);
        run.channels.insert(OTHER, (1, String::new(), 1));
        assert_kept(run.finish());
    }

    #[test]
    fn deleted_channels_are_gone() {
        let mut run = HistoryBuilder::new();
        run.push("a");
        let op = run.next_op();
        run.record("operator", Event::ChannelDeleting { op, channel: CHANNEL });
        run.channels.clear();
        let mut unknown = run.clone();
        seen(&mut unknown, CHANNEL, None);
        unknown.record("operator", Event::AdminFailed { op, code: "DEADLINE_EXCEEDED".into(), unknown: true });
        assert_kept(unknown.clone().stream(1).end(1, "CHANNEL_NOT_FOUND").finish());
        run.record("operator", Event::ChannelDeleted { op, channel: CHANNEL });
        seen(&mut run, CHANNEL, None);
        assert_kept(run.finish());
        // The channel is deleted with its queue.
        let mut run = HistoryBuilder::new();
        run.delete();
        seen(&mut run, CHANNEL, None);
        assert_kept(run.create(2).finish());
    }

    #[test]
    fn a_delete_that_failed_may_be_done_later() {
        let mut run = HistoryBuilder::new();
        let op = run.next_op();
        run.record("operator", Event::ChannelDeleting { op, channel: CHANNEL });
        run.record("operator", Event::AdminFailed { op, code: "DEADLINE_EXCEEDED".into(), unknown: true });
        assert_kept(run.finish());
    }

    #[test]
    fn only_idle_disposable_channels_are_deleted_without_a_request() {
        let remove = |run: &mut HistoryBuilder| {
            run.record("database", Event::ChannelRemoved { channel: OTHER });
            run.channels.remove(&OTHER);
            run.finish().clone()
        };
        let mut run = HistoryBuilder::new();
        run.channel(OTHER, "", 0);
        assert_broken(&remove(run.clone().wait(9_000)), ChannelsSurvive);
        let added = Event::ChannelAdded { channel: OTHER, queue_id: 1, topic: String::new(), disposable: true };
        run.record("database", added);
        assert_kept(&remove(run.clone().wait(9_000)));
        assert_broken(&remove(run.clone().wait(3_000)), ChannelsSurvive);
        run.wait(9_000).stream_of(1, OTHER, None);
        assert_broken(&remove(run.clone().wait(3_000)), ChannelsSurvive);
        // A client can hear of the end of its subscription much later.
        assert_kept(&remove(run.clone().wait(9_000)));
        run.wait(9_000).push("a").see(1, [1]);
        assert_broken(&remove(run.clone().wait(3_000)), ChannelsSurvive);
        assert_kept(&remove(run.clone().wait(9_000)));
        run.end(1, "UNAVAILABLE");
        run.wait(9_000).record("database", Event::ChannelRemoved { channel: OTHER });
        run.channels.remove(&OTHER);
        assert_kept(run.stream_of(2, OTHER, None).end(2, "CHANNEL_NOT_FOUND").finish());
    }

    #[test]
    fn a_manager_does_not_know_a_channel() {
        let mut run = HistoryBuilder::new();
        seen(&mut run, CHANNEL, None);
        assert_broken(&run, ChannelsSurvive);
        let mut run = HistoryBuilder::new();
        seen(&mut run, CHANNEL, Some("news"));
        assert_broken(&run, ChannelsSurvive);
    }

    #[test]
    fn subscribers_get_channel_not_found() {
        assert_broken(HistoryBuilder::new().take_over(2).stream(1).end(1, "CHANNEL_NOT_FOUND"), ChannelsSurvive);
        assert_broken(
            HistoryBuilder::new().consumer("b1", None).stop("b1", Some("CHANNEL_NOT_FOUND")),
            ChannelsSurvive,
        );
        assert_kept(HistoryBuilder::new().take_over(2).stream(1).end(1, "NOT_HOSTED"));
    }

    #[test]
    fn subscribers_receive_messages_of_another_topic() {
        let mut run = HistoryBuilder::new();
        run.push("a").push("b");
        assert_broken(run.clone().channel(OTHER, "news", 0).stream_of(1, OTHER, None).see(1, [1]), ChannelsSurvive);
        assert_broken(run.channel(OTHER, "", 1).stream_of(1, OTHER, None).see(1, [1, 2]), ChannelsSurvive);
    }
}

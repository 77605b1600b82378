//! Promise 8: channels keep their ids, topics and starts.

use uuid::Uuid;

use super::{
    Promise, Violation,
    index::{At, Channel, Created, Index, Reader, accepts, folded},
};
use crate::history::Event;

/// A channel that nobody asked to delete, of a queue that is not deleted, is there in the end as it was created; managers know
/// it; no stream or consumer is told that there is none; and what they are given is of its topic and after its start.
pub(super) fn check(index: &Index<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (&id, channel) in &index.channels {
        violations.extend(in_the_end(index, id, channel));
    }
    violations.extend(index.history.iter().enumerate().filter_map(|(at, record)| match &record.event {
        Event::ChannelSeen { channel, topic } => seen(index, at, *channel, topic.as_deref()),
        _ => None,
    }));
    for reader in &index.readers {
        violations.extend(denied(index, reader));
        violations.extend(misled(index, reader));
    }
    violations
}

/// What a channel was created as, if at a record it must still exist.
fn alive<'a>(index: &Index<'a>, id: Uuid, at: At) -> Option<Created<'a>> {
    let channel = index.channels.get(&id)?;
    let created = channel.created.filter(|created| created.at < at)?;
    let before = |earlier: Option<At>| earlier.is_some_and(|earlier| earlier < at);
    let tombstoned = index.queues.get(&created.queue_id).and_then(|queue| queue.tombstoned);
    let gone = before(channel.deleting) || before(tombstoned) || index.went_back.iter().any(|&went| went < at);
    (!gone).then_some(created)
}

fn in_the_end(index: &Index<'_>, id: Uuid, channel: &Channel<'_>) -> Option<Violation> {
    let done = index.milestones.audit_done?;
    let created = alive(index, id, done)?;
    let queue = index.queue_name(created.queue_id);
    let (what, at) = match channel.audit {
        None => (format!("channel {id} of {queue} is gone, and nobody deleted it"), done),
        Some(found) if found.queue_id != created.queue_id => {
            let now = index.queue_name(found.queue_id);
            (format!("channel {id} was created for {queue}, and is one of {now}"), found.at)
        }
        Some(found) if folded(found.topic) != folded(created.topic) => {
            let (was, is) = (created.topic, found.topic);
            (format!("channel {id} of {queue} was created with topic {was:?}, and has {is:?}"), found.at)
        }
        Some(found) if starts_elsewhere(index, created, found) => {
            let (was, is) = (created.start, found.start);
            (
                format!("channel {id} of {queue} was created to start after offset {was}, and starts after {is}"),
                found.at,
            )
        }
        Some(_) => return None,
    };
    Some(index.violation(Promise::ChannelsSurvive, what, [created.at, at]))
}

/// A later start is the same if nothing between the two was there when the channel was created; it may not have been told.
fn starts_elsewhere(index: &Index<'_>, created: Created<'_>, found: Created<'_>) -> bool {
    let Some(queue) = index.queues.get(&created.queue_id) else { return found.start != created.start };
    let mut between = queue.between(created.start, found.start.saturating_add(1));
    found.start < created.start || between.any(|message| !index.is_excused(queue, message, created.at))
}

fn seen(index: &Index<'_>, at: At, id: Uuid, topic: Option<&str>) -> Option<Violation> {
    let created = alive(index, id, at)?;
    let queue = index.queue_name(created.queue_id);
    let what = match topic {
        None => format!("a manager does not know channel {id} of {queue}, which nobody deleted"),
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
    let what = format!("{name} was told that there is no channel {id}, which nobody deleted");
    Some(index.violation(Promise::ChannelsSurvive, what, [created.at, reader.began(), at]))
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
        let what = format!("{} was given offset {} {why}", reader.name(), received.offset);
        Some(index.violation(Promise::ChannelsSurvive, what, [created.at, received.at]))
    })
}

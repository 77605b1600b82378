//! A sentence for each event.

use std::fmt::{Display, Write as _};

use rmom_sim::history::{Event, Phase, Pos};

use super::{At, Names};

/// Bodies are cut after this many characters.
const SHOWN_CHARS: usize = 40;

/// A record's event, without its time and host, in lower case and without a full stop.
#[must_use]
pub fn sentence(event: &Event, names: &Names) -> String {
    runner(event, names)
        .or_else(|| administration(event, names))
        .or_else(|| production(event, names))
        .or_else(|| consumption(event, names))
        .or_else(|| database(event, names))
        .unwrap_or_else(|| format!("{event:?}"))
}

fn runner(event: &Event, names: &Names) -> Option<String> {
    Some(match event {
        Event::Began { seed, convergence_bound_millis, .. } => format!(
            "seed {seed} begins; the cluster must recover within {} of the last fault",
            millis(*convergence_bound_millis)
        ),
        Event::PhaseBegan { phase } => match phase {
            Phase::Faults => "the workload and the faults begin".to_owned(),
            Phase::Healed => "all faults are over; pending work must now complete".to_owned(),
            Phase::Drain => "pushing has ended; subscribers take the remaining messages".to_owned(),
            Phase::Audit => "the run is over; the contents of the store are recorded".to_owned(),
        },
        Event::FaultBegan { what, .. } => format!("fault: {what}"),
        Event::FaultEnded { step } => format!("end of fault: {}", names.fault(*step)),
        Event::Converged => "the cluster has recovered".to_owned(),
        Event::TimeUp { pending } => format!("the time limit was reached; still missing: {pending}"),
        Event::Note { text } => text.clone(),
        _ => return None,
    })
}

fn administration(event: &Event, names: &Names) -> Option<String> {
    Some(match event {
        Event::QueueCreating { label, .. } => format!("asked for queue {label}"),
        Event::QueueCreated { label, queue_id, .. } => format!("queue {label} exists (id {queue_id})"),
        Event::QueueDeleting { label, .. } => format!("asked to delete queue {label}"),
        Event::QueueDeleted { label, .. } => format!("queue {label} is deleted"),
        Event::ChannelCreated { channel, start, .. } => {
            format!("{} exists, starting after offset {start}", names.channel(*channel))
        }
        Event::ChannelDeleting { channel, .. } => format!("asked to delete {}", names.channel(*channel)),
        Event::ChannelDeleted { channel, .. } => format!("{} is deleted", names.channel(*channel)),
        Event::ChannelSeen { channel, topic: Some(topic) } => {
            format!("a manager knows {}{}", names.channel(*channel), in_topic(topic))
        }
        Event::ChannelSeen { channel, topic: None } => format!("no manager knows {}", names.channel(*channel)),
        Event::AdminFailed { code, unknown, .. } => format!("a call failed: {code}{}", maybe(*unknown, "done")),
        Event::BadInput { what, expected, got, message, .. } if expected == got => {
            format!("bad input was refused ({what}): {got}, {message:?}")
        }
        Event::BadInput { what, expected, got, message, .. } => {
            format!("bad input ({what}) was answered with {got}, not {expected}: {message:?}")
        }
        Event::Health { of, healthy, expected } => {
            let well = |healthy: bool| if healthy { "healthy" } else { "unhealthy" };
            match expected {
                Some(expected) if expected != healthy => {
                    format!("{of} reports that it is {}, but should be {}", well(*healthy), well(*expected))
                }
                _ => format!("{of} reports that it is {}", well(*healthy)),
            }
        }
        _ => return None,
    })
}

fn production(event: &Event, names: &Names) -> Option<String> {
    Some(match event {
        Event::PushSent { label, topic, body, producer, sequence, ttl_millis, .. } => {
            let mut text = format!("pushed {} to {label}{}", shown(body), in_topic(topic));
            let _ = match producer {
                Some(producer) => write!(text, ", number {sequence} of {producer}"),
                None => write!(text, ", without a producer"),
            };
            if let Some(ttl) = ttl_millis {
                let _ = write!(text, ", with a lifetime of {}", millis(*ttl));
            }
            text
        }
        Event::PushAcked { push, offset, duplicate, .. } => {
            let place = offset.map_or_else(String::new, |offset| format!(" at offset {offset}"));
            let duplicate = if *duplicate { ", as a duplicate" } else { "" };
            format!("{} was acknowledged{place}{duplicate}", shown(names.pushed(*push)))
        }
        Event::PushFailed { push, code, unknown } => {
            format!("{} failed: {code}{}", shown(names.pushed(*push)), maybe(*unknown, "stored"))
        }
        _ => return None,
    })
}

fn consumption(event: &Event, names: &Names) -> Option<String> {
    Some(match event {
        Event::ConsumerStarted { consumer, channel, resumed, .. } => {
            format!("{consumer} subscribed to {}{}", names.channel(*channel), after(resumed.as_ref()))
        }
        Event::Delivered { offset, body, topic, .. } => {
            format!("received {} at offset {offset}{}", shown(body), in_topic(topic))
        }
        Event::ConsumerStopped { consumer, position, error } => {
            let kept = position.map_or_else(|| "no position".to_owned(), |pos| format!("offset {}", pos.offset));
            match error {
                Some(error) => format!("{consumer} failed: {error}; it keeps {kept}"),
                None => format!("{consumer} ended; it keeps {kept}"),
            }
        }
        Event::StreamAsked { stream, channel, after: asked, .. } => {
            format!("asked for {} on stream {stream}{}", names.channel(*channel), after(asked.as_ref()))
        }
        Event::StreamOpened { stream, channel, after: asked, broker, position, .. } => {
            let epoch = position.map_or_else(String::new, |pos| format!(", which serves epoch {}", pos.epoch));
            format!("stream {stream} opened at {broker}: {}{}{epoch}", names.channel(*channel), after(asked.as_ref()))
        }
        Event::StreamMessage { stream, offset, body, topic, .. } => {
            format!("received {} at offset {offset}{} on stream {stream}", shown(body), in_topic(topic))
        }
        Event::StreamEnded { stream, code } => format!("stream {stream} ended: {code}"),
        _ => return None,
    })
}

fn database(event: &Event, names: &Names) -> Option<String> {
    Some(match event {
        Event::Registered { broker, broker_id, .. } => format!("{broker} registered as broker {broker_id}"),
        Event::QueueAdded { queue_id, label } => format!("queue {label} was created (id {queue_id})"),
        Event::Assigned { queue_id, broker_id } => {
            format!("{} is assigned to {}", names.queue(*queue_id), names.broker(*broker_id))
        }
        Event::Claimed { queue_id, epoch, broker_id, .. } => {
            format!("epoch {epoch} of {} begins: {} owns it", names.queue(*queue_id), names.broker(*broker_id))
        }
        Event::Stored { queue_id, epoch, messages, by, .. } => {
            let (first, last) = (messages.first(), messages.last());
            let what = match (first, last) {
                (Some(first), Some(last)) if messages.len() > 1 => {
                    format!("{} messages at offsets {} … {}", messages.len(), first.offset, last.offset)
                }
                (Some(only), _) => format!("{} at offset {}", shown(&only.body), only.offset),
                _ => "an empty batch".to_owned(),
            };
            format!("stored {what} of {} for {by}, epoch {epoch}", names.queue(*queue_id))
        }
        Event::AppendRefused { queue_id, epoch, why, by } => {
            format!("refused an append to {} by {by}, epoch {epoch}: {why}", names.queue(*queue_id))
        }
        Event::Trimmed { queue_id, through, .. } => {
            format!("removed {} through offset {through}", names.queue(*queue_id))
        }
        Event::QueueTombstoned { queue_id } => format!("{} is a tombstone", names.queue(*queue_id)),
        Event::StoreClock { from_millis, to_millis } => {
            let (by, how) =
                (from_millis.abs_diff(*to_millis), if to_millis < from_millis { "back" } else { "forward" });
            format!("the database's clock is set {how} by {}", millis(by))
        }
        Event::StoreRolledBack => "an earlier state of the database is restored".to_owned(),
        Event::AuditQueue { queue_id, end, trimmed_through, epoch, messages, .. } => format!(
            "{} ends at offset {end} under epoch {epoch}, is trimmed through {trimmed_through} and holds {}",
            names.queue(*queue_id),
            count(messages.len() as u64, "message")
        ),
        Event::AuditChannel { channel, start, .. } => {
            format!("{} starts after offset {start}", names.channel(*channel))
        }
        Event::AuditDone { at_millis } => format!("the audit is done, at {at_millis} on the database's clock"),
        _ => return None,
    })
}

/// A body for use in a sentence: short, printable, and quoted unless it is one plain word.
pub(crate) fn shown(body: &str) -> String {
    let short = body.chars().count() <= SHOWN_CHARS;
    let plain = !body.is_empty() && body.chars().all(|c| c.is_alphanumeric() || "-_./:#".contains(c));
    match (short, plain) {
        (true, true) => body.to_owned(),
        (true, false) => format!("{body:?}"),
        // Workloads pad their bodies at the end, so the beginning identifies them.
        (false, _) => {
            let head: String = body.chars().take(SHOWN_CHARS).collect();
            let word = head.split(|c: char| c.is_whitespace()).next().unwrap_or_default();
            if word.is_empty() || word.len() == head.len() { format!("{head:?}…") } else { format!("{word}…") }
        }
    }
}

/// `1 message`, `2 messages`.
pub(super) fn count(number: u64, what: impl Display) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn in_topic(topic: &str) -> String {
    if topic.is_empty() { String::new() } else { format!(" in topic {topic}") }
}

fn after(position: Option<&Pos>) -> String {
    position.map_or_else(String::new, |pos| format!(", resuming after offset {} of epoch {}", pos.offset, pos.epoch))
}

fn maybe(unknown: bool, what: &str) -> String {
    if unknown { format!(", but it may have been {what}") } else { String::new() }
}

fn millis(millis: u64) -> String {
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..60_000 => format!("{} s", millis as f64 / 1_000.0),
        _ => format!("{} min", At(millis * 1_000)),
    }
}

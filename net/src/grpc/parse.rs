//! Reads requests into the core's types, once. Errors name the field.

use std::time::Duration;

use rmom_core::{
    broker::{BrokerError, Header, NewMessage, OpenPush, ProducerStamp, PushRequest, PushRun, SubscribeRequest},
    model::{
        ChannelId, Epoch, IdError, Offset, Position, ProducerEpoch, ProducerId, ProducerKey, QueueId, QueueLabel,
        Sequence, Topic, limits::MAX_BATCH_MESSAGES,
    },
};
use rmom_proto::messages as wire;

/// Limit on the messages in one run of a push stream.
pub(super) const MAX_RUN_MESSAGES: usize = MAX_BATCH_MESSAGES;

fn invalid<T>(field: &'static str, reason: &'static str) -> Result<T, BrokerError> {
    Err(BrokerError::Invalid { field, reason })
}

fn queue_id(raw: u64) -> Result<Option<QueueId>, BrokerError> {
    Ok(if raw == 0 { None } else { Some(QueueId::parse(raw)?) })
}

fn sequence(field: &'static str, raw: u64) -> Result<Sequence, BrokerError> {
    Ok(Sequence::parse(raw).map_err(|_| IdError::TooLarge { field, found: raw })?)
}

/// The first of `count` sequences. Neither the last of them nor the one after it may leave the range of a counter.
fn first_of(field: &'static str, count: usize, raw: u64) -> Result<Sequence, BrokerError> {
    sequence(field, raw.saturating_add(count as u64))?;
    sequence(field, raw)
}

fn headers(raw: Vec<wire::Header>) -> Vec<Header> {
    raw.into_iter().map(|header| Header { name: header.name, value: header.value }).collect()
}

fn ttl(raw: u64) -> Option<Duration> {
    (raw != 0).then(|| Duration::from_millis(raw))
}

fn stamp(raw: &wire::ProducerStamp) -> Result<ProducerStamp, BrokerError> {
    Ok(ProducerStamp {
        key: ProducerKey { id: ProducerId::from_slice(&raw.id)?, epoch: ProducerEpoch::parse(raw.epoch)? },
        lowest_unacknowledged: sequence("lowest_unacknowledged", raw.lowest_unacknowledged)?,
    })
}

pub(super) fn push(raw: wire::Push) -> Result<PushRequest, BrokerError> {
    let producer = match &raw.producer {
        None if raw.sequence != 0 => return invalid("sequence", "it takes a producer; leave both out, or give both"),
        None => None,
        Some(_) if raw.sequence == 0 => return invalid("sequence", "with a producer it is 1 or more"),
        Some(producer) => Some((stamp(producer)?, first_of("sequence", 1, raw.sequence)?)),
    };
    Ok(PushRequest {
        label: QueueLabel::parse(&raw.queue_label)?,
        queue: queue_id(raw.queue_id)?,
        producer,
        message: NewMessage {
            content: raw.content,
            topic: Topic::parse(&raw.topic)?,
            headers: headers(raw.headers),
            ttl: ttl(raw.ttl_millis),
        },
    })
}

pub(super) fn open_push(raw: &wire::PushStreamOpen) -> Result<OpenPush, BrokerError> {
    Ok(OpenPush {
        label: QueueLabel::parse(&raw.queue_label)?,
        queue: queue_id(raw.queue_id)?,
        producer: raw.producer.as_ref().map(stamp).transpose()?,
    })
}

pub(super) fn check_run_length(found: usize) -> Result<(), BrokerError> {
    if found > MAX_RUN_MESSAGES {
        let why = format!("messages: there are {found}; the limit is {MAX_RUN_MESSAGES}");
        return Err(BrokerError::LimitReached(why));
    }
    Ok(())
}

pub(super) fn push_run(raw: wire::PushStreamMessages) -> Result<PushRun, BrokerError> {
    if raw.messages.is_empty() {
        return invalid("messages", "there is none; send at least one");
    }
    check_run_length(raw.messages.len())?;
    if raw.first_sequence == 0 {
        return invalid("first_sequence", "it is 1 or more");
    }
    let first = first_of("first_sequence", raw.messages.len(), raw.first_sequence)?;
    let lowest = sequence("lowest_unacknowledged", raw.lowest_unacknowledged)?;
    let messages = raw.messages.into_iter().map(push_message).collect::<Result<_, BrokerError>>()?;
    Ok(PushRun { first, messages, lowest_unacknowledged: (lowest != Sequence::ZERO).then_some(lowest) })
}

fn push_message(raw: wire::PushMessage) -> Result<NewMessage, BrokerError> {
    Ok(NewMessage {
        content: raw.content,
        topic: Topic::parse(&raw.topic)?,
        headers: headers(raw.headers),
        ttl: ttl(raw.ttl_millis),
    })
}

pub(super) fn subscribe(raw: &wire::SubscriptionRequest) -> Result<SubscribeRequest, BrokerError> {
    let position = match &raw.position {
        None => None,
        Some(position) if position.queue_id == 0 => {
            return invalid("position", "it names no queue; leave the position out to start where the channel starts");
        }
        Some(position) => Some(Position {
            queue: QueueId::parse(position.queue_id)?,
            epoch: Epoch::parse(position.epoch)?,
            offset: Offset::parse(position.offset)?,
        }),
    };
    Ok(SubscribeRequest { channel: ChannelId::parse(&raw.channel_id)?, position })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn producer() -> wire::ProducerStamp {
        wire::ProducerStamp { id: Bytes::from_static(&[7; 16]), epoch: 2, lowest_unacknowledged: 3 }
    }

    fn valid() -> wire::Push {
        wire::Push {
            content: "x".into(),
            topic: "News".into(),
            queue_label: "Q".into(),
            producer: Some(producer()),
            sequence: 5,
            headers: vec![wire::Header { name: "k".into(), value: "v".into() }],
            ttl_millis: 1_500,
            queue_id: 9,
        }
    }

    #[test]
    fn a_push_of_the_original_needs_no_field_of_ours() {
        let original = wire::Push { content: "x".into(), queue_label: "Q".into(), ..wire::Push::default() };
        let parsed = push(original).unwrap();
        assert_eq!(parsed.label.as_str(), "q");
        assert_eq!((parsed.queue, parsed.producer, parsed.message.ttl), (None, None, None));
        assert_eq!(parsed.message.topic, Topic::NONE);
    }

    #[test]
    fn every_field_of_a_push_arrives() {
        let parsed = push(valid()).unwrap();
        let (stamp, sequence) = parsed.producer.unwrap();
        assert_eq!((stamp.key.epoch.get(), stamp.lowest_unacknowledged.get(), sequence.get()), (2, 3, 5));
        assert_eq!(parsed.queue, Some(QueueId::new(9)));
        assert_eq!(parsed.message.topic.name(), Some("news"));
        assert_eq!(parsed.message.headers, [Header { name: "k".into(), value: "v".into() }]);
        assert_eq!(parsed.message.ttl, Some(Duration::from_millis(1_500)));
    }

    #[test]
    fn bad_fields_are_named() {
        let error = |change: fn(&mut wire::Push)| {
            let mut raw = valid();
            change(&mut raw);
            push(raw).unwrap_err().to_string()
        };
        let expected = [
            (error(|raw| raw.queue_label.clear()), "queue_label is empty"),
            (
                error(|raw| raw.producer.as_mut().unwrap().epoch = u64::MAX),
                "producer_epoch is 18446744073709551615; the limit is 9223372036854775807",
            ),
            (error(|raw| raw.queue_label = "__NONE__".into()), "queue_label is the reserved word"),
            (error(|raw| raw.topic = "x".repeat(256)), "topic has 256 bytes"),
            (error(|raw| raw.topic = "a\u{7}".into()), "topic has a character that cannot be printed"),
            (error(|raw| raw.sequence = 0), "sequence: with a producer it is 1 or more"),
            (error(|raw| raw.producer = None), "sequence: it takes a producer"),
            (error(|raw| raw.sequence = u64::MAX), "sequence is 18446744073709551615; the limit is"),
            // There has to be a sequence after it. This is checked before the queue is looked up.
            (error(|raw| raw.sequence = i64::MAX as u64), "sequence is 9223372036854775808; the limit is"),
            (error(|raw| raw.queue_id = u64::MAX), "queue_id is 18446744073709551615; the limit is"),
            (
                error(|raw| raw.producer.as_mut().unwrap().id = Bytes::from_static(b"short")),
                "producer_id has 5 bytes; it takes 16",
            ),
        ];
        for (found, expected) in expected {
            assert!(found.starts_with(expected), "{found:?} should begin with {expected:?}");
        }
    }

    #[test]
    fn bad_runs_are_named() {
        let run = |first_sequence, count| {
            let messages = vec![wire::PushMessage::default(); count];
            push_run(wire::PushStreamMessages { first_sequence, messages, lowest_unacknowledged: 0 })
        };
        assert_eq!(run(1, 2).unwrap().lowest_unacknowledged, None);
        assert!(run(1, 0).unwrap_err().to_string().starts_with("messages: there is none"));
        assert!(run(0, 1).unwrap_err().to_string().starts_with("first_sequence: it is 1 or more"));
        assert!(run(1, MAX_RUN_MESSAGES).is_ok());
        let error = run(1, MAX_RUN_MESSAGES + 1).unwrap_err();
        assert_eq!(error.to_string(), "messages: there are 8193; the limit is 8192");
        assert!(run(i64::MAX as u64 - 2, 2).is_ok());
        assert!(run(i64::MAX as u64 - 1, 2).is_err(), "the one after the last is out of range");
        assert!(run(u64::MAX, 2).is_err());
    }

    #[test]
    fn bad_subscriptions_are_named() {
        let channel_id = "67e55044-10b1-426f-9247-bb680e5fe0c8".to_owned();
        let subscribe = |channel_id: &str, position| {
            let raw = wire::SubscriptionRequest { channel_id: channel_id.into(), position };
            subscribe(&raw)
        };
        assert_eq!(subscribe(&channel_id, None).unwrap().position, None);
        let position = wire::Position { queue_id: 1, epoch: 2, offset: 3 };
        assert_eq!(subscribe(&channel_id, Some(position)).unwrap().position.unwrap().offset, Offset::new(3));
        let error = subscribe("nonsense", None).unwrap_err();
        assert_eq!(error.to_string(), "channel_id is not a UUID: \"nonsense\"");
        let error = subscribe(&channel_id, Some(wire::Position { queue_id: 0, ..position })).unwrap_err();
        assert!(error.to_string().starts_with("position: it names no queue"), "{error}");
        let error = subscribe(&channel_id, Some(wire::Position { offset: u64::MAX, ..position })).unwrap_err();
        assert!(error.to_string().starts_with("offset is"), "{error}");
    }
}

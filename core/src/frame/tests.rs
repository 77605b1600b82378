use std::time::Duration;

use bytes::{Buf as _, Bytes};
use proptest::prelude::{Strategy, any, prop, prop_assert_eq, proptest};
use prost::Message as _;
use rmom_proto::messages::Message;
use uuid::Uuid;

use super::{Batch, BatchBuilder, BatchHeader, FORMAT, FrameError, READS_UP_TO, Run, StoredBatch, encoded_len, runs};
use crate::model::{
    Epoch, Header, NewMessage, Offset, ProducerEpoch, ProducerId, ProducerKey, QueueId, Sequence, StoreTime, Topic,
};

const KEY: ProducerKey = ProducerKey { id: ProducerId::new(Uuid::from_u128(5)), epoch: ProducerEpoch::new(2) };
const STORED_AT: StoreTime = StoreTime::from_millis(1_000);

fn message(content: &[u8], topic: &str, ttl: Option<u64>) -> NewMessage {
    NewMessage {
        content: Bytes::copy_from_slice(content),
        topic: Topic::parse(topic).unwrap(),
        headers: vec![Header { name: "h".into(), value: Bytes::from_static(b"v") }],
        ttl: ttl.map(Duration::from_millis),
    }
}

fn stored(first: u64, messages: &[NewMessage]) -> StoredBatch {
    let mut builder = BatchBuilder::new(Offset::new(first));
    for (i, message) in messages.iter().enumerate() {
        let sequence = Sequence::new(i as u64 + 1);
        builder.push(KEY, sequence, KEY.message_id(QueueId::new(1), sequence), message);
    }
    let encoded = builder.finish();
    let header = BatchHeader {
        first: encoded.first,
        last: encoded.last,
        epoch: Epoch::new(3),
        stored_at: STORED_AT,
        expires_at: encoded.lifetime_millis.map_or(StoreTime::NEVER, |ttl| STORED_AT.plus_millis(ttl)),
        format: FORMAT,
        index: encoded.index,
    };
    StoredBatch { header, frames: encoded.frames, checksum: encoded.checksum }
}

fn decode_frames(mut frames: Bytes) -> Vec<Message> {
    let mut messages = Vec::new();
    while frames.has_remaining() {
        assert_eq!(frames.get_u8(), 0);
        let length = frames.get_u32() as usize;
        messages.push(Message::decode(frames.split_to(length)).unwrap());
    }
    messages
}

fn contents(batch: &Batch, after: u64, topic: &str, now: u64) -> Vec<String> {
    let chunk = batch.chunk(Offset::new(after), &Topic::parse(topic).unwrap(), StoreTime::from_millis(now));
    let messages = decode_frames(chunk.frames);
    assert_eq!(messages.len() as u64, chunk.messages);
    assert_eq!(chunk.through, batch.last());
    messages.iter().map(|m| String::from_utf8(m.content.to_vec()).unwrap()).collect()
}

#[test]
fn a_frame_is_the_message_any_grpc_client_reads() {
    let batch = Batch::decode(&stored(7, &[message(b"hello", "News", Some(50)), message(b"", "", None)])).unwrap();
    let frames = batch.chunk(Offset::ZERO, &Topic::NONE, STORED_AT).frames;
    let id = |sequence| KEY.message_id(QueueId::new(1), Sequence::new(sequence)).to_string();
    let headers = vec![rmom_proto::messages::Header { name: "h".into(), value: Bytes::from_static(b"v") }];
    let expected = [
        Message {
            id: id(1),
            content: Bytes::from_static(b"hello"),
            topic: "news".into(),
            offset: 7,
            headers: headers.clone(),
            ttl_millis: 50,
        },
        Message { id: id(2), content: Bytes::new(), topic: "__none__".into(), offset: 8, headers, ttl_millis: 0 },
    ];
    assert_eq!(decode_frames(frames), expected);
}

#[test]
fn topics_and_offsets_select() {
    let messages = [message(b"1", "a", None), message(b"2", "b", None), message(b"3", "a", None)];
    let batch = Batch::decode(&stored(11, &messages)).unwrap();
    assert_eq!(contents(&batch, 0, "", 0), ["1", "2", "3"]);
    assert_eq!(contents(&batch, 11, "", 0), ["2", "3"]);
    assert_eq!(contents(&batch, 0, "A", 0), ["1", "3"]);
    assert_eq!(contents(&batch, 0, "a", 0), ["1", "3"], "the shared selection is the same");
    assert_eq!(contents(&batch, 11, "a", 0), ["3"]);
    assert_eq!(contents(&batch, 13, "", 0), [""; 0]);
    assert_eq!(contents(&batch, 0, "c", 0), [""; 0]);
}

#[test]
fn a_message_expires_at_its_boundary() {
    let messages = [message(b"1", "", Some(10)), message(b"2", "", Some(20)), message(b"3", "", Some(5))];
    let batch = Batch::decode(&stored(1, &messages)).unwrap();
    assert_eq!(contents(&batch, 0, "", 1_004), ["1", "2", "3"]);
    assert_eq!(contents(&batch, 0, "", 1_005), ["1", "2"]);
    assert_eq!(contents(&batch, 0, "", 1_009), ["1", "2"]);
    assert_eq!(contents(&batch, 0, "", 1_010), ["2"]);
    assert_eq!(contents(&batch, 0, "", 1_019), ["2"]);
    assert_eq!(contents(&batch, 0, "", 1_020), [""; 0]);
    assert_eq!(batch.expires_at(), StoreTime::from_millis(1_020));
}

#[test]
fn runs_name_producers_in_offset_order() {
    let other = ProducerKey { id: ProducerId::new(Uuid::from_u128(6)), epoch: ProducerEpoch::ZERO };
    let mut builder = BatchBuilder::new(Offset::new(10));
    let plain = message(b"x", "", None);
    for (key, sequence) in [(KEY, 4), (KEY, 5), (other, 1), (KEY, 6)] {
        let sequence = Sequence::new(sequence);
        builder.push(key, sequence, key.message_id(QueueId::new(1), sequence), &plain);
    }
    let encoded = builder.finish();
    let run = |key, first, offset, count| Run { key, first: Sequence::new(first), offset: Offset::new(offset), count };
    let expected = [run(KEY, 4, 10, 2), run(other, 1, 12, 1), run(KEY, 6, 13, 1)];
    assert_eq!(encoded.runs, expected);
    assert_eq!(runs(FORMAT, &encoded.index, encoded.first, encoded.last).unwrap(), expected);
}

#[test]
fn damage_is_an_error() {
    let good = stored(1, &[message(b"one", "a", None), message(b"two", "b", Some(9))]);
    assert!(Batch::decode(&good).is_ok());

    let mut newer = good.clone();
    newer.header.format = READS_UP_TO + 1;
    assert_eq!(Batch::decode(&newer).unwrap_err(), FrameError::Newer { found: READS_UP_TO + 1 });

    for at in 0..good.frames.len() {
        let mut frames = good.frames.to_vec();
        frames[at] ^= 0x10;
        let flipped = StoredBatch { frames: frames.into(), ..good.clone() };
        assert!(matches!(Batch::decode(&flipped), Err(FrameError::Checksum { .. })));
    }
    let mut longer = good.clone();
    longer.header.last = longer.header.last.next();
    assert!(matches!(Batch::decode(&longer), Err(FrameError::Inconsistent(_))));

    let mut beyond = good.clone();
    beyond.header.last = Offset::new(i64::MAX as u64);
    assert!(matches!(Batch::decode(&beyond), Err(FrameError::Inconsistent(_))));
}

fn any_message() -> impl Strategy<Value = NewMessage> {
    (prop::collection::vec(any::<u8>(), 0..300), "[a-c]?", prop::option::of(1_u64..100))
        .prop_map(|(content, topic, ttl)| message(&content, &topic, ttl))
}

proptest! {
    /// Arbitrary bytes with a valid checksum are refused or read, and never cause a panic.
    #[test]
    fn decoding_never_panics(
        index in prop::collection::vec(any::<u8>(), 0..80),
        frames in prop::collection::vec(any::<u8>(), 0..80),
        first in 0_u64..4,
        count in 0_u64..4,
    ) {
        let (index, frames) = (Bytes::from(index), Bytes::from(frames));
        let header = BatchHeader {
            first: Offset::new(first),
            last: Offset::new(first + count),
            epoch: Epoch::new(1),
            stored_at: STORED_AT,
            expires_at: STORED_AT,
            format: FORMAT,
            index: index.clone(),
        };
        let checksum = super::checksum(&index, &frames);
        if let Ok(batch) = Batch::decode(&StoredBatch { header, frames, checksum }) {
            let _ = batch.chunk(Offset::ZERO, &Topic::NONE, STORED_AT);
        }
    }

    #[test]
    fn what_is_pushed_is_what_is_read(
        messages in prop::collection::vec(any_message(), 1..20),
        after in 0_u64..22,
        topic in "[a-d]?",
        now in 990_u64..1_110,
    ) {
        let batch = Batch::decode(&stored(1, &messages)).unwrap();
        let topic = Topic::parse(&topic).unwrap();
        let expected: Vec<(u64, Bytes)> = (1..)
            .zip(&messages)
            .filter(|(offset, m)| {
                let alive = m.ttl.is_none_or(|ttl| 1_000 + ttl.as_millis() > u128::from(now));
                *offset > after && alive && topic.accepts(&m.topic)
            })
            .map(|(offset, m)| (offset, m.content.clone()))
            .collect();
        let chunk = batch.chunk(Offset::new(after), &topic, StoreTime::from_millis(now));
        prop_assert_eq!(chunk.messages, expected.len() as u64);
        let read: Vec<_> = decode_frames(chunk.frames).into_iter().map(|m| (m.offset, m.content)).collect();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn the_length_is_known_before(message in any_message()) {
        let frames = stored(i64::MAX as u64 - 10, std::slice::from_ref(&message)).frames;
        prop_assert_eq!(frames.len(), encoded_len(&message));
    }
}

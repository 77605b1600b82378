//! Messages to push, and a simple model of the expected results.

use std::time::Duration;

use arbitrary::{Result, Unstructured};
use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use rmom_core::{
    broker::{Header, NewMessage},
    frame::{BatchBuilder, Encoded, Run, encoded_len},
    model::{Offset, ProducerEpoch, ProducerId, ProducerKey, QueueId, Sequence, StoreTime, Topic},
    ports::{BatchHeader, StoredBatch},
};
use rmom_proto::messages as wire;
use uuid::Uuid;

use super::{EPOCH, STORED_AT};

const QUEUE: QueueId = QueueId::new(7);
/// The most messages of a batch.
const MAX_MESSAGES: usize = 32;
/// The most headers of a message.
const MAX_HEADERS: u8 = 3;
/// Topics that occur often; any other number stands for a text of its own.
const TOPICS: [&str; 6] = ["", "a", "B", "__NONE__", "news/sport", "İstanbul"];
/// First offsets of batches: the largest batch fits behind each.
const FIRSTS: [u64; 6] = [1, 2, 127, 128, 1 << 35, i64::MAX as u64 - MAX_MESSAGES as u64];

/// A message with its producer.
pub(super) struct Push {
    key: ProducerKey,
    sequence: Sequence,
    offset: Offset,
    message: NewMessage,
}

/// The messages of a batch.
pub(super) struct Pushed {
    pub(super) first: Offset,
    pushes: Vec<Push>,
}

/// A topic from a small set, or of a few bytes.
pub(super) fn topic(input: &mut Unstructured<'_>) -> Result<Topic> {
    let number = usize::from(input.arbitrary::<u8>()?);
    if let Some(known) = TOPICS.get(number) {
        return Ok(Topic::parse(known).expect("it is a topic"));
    }
    let text = input.bytes((number % 16).min(input.len()))?;
    Ok(std::str::from_utf8(text).ok().and_then(|text| Topic::parse(text).ok()).unwrap_or_default())
}

fn lifetime(input: &mut Unstructured<'_>) -> Result<Option<Duration>> {
    Ok(match input.arbitrary::<u8>()? {
        0 => None,
        255 => Some(Duration::MAX),
        254 => Some(Duration::from_micros(1)),
        millis => Some(Duration::from_millis(u64::from(millis))),
    })
}

fn bytes(input: &mut Unstructured<'_>) -> Result<Bytes> {
    let length = usize::from(input.arbitrary::<u8>()?);
    Ok(Bytes::copy_from_slice(input.bytes(length.min(input.len()))?))
}

fn message(input: &mut Unstructured<'_>) -> Result<NewMessage> {
    let (topic, ttl) = (topic(input)?, lifetime(input)?);
    let headers = (0..input.arbitrary::<u8>()? % (MAX_HEADERS + 1))
        .map(|_| Ok(Header { name: String::from_utf8_lossy(&bytes(input)?).into_owned(), value: bytes(input)? }))
        .collect::<Result<_>>()?;
    Ok(NewMessage { content: bytes(input)?, topic, headers, ttl })
}

impl Pushed {
    /// At least one message; producers take turns, and some skip sequences, as after a settled failure.
    pub(super) fn arbitrary(input: &mut Unstructured<'_>) -> Result<Self> {
        let first = Offset::new(FIRSTS[usize::from(input.arbitrary::<u8>()?) % FIRSTS.len()]);
        let count = usize::from(input.arbitrary::<u8>()?) % MAX_MESSAGES + 1;
        let mut sequences = [0_u64; 4];
        let mut pushes: Vec<Push> = Vec::with_capacity(count);
        while pushes.len() < count && (pushes.is_empty() || !input.is_empty()) {
            let who = input.arbitrary::<u8>()?;
            let producer = usize::from(who % 4);
            sequences[producer] += u64::from(who >> 4) + 1;
            let key = ProducerKey {
                id: ProducerId::new(Uuid::from_u128(producer as u128 / 2)),
                epoch: [ProducerEpoch::ZERO, ProducerEpoch::new(i64::MAX as u64)][producer % 2],
            };
            let offset = first.plus(pushes.len() as u64);
            let sequence = Sequence::new(sequences[producer]);
            pushes.push(Push { key, sequence, offset, message: message(input)? });
        }
        Ok(Self { first, pushes })
    }

    /// A batch of one message.
    pub(super) fn one(message: NewMessage) -> Self {
        let key = ProducerKey { id: ProducerId::new(Uuid::from_u128(0)), epoch: ProducerEpoch::ZERO };
        let (first, sequence) = (Offset::new(1), Sequence::new(1));
        Self { first, pushes: vec![Push { key, sequence, offset: first, message }] }
    }

    pub(super) fn count(&self) -> u64 {
        self.pushes.len() as u64
    }

    pub(super) fn last(&self) -> Offset {
        self.pushes[self.pushes.len() - 1].offset
    }

    pub(super) fn encode(&self) -> Encoded {
        let mut builder = BatchBuilder::new(self.first);
        for push in &self.pushes {
            let before = builder.frame_bytes();
            let id = push.key.message_id(QUEUE, push.sequence);
            assert_eq!(builder.push(push.key, push.sequence, id, &push.message), push.offset);
            assert!(builder.frame_bytes() - before <= encoded_len(&push.message), "the length is known before");
        }
        let encoded = builder.finish();
        assert_eq!((encoded.first, encoded.last, encoded.messages()), (self.first, self.last(), self.count()));
        assert_eq!(encoded.checksum, checksum(&encoded.index, &encoded.frames));
        let expiry = encoded.lifetime_millis.map_or(StoreTime::NEVER, |millis| STORED_AT.plus_millis(millis));
        assert_eq!(expiry, self.expires_at());
        encoded
    }

    /// When the last of them expires.
    pub(super) fn expires_at(&self) -> StoreTime {
        self.pushes.iter().map(Push::expires_at).max().unwrap_or(StoreTime::NEVER)
    }

    /// The frames of the messages that satisfy `wanted`, as they go to the socket.
    pub(super) fn frames(&self, wanted: impl Fn(&Push) -> bool) -> Bytes {
        let mut frames = BytesMut::new();
        for push in self.pushes.iter().filter(|push| wanted(push)) {
            let body = push.on_the_wire().encode_to_vec();
            frames.put_u8(0);
            frames.put_u32(u32::try_from(body.len()).expect("messages are small here"));
            frames.put_slice(&body);
        }
        frames.freeze()
    }

    /// The producers' runs.
    pub(super) fn runs(&self) -> Vec<Run> {
        let follows = |a: &Push, b: &Push| a.key == b.key && a.sequence.next() == b.sequence;
        let run = |pushes: &[Push]| Run {
            key: pushes[0].key,
            first: pushes[0].sequence,
            offset: pushes[0].offset,
            count: pushes.len() as u64,
        };
        self.pushes.chunk_by(follows).map(run).collect()
    }
}

impl Push {
    /// In whole milliseconds, at least one; `None` means that it never expires.
    fn ttl_millis(&self) -> Option<u64> {
        self.message.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1))
    }

    fn expires_at(&self) -> StoreTime {
        self.ttl_millis().map_or(StoreTime::NEVER, |millis| STORED_AT.plus_millis(millis))
    }

    pub(super) fn is_for(&self, after: Offset, topic: &Topic, now: StoreTime) -> bool {
        // A message without a lifetime never expires, whatever the clock shows.
        let lives = self.message.ttl.is_none() || self.expires_at() > now;
        self.offset > after && lives && (topic.name().is_none() || *topic == self.message.topic)
    }

    fn on_the_wire(&self) -> wire::Message {
        let header = |header: &Header| wire::Header { name: header.name.clone(), value: header.value.clone() };
        wire::Message {
            id: self.key.message_id(QUEUE, self.sequence).to_string(),
            content: self.message.content.clone(),
            topic: self.message.topic.as_wire().to_owned(),
            offset: self.offset.get(),
            headers: self.message.headers.iter().map(header).collect(),
            ttl_millis: self.ttl_millis().unwrap_or(0),
        }
    }
}

/// The batch as the store returns it.
pub(super) fn stored(encoded: &Encoded) -> StoredBatch {
    let header = BatchHeader {
        first: encoded.first,
        last: encoded.last,
        epoch: EPOCH,
        stored_at: STORED_AT,
        expires_at: encoded.lifetime_millis.map_or(StoreTime::NEVER, |millis| STORED_AT.plus_millis(millis)),
        format: encoded.format(),
        index: encoded.index.clone(),
    };
    StoredBatch { header, frames: encoded.frames.clone(), checksum: encoded.checksum }
}

/// The checksum of a batch: CRC-32 of index and frames.
pub(super) fn checksum(index: &[u8], frames: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(index);
    hasher.update(frames);
    hasher.finalize()
}

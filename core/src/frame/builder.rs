//! Encoding: turns pushes into a batch.

use std::{collections::BTreeMap, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};
use rmom_proto::storage::{BatchIndex, ProducerRun};

use super::{Batch, FORMAT, FRAME_PREFIX_BYTES, Run, checksum};
use crate::model::{Epoch, Header, MessageId, NewMessage, Offset, ProducerKey, Sequence, StoreTime, Topic};

/// Field numbers of `messages.Message` and `messages.Header`.
mod field {
    pub(super) const ID: u32 = 1;
    pub(super) const CONTENT: u32 = 2;
    pub(super) const TOPIC: u32 = 3;
    pub(super) const OFFSET: u32 = 4;
    pub(super) const HEADERS: u32 = 5;
    pub(super) const TTL_MILLIS: u32 = 6;
    pub(super) const HEADER_NAME: u32 = 1;
    pub(super) const HEADER_VALUE: u32 = 2;
}

const ID_LEN: usize = uuid::fmt::Hyphenated::LENGTH;

fn bytes_len(tag: u32, len: usize) -> usize {
    if len == 0 { 0 } else { key_len(tag) + encoded_len_varint(len as u64) + len }
}

fn put_bytes(buf: &mut BytesMut, tag: u32, value: &[u8]) {
    if !value.is_empty() {
        encode_key(tag, WireType::LengthDelimited, buf);
        encode_varint(value.len() as u64, buf);
        buf.put_slice(value);
    }
}

fn varint_len(tag: u32, value: u64) -> usize {
    if value == 0 { 0 } else { key_len(tag) + encoded_len_varint(value) }
}

fn put_varint(buf: &mut BytesMut, tag: u32, value: u64) {
    if value != 0 {
        encode_key(tag, WireType::Varint, buf);
        encode_varint(value, buf);
    }
}

fn header_len(header: &Header) -> usize {
    bytes_len(field::HEADER_NAME, header.name.len()) + bytes_len(field::HEADER_VALUE, header.value.len())
}

/// A lifetime in milliseconds as stored: at least 1, since 0 means for ever.
fn ttl_millis(ttl: Option<Duration>) -> u64 {
    ttl.map_or(0, |ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1))
}

/// Length of a message as sent to the socket, prefix included; an upper bound for any offset.
#[must_use]
pub fn encoded_len(message: &NewMessage) -> usize {
    // The offset takes at most 9 bytes, because counters are below 2^63.
    FRAME_PREFIX_BYTES + body_len(message, i64::MAX as u64, ttl_millis(message.ttl))
}

fn body_len(message: &NewMessage, offset: u64, ttl: u64) -> usize {
    let headers: usize = message
        .headers
        .iter()
        .map(|header| {
            let len = header_len(header);
            key_len(field::HEADERS) + encoded_len_varint(len as u64) + len
        })
        .sum();
    bytes_len(field::ID, ID_LEN)
        + bytes_len(field::CONTENT, message.content.len())
        + bytes_len(field::TOPIC, message.topic.as_wire().len())
        + varint_len(field::OFFSET, offset)
        + headers
        + varint_len(field::TTL_MILLIS, ttl)
}

/// Collects messages of one queue into a batch, and encodes each at once.
#[derive(Debug)]
pub struct BatchBuilder {
    first: Offset,
    frames: BytesMut,
    lengths: Vec<u32>,
    topics: Vec<Topic>,
    topic_ids: BTreeMap<Topic, u32>,
    topic_of: Vec<u32>,
    ttls: Vec<u64>,
    runs: Vec<Run>,
}

/// A finished batch, not yet stored.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// Offset of the first message.
    pub first: Offset,
    /// Offset of the last message.
    pub last: Offset,
    /// The encoded `BatchIndex`.
    pub index: Bytes,
    /// The messages as sent to the socket.
    pub frames: Bytes,
    /// CRC-32 of index and frames.
    pub checksum: u32,
    /// The longest lifetime in milliseconds. `None` means that a message lives for ever.
    pub lifetime_millis: Option<u64>,
    /// The producers and their sequences, in offset order.
    pub runs: Vec<Run>,
    parts: Parts,
}

/// The parts of the index that a [`Batch`] keeps.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    pub(super) starts: Vec<u32>,
    pub(super) topics: Vec<Topic>,
    /// Empty if all messages have the same topic.
    pub(super) topic_of: Vec<u32>,
    /// Lifetimes in milliseconds, 0 for ever; a single entry if all are equal.
    pub(super) ttls: Vec<u64>,
}

impl BatchBuilder {
    /// An empty batch whose first message will be at `first`.
    #[must_use]
    pub fn new(first: Offset) -> Self {
        Self {
            first,
            frames: BytesMut::new(),
            lengths: Vec::new(),
            topics: Vec::new(),
            topic_ids: BTreeMap::new(),
            topic_of: Vec::new(),
            ttls: Vec::new(),
            runs: Vec::new(),
        }
    }

    /// Number of messages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// True if there are no messages.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Bytes of all frames.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        self.frames.len()
    }

    /// The producers and their sequences, in offset order.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Offset that the next message will get.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.first.plus(self.lengths.len() as u64)
    }

    /// Encodes a message at the next offset, and returns the offset.
    ///
    /// # Panics
    /// If the message is longer than 4 GiB, which validation excludes.
    pub fn push(&mut self, key: ProducerKey, sequence: Sequence, id: MessageId, message: &NewMessage) -> Offset {
        let offset = self.next_offset();
        let ttl = ttl_millis(message.ttl);
        let body = body_len(message, offset.get(), ttl);
        let start = self.frames.len();
        self.frames.reserve(FRAME_PREFIX_BYTES + body);
        self.frames.put_u8(0);
        self.frames.put_u32(u32::try_from(body).expect("validation limits the length of a message"));
        let mut id_text = [0; ID_LEN];
        id.uuid().hyphenated().encode_lower(&mut id_text);
        put_bytes(&mut self.frames, field::ID, &id_text);
        put_bytes(&mut self.frames, field::CONTENT, &message.content);
        put_bytes(&mut self.frames, field::TOPIC, message.topic.as_wire().as_bytes());
        put_varint(&mut self.frames, field::OFFSET, offset.get());
        for header in &message.headers {
            encode_key(field::HEADERS, WireType::LengthDelimited, &mut self.frames);
            encode_varint(header_len(header) as u64, &mut self.frames);
            put_bytes(&mut self.frames, field::HEADER_NAME, header.name.as_bytes());
            put_bytes(&mut self.frames, field::HEADER_VALUE, &header.value);
        }
        put_varint(&mut self.frames, field::TTL_MILLIS, ttl);
        assert_eq!(
            self.frames.len() - start,
            FRAME_PREFIX_BYTES + body,
            "the computed length of a frame is its length"
        );

        self.lengths.push(u32::try_from(FRAME_PREFIX_BYTES + body).expect("validation limits the length of a message"));
        let topic = self.topic_id(&message.topic);
        self.topic_of.push(topic);
        self.ttls.push(ttl);
        match self.runs.last_mut() {
            Some(run) if run.key == key && run.last().next() == sequence => run.count += 1,
            _ => self.runs.push(Run { key, first: sequence, offset, count: 1 }),
        }
        offset
    }

    fn topic_id(&mut self, topic: &Topic) -> u32 {
        if let Some(&last) = self.topic_of.last()
            && self.topics[last as usize] == *topic
        {
            return last;
        }
        if let Some(&id) = self.topic_ids.get(topic) {
            return id;
        }
        let id = u32::try_from(self.topics.len()).expect("a batch has fewer topics than messages");
        self.topics.push(topic.clone());
        self.topic_ids.insert(topic.clone(), id);
        id
    }

    /// Finishes the batch.
    ///
    /// # Panics
    /// If it is empty.
    #[must_use]
    pub fn finish(mut self) -> Encoded {
        assert!(!self.is_empty(), "a batch has at least one message");
        if self.topics.len() == 1 {
            self.topic_of = Vec::new();
        }
        let longest = if self.ttls.contains(&0) { None } else { self.ttls.iter().copied().max() };
        if self.ttls.iter().all(|&ttl| ttl == self.ttls[0]) {
            self.ttls.truncate(1);
        }
        let index = BatchIndex {
            topics: self.topics.iter().map(|topic| topic.name().unwrap_or_default().to_owned()).collect(),
            topic_of: self.topic_of.clone(),
            lengths: self.lengths.clone(),
            ttl_millis: self.ttls.clone(),
            producers: self
                .runs
                .iter()
                .map(|run| ProducerRun {
                    producer_id: Bytes::copy_from_slice(run.key.id.uuid().as_bytes()),
                    producer_epoch: run.key.epoch.get(),
                    first_sequence: run.first.get(),
                    count: u32::try_from(run.count).expect("a batch has at most MAX_BATCH_MESSAGES messages"),
                })
                .collect(),
        };
        let index = Bytes::from(index.encode_to_vec());
        let frames = self.frames.freeze();
        let starts = starts(&self.lengths).expect("a batch is smaller than 4 GiB");
        Encoded {
            first: self.first,
            last: self.first.plus(self.lengths.len() as u64 - 1),
            checksum: checksum(&index, &frames),
            index,
            frames,
            lifetime_millis: longest,
            runs: self.runs,
            parts: Parts { starts, topics: self.topics, topic_of: self.topic_of, ttls: self.ttls },
        }
    }
}

/// The start of each frame, and the end of the last one.
pub(super) fn starts(lengths: &[u32]) -> Option<Vec<u32>> {
    let mut starts = Vec::with_capacity(lengths.len() + 1);
    let mut at = 0_u32;
    starts.push(at);
    for &length in lengths {
        at = at.checked_add(length)?;
        starts.push(at);
    }
    Some(starts)
}

impl Encoded {
    /// Version of index and frames.
    #[must_use]
    pub const fn format(&self) -> u16 {
        FORMAT
    }

    /// Number of messages.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.last.next().since(self.first)
    }

    /// The batch once it is stored.
    #[must_use]
    pub fn stored(self, epoch: Epoch, stored_at: StoreTime) -> Batch {
        Batch::from_parts(self.first, epoch, stored_at, self.frames, self.parts)
    }
}

//! Delivery: turns a stored batch into the chunks that subscribers are sent.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;

use super::{
    FRAME_PREFIX_BYTES, FrameError, builder,
    builder::Parts,
    checksum,
    index::{self, runs},
    stored::StoredBatch,
};
use crate::model::{Epoch, Offset, StoreTime, Topic};

/// A durable batch, ready for delivery. All subscribers share it and the frames that it hands out.
#[derive(Debug)]
pub struct Batch {
    first: Offset,
    last: Offset,
    epoch: Epoch,
    stored_at: StoreTime,
    earliest_expiry: StoreTime,
    latest_expiry: StoreTime,
    frames: Bytes,
    parts: Parts,
    /// The chunk that each topic selects from this batch while nothing has expired; made at the first request.
    selections: Mutex<BTreeMap<Topic, Chunk>>,
}

/// A part of a batch, ready for sending to a subscriber.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Whole frames. Empty if no message is for this subscriber.
    pub frames: Bytes,
    /// The number of messages.
    pub messages: u64,
    /// Every message up to this offset has been considered.
    pub through: Offset,
}

impl Batch {
    pub(super) fn from_parts(first: Offset, epoch: Epoch, stored_at: StoreTime, frames: Bytes, parts: Parts) -> Self {
        let expiry = |ttl: u64| if ttl == 0 { StoreTime::NEVER } else { stored_at.plus_millis(ttl) };
        let expiries = || parts.ttls.iter().map(|&ttl| expiry(ttl));
        Self {
            first,
            last: first.plus(parts.starts.len() as u64 - 2),
            epoch,
            stored_at,
            earliest_expiry: expiries().min().unwrap_or(StoreTime::NEVER),
            latest_expiry: expiries().max().unwrap_or(StoreTime::NEVER),
            frames,
            parts,
            selections: Mutex::new(BTreeMap::new()),
        }
    }

    /// Reads a batch from the store and checks all of it.
    ///
    /// # Errors
    /// [`FrameError`] if it is damaged or newer than this binary.
    pub fn decode(stored: &StoredBatch) -> Result<Self, FrameError> {
        let header = &stored.header;
        let decoded = index::decode(header.format, &header.index)?;
        let found = checksum(&header.index, &stored.frames);
        if found != stored.checksum {
            return Err(FrameError::Checksum { expected: stored.checksum, found });
        }
        runs(header.format, &header.index, header.first, header.last)?;
        let messages = decoded.lengths.len();
        if index::count(header.first, header.last)? != messages as u64 {
            return Err(FrameError::Inconsistent("the index has another number of messages than the batch"));
        }
        let starts = builder::starts(&decoded.lengths)
            .filter(|starts| starts.last().is_some_and(|&end| end as usize == stored.frames.len()))
            .ok_or(FrameError::Inconsistent("the frames are not as long as the index says"))?;
        for span in starts.windows(2) {
            let frame = &stored.frames[span[0] as usize..span[1] as usize];
            let body = frame.len().checked_sub(FRAME_PREFIX_BYTES).and_then(|len| u32::try_from(len).ok());
            if body.is_none_or(|len| frame[0] != 0 || frame[1..FRAME_PREFIX_BYTES] != len.to_be_bytes()) {
                return Err(FrameError::Inconsistent("a frame's prefix contradicts the index"));
            }
        }
        if !matches!(decoded.ttl_millis.len(), len if len == 1 || len == messages) {
            return Err(FrameError::Inconsistent("the index has another number of lifetimes than messages"));
        }
        let topics = decoded.topics.iter().map(|topic| Topic::parse(topic)).collect::<Result<Vec<_>, _>>()?;
        let each_has_one =
            decoded.topic_of.len() == messages && decoded.topic_of.iter().all(|&topic| (topic as usize) < topics.len());
        let one_for_all = decoded.topic_of.is_empty() && topics.len() == 1;
        if !each_has_one && !one_for_all {
            return Err(FrameError::Inconsistent("the index does not give each message a topic"));
        }
        let parts = Parts { starts, topics, topic_of: decoded.topic_of, ttls: decoded.ttl_millis };
        Ok(Self::from_parts(header.first, header.epoch, header.stored_at, stored.frames.clone(), parts))
    }

    /// Offset of the first message.
    #[must_use]
    pub fn first(&self) -> Offset {
        self.first
    }

    /// Offset of the last message.
    #[must_use]
    pub fn last(&self) -> Offset {
        self.last
    }

    /// The epoch it was stored under.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// When it was stored.
    #[must_use]
    pub fn stored_at(&self) -> StoreTime {
        self.stored_at
    }

    /// When the last of its messages expires.
    #[must_use]
    pub fn expires_at(&self) -> StoreTime {
        self.latest_expiry
    }

    /// Number of messages.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.last.next().since(self.first)
    }

    /// Bytes of all frames.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        self.frames.len()
    }

    /// The part of this batch to send at `now` to a subscriber of `topic` that has everything up to `after`. A message whose
    /// expiry is `now` or earlier is left out.
    #[must_use]
    pub fn chunk(&self, after: Offset, topic: &Topic, now: StoreTime) -> Chunk {
        let nothing = Chunk { frames: Bytes::new(), messages: 0, through: self.last };
        if after >= self.last || self.latest_expiry <= now {
            return nothing;
        }
        // Counted from the batch's first message, at most 2^32 frames away.
        let from = usize::try_from(after.next().since(self.first)).unwrap_or(usize::MAX);
        let one_topic_for_all = self.parts.topic_of.is_empty();
        if one_topic_for_all && !topic.accepts(&self.parts.topics[0]) {
            return nothing;
        }
        let takes_all = topic.name().is_none() || one_topic_for_all;
        if self.earliest_expiry > now {
            if takes_all {
                return Chunk {
                    frames: self.frames.slice(self.parts.starts[from] as usize..),
                    messages: self.last.since(after.max(Offset::new(self.first.get() - 1))),
                    through: self.last,
                };
            }
            if from == 0 {
                if !self.parts.topics.contains(topic) {
                    return nothing;
                }
                let mut selections = self.selections.lock();
                return selections.entry(topic.clone()).or_insert_with(|| self.select(0, topic, now)).clone();
            }
        }
        self.select(from, topic, now)
    }

    /// Copies the messages that pass, one by one.
    fn select(&self, from: usize, topic: &Topic, now: StoreTime) -> Chunk {
        let parts = &self.parts;
        let passes = |at: usize| {
            let of = parts.topic_of.get(at).map_or(0, |&id| id as usize);
            let ttl = parts.ttls.get(at).copied().unwrap_or(parts.ttls[0]);
            let lives = ttl == 0 || self.stored_at.plus_millis(ttl) > now;
            mark!(ExpiredInsideBatch if !lives);
            topic.accepts(&parts.topics[of]) && lives
        };
        let mut frames = BytesMut::new();
        let mut messages = 0;
        for at in (from..parts.starts.len() - 1).filter(|&at| passes(at)) {
            frames.put_slice(&self.frames[parts.starts[at] as usize..parts.starts[at + 1] as usize]);
            messages += 1;
        }
        Chunk { frames: frames.freeze(), messages, through: self.last }
    }
}

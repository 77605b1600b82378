//! The oracle: when each message is alive by the store's clock, and what readers must therefore receive.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound::{Excluded, Included},
};

use rmom_core::model::StoreTime;
use tokio::time::Instant;

use super::clocks::{Jumps, Readings};
use crate::world::{Commit, Delivered, decode};

/// A message's content: its number and its lifetime in milliseconds (0: never expires).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Body {
    pub(crate) number: u64,
    pub(crate) lives: u64,
}

impl std::fmt::Display for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.number, self.lives)
    }
}

impl Body {
    fn parse(text: &str) -> Option<Self> {
        let (number, lives) = text.split_once('.')?;
        Some(Self { number: number.parse().ok()?, lives: lives.parse().ok()? })
    }
}

/// A message that was stored.
#[derive(Clone, Copy)]
pub(crate) struct Stored {
    pub(crate) body: Body,
    pub(crate) batch: u64,
    pub(crate) expires_at: StoreTime,
    /// When its append was sent, and when it was carried out.
    sent: Instant,
    committed: Instant,
    /// True once it has left the store.
    pub(crate) trimmed: bool,
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { body, batch, expires_at, trimmed, .. } = self;
        let age = self.committed.elapsed();
        write!(f, "{body} in the batch of {batch}, {age:?} old, expires at {expires_at}, trimmed: {trimmed}")
    }
}

/// See the module's description.
#[derive(Default)]
pub(crate) struct Model {
    /// By offset.
    pub(crate) log: BTreeMap<u64, Stored>,
    numbers: BTreeMap<u64, u64>,
    /// The newest offset that any client was told of.
    known: u64,
    last_stored_at: StoreTime,
}

impl Model {
    /// The newest offset ever stored.
    pub(crate) fn end(&self) -> u64 {
        self.log.last_key_value().map_or(0, |(&offset, _)| offset)
    }

    /// The newest number ever stored.
    pub(crate) fn newest(&self) -> u64 {
        self.numbers.last_key_value().map_or(0, |(&number, _)| number)
    }

    pub(crate) fn known(&self) -> u64 {
        self.known
    }

    /// Checks the acknowledgement of a message.
    pub(crate) fn acknowledged(&mut self, number: u64) {
        let offset = self.numbers.get(&number);
        let Some(&offset) = offset else { panic!("promise 1 is broken: {number} is acknowledged, not stored") };
        self.known = offset.max(self.known);
    }

    /// Checks a commit.
    pub(crate) fn committed(&mut self, commit: Commit) {
        match commit {
            Commit::Claimed { .. } | Commit::Deleted { .. } => {}
            Commit::Trimmed { now, left, .. } => {
                let left: BTreeSet<u64> = left.into_iter().map(rmom_core::model::Offset::get).collect();
                for (offset, stored) in self.log.iter_mut().filter(|(_, stored)| !left.contains(&stored.batch)) {
                    let expires_at = stored.expires_at;
                    promise!(7, stored.trimmed || expires_at <= now, "{offset} was trimmed at {now}: {stored:?}");
                    stored.trimmed = true;
                }
            }
            Commit::Appended { first, stored_at, frames, now, sent, at, .. } => {
                promise!(3, first.get() == self.end() + 1, "{first} was stored after {}", self.end());
                // Times never go back within a queue. The last time is forgotten with the last message.
                let in_order =
                    if self.log.values().all(|stored| stored.trimmed) { now } else { now.max(self.last_stored_at) };
                let latest = now.max(self.last_stored_at);
                promise!(7, (in_order..=latest).contains(&stored_at), "stored at {now}, it says {stored_at}");
                self.last_stored_at = stored_at;
                for message in decode(frames) {
                    self.stored(first.get(), &message, stored_at, (sent, at));
                }
            }
        }
    }

    fn stored(&mut self, batch: u64, message: &Delivered, stored_at: StoreTime, (sent, committed): (Instant, Instant)) {
        let Some(body) = Body::parse(&message.content) else {
            panic!("promise 2 is broken: nobody pushed {message:?}")
        };
        let offset = message.offset;
        promise!(7, message.ttl_millis == body.lives, "{body} is stored to live for {}", message.ttl_millis);
        let expires_at = if body.lives == 0 { StoreTime::NEVER } else { stored_at.plus_millis(body.lives) };
        let earlier = self.numbers.insert(body.number, offset);
        promise!(4, earlier.is_none(), "{body} is stored at {earlier:?} and {offset}");
        self.log.insert(offset, Stored { body, batch, expires_at, sent, committed, trimmed: false });
    }

    /// Checks the delivery of `given` to a subscriber, which covers the offsets after `after` up to `through`: live messages
    /// of these were delivered, expired ones were not.
    pub(crate) fn passed(
        &mut self,
        (after, through): (u64, u64),
        given: &BTreeMap<u64, Delivered>,
        now: StoreTime,
        readings: &Readings,
        jumps: &Jumps,
    ) {
        for (&offset, message) in given {
            let Some(stored) = self.log.get(&offset) else { panic!("promise 1 is broken: {message:?} is not stored") };
            promise!(2, message.content == stored.body.to_string(), "{stored:?} was delivered as {message:?}");
            promise!(
                3,
                (after + 1..=through).contains(&offset),
                "{offset} was delivered between {after} and {through}"
            );
            self.known = offset.max(self.known);
            let late = readings.late(jumps);
            let bound = plus(stored.expires_at, late);
            promise!(7, now < bound, "{offset} was delivered at {now}, up to {late} ms are allowed: {stored:?}");
        }
        for (offset, stored) in
            self.log.range((Excluded(after), Included(through))).filter(|(offset, _)| !given.contains_key(offset))
        {
            let early = if self.is_due(stored, jumps) { readings.early(jumps) } else { 0 };
            let left_out = stored.trimmed || stored.expires_at <= plus(now, early);
            promise!(7, left_out, "{offset} was left out at {now}, up to {early} ms are allowed: {stored:?}");
        }
    }

    /// True if a broker that does not know yet that the clock was set back may leave out the message: it was stored before,
    /// or has lived for its lifetime.
    fn is_due(&self, stored: &Stored, jumps: &Jumps) -> bool {
        let before = jumps.last_back().is_some_and(|back| stored.committed <= back);
        before || stored.sent.elapsed().as_millis() >= u128::from(stored.body.lives)
    }
}

fn plus(time: StoreTime, millis: i64) -> StoreTime {
    StoreTime::from_millis(time.millis().saturating_add_signed(millis))
}

//! A queue as the database's records describe it.

use rmom_sim::history::StoredMessage;

use super::index::At;

/// A queue. A queue that was created with the label of an earlier one is another queue.
#[derive(Debug, Default)]
pub(super) struct Queue<'a> {
    /// In lower case, if it is known.
    pub(super) label: Option<String>,
    /// The first record that mentions the queue.
    pub(super) born: At,
    /// In the order in which they were stored.
    pub(super) messages: Vec<Message<'a>>,
    /// Indices into `messages`, by offset, then as they were stored.
    by_offset: Vec<usize>,
    pub(super) claims: Vec<Claim<'a>>,
    /// All assignments: the broker's id.
    pub(super) assignments: Vec<(At, u64)>,
    pub(super) trims: Vec<Trim>,
    pub(super) tombstoned: Option<At>,
    pub(super) audit: Option<Audit<'a>>,
}

/// A message that the database committed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    /// The record of its batch.
    pub(super) at: At,
    pub(super) epoch: u64,
    pub(super) by: &'a str,
    pub(super) stored_at_millis: u64,
    pub(super) stored: &'a StoredMessage,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Claim<'a> {
    pub(super) at: At,
    pub(super) epoch: u64,
    pub(super) broker_id: u64,
    pub(super) incarnation: &'a str,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Trim {
    pub(super) at: At,
    pub(super) through: u64,
    pub(super) at_millis: u64,
}

/// The state of a queue in the audit at the end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Audit<'a> {
    pub(super) at: At,
    pub(super) end: u64,
    pub(super) messages: &'a [StoredMessage],
}

impl<'a> Queue<'a> {
    /// A queue of which only the first mention is known.
    pub(super) fn new(born: At) -> Self {
        Self { born, ..Self::default() }
    }

    /// Sorts the gathered records for lookups.
    pub(super) fn arrange(&mut self) {
        self.by_offset = (0..self.messages.len()).collect();
        self.by_offset.sort_by_key(|&nth| self.messages[nth].stored.offset);
    }

    /// Messages between two offsets, both excluded, by offset.
    pub(super) fn between(&self, after: u64, before: u64) -> impl Iterator<Item = &Message<'a>> {
        let from = self.by_offset.partition_point(|&nth| self.messages[nth].stored.offset <= after);
        let messages = self.by_offset[from..].iter().map(|&nth| &self.messages[nth]);
        messages.take_while(move |message| message.stored.offset < before)
    }

    /// The messages stored at an offset, in the order in which they were stored.
    pub(super) fn at_offset(&self, offset: u64) -> impl Iterator<Item = &Message<'a>> {
        let from = self.by_offset.partition_point(|&nth| self.messages[nth].stored.offset < offset);
        let messages = self.by_offset[from..].iter().map(|&nth| &self.messages[nth]);
        messages.take_while(move |message| message.stored.offset == offset)
    }

    /// The first trim that removed an offset.
    pub(super) fn trimmed_by(&self, offset: u64) -> Option<&Trim> {
        // `through` only grows, except where the database was rolled back.
        self.trims.iter().find(|trim| trim.through >= offset)
    }

    /// The last claim before a record.
    pub(super) fn claim_before(&self, at: At) -> Option<&Claim<'a>> {
        self.claims[..self.claims.partition_point(|claim| claim.at < at)].last()
    }
}

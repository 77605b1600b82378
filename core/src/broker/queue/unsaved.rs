//! What the store's producer snapshot does not speak for yet, and when what is stored expires: what trimming goes by.

use crate::{
    model::{Offset, StoreTime},
    ports::LogTail,
};

/// A time before which nothing expires, while a call is under way that finds out a better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bound {
    known: StoreTime,
    /// What came since the call began.
    since: StoreTime,
}

impl Bound {
    const NOTHING: Self = Self { known: StoreTime::NEVER, since: StoreTime::NEVER };

    fn lower(&mut self, expires_at: StoreTime) {
        self.known = self.known.min(expires_at);
        self.since = self.since.min(expires_at);
    }

    /// A call begins. Until it is done, and if it never is, what is known stays.
    fn begin(&mut self) {
        self.since = StoreTime::NEVER;
    }

    fn done(&mut self, found: StoreTime) {
        self.known = self.since.min(found);
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Unsaved {
    /// The store's producer snapshot speaks through this offset.
    through: Offset,
    /// Batches beyond it.
    batches: u64,
    /// Of batches up to there, and beyond.
    saved: Bound,
    unsaved: Bound,
    /// When the last batch of the log expires. A trim passes over it while there are others, so that it counts again once it
    /// is not the last any more.
    last: StoreTime,
}

/// A call of the store, as it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    /// Through where the producers are saved; none if they are not.
    pub(super) saves: Option<Offset>,
    batches: u64,
}

impl Unsaved {
    /// As the end of the log says. [`Self::found`] adds what lies beyond the snapshot.
    pub(super) fn new(tail: &LogTail) -> Self {
        let through = tail.producers.as_ref().map_or(Offset::ZERO, |&(through, _)| through);
        let saved = Bound { known: tail.none_expires_before, ..Bound::NOTHING };
        Self { through, batches: 0, saved, unsaved: Bound::NOTHING, last: tail.last_expires_at }
    }

    /// Up to where the store's producer snapshot speaks.
    pub(super) fn saved_through(&self) -> Offset {
        self.through
    }

    /// Batches beyond the snapshot, those of a save under way included.
    pub(super) fn batches(&self) -> u64 {
        self.batches
    }

    /// A batch up to `last` is stored.
    pub(super) fn found(&mut self, last: Offset, expires_at: StoreTime) {
        if last > self.through {
            self.batches += 1;
            self.unsaved.lower(expires_at);
        } else {
            self.saved.lower(expires_at);
        }
    }

    /// A batch was appended; the one before it ended at `before`.
    pub(super) fn appended(&mut self, before: Offset, expires_at: StoreTime) {
        let bound = if before > self.through { &mut self.unsaved } else { &mut self.saved };
        bound.lower(self.last);
        self.unsaved.lower(expires_at);
        self.batches += 1;
        self.last = expires_at;
    }

    /// No batch expires before this, but for the last one while there are others.
    pub(super) fn none_expires_before(&self) -> StoreTime {
        self.saved.known.min(self.unsaved.known)
    }

    /// When something beyond the snapshot expires, which cannot be removed before the producers are saved again.
    pub(super) fn unsaved_expiry(&self) -> StoreTime {
        self.unsaved.known
    }

    /// When something expires that can be removed as it is. What expires together with, or after, something that is not saved
    /// waits for that.
    pub(super) fn saved_expiry(&self) -> StoreTime {
        if self.saved.known < self.unsaved.known { self.saved.known } else { StoreTime::NEVER }
    }

    /// A call begins that saves the producers through here, if it does.
    pub(super) fn begin(&mut self, saves: Option<Offset>) -> Begun {
        self.saved.begin();
        if saves.is_some() {
            self.unsaved.begin();
        }
        Begun { saves, batches: self.batches }
    }

    /// It succeeded, and found this to be the next expiry of all that is left.
    pub(super) fn done(&mut self, begun: Begun, next_expiry: StoreTime) {
        self.saved.done(next_expiry);
        if let Some(through) = begun.saves {
            self.through = through;
            self.batches -= begun.batches;
            self.unsaved.done(StoreTime::NEVER);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> StoreTime {
        StoreTime::from_millis(millis)
    }

    fn unsaved() -> Unsaved {
        Unsaved::new(&LogTail::default())
    }

    #[test]
    fn what_is_not_saved_is_told_apart_from_what_is() {
        let mut log = unsaved();
        assert_eq!((log.none_expires_before(), log.batches()), (StoreTime::NEVER, 0));
        log.appended(Offset::ZERO, at(50));
        log.appended(Offset::new(1), at(70));
        assert_eq!((log.saved_expiry(), log.unsaved_expiry(), log.batches()), (StoreTime::NEVER, at(50), 2));
        let begun = log.begin(Some(Offset::new(2)));
        log.appended(Offset::new(2), at(90));
        assert_eq!((log.none_expires_before(), log.batches()), (at(50), 3), "while a call is under way it may fail");
        log.done(begun, at(70));
        assert_eq!((log.saved_expiry(), log.unsaved_expiry()), (StoreTime::NEVER, at(70)));
        assert_eq!((log.saved_through(), log.batches()), (Offset::new(2), 1));
    }

    #[test]
    fn a_call_that_fails_changes_nothing() {
        let mut log = unsaved();
        log.appended(Offset::ZERO, at(50));
        log.begin(Some(Offset::new(1)));
        log.appended(Offset::new(1), at(60));
        assert_eq!((log.none_expires_before(), log.batches(), log.saved_through()), (at(50), 2, Offset::ZERO));
        let begun = log.begin(None);
        log.done(begun, at(60));
        assert_eq!((log.unsaved_expiry(), log.batches()), (at(50), 2), "nothing was saved by it");
    }

    /// The clock was set back: what is appended now expires before what was removed.
    #[test]
    fn an_append_lowers_the_bound() {
        let mut log = unsaved();
        let begun = log.begin(Some(Offset::ZERO));
        log.done(begun, at(1_000));
        assert_eq!(log.none_expires_before(), at(1_000));
        log.appended(Offset::ZERO, at(300));
        assert_eq!(log.none_expires_before(), at(300));
    }

    /// A trim passes over the last batch, and says when the next of the others expires.
    #[test]
    fn what_was_the_last_batch_counts_again() {
        let mut log = unsaved();
        log.appended(Offset::ZERO, StoreTime::NEVER);
        log.appended(Offset::new(1), at(100));
        let begun = log.begin(Some(Offset::new(2)));
        log.done(begun, StoreTime::NEVER);
        assert_eq!(log.none_expires_before(), StoreTime::NEVER);
        log.appended(Offset::new(2), at(900));
        assert_eq!((log.saved_expiry(), log.none_expires_before()), (at(100), at(100)));
        let tail =
            LogTail { producers: Some((Offset::new(2), "".into())), last_expires_at: at(100), ..LogTail::default() };
        let mut log = Unsaved::new(&tail);
        log.appended(Offset::new(2), at(900));
        assert_eq!(log.saved_expiry(), at(100), "also for a new owner");
    }
}

//! Sometimes-marks: named points in the logic that a good simulation reaches now and then.
//!
//! There is one for each rule by which the store, brokers and managers work, and for each way out of it. If a sweep of
//! simulations never reaches one of them, the generator is missing a case.
//!
//! `mark!(AppendFenced);` counts, `mark!(AppendFenced if condition);` counts if the condition holds, and with a further
//! `else AppendDeleted` the other mark counts if it does not. Unless the feature `marks` is on, which is for simulations
//! only, all of them compile to nothing and the condition is not evaluated; so it must not have side effects.

#[cfg(feature = "marks")]
use std::{cell::RefCell, collections::BTreeMap};

/// Counts a [`Mark`] of this thread, in simulations.
#[cfg(feature = "marks")]
macro_rules! mark {
    ($mark:ident) => {
        $crate::marks::reached($crate::marks::Mark::$mark.name())
    };
    ($mark:ident if $condition:expr) => {
        if $condition {
            $crate::marks::reached($crate::marks::Mark::$mark.name());
        }
    };
    ($mark:ident if $condition:expr, else $other:ident) => {
        $crate::marks::reached(if $condition { $crate::marks::Mark::$mark } else { $crate::marks::Mark::$other }.name())
    };
}

/// Counts nothing, but requires the mark to exist, so that every build finds a missing one.
#[cfg(not(feature = "marks"))]
macro_rules! mark {
    ($mark:ident $(if $condition:expr $(, else $other:ident)?)?) => {
        const _: $crate::marks::Mark = $crate::marks::Mark::$mark;
        $($(const _: $crate::marks::Mark = $crate::marks::Mark::$other;)?)?
    };
}

macro_rules! marks {
    ($($mark:ident: $words:literal,)*) => {
        /// A point in the logic that simulations should reach now and then.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mark {
            $(
                #[doc = concat!($words, ".")]
                $mark,
            )*
        }

        #[cfg(feature = "marks")]
        impl Mark {
            /// All marks, by subject.
            pub const ALL: &[Self] = &[$(Self::$mark),*];

            /// The event, in words.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$mark => $words,)*
                }
            }
        }
    };
}

marks! {
    // Claims.
    ClaimUnknown: "claim: the outcome was unknown, and it was made again under its own name",
    ClaimFoundItself: "claim: made again, it found that it had succeeded",
    ClaimNotAssignee: "claim: refused, the queue was assigned to another",
    ClaimReplaced: "claim: refused, a later run of the broker had registered",
    ClaimDeleted: "claim: refused, the queue was deleted before its rebuild",
    ActivationRetried: "activation: tried again, the store had failed",
    ActivatedWithMessages: "activation: the log held messages of an earlier epoch",
    ActivatedWhenTrimmedEmpty: "activation: the log was empty, and its offsets went on",
    TurnAwaited: "activation or trim: waited for its turn, since others of the broker's queues had theirs",
    ActivatedAgain: "activation: again, the assignment had gone away and come back",

    // Appends.
    AppendFenced: "append: fenced by a later epoch",
    AppendDeleted: "append: the queue was deleted while pushes were pending",
    AppendRefused: "append: refused by the store, definitely",
    AppendUnknown: "append: the outcome was unknown",
    AppendTimedOut: "append: the store did not answer in time",
    AppendSeveralQueues: "append: one for several queues",
    AppendDifferentFates: "append: for several queues, with different fates",
    AppendBehindFailed: "append: failed, and took what was accepted behind it along",
    RecoveredStored: "recovery: the append was found stored",
    RecoveredAbsent: "recovery: the append was found absent and sent again",
    RecoveryLostQueue: "recovery: the queue had another owner, or was deleted",
    RecoverySawAnotherOwner: "recovery: given up, there had been another owner since, and the queue was activated again",
    RecoveryRetried: "recovery: tried again, the store had failed",
    RecoveryRefused: "recovery: given up, claims succeeded and appends did not, and pushers were told that nothing is stored",
    RecoveryTimedOut: "recovery: given up, pushers were told that the outcome is unknown",
    StoreClockWasAhead: "append: the queue's last message lay too far ahead of the store's clock to be followed",
    StoreClockBehind: "append: the store's clock was behind the queue's last message",
    StoreClockSetBack: "append: showed that the store's clock had been set back",

    // Producers.
    DuplicateStored: "push: a duplicate of one that was stored",
    DuplicateInFlight: "push: a duplicate of one that was being stored",
    DuplicateWaiting: "push: a duplicate of one that was waiting to be stored",
    DuplicateInPart: "push: a run of which only the first part was a duplicate",
    SequenceGap: "push: refused for a gap in its sequence",
    ProducerUnknown: "push: an unknown producer started at its lowest unacknowledged sequence",
    ProducerFenced: "push: refused, the producer had a later epoch",
    ProducerOfBroker: "push: without a producer, it got the broker's",
    PushInvalid: "push: refused for what it was",
    PushWaitedForRoom: "push: a single one waited for the broker's room before its body was read",
    PushWaitedForShare: "push: a single one waited for its queue's share of the room",
    StreamWaitedForRoom: "push stream: waited for room before a body was read",
    PushRefusedForRoom: "push: refused after it waited for room, or with too many who did",
    PushHeldForSaving: "push: refused, the producers of too much that is stored were not saved",
    PushQueueReplaced: "push: refused, it meant a deleted queue of the same label",
    NamedProducerWentOn: "named producer: went on after what was stored under an earlier epoch",
    NamedProducerWaited: "named producer: had to wait for the outcome of what was pushed under an earlier epoch",

    // Trimming.
    Trimmed: "trim: removed what had expired",
    TrimmedToEmpty: "trim: removed the last message",
    TrimWithoutSaving: "trim: removed what had expired, and what it knew of the producers was saved before",
    TrimKeptEnd: "trim: kept the expired end of the log, since older messages lived",
    TrimFenced: "trim: fenced by a later epoch",
    TrimFailed: "trim: failed, and was made again",
    TrimAbandoned: "trim: abandoned for a recovery",
    ProducersSaved: "producers: saved",
    SnapshotRead: "producers: restored from a snapshot",
    HeadersRead: "producers: restored from the headers of batches",

    // Subscriptions.
    StartedAtChannelStart: "subscription: started at its channel's start",
    StartedAfterPosition: "subscription: went on after a position",
    PositionAhead: "subscription: ahead of what the broker knew, which looked at the store again",
    PositionBeyondEnd: "subscription: refused, beyond the end of the queue",
    SubscribedToUnknownChannel: "subscription: refused, there was no such channel",
    FellBackToStore: "subscriber: fell back to the store",
    CameBackToCache: "subscriber: came back from the store to the cache",
    StoreAheadOfBroker: "subscriber: the store held more than the broker knew to be stored, and it was not delivered",
    AllTrimmed: "subscriber: behind, and all that it missed was trimmed",
    HoleRead: "log: a read looked through removed batches only, with stored ones beyond",
    ExpiredInCache: "subscriber: a whole batch had expired in the cache",
    ExpiredInStore: "subscriber: a whole batch had expired in the store",
    ExpiredInsideBatch: "subscriber: a message had expired inside a batch that lived",
    StreamEndedWhileReading: "stream: it ended while it read from the store, or waited for its turn to",
    StreamEvicted: "subscriber: sent away, the broker had lost its lease or the queue",
    IdleChannelsDeleted: "channels: deleted, nobody had subscribed to them for long",
    StreamChannelDeleted: "subscriber: ended, its channel was deleted",
    CacheOverflowed: "cache: let its oldest batch go",

    // Leases, and what a broker hosts.
    RegistrationRetried: "broker: registration tried again, the store had failed",
    RenewalFailed: "lease: a renewal failed",
    LeaseRanOutIdle: "lease: ran out while nobody pushed",
    LeaseRanOutPushing: "lease: ran out with pushes pending",
    LeaseCameBackUnchanged: "lease: came back before anything had moved",
    LeaseCameBackChanged: "lease: came back after something had moved",
    HeartbeatRefused: "heartbeat: refused without a lease",
    NewsByPolling: "broker: learnt from its lease that something had changed",
    LookedBeside: "broker: something happened while it looked at the store, and was not held up",
    LetGoMoved: "broker: let go of a queue that was assigned to another",
    LetGoDeleted: "broker: let go of a queue that was deleted",
    LookupActivated: "lookup: an unknown queue was the broker's own, and was activated",
    LookupElsewhere: "lookup: an unknown queue was another broker's",
    LookupNotFound: "lookup: an unknown queue did not exist",
    HostedPredecessor: "lookup: what was hosted was deleted since, and another queue had its label",
    ActivationAwaited: "request: waited for an activation",
    ActivationTimedOut: "request: refused, the queue was not active in time",

    // Managers.
    LeadTakenOver: "leadership: taken over from another manager",
    LeadFromTheFuture: "leadership: a lease from before the clock was set back was taken over",
    LeadKept: "leadership: kept",
    LeadLost: "leadership: lost to another manager",
    LeadLapsed: "leadership: ran out during a cycle, which stopped",
    LeadUnreachable: "leadership: the store failed",
    ProbeSucceededLate: "probe: succeeded after failures that were too few for dead",
    BrokerDead: "probe: a broker counted as dead",
    BrokerBack: "probe: a broker that had counted as dead answered again",
    MovedFromDead: "assignment: moved from a dead broker",
    MovedFromDraining: "assignment: moved from a broker that was drained",
    DrainWaits: "assignment: a drain waited until the queues of its last step are served",
    MovedToLevel: "assignment: moved to level the brokers",
    MovesLeft: "assignment: more queues were to be moved than one cycle moves, and the brokers were probed in between",
    AssignLostRace: "assignment: somebody else had changed it; two managers reconciled the same queue",
    AssignFailed: "assignment: the store failed, and the next cycle had to see",
    NoLiveBroker: "assignment: no live broker took queues",
    NudgeFailed: "nudge: failed, and the broker had to find out by itself",
    CreateAwaited: "create queue: its broker did not serve it at once",
    CreateMoved: "create queue: its broker died, and another one got it",
    CreateTimedOut: "create queue: not served by the deadline, which was said",
    CreateWithoutBroker: "create queue: refused, there was no live broker",
    WriteRepeated: "administration: a write of unknown outcome was made again",
    CreateFoundItself: "administration: a queue created again by the same request was found",
    AssigneeNotLive: "administration: a queue's broker was not live",
    Purged: "administration: a deleted queue's messages were removed",
}

#[cfg(feature = "marks")]
thread_local! {
    static REACHED: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
}

/// Counts a point of this thread by its name: the name of a [`Mark`], or of one of the simulation's own points.
#[cfg(feature = "marks")]
pub fn reached(name: &'static str) {
    REACHED.with_borrow_mut(|reached| *reached.entry(name).or_default() += 1);
}

/// The number of times that each point was reached on this thread since the last call. A simulation runs on a thread of its
/// own, so these are its points.
#[cfg(feature = "marks")]
#[must_use]
pub fn take() -> BTreeMap<&'static str, u64> {
    REACHED.take()
}

#[cfg(all(test, feature = "marks"))]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_marks_have_the_same_name() {
        let names: BTreeSet<_> = Mark::ALL.iter().map(|mark| mark.name()).collect();
        assert_eq!(names.len(), Mark::ALL.len());
    }

    #[test]
    fn counts_are_a_threads_own_and_are_taken_once() {
        mark!(Trimmed);
        mark!(Trimmed if true);
        mark!(TrimFenced if false);
        mark!(TrimFenced if false, else Trimmed);
        assert!(std::thread::scope(|scope| scope.spawn(take).join()).unwrap().is_empty());
        assert_eq!(take(), BTreeMap::from([(Mark::Trimmed.name(), 3)]));
        assert!(take().is_empty());
    }
}

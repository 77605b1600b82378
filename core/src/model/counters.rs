//! Counters. Each has a type of its own, so that they cannot be mixed up. The docs of a type say when the counter grows, and where
//! it is compared.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::IdError;

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(u64);

        impl $name {
            /// Zero, which is before the first.
            pub const ZERO: Self = Self(0);

            /// A counter from a number that is known to be in range.
            ///
            /// # Panics
            /// Above `i64::MAX`, which no counter reaches in the life of a cluster. Use `parse` for numbers from outside.
            #[must_use]
            pub const fn new(value: u64) -> Self {
                assert!(value <= i64::MAX as u64, "counter out of range");
                Self(value)
            }

            /// A counter from a number that a client sent.
            ///
            /// # Errors
            /// [`IdError::TooLarge`] above `i64::MAX`.
            pub const fn parse(value: u64) -> Result<Self, IdError> {
                if value > i64::MAX as u64 {
                    return Err(IdError::TooLarge { field: $field, found: value });
                }
                Ok(Self(value))
            }

            /// The number.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The number as stored in a database column.
            #[must_use]
            #[allow(clippy::cast_possible_wrap)] // `new` and `parse` keep it below i64::MAX
            pub const fn as_i64(self) -> i64 {
                self.0 as i64
            }

            /// The one after this.
            #[must_use]
            pub const fn next(self) -> Self {
                Self::new(self.0 + 1)
            }

            /// The counter `n` after this one.
            #[must_use]
            pub const fn plus(self, n: u64) -> Self {
                Self::new(self.0 + n)
            }

            /// The distance from `other` to this; 0 if this is not beyond `other`.
            #[must_use]
            pub const fn since(self, other: Self) -> u64 {
                self.0.saturating_sub(other.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

pub(super) use counter;

counter! {
    /// A message's position in its queue: 1, 2, 3 …; 0 is before the first. Grows by 1 with each message. Compared wherever
    /// messages have an order: by appends, reads, subscriptions and trims.
    Offset, "offset"
}
counter! {
    /// The number of a push within its producer and queue: 1, 2, 3 …; 0 is before the first. A queue's task compares it with the
    /// newest one that it has accepted from the producer, and thus finds duplicates and gaps.
    Sequence, "sequence"
}
counter! {
    /// The epoch of a named producer in a queue: 1, 2, 3 …; an unnamed producer has epoch 0 for ever. Grows by 1 whenever somebody
    /// opens the producer. A queue's task compares it with the newest one that it knows, and refuses pushes of an earlier epoch.
    ProducerEpoch, "producer_epoch"
}

impl ProducerEpoch {
    /// An epoch that is stored. One out of range is taken for the greatest: a version that did not look at the range may have
    /// accepted it, and what was accepted stays readable.
    pub(crate) const fn stored(value: u64) -> Self {
        if value > i64::MAX as u64 { Self::new(i64::MAX as u64) } else { Self::new(value) }
    }
}

counter! {
    /// The fencing token of a queue; 0 means that it was never activated. Grows by 1 with each claim. The store compares it in each
    /// append and trim, and refuses those of an earlier epoch.
    Epoch, "epoch"
}
counter! {
    /// The number of a queue's assignment to a broker; 0 means that it was never assigned. Grows by 1 whenever a manager assigns
    /// the queue. The store compares it when a manager assigns the queue, which thus cannot undo an assignment that the manager
    /// has not seen. A broker compares it in each look at the store: a queue under another number went away and came back.
    Assignment, "assignment"
}
counter! {
    /// The number of changes that a broker should look at: to its assignments, and to channels of its queues. The store adds 1 or
    /// more with each such change. The broker compares it when it renews its lease, and reads its assignments if it has grown.
    Generation, "generation"
}
counter! {
    /// The number of times that one process of a broker has renewed its lease. Grows by 1 with each renewal. The broker compares
    /// it with the one before: a number that has not grown shows that the store was rolled back.
    Renewals, "renewals"
}
counter! {
    /// The number of the managers' leadership; 0 means that no manager has led. Grows by 1 whenever another manager becomes the
    /// leader. Operators and `rmom doctor` compare it, to tell leaderships apart. The store itself decides by the lease.
    Term, "term"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_refuse_what_no_column_holds() {
        assert!(Offset::parse(i64::MAX as u64).is_ok());
        let error = Offset::parse(1 << 63).unwrap_err();
        assert_eq!(error.to_string(), "offset is 9223372036854775808; the limit is 9223372036854775807");
    }
}

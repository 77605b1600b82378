//! The promises, each checked by a pure function over a history.
//!
//! A checker knows nothing of brokers: from the records of a run it reports those that contradict its promise. `rmom-sim
//! check FILE` checks a saved history.

mod bad_input;
mod certain;
mod channels_survive;
mod clock;
mod convergence;
mod counted;
mod deletes_are_final;
mod delivered_once;
mod durable;
mod faults;
mod floors;
mod giving_up;
mod index;
mod names;
mod no_loss;
mod nothing_silent;
mod one_writer;
mod order;
mod pushed_once;
mod queue;
#[cfg(test)]
mod random;
mod reader;
mod served;
#[cfg(test)]
mod testing;
mod time_to_live;

use rmom_sim::history::Record;
use serde::{Deserialize, Serialize};

use self::index::Index;

pub use floors::{Floors, vacuous};

/// One of the twelve promises that rmom makes, as listed in the README.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Promise {
    /// 1: acknowledged messages are stored, and survive any crash.
    Durable,
    /// 2: acknowledged messages reach every matching subscription.
    NoLoss,
    /// 3: one sequence of offsets, and each producer's messages in its order.
    Order,
    /// 4: a retry is stored once.
    PushedOnce,
    /// 5: an application receives each message once.
    DeliveredOnce,
    /// 6: nothing is appended under a replaced epoch, and a replaced owner stops.
    OneWriter,
    /// 7: nothing is dropped before it expires, or delivered long after.
    TimeToLive,
    /// 8: channels survive failovers.
    ChannelsSurvive,
    /// 9: deleted queues and channels stay deleted.
    DeletesAreFinal,
    /// 10: when faults stop, everything proceeds within the bound.
    Convergence,
    /// 11: nothing is refused, dropped or unhealthy silently.
    NothingSilent,
    /// 12: bad input gets a clear error and changes nothing.
    BadInput,
}

impl Promise {
    /// All promises, in order.
    pub const ALL: [Self; 12] = [
        Self::Durable,
        Self::NoLoss,
        Self::Order,
        Self::PushedOnce,
        Self::DeliveredOnce,
        Self::OneWriter,
        Self::TimeToLive,
        Self::ChannelsSurvive,
        Self::DeletesAreFinal,
        Self::Convergence,
        Self::NothingSilent,
        Self::BadInput,
    ];

    /// Its number in the README, from 1.
    #[must_use]
    pub fn number(self) -> usize {
        self as usize + 1
    }

    /// The promise in two or three words, as the README has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Durable => "durable",
            Self::NoLoss => "no loss",
            Self::Order => "order",
            Self::PushedOnce => "pushed once",
            Self::DeliveredOnce => "delivered once",
            Self::OneWriter => "one writer",
            Self::TimeToLive => "time to live",
            Self::ChannelsSurvive => "channels survive",
            Self::DeletesAreFinal => "deletes are final",
            Self::Convergence => "convergence",
            Self::NothingSilent => "nothing silent",
            Self::BadInput => "bad input",
        }
    }

    /// True if a violation concerns progress, not safety.
    #[must_use]
    pub fn is_liveness(self) -> bool {
        matches!(self, Self::Convergence)
    }
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// The broken promise.
    pub promise: Promise,
    /// What happened, in one sentence that names messages, queues, offsets and hosts.
    pub what: String,
    /// The records that show it, as indices into the history, in order; the violation became visible at the last one.
    pub records: Vec<usize>,
}

/// Runs all checkers over a history and returns their violations, by promise.
#[must_use]
pub fn check(history: &[Record]) -> Vec<Violation> {
    let index = Index::new(history);
    Promise::ALL.into_iter().flat_map(|promise| checker(promise)(&index)).collect()
}

/// The checker of a promise.
fn checker(promise: Promise) -> fn(&Index<'_>) -> Vec<Violation> {
    match promise {
        Promise::Durable => durable::check,
        Promise::NoLoss => no_loss::check,
        Promise::Order => order::check,
        Promise::PushedOnce => pushed_once::check,
        Promise::DeliveredOnce => delivered_once::check,
        Promise::OneWriter => one_writer::check,
        Promise::TimeToLive => time_to_live::check,
        Promise::ChannelsSurvive => channels_survive::check,
        Promise::DeletesAreFinal => deletes_are_final::check,
        Promise::Convergence => convergence::check,
        Promise::NothingSilent => nothing_silent::check,
        Promise::BadInput => bad_input::check,
    }
}

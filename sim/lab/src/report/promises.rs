//! Names of the promises.

use crate::check::Promise;

/// A promise with its number in the README: `promise 6 (one writer)`.
#[must_use]
pub fn promise(promise: Promise) -> String {
    format!("promise {} ({})", promise.number(), promise_name(promise))
}

/// A promise in two or three words.
#[must_use]
pub fn promise_name(promise: Promise) -> &'static str {
    match promise {
        Promise::Durable => "durable",
        Promise::NoLoss => "no loss",
        Promise::Order => "order",
        Promise::PushedOnce => "pushed once",
        Promise::DeliveredOnce => "delivered once",
        Promise::OneWriter => "one writer",
        Promise::TimeToLive => "time to live",
        Promise::ChannelsSurvive => "channels survive",
        Promise::DeletesAreFinal => "deletes are final",
        Promise::Convergence => "convergence",
        Promise::NothingSilent => "nothing silent",
        Promise::BadInput => "bad input",
    }
}

//! Names of the promises.

use crate::check::Promise;

/// A promise with its number in the README: `promise 6 (one writer)`.
#[must_use]
pub fn promise(promise: Promise) -> String {
    format!("promise {} ({})", promise.number(), promise.name())
}

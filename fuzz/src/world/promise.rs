//! The check of a promise.

/// Panics, naming the promise (as DESIGN and the README number them), unless a condition holds.
macro_rules! promise {
    ($promise:literal, $holds:expr, $($what:tt)+) => {
        if !$holds {
            panic!("promise {} is broken: {}", $promise, format_args!($($what)+));
        }
    };
}

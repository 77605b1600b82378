//! Errors that have one of the stable codes of the contract.

use std::borrow::Cow;

pub use rmom_proto::contract::Code;

/// An error that clients see.
pub trait Coded: std::error::Error {
    /// Its stable code.
    fn code(&self) -> Code;

    /// Facts for programs, such as `host` and `port`, or `expected`.
    fn details(&self) -> Vec<(&'static str, Cow<'static, str>)> {
        Vec::new()
    }
}

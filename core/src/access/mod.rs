//! Access: the caller of each operation, and the decision whether the operation may go ahead.
//!
//! Every operation of a broker and of a manager carries a [`Call`] (a [`Caller`], and the right of the method that it used),
//! and passes [`admit`] with an [`Action`]. The handles give access to their state only in exchange for a [`Permit`], which
//! only [`admit`] makes; an operation that does not ask does not compile. At present all callers are let in.

mod action;
mod admit;
mod caller;

pub use action::{Action, Object, Right};
pub use admit::{Call, Denied, Permit, admit};
pub use caller::{Caller, Principal};

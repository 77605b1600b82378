//! A hosted queue: one task owns its state, and the rest of the broker holds a [`Handle`].
//!
//! - [`QueueTask`] (`task`) runs a queue from its assignment to its end: it activates the queue, serves it, and ends or halts. How
//!   that can end is an `Ending`.
//! - `activation` claims the queue and reads its log; what serving starts from is a `LogState`.
//! - `push` accepts runs into `batches`; `append` sends a batch to the store, and does what follows once it is stored or
//!   refused; `recovery` finds out what became of an append whose answer was lost.
//! - `trimming` removes what has expired and saves the producers, for which `unsaved` keeps account.
//! - `shared` is what others may see of the queue, `command` what they may tell its task.

mod activation;
mod append;
mod backoff;
mod batches;
mod command;
mod context;
mod ending;
mod handle;
mod log_state;
mod push;
mod recovery;
mod shared;
mod task;
mod trimming;
mod unsaved;

pub(super) use command::{Command, Push, Pushed};
pub(super) use context::Context;
pub(super) use handle::Handle;
pub(super) use shared::{Confirmed, Phase, Shared, Subscriber, View};
pub(super) use task::{QueueTask, STOP_GRACE};

//! The hosts of actors that share one.

/// The subscriber to all queues, where there are many. It runs on the operator's host, but has a name of its own, since a
/// probe that times out cuts short only the operator's calls and streams.
pub(crate) const WATCH: &str = "watch";
/// The subscribers to queues without pushes. They run on the operator's host too.
pub(crate) const IDLE: &str = "idle";

/// The host on which an actor of this name runs.
pub(crate) fn runs_on(actor: &str) -> &str {
    match actor {
        WATCH | IDLE => "operator",
        host => host,
    }
}

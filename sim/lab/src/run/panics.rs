//! Panics within a simulation: their messages are kept and not printed.

use std::{
    any::Any,
    cell::RefCell,
    panic::{self, AssertUnwindSafe, catch_unwind},
    sync::Once,
};

thread_local! {
    /// The messages of this thread's panics, while they are kept.
    static KEPT: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// The reason why a run ended too early.
type Message = String;

/// Runs a simulation on this thread. If any code in it panicked, even where the panic was caught and turned into an answer,
/// the error is the message of the first panic.
pub(super) fn quietly<T>(simulation: impl FnOnce() -> T) -> Result<T, Message> {
    install_hook();
    KEPT.with_borrow_mut(|kept| *kept = Some(Vec::new()));
    let result = caught(simulation);
    let kept = KEPT.with_borrow_mut(Option::take).unwrap_or_default();
    kept.into_iter().next().map_or(result, Err)
}

/// Turns a panic's message into an error.
pub(super) fn caught<T>(f: impl FnOnce() -> T) -> Result<T, Message> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|panic| text(panic.as_ref()))
}

fn text(panic: &(dyn Any + Send)) -> Message {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_else(|| "a panic".into())
}

/// Panics of other threads are passed on to the previous hook.
fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let place = info.location().map_or_else(String::new, |at| format!(" at {}:{}", at.file(), at.line()));
            let message = format!("{}{place}", info.payload_as_str().unwrap_or("a panic"));
            let kept = KEPT.with_borrow_mut(|kept| kept.as_mut().map(|kept| kept.push(message)));
            if kept.is_none() {
                others(info);
            }
        }));
    });
}

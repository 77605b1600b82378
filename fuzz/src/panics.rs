//! Panics in tasks, which a runtime catches, count as findings.

use std::{cell::Cell, panic, sync::Once};

thread_local! {
    static SEEN: Cell<u64> = const { Cell::new(0) };
}

/// Watches this thread for panics.
pub(crate) struct Panics {
    before: u64,
}

impl Panics {
    /// Starts watching.
    pub(crate) fn watch() -> Self {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let hook = panic::take_hook();
            panic::set_hook(Box::new(move |panic| {
                SEEN.set(SEEN.get() + 1);
                hook(panic);
            }));
        });
        Self { before: SEEN.get() }
    }

    /// Stops watching.
    ///
    /// # Panics
    /// If this thread panicked meanwhile.
    pub(crate) fn check(self) {
        assert_eq!(SEEN.get(), self.before, "a task panicked");
    }
}

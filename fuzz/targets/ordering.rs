//! See [`rmom_fuzz::ordering`].
#![no_main]

libfuzzer_sys::fuzz_target!(|case: rmom_fuzz::ordering::Case| case.run());

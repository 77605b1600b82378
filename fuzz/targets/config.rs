//! See [`rmom_fuzz::config`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rmom_fuzz::config::run(data));

//! See [`rmom_fuzz::wire`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rmom_fuzz::wire::run(data));

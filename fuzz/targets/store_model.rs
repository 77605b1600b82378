//! See [`rmom_fuzz::store_model`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rmom_fuzz::store_model::run(data));

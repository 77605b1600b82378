//! See [`rmom_fuzz::log_frames`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rmom_fuzz::log_frames::run(data));

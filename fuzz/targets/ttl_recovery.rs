//! See [`rmom_fuzz::ttl_recovery`].
#![no_main]

libfuzzer_sys::fuzz_target!(|case: rmom_fuzz::ttl_recovery::Case| case.run());

//! See `sluice_fuzz::names`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluice_fuzz::names::run(data));

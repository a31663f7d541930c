//! libFuzzer for the target `forwarded`; what is checked stands in `crates/fuzz-targets`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portcullis_fuzz_targets::run("forwarded", bytes));

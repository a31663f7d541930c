//! libFuzzer for the target `plugin_signature`; what is checked stands in `crates/fuzz-targets`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portcullis_fuzz_targets::run("plugin_signature", bytes));

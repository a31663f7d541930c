//! libFuzzer for the target `sql`; what is checked stands in `crates/fuzz-targets`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portcullis_fuzz_targets::run("sql", bytes));

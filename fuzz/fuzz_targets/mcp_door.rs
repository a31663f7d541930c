//! libFuzzer for the target `mcp_door`; what is checked stands in `crates/fuzz-targets`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portcullis_fuzz_targets::run("mcp_door", bytes));

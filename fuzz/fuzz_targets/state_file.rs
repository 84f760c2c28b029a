#![no_main]
//! Noise as the state file.

#[allow(dead_code, reason = "each target uses one of its functions")]
#[path = "../../crates/nixfleet-agent/tests/inputs/mod.rs"]
mod inputs;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| inputs::state_file(bytes));

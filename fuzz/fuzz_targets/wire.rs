#![no_main]
//! Noise as what agents and control planes say to each other.

#[allow(dead_code, reason = "each target uses one of its functions")]
#[path = "../../crates/nixfleet-agent/tests/inputs/mod.rs"]
mod inputs;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| inputs::wire(bytes));

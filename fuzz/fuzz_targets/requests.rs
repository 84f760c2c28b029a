#![no_main]
//! Noise as bodies of requests, and names in their paths.

#[allow(dead_code, reason = "each target uses one of its functions")]
#[path = "../../crates/nixfleet-control-plane/tests/inputs/mod.rs"]
mod inputs;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| inputs::requests(bytes));

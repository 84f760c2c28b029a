#![no_main]
//! Noise as a signature.

#[allow(dead_code, reason = "each target uses one of its functions")]
#[path = "../../crates/nixfleet-trust/tests/trust/inputs.rs"]
mod inputs;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| inputs::signature(bytes));

#![no_main]
//! Noise as the description of a fleet.

#[path = "../../crates/nixfleet/tests/inputs/mod.rs"]
mod inputs;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| inputs::fleet_json(bytes));

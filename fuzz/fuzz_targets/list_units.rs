#![no_main]
//! Noise as the JSON of `systemctl list-units`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(nixfleet_agent::tools::units::parse_list_units(bytes)));

#![no_main]
//! Noise as the JSON of `nix path-info`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(nixfleet_agent::tools::nix::parse_path_info(bytes)));

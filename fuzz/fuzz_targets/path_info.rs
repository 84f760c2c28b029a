#![no_main]
//! Noise as the JSON of `nix path-info`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(nixfleet_core::nix::path_info::parse_path_info(bytes)));

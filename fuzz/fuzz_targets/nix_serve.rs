#![no_main]
//! Noise as the answers of `nix-store --serve`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nixfleet_agent::tools::nix_store::serve::read_as_any(bytes));

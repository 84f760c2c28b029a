#![no_main]
//! Noise as the plan of `nix-store --realise --dry-run`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    drop(nixfleet_agent::tools::nix_store::parse_dry_run(&String::from_utf8_lossy(bytes)));
});

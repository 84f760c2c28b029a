#![no_main]
//! Noise as what a probe asks `systemctl show`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    drop(nixfleet_agent::tools::unit_now::parse(&String::from_utf8_lossy(bytes)));
});

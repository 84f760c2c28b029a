#![no_main]
//! Noise as the properties of `systemctl show`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    drop(nixfleet_agent::tools::units::parse_show(&String::from_utf8_lossy(bytes)));
});

#![no_main]
//! Noise as the agent's configuration.

use nixfleet_agent::config::{parsed, written};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (written, _) = written::read(&String::from_utf8_lossy(bytes));
    drop(parsed::parse(&written));
});

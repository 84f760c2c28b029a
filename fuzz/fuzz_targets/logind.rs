#![no_main]
//! Noise as logind's answers.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    drop(nixfleet_agent::tools::logind::parse_locks(&text));
    drop(nixfleet_agent::tools::logind::parse_scheduled(&text));
});

#![no_main]
//! Noise as a message of the service manager on its own socket.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nixfleet_agent::tools::bus::read_as_any(bytes));

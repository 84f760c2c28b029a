#![no_main]
//! Noise as the progress of `nix-store --realise`: the totals only grow, whatever comes.

use nixfleet_agent::tools::progress::{NixListener, Progress};
use nixfleet_sys::exec::Listener;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut last = Progress::default();
    let mut listener = NixListener::new(|now: Progress| {
        assert!(now.bytes_done >= last.bytes_done && now.paths_done >= last.paths_done);
        assert!(now.bytes_done <= now.bytes_expected);
        last = now;
    });
    for line in bytes.split(|byte| *byte == b'\n') {
        listener.line(line);
    }
});

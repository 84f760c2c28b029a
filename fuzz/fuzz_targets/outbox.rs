#![no_main]
//! Noise as the outbox that a disk gives back.

use nixfleet_agent::runtime::outbox::Outbox;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(records) = Outbox::read(bytes) {
        // Whatever is gone is said: no number between the first and the last is left out.
        assert!(records.windows(2).all(|two| two[1].first_seq() == two[0].seq + 1));
    }
});

#![no_main]
//! Noise as a page of Prometheus metrics, and its first line as a selector.

use nixfleet_agent::probes::metric_text::{Selector, samples};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let read: Vec<_> = samples(&text).filter_map(Result::ok).collect();
    if let Ok(selector) = text.lines().next().unwrap_or_default().parse::<Selector>() {
        let _ = read.iter().filter(|sample| selector.matches(sample)).count();
    }
});

//! Waiting for a condition with a limit; nothing here sleeps for a fixed time and hopes.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two questions that cost nothing.
const PAUSE_MAX: Duration = Duration::from_millis(10);
/// How many times as long as the last question took the pause after it is. Most questions start programs in a host, and six tests
/// that ask without a pause leave nothing of two processors for what they wait for.
const REST_FACTOR: u32 = 4;
/// The longest pause after a question that took its time.
const REST_MAX: Duration = Duration::from_millis(250);

/// Asks `condition` until it gives a value, and fails with `what` after `limit`. From one question to the next are 10 ms, or a quarter
/// of a second at most where the question itself takes long.
pub fn wait_until<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Result<T> {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        let asked = Instant::now();
        if let Some(value) = condition() {
            return Ok(value);
        }
        let rest = (asked.elapsed() * REST_FACTOR).min(REST_MAX);
        if begun.elapsed() > limit {
            bail!("waited {limit:?} for {what}");
        }
        std::thread::sleep(pause.max(rest));
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

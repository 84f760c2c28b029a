//! The only place that asks what time it is; everybody else is told.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since 1970 by the host's clock, which may be wrong or jump: for people and reports, never for a deadline.
pub fn unix_ms() -> u64 {
    ms(ClockId::Realtime)
}

/// Time since boot without suspended time, as systemd's monotonic timers count it; not moved by setting the clock.
///
/// On macOS the same call counts suspended time too: a Mac that slept through its deadline reverts when it wakes, which
/// is the safe side, as nobody can have confirmed meanwhile.
///
/// In a container this is the machine's, so only differences to another reading on the same boot mean anything.
pub fn monotonic() -> Duration {
    Duration::from_millis(ms(ClockId::Monotonic))
}

fn ms(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    // A clock before 1970 reads as 0: the host has no idea of the time, and no caller compares it with a deadline.
    let whole = u64::try_from(now.tv_sec).unwrap_or(0).saturating_mul(1000);
    whole.saturating_add(u64::try_from(now.tv_nsec / 1_000_000).unwrap_or(0))
}

//! The slow net under everything that wakes the agent: one tick a minute, at the same instant for all.
//!
//! Whatever is waited for has its own way of waking somebody (a folder watch, a timer, an answer), and each of these ways can
//! miss something. So each waiter looks again by itself from time to time; and as they all do it at the ticks of one clock, an
//! idle agent wakes once a minute and not once for each of them.

use std::time::Duration;

use tokio::time::Instant;

/// Between two ticks: how late what was missed may be found. Half of the time in which the shipped unit wants to hear from the
/// agent, so that the watchdog wakes nobody either.
pub const EVERY: Duration = Duration::from_mins(1);

/// The clock of the ticks.
#[derive(Debug, Clone, Copy)]
pub struct Net {
    origin: Instant,
}

impl Net {
    /// Ticks from now on.
    pub fn begin() -> Self {
        Self { origin: Instant::now() }
    }

    /// The next tick.
    pub fn next(self) -> Instant {
        self.after(Instant::now())
    }

    /// The first tick after `time`.
    pub fn after(self, time: Instant) -> Instant {
        self.last(time) + EVERY
    }

    /// The last tick before `time`, if that is still to come; else `time` itself.
    pub fn not_after(self, time: Instant) -> Instant {
        let last = self.last(time);
        if last > Instant::now() { last } else { time }
    }

    /// The last tick that is not after `time`.
    fn last(self, time: Instant) -> Instant {
        let since = time.saturating_duration_since(self.origin);
        let ticks = u32::try_from(since.as_secs() / EVERY.as_secs()).unwrap_or(u32::MAX);
        self.origin + EVERY * ticks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_next_tick_is_after_any_time_and_a_minute_away_at_most(ms in 0u64..1_000_000_000) {
            let net = Net::begin();
            let time = net.origin + Duration::from_millis(ms);
            let next = net.after(time);
            prop_assert!(next > time && next <= time + EVERY);
            prop_assert_eq!(net.after(next), next + EVERY, "a tick is followed by the next one");
        }

        #[test]
        fn who_may_wake_at_a_tick_does_and_nobody_is_late(ms in 0u64..1_000_000) {
            let net = Net::begin();
            let time = Instant::now() + Duration::from_millis(ms);
            let woken = net.not_after(time);
            prop_assert!(woken <= time && woken + EVERY > time);
            prop_assert_eq!(net.not_after(woken), woken);
        }
    }
}

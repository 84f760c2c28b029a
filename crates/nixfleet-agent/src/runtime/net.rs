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
    /// Ticks, the first within a minute: `random` is any number, and spreads the hosts of a fleet that is switched on at once.
    pub fn begin(random: u64) -> Self {
        let ms = u64::try_from(EVERY.as_millis()).unwrap_or(u64::MAX);
        let (now, phase) = (Instant::now(), Duration::from_millis(random % ms));
        Self { origin: now.checked_sub(phase).unwrap_or(now) }
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

    /// The tick nearest to `time`, for whoever can do with half a minute sooner or later. A time that comes before the next
    /// tick would (but for a fifth of a minute) is not moved: whoever asks so often means it.
    pub fn near(self, time: Instant) -> Instant {
        let wait = time.saturating_duration_since(Instant::now());
        if wait < EVERY / 5 * 4 { time } else { self.last(time + EVERY / 2) }
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
            let net = Net::begin(ms);
            let time = net.origin + Duration::from_millis(ms);
            let next = net.after(time);
            prop_assert!(next > time && next <= time + EVERY);
            prop_assert_eq!(net.after(next), next + EVERY, "a tick is followed by the next one");
        }

        #[test]
        fn who_may_wake_at_a_tick_does_and_nobody_is_late(ms in 0u64..1_000_000) {
            let net = Net::begin(ms);
            let time = Instant::now() + Duration::from_millis(ms);
            let woken = net.not_after(time);
            prop_assert!(woken <= time && woken + EVERY > time);
            prop_assert_eq!(net.not_after(woken), woken);
        }

        #[test]
        fn who_need_not_be_exact_wakes_at_a_tick_half_a_minute_away_at_most(ms in 60_000u64..1_000_000) {
            let net = Net::begin(ms * 7);
            let time = Instant::now() + Duration::from_millis(ms);
            let near = net.near(time);
            prop_assert_eq!(near.duration_since(net.origin).as_nanos() % EVERY.as_nanos(), 0);
            prop_assert!(near <= time + EVERY / 2 && time <= near + EVERY / 2);
            let soon = Instant::now() + Duration::from_secs(10);
            prop_assert_eq!(net.near(soon), soon);
        }

        #[test]
        fn the_first_tick_is_within_a_minute_and_not_the_same_for_all(random: u64) {
            let (one, other) = (Net::begin(random), Net::begin(random.wrapping_add(30_000)));
            let now = Instant::now();
            let (one, other) = (one.after(now), other.after(now));
            prop_assert!(one > now && one <= now + EVERY);
            let apart = one.max(other) - one.min(other);
            prop_assert!(apart > EVERY / 3 && apart < EVERY / 3 * 2, "{:?}", apart);
        }
    }
}

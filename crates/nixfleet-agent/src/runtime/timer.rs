//! When the reducer is woken without being told anything.
//!
//! The machine names a time by the host's clock; what is slept for is the difference, in time that no clock jump moves. A
//! clock that is set meanwhile may bring a window or a wave nearer, and nobody tells: so there is a slow net under it, and
//! to be woken too often costs nothing, as what changes nothing is not written.

use std::time::Duration;

use nixfleet_core::host::{Now, UpMs};
use nixfleet_core::model::time::UnixMs;
use nixfleet_sys::clock;
use tokio::time::Instant;

use super::net::{EVERY, Net};
use super::reducer::Wake;

/// The shortest sleep: a state that wants to be woken at once, again and again, is a mistake of ours and must not take the
/// host's processor.
pub const SHORTEST: Duration = Duration::from_millis(50);

/// The time by this host's clocks.
pub fn now() -> Now {
    let up = u64::try_from(clock::monotonic().as_millis()).unwrap_or(u64::MAX);
    Now { at: UnixMs::new(clock::unix_ms()).unwrap_or(UnixMs::MAX), up: UpMs(up) }
}

/// Until when to sleep, from `now` on, after the machine has said this: no longer than until the next tick of the net, which
/// is how late a window may be noticed after the clock was set.
pub fn until(wake: Option<Wake>, now: Instant, net: Net) -> Instant {
    let tick = net.after(now);
    let wanted = wake.map(|wake| Duration::from_millis(wake.at.ms_since(wake.asked.at)));
    wanted.map_or(tick, |wanted| (now + wanted.clamp(SHORTEST, EVERY)).min(tick))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wake(at: u64, asked: u64) -> Wake {
        let ms = |ms| UnixMs::new(ms).expect("in range");
        Wake { at: ms(at), asked: Now { at: ms(asked), up: UpMs(5) } }
    }

    #[tokio::test]
    async fn the_sleep_is_what_was_asked_for_and_no_longer_than_the_net() {
        let (net, now) = (Net::begin(0), Instant::now());
        assert_eq!(until(Some(wake(12_500, 10_000)), now, net), now + Duration::from_millis(2_500));
        assert_eq!(until(Some(wake(10_000_000, 0)), now, net), net.after(now));
        assert_eq!(until(None, now, net), net.after(now));
    }

    #[tokio::test]
    async fn a_time_that_is_past_wakes_at_once_and_does_not_spin() {
        let (net, now) = (Net::begin(0), Instant::now());
        assert_eq!(until(Some(wake(1, 10_000)), now, net), now + SHORTEST);
    }
}

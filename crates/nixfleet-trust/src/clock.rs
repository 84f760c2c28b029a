//! What time it is for a host that cannot rely on its clock (lesson 16).
//!
//! The time is the larger of the clock and the newest *signed* time seen, so a clock that starts in 1970 makes nothing
//! valid again that has expired. Only signed times are kept. So a clock that was in 2030 for one boot leaves nothing
//! behind, unless a threshold of keys signed a time in 2030.

use nixfleet_core::model::time::{Date, Secs, UnixMs};

use crate::attack::Attack;

/// How far ahead of the host's clock a document may be dated: two clocks that are set by NTP differ by less.
pub const CREATED_AHEAD_MAX: Secs = Secs(60);

/// What a host knows of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time {
    clock: UnixMs,
    newest_signed: UnixMs,
}

/// What the time is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeSource {
    /// The host's clock.
    Clock,
    /// A document that was signed later than the host's clock says it is.
    SignedTime,
}

impl Time {
    /// The time on a host whose clock says `clock`, and that has seen `newest_signed`.
    pub fn new(clock: UnixMs, newest_signed: UnixMs) -> Self {
        Self { clock, newest_signed }
    }

    /// The time by which everything expires.
    pub fn now(self) -> UnixMs {
        self.clock.max(self.newest_signed)
    }

    /// What [`Time::now`] is taken from.
    pub fn source(self) -> TimeSource {
        if self.clock >= self.newest_signed { TimeSource::Clock } else { TimeSource::SignedTime }
    }

    /// Refuses what was made in the future.
    ///
    /// The grace counts from the clock only. If it counted from the newest signed time as well, somebody with a stolen
    /// key could push that time into the future in steps of one minute.
    pub fn admit(self, created: UnixMs) -> Result<(), TooNew> {
        let latest = self.clock.plus(CREATED_AHEAD_MAX).max(self.newest_signed);
        if created <= latest {
            Ok(())
        } else {
            Err(TooNew { created, clock: self.clock, source: self.source() })
        }
    }
}

/// A document is dated in the future.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooNew {
    /// What it is dated.
    pub created: UnixMs,
    /// What the host's clock says.
    pub clock: UnixMs,
    /// What the time was taken from: if it was not the clock, the clock is known to be wrong.
    pub source: TimeSource,
}

impl std::error::Error for TooNew {}

impl std::fmt::Display for TooNew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { created, clock, source } = self;
        write!(f, "it is dated {}, and this host's clock says {}", Date(*created), Date(*clock))?;
        match source {
            TimeSource::Clock => Ok(()),
            TimeSource::SignedTime => f.write_str(", which is behind and must be set"),
        }
    }
}

impl TooNew {
    /// A clock that is known to be behind says nothing about the document.
    pub fn attack(&self) -> Option<Attack> {
        match self.source {
            TimeSource::Clock => Some(Attack::FastForward),
            TimeSource::SignedTime => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: u64) -> UnixMs {
        UnixMs::new(ms).expect("in range")
    }

    #[test]
    fn the_grace_is_a_minute_after_the_clock_and_nothing_after_a_signed_time() {
        let right = Time::new(at(1_000_000), at(500_000));
        assert_eq!(right.admit(at(1_060_000)), Ok(()));
        assert_eq!(right.admit(at(1_060_001)).expect_err("late").attack(), Some(Attack::FastForward));
        let behind = Time::new(at(0), at(500_000));
        assert_eq!(behind.admit(at(500_000)), Ok(()));
        let refused = behind.admit(at(500_001)).expect_err("the clock is behind");
        assert_eq!(refused.attack(), None);
        assert_eq!(
            refused.to_string(),
            "it is dated 1970-01-01 00:08:20 UTC, and this host's clock says 1970-01-01 00:00:00 UTC, which is behind and must be set"
        );
    }

    proptest! {
        #[test]
        fn signed_times_never_run_more_than_the_grace_ahead_of_a_right_clock(
            start in 0u64..1_000_000, created in prop::collection::vec(0u64..10_000_000, 0..50),
        ) {
            // Somebody with a stolen key dates documents as they like.
            let (clock, mut newest) = (at(start), UnixMs::EPOCH);
            for created in created {
                if Time::new(clock, newest).admit(at(created)).is_ok() {
                    newest = newest.max(at(created));
                }
                prop_assert!(newest.get() <= start + 60_000);
            }
        }
    }
}

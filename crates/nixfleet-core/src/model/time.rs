//! Points in time and spans, as whole numbers with a unit. Nothing here asks a clock.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::names::EXACT_MAX;

/// A point in time: milliseconds since 1970, UTC, without leap seconds (lesson 33).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct UnixMs(u64);

/// Why a number is not a point in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} milliseconds since 1970 is out of range: the largest is {EXACT_MAX}")]
pub struct NotATime(pub u64);

impl UnixMs {
    /// 1970.
    pub const EPOCH: Self = Self(0);
    /// Some 285,000 years later.
    pub const MAX: Self = Self(EXACT_MAX);

    /// The point `ms` milliseconds after 1970.
    pub fn new(ms: u64) -> Result<Self, NotATime> {
        if ms > EXACT_MAX { Err(NotATime(ms)) } else { Ok(Self(ms)) }
    }

    /// Milliseconds since 1970.
    pub fn get(self) -> u64 {
        self.0
    }

    /// This much later; [`UnixMs::MAX`] if that is out of range.
    #[must_use]
    pub fn plus(self, span: Secs) -> Self {
        Self(self.0.saturating_add(span.ms()).min(EXACT_MAX))
    }

    /// How much later than `earlier`, in milliseconds; 0 if it is not later.
    pub fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl TryFrom<u64> for UnixMs {
    type Error = NotATime;
    fn try_from(ms: u64) -> Result<Self, NotATime> {
        Self::new(ms)
    }
}

impl From<UnixMs> for u64 {
    fn from(at: UnixMs) -> Self {
        at.0
    }
}

impl fmt::Display for UnixMs {
    /// The plain number; whoever talks to people knows their calendar.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A time for people, in UTC to the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date(pub UnixMs);

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let second = i64::try_from(self.0.get() / 1_000).ok();
        match second.and_then(|second| jiff::Timestamp::from_second(second).ok()) {
            Some(at) => at.strftime("%Y-%m-%d %H:%M:%S UTC").fmt(f),
            None => write!(f, "{} ms since 1970", self.0),
        }
    }
}

/// A span of whole seconds, up to 136 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secs(pub u32);

impl Secs {
    /// Milliseconds.
    pub fn ms(self) -> u64 {
        u64::from(self.0) * 1_000
    }

    /// As the standard library has it.
    pub fn duration(self) -> Duration {
        Duration::from_secs(u64::from(self.0))
    }
}

impl fmt::Display for Secs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s", self.0)
    }
}

//! Two times: the clock's, which people read and policies name, and the time since boot, by which spans are counted.
//!
//! A clock that is set right after the boot must not cut a soak short or put a retry off by years (lesson 16). So
//! whatever lasts for a while is counted in time since boot, and starts anew with each boot.

use serde::{Deserialize, Serialize};

use crate::model::time::{Secs, UnixMs};

/// Milliseconds since the host was booted; of no meaning after the next boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UpMs(pub u64);

impl UpMs {
    /// This much later.
    #[must_use]
    pub fn plus(self, span: Secs) -> Self {
        self.plus_ms(span.ms())
    }

    /// This many milliseconds later.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

/// When something happened on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// What its clock said.
    #[serde(rename = "at_ms")]
    pub at: UnixMs,
    /// How long it had been up.
    #[serde(rename = "up_ms")]
    pub up: UpMs,
}

impl Now {
    /// What the clock will say at `up`, if nobody sets it until then; now if that is past.
    pub fn clock_at(self, up: UpMs) -> UnixMs {
        let ms = self.at.get().saturating_add(up.0.saturating_sub(self.up.0));
        UnixMs::new(ms).unwrap_or(UnixMs::MAX)
    }
}

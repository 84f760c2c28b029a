//! What workers tell the reducer.

use std::path::PathBuf;

use nixfleet_core::host::{Event, Terms};
use nixfleet_trust::trust::SavedTrust;

/// How many inputs may wait for the reducer.
///
/// It takes one in a millisecond or two (two syncs); the liveliest minute of a host has some twenty probes, a dozen
/// steps of an activation and a few answers of the source. Whoever finds it full waits, and loses nothing.
pub const INPUTS_MAX: usize = 64;

/// One thing that a worker tells.
#[derive(Debug)]
pub enum Input {
    /// A fact, or a wish.
    Told(Event),
    /// A release passed every check; what it says to this host, and what to trust from now on.
    Offered {
        /// What it says.
        terms: Box<Terms>,
        /// Saved together with the release.
        trust: Box<SavedTrust>,
    },
    /// A newer root was accepted.
    TrustMoved(Box<SavedTrust>),
    /// What runs may be something else than before: look.
    LookAgain,
    /// A person's wish, from a file that is removed once the wish is saved.
    Asked {
        /// The wish.
        event: Event,
        /// The file.
        request: PathBuf,
    },
}

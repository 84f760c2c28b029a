//! The running agent: one reducer owns the host's state, workers bring facts, and effects are had done.
//!
//! ```text
//! source ──┐                                                    ┌─> jobs (activations, a thread of their own)
//! probes ──┤            ┌──────────────────────────────────┐    ├─> staging
//! system ──┼─ inputs ──>│ reducer: advance, log, save      │────┼─> probes, source, hooks, reboot
//! requests ┤            └──────────────────────────────────┘    │   (applier: the one match over effects)
//! jobs ────┘                                                    └─> roots
//! ```
//!
//! [`reducer`] is the rule, [`applier`] carries out, [`recovery`] looks at the host once at the start, [`start`] puts all of it
//! together, and [`follow`] is the loop.

pub mod applier;
pub mod desk;
pub mod follow;
pub mod handover;
pub mod input;
pub mod net;
pub mod notify;
pub mod outbox;
pub mod recovery;
pub mod reducer;
pub mod requests;
pub mod rescue;
pub mod roots;
pub mod start;
pub mod state_file;
pub mod timer;
pub mod told;
pub mod workers;

use std::io;
use std::time::Duration;

/// A loop of its own for one thread. What it has done on other threads (a document of a folder, signatures) ends with them:
/// kept for the next time, each would wake ten seconds later to find that there was none, and hold what its allocator holds.
///
/// # Errors
/// The kernel gives no descriptor for it.
pub fn one_thread() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().thread_keep_alive(Duration::ZERO).build()
}

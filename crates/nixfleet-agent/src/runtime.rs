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
pub mod roots;
pub mod start;
pub mod state_file;
pub mod timer;
pub mod workers;

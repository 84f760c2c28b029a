//! Turns bytes into [`check::Verified`] values: signed releases that need no trusted server.
//!
//! Pure: no I/O, no clock (the time is an argument), no logging; randomness only where keys and signatures are made,
//! behind the feature `sign`. The agent, the control plane and the command line bring the bytes and the time.
//!
//! There are three documents. A **root** says which keys a fleet trusts; a **release** says what a channel shall run,
//! and is signed by a threshold of these keys; an **entry** says what one host shall run, and is part of a release by a
//! Merkle proof. A host goes through them like this:
//!
//! 1. [`trust::Trust::open`] with the root from its configuration and what it saved;
//! 2. [`trust::Trust::accept_root`] for each next root that its source has, and save;
//! 3. [`trust::Trust::accept_release`] for the newest release of its channel, and save;
//! 4. [`check::entry::own_entry`] for its own entry in it;
//! 5. after the fetch, the digest of what came is compared with the entry's. The agent's activation does that itself, since it does
//!    so also without a release; [`check::Verified::check_closure`] is the same for whoever has only the entry.
//!
//! Each refusal is a typed error that says with `attack()` what somebody may be trying. A refusal changes nothing.

pub mod attack;
pub mod author;
pub mod check;
pub mod clock;
pub mod envelope;
pub mod floor;
pub mod json;
pub mod key;
mod merkle;
pub mod root;
#[cfg(feature = "sign")]
pub mod sign;
pub mod signature;
pub mod threshold;
pub mod trust;
pub mod wire;

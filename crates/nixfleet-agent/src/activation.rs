//! Owns the activation of a target system: seven steps, trial and commit, the deadman, the journal and recovery.
//!
//! The public way in is [`activate_with`] and [`rollback_with`], or [`activate`] and [`rollback()`] on this platform's
//! [`DEFAULT_BACKEND`]. [`recovery`] takes up what a crash, a stop or a reboot cut off. Decisions are
//! `nixfleet-core`'s (`judge`, `resume`); here they are carried out.

pub mod backend;
pub mod boot_space;
pub mod confirm;
pub mod darwin;
pub mod deadman;
pub mod host;
pub mod journal;
pub mod linux;
pub mod machine;
pub mod pipeline;
pub mod profile;
pub mod realise;
pub mod recovery;
pub mod rollback;
pub mod run;
pub mod staging;
pub mod types;
pub mod unfinished;
pub mod unsynced;
pub mod verify_poll;

pub use backend::ActivationBackend;
pub use pipeline::activate_with;
pub use rollback::rollback_with;
pub use types::{ActivationOutcome, ActivationTarget, RollbackOutcome};
pub use verify_poll::{POLL_BUDGET, POLL_INTERVAL};

/// The backend of the platform that this program was built for.
#[cfg(not(target_os = "macos"))]
pub type DefaultBackend = linux::LinuxBackend;
/// The backend of the platform that this program was built for.
#[cfg(target_os = "macos")]
pub type DefaultBackend = darwin::DarwinBackend;

/// This host, with everything in its usual place.
pub static DEFAULT_BACKEND: DefaultBackend = DefaultBackend::new();

/// Activates the target on this host.
pub async fn activate(target: &ActivationTarget) -> anyhow::Result<ActivationOutcome> {
    activate_with(&DEFAULT_BACKEND, target).await
}

/// Goes back to the system that ran before the newest activation.
pub async fn rollback() -> anyhow::Result<RollbackOutcome> {
    rollback_with(&DEFAULT_BACKEND).await
}

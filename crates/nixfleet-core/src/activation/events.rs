//! What the reducer, and through the outbound queue the control plane, are told of a local activation.

use serde::{Deserialize, Serialize};

use super::record::Probe;
use crate::ids::{ActivationId, ClosureDigest, StorePath};

/// When a target becomes the boot default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CommitPolicy {
    /// At once, by the switch itself; nothing is on trial.
    Immediately,
    /// After the probes passed; until then a reboot comes back on the previous system.
    #[default]
    AfterConfirm,
}

/// What the reducer asks for: make this system the running one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivationIntent {
    /// Names the activation; the same id is never fired twice.
    pub id: ActivationId,
    /// The system.
    pub target: StorePath,
    /// What the release says of the closure's contents, when there is a release.
    pub digest: Option<ClosureDigest>,
    /// When it becomes the boot default.
    pub commit: CommitPolicy,
    /// From the fire to the confirmation, in seconds.
    pub confirm_within_secs: u64,
    /// What must pass before it is committed.
    pub probes: Vec<Probe>,
}

pub use crate::host::event::Event;

//! What an activation is asked for, and who may watch it; the outcomes are `nixfleet-core`'s and re-exported here.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use nixfleet_core::activation::events::{ActivationIntent, CommitPolicy};
use nixfleet_core::activation::inhibit::InhibitPolicy;
use nixfleet_core::activation::outcome::Step;
use nixfleet_core::activation::record::{ConfirmBy, OnFailedUnits, Probe, Purpose, Unsigned};
use nixfleet_core::ids::{ActivationId, ClosureDigest, StorePath};

pub use nixfleet_core::activation::outcome::{
    ActivationOutcome, BusyWith, Failure, FailureClass, RollbackOutcome, Verdict, Warning,
};

use crate::tools::nix_store::REALISE_STALL;
use crate::tools::progress::Progress;

/// From the fire to the confirmation, unless the caller says otherwise: as long as the poll itself may last.
pub const CONFIRM_WITHIN_DEFAULT: Duration = super::POLL_BUDGET;

/// What to activate, and under which rules.
#[derive(Clone)]
pub struct ActivationTarget {
    /// Names the activation; the same id is never fired twice.
    pub id: ActivationId,
    /// The system.
    pub system: StorePath,
    /// What a release says of the closure's contents; checked after the fetch.
    pub digest: Option<ClosureDigest>,
    /// When it becomes the boot default.
    pub commit: CommitPolicy,
    /// Who confirms the trial.
    pub confirm_by: ConfirmBy,
    /// From the fire to the confirmation; then the previous system comes back.
    pub confirm_within: Duration,
    /// How long the probes must keep passing before the commit.
    pub observe: Duration,
    /// What must pass, beside the built-in probes.
    pub probes: Vec<Probe>,
    /// Which parts must not be replaced live.
    pub inhibit: InhibitPolicy,
    /// What happens when units are worse off.
    pub on_failed_units: OnFailedUnits,
    /// What happens to a path without a trusted signature.
    pub unsigned: Unsigned,
    /// How long a download may stand still.
    pub stall: Duration,
    /// Whether this goes forward or back.
    pub purpose: Purpose,
    /// Is told of steps and bytes.
    pub observer: Arc<dyn Observer>,
}

impl ActivationTarget {
    /// The system under the default rules: on trial, confirmed by the probes, reverted otherwise.
    pub fn new(id: ActivationId, system: StorePath) -> Self {
        Self {
            id,
            system,
            digest: None,
            commit: CommitPolicy::default(),
            confirm_by: ConfirmBy::default(),
            confirm_within: CONFIRM_WITHIN_DEFAULT,
            observe: Duration::ZERO,
            probes: Vec::new(),
            inhibit: InhibitPolicy::default(),
            on_failed_units: OnFailedUnits::default(),
            unsigned: Unsigned::default(),
            stall: REALISE_STALL,
            purpose: Purpose::default(),
            observer: Arc::new(Silent),
        }
    }

    /// What the reducer asks for.
    pub fn from_intent(intent: &ActivationIntent) -> Self {
        Self {
            digest: intent.digest.clone(),
            commit: intent.commit,
            confirm_within: Duration::from_secs(intent.confirm_within_secs),
            probes: intent.probes.clone(),
            ..Self::new(intent.id.clone(), intent.target.clone())
        }
    }
}

impl fmt::Debug for ActivationTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActivationTarget")
            .field("id", &self.id)
            .field("system", &self.system)
            .finish_non_exhaustive()
    }
}

/// How much a remark matters to whoever only reads what went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// In the course of things.
    Note,
    /// It passes, or the agent goes on without; somebody may want to look.
    Warning,
    /// What was wanted is not so, and waiting does not help.
    Error,
}

impl Weight {
    /// That of an activation's end.
    pub fn of(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Converged | Verdict::OnTrial { .. } | Verdict::DeferredPendingReboot { .. } => {
                Self::Note
            }
            Verdict::LiveWithFailedUnits { .. } => Self::Warning,
            Verdict::Failed { failure } if failure.is_transient() => Self::Warning,
            // Whoever asked for it knows.
            Verdict::Reverted { failure: Failure::Asked, .. } => Self::Note,
            Verdict::Failed { .. }
            | Verdict::SignatureMismatch { .. }
            | Verdict::Reverted { .. }
            | Verdict::RevertFailed { .. } => Self::Error,
        }
    }
}

/// Watches an activation; told, never asked.
pub trait Observer: Send + Sync {
    /// A step begins.
    fn step(&self, step: Step);
    /// The download moved.
    fn fetched(&self, progress: Progress);
    /// Something that a person may want to know while it happens.
    fn remark(&self, weight: Weight, text: &str);
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn step(&self, _step: Step) {}
    fn fetched(&self, _progress: Progress) {}
    fn remark(&self, _weight: Weight, _text: &str) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_brought_is_a_note_and_what_was_not_weighs_by_whether_waiting_helps() {
        let weight = |verdict| Weight::of(&verdict);
        for well in [
            Verdict::Converged,
            Verdict::OnTrial { confirm_within_secs: 60 },
            Verdict::DeferredPendingReboot { inhibitors: Vec::new() },
            Verdict::Reverted { failure: Failure::Asked, left: Vec::new() },
        ] {
            assert_eq!(weight(well.clone()), Weight::Note, "{well}");
        }
        let busy = Failure::Busy { with: BusyWith::Activation };
        assert_eq!(weight(Verdict::Failed { failure: busy }), Weight::Warning);
        assert_eq!(weight(Verdict::LiveWithFailedUnits { units: Vec::new() }), Weight::Warning);
        let late = || Failure::ConfirmTimeout { within_secs: 60 };
        assert_eq!(weight(Verdict::Failed { failure: late() }), Weight::Error);
        assert_eq!(weight(Verdict::Reverted { failure: late(), left: Vec::new() }), Weight::Error);
        assert_eq!(weight(Verdict::RevertFailed { failure: late(), revert: late() }), Weight::Error);
    }
}

//! How an activation ended and why: types with the facts in them, for people, for `--json` and for the reducer.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::failure::list;
pub use super::failure::{BusyWith, Failure, FailureClass};
use super::inhibit::Inhibitor;
use super::units::TroubledUnit;
use crate::ids::{ActivationId, Generation, StorePath};

/// The steps of an activation, in order; the last four only happen when something went wrong or was put off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Read what runs, check the target, look for somebody else's switch.
    Check,
    /// Fetch the closure and verify it.
    Realise,
    /// Point the system profile at the target, and arm the deadman beside it.
    SetProfile,
    /// Arm the unit that reverts at the deadline.
    ArmDeadman,
    /// Start the detached switch.
    Fire,
    /// Watch it until it ended, and judge the world.
    VerifyPoll,
    /// Repair a profile that the activation script re-pointed.
    SelfCorrect,
    /// Wait for the enforced probes.
    Confirm,
    /// Make the target the boot default.
    Commit,
    /// Stop the deadman and drop what was kept for it.
    Disarm,
    /// Write boot entries only; the reboot does the rest.
    Defer,
    /// Wait for the reboot.
    AwaitReboot,
    /// Run an interrupted switch once more.
    Repair,
    /// Go back to the system recorded before the switch.
    Revert,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Check => "check",
            Self::Realise => "realise",
            Self::SetProfile => "set-profile",
            Self::ArmDeadman => "arm-deadman",
            Self::Fire => "fire",
            Self::VerifyPoll => "verify-poll",
            Self::SelfCorrect => "self-correct",
            Self::Confirm => "confirm",
            Self::Commit => "commit",
            Self::Disarm => "disarm",
            Self::Defer => "defer",
            Self::AwaitReboot => "await-reboot",
            Self::Repair => "repair",
            Self::Revert => "revert",
        })
    }
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Verdict {
    /// The target runs and is the boot default.
    Converged,
    /// The target runs and is the boot default, and units are worse off than before.
    LiveWithFailedUnits {
        /// Those units.
        units: Vec<TroubledUnit>,
    },
    /// The target runs, the boot default is still the previous system, and somebody must confirm in time.
    OnTrial {
        /// Seconds that were left when this was written.
        confirm_within_secs: u64,
    },
    /// The target is the boot default and the previous system runs on: a reboot finishes it.
    DeferredPendingReboot {
        /// What must not be replaced live.
        inhibitors: Vec<Inhibitor>,
    },
    /// Nothing was changed, because nobody trusted signed it, or the digest differs.
    SignatureMismatch {
        /// [`Failure::SignatureMismatch`] or [`Failure::ClosureMismatch`].
        failure: Failure,
    },
    /// Nothing was changed, or all was put back before anything ran.
    Failed {
        /// Why.
        failure: Failure,
    },
    /// The previous system runs again and is the boot default.
    Reverted {
        /// Why.
        failure: Failure,
        /// Units that are still worse off than before the switch.
        left: Vec<TroubledUnit>,
    },
    /// The way back failed too; somebody must be told.
    RevertFailed {
        /// Why the way back was taken.
        failure: Failure,
        /// Why it failed.
        revert: Failure,
    },
}

impl Verdict {
    /// The exit code of the command line, as the README lists them.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Converged | Self::OnTrial { .. } => 0,
            Self::SignatureMismatch { .. } | Self::Failed { .. } => 1,
            Self::LiveWithFailedUnits { .. } => 4,
            Self::Reverted { .. } => 5,
            Self::DeferredPendingReboot { .. } => 6,
            Self::RevertFailed { .. } => 7,
        }
    }

    /// A refusal or failure that changed nothing; trust failures get their own verdict.
    pub fn unchanged(failure: Failure) -> Self {
        match failure.class() {
            FailureClass::Trust => Self::SignatureMismatch { failure },
            FailureClass::Fetch
            | FailureClass::Space
            | FailureClass::Switch
            | FailureClass::Units
            | FailureClass::Probe
            | FailureClass::ConfirmTimeout
            | FailureClass::Inhibited
            | FailureClass::Boot
            | FailureClass::Internal => Self::Failed { failure },
        }
    }

    /// Why, where something failed.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::SignatureMismatch { failure }
            | Self::Failed { failure }
            | Self::Reverted { failure, .. }
            | Self::RevertFailed { failure, .. } => Some(failure),
            Self::Converged
            | Self::LiveWithFailedUnits { .. }
            | Self::OnTrial { .. }
            | Self::DeferredPendingReboot { .. } => None,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Converged => f.write_str("converged"),
            Self::LiveWithFailedUnits { units } => {
                let said: Vec<String> = units.iter().map(ToString::to_string).collect();
                write!(f, "live, but {}", list(&said))
            }
            Self::OnTrial { confirm_within_secs } => {
                write!(f, "on trial: confirm within {confirm_within_secs} s or it is reverted")
            }
            Self::DeferredPendingReboot { inhibitors } => {
                let said: Vec<String> = inhibitors.iter().map(|i| i.key.clone()).collect();
                write!(f, "deferred to a reboot because of {}", list(&said))
            }
            Self::SignatureMismatch { failure } => write!(f, "refused, nothing changed: {failure}"),
            Self::Failed { failure } => write!(f, "failed, nothing changed: {failure}"),
            Self::Reverted { failure, left } if left.is_empty() => write!(f, "reverted: {failure}"),
            Self::Reverted { failure, left } => {
                let said: Vec<String> = left.iter().map(ToString::to_string).collect();
                write!(f, "reverted: {failure}; still worse off than before: {}", list(&said))
            }
            Self::RevertFailed { failure, revert } => {
                write!(f, "the revert failed ({revert}), after: {failure}")
            }
        }
    }
}

/// Something that was not as it should be and did not decide the outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Warning(pub String);

/// How long a step took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepTime {
    /// The step.
    pub step: Step,
    /// Milliseconds.
    pub ms: u64,
}

/// The whole outcome of one activation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[must_use = "an outcome that nobody reads is a failure that nobody sees"]
pub struct ActivationOutcome {
    /// Names this activation in the journal and in `logs`.
    pub id: ActivationId,
    /// What was asked for.
    pub target: StorePath,
    /// What ran before; `None` when even that could not be read.
    pub previous: Option<StorePath>,
    /// The generation of the target, where the profile was set.
    pub generation: Option<Generation>,
    /// How it ended.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// What else a person should know.
    pub warnings: Vec<Warning>,
    /// What of the running system only a reboot brings; empty when none is needed.
    pub reboot_needed: Vec<Inhibitor>,
    /// How long each step took, in the order they ran.
    pub steps: Vec<StepTime>,
}

/// The outcome of a rollback asked for by a person: the same facts, named for what was done.
pub type RollbackOutcome = ActivationOutcome;

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> StorePath {
        "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-nixos-system-a-1".parse().expect("well-formed")
    }

    #[test]
    fn a_trust_failure_is_a_verdict_of_its_own_and_is_never_retried() {
        let failure = Failure::SignatureMismatch {
            paths: vec![path()],
            trusted_keys: vec!["cache-1".into()],
            asked: vec![],
            present_before: false,
        };
        assert!(!failure.is_transient());
        assert!(matches!(Verdict::unchanged(failure), Verdict::SignatureMismatch { .. }));
        let other = Failure::CacheUnreachable { asked: vec![], last_lines: vec![] };
        assert!(other.is_transient());
        assert!(matches!(Verdict::unchanged(other), Verdict::Failed { .. }));
    }

    #[test]
    fn an_outcome_reads_back_from_its_json() {
        let outcome = ActivationOutcome {
            id: ActivationId::new(1, 2),
            target: path(),
            previous: Some(path()),
            generation: Some(Generation { number: 7, system: path() }),
            verdict: Verdict::Reverted { failure: Failure::ConfirmTimeout { within_secs: 60 }, left: vec![] },
            warnings: vec![Warning("the profile was re-pointed".into())],
            reboot_needed: vec![],
            steps: vec![StepTime { step: Step::Fire, ms: 12 }],
        };
        let text = serde_json::to_string(&outcome).expect("plain data");
        assert!(
            text.contains(r#""verdict":"reverted","failure":{"kind":"confirm-timeout","within_secs":60}"#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<ActivationOutcome>(&text).expect("its own form"), outcome);
    }
}

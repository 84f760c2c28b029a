//! The ten states of a host, each with what it needs to go on from there after a crash.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::effect::Back;
use super::event::HookRun;
use super::probing::Watch;
use super::terms::Terms;
use super::time::UpMs;
use crate::activation::inhibit::Inhibitor;
use crate::activation::outcome::{Failure, Step};
use crate::activation::units::TroubledUnit;
use crate::ids::{ActivationId, StorePath};
use crate::model::time::Secs;

/// Where a host stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Phase {
    /// It runs the system of its last finished release, or never had one.
    #[default]
    Converged,
    /// The target is being fetched and checked.
    Staging(Staging),
    /// It is there, and waits for its turn.
    Staged(Staged),
    /// The switch goes on.
    Activating(Activating),
    /// Only a reboot brings the target.
    AwaitingReboot(AwaitingReboot),
    /// The target is on trial.
    Confirming(Confirming),
    /// It is committed and watched.
    Soaking(Soaking),
    /// On the way back.
    Reverting(Reverting),
    /// Back on the previous system. The target is not tried again here until a newer release or a person says so.
    Reverted(Reverted),
    /// It could not be done, or could not be undone.
    Failed(Failed),
}

/// The target is being fetched and checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Staging {
    /// What is wanted.
    pub target: Box<Terms>,
    /// The how manyth try, from 1.
    pub attempt: u32,
}

/// The target is in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Staged {
    /// What is wanted.
    pub target: Box<Terms>,
    /// The how manyth try, from 1.
    pub attempt: u32,
}

/// An activation that is not over, or was not when this was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flight {
    /// What is wanted.
    pub target: Box<Terms>,
    /// The how manyth try, from 1.
    pub attempt: u32,
    /// Its name in the activation journal.
    pub id: ActivationId,
    /// The system that ran before.
    pub previous: StorePath,
    /// Whether the source must answer before the commit.
    pub source: SourceNeed,
}

impl Flight {
    /// The release as done here, once the activation is over and its target runs.
    pub(super) fn done(&self, rebooted: Rebooted) -> Done {
        let Self { target, attempt: _, id: _, previous, source: _ } = self;
        Done { terms: target.clone(), previous: Some(previous.clone()), rebooted }
    }
}

/// Whether the source must answer before the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceNeed {
    /// It did not answer before the switch either, so its silence says nothing about the new system.
    NotNeeded,
    /// It answered before the switch, and has not yet after it.
    Awaited,
    /// It answered after the switch.
    Answered,
}

/// The switch goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Activating {
    /// The activation.
    pub flight: Flight,
    /// The newest step that it told of.
    pub step: Option<Step>,
}

/// Only a reboot brings the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AwaitingReboot {
    /// What the reboot is for.
    pub cause: RebootCause,
    /// How far the reboot is.
    pub reboot: Reboot,
}

/// What a reboot is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "kebab-case")]
pub enum RebootCause {
    /// The target could not be switched to live; its boot entry is written, and the previous system still runs.
    Deferred {
        /// The activation, which the boot finishes.
        flight: Flight,
        /// What kept it from being done live.
        inhibitors: Vec<Inhibitor>,
    },
    /// The target runs and is done; the policy wants the host restarted into it.
    Wanted(Done),
}

/// A release that is done here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Done {
    /// What it says.
    pub terms: Box<Terms>,
    /// The system that ran before it; `None` when it was not brought by a switch of ours.
    pub previous: Option<StorePath>,
    /// Whether the host was booted since.
    pub rebooted: Rebooted,
}

/// Whether a host was booted since its activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rebooted {
    /// It was not.
    No,
    /// It was.
    Yes,
}

/// How far a reboot is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reboot", rename_all = "kebab-case")]
pub enum Reboot {
    /// It waits for a window, a person, or the end of a pause after something stood against it.
    Waiting {
        /// What stood against it last.
        trouble: Option<RebootTrouble>,
        /// The hooks after a reboot, which let in again what was drained for the one that was put off.
        #[serde(default, skip_serializing_if = "Hooks::are_not_due")]
        hooks: Hooks,
    },
    /// The hooks before it run.
    Draining {
        /// Their run.
        run: HookRun,
        /// How often something stood against it before.
        tries: u32,
    },
    /// It was ordered.
    Ordered {
        /// When the host should be down.
        until_up_ms: UpMs,
        /// How often something stood against it before.
        tries: u32,
    },
}

/// What stood against a reboot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RebootTrouble {
    /// What it was.
    pub why: String,
    /// How often in a row.
    pub tries: u32,
    /// When it is tried again.
    pub again_up_ms: UpMs,
}

/// The target is on trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirming {
    /// The activation.
    pub flight: Flight,
    /// Who confirms.
    pub by: Confirmer,
    /// The probes since the switch, or since the boot.
    pub watch: Watch,
    /// Whether the host was booted since the activation began.
    pub rebooted: Rebooted,
    /// The hooks after a reboot that are still due.
    pub hooks: Hooks,
}

/// Who confirms a trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "kebab-case")]
pub enum Confirmer {
    /// The activation asks by itself, or is being taken up after a crash; it will tell.
    Activation,
    /// This machine, by its probes.
    Machine {
        /// When the trial is over.
        until_up_ms: UpMs,
        /// Not before then: an earlier commit could not begin.
        commit_from_up_ms: UpMs,
    },
    /// It is confirmed, and the commit goes on. From here on the way is forward.
    Committing {
        /// When the trial is over, should the commit not begin.
        until_up_ms: UpMs,
    },
}

/// The hooks after a reboot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hooks {
    /// There is nothing to do.
    #[default]
    NotDue,
    /// They run as soon as the system is committed.
    Due,
    /// They run.
    Running(HookRun),
}

impl Hooks {
    /// Whether there is nothing to do.
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
    fn are_not_due(&self) -> bool {
        *self == Self::NotDue
    }
}

/// The system is committed and watched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Soaking {
    /// What runs.
    pub done: Done,
    /// The how manyth try it was, from 1.
    pub attempt: u32,
    /// The probes since the activation, or since the boot.
    pub watch: Watch,
    /// When it was watched for long enough.
    pub until_up_ms: UpMs,
    /// The hooks after a reboot that are still due.
    pub hooks: Hooks,
}

/// On the way back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reverting {
    /// What is undone.
    pub target: Box<Terms>,
    /// The how manyth try it was, from 1.
    pub attempt: u32,
    /// The activation that carries it out.
    pub id: ActivationId,
    /// What kind of way back it is.
    pub back: Back,
    /// The recorded system.
    pub to: StorePath,
    /// Why; `None` until the activation that began it by itself has told.
    pub failure: Option<Failure>,
    /// How far its reboot is, when only a reboot brings the recorded system.
    pub reboot: Option<Reboot>,
    /// The hooks after a reboot that are still due: what was drained for it is let in again, whichever system came up.
    pub hooks: Hooks,
}

/// Back on the previous system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reverted {
    /// What was undone.
    pub target: Box<Terms>,
    /// The system that runs.
    pub to: StorePath,
    /// Why.
    pub failure: Failure,
    /// Units that are still worse off than before.
    pub left: Vec<TroubledUnit>,
    /// The hooks after a reboot that are still due.
    pub hooks: Hooks,
}

/// It could not be done, or could not be undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failed {
    /// What was wanted.
    pub target: Box<Terms>,
    /// The how manyth try it was, from 1.
    pub attempt: u32,
    /// Where it failed.
    pub at: FailedAt,
    /// Why.
    pub failure: Failure,
    /// When it is tried again by itself; `None` if that cannot help.
    pub again_up_ms: Option<UpMs>,
}

/// Where it failed, and so what state the host is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "at", rename_all = "kebab-case")]
pub enum FailedAt {
    /// While fetching and checking. Nothing was changed.
    Stage,
    /// While activating. Nothing was changed, or all of it was put back.
    Activate,
    /// While it was watched: the target still runs.
    Soak,
    /// The hooks after the reboot: the target runs.
    AfterHooks(Done),
    /// On the way back (lesson 7): somebody has to look, and is told.
    Revert {
        /// What carried it out.
        id: ActivationId,
        /// What kind of way back it was.
        back: Back,
        /// The recorded system.
        to: StorePath,
        /// Why the way back was taken.
        because: Option<Failure>,
    },
    /// Another system runs than the one that should: a person changed it.
    Found,
}

/// The states by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "each is a state of `Phase`, where it is described")]
pub enum StateName {
    Converged,
    Staging,
    Staged,
    Activating,
    AwaitingReboot,
    Confirming,
    Soaking,
    Reverting,
    Reverted,
    Failed,
}

impl fmt::Display for StateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Converged => "converged",
            Self::Staging => "staging",
            Self::Staged => "staged",
            Self::Activating => "activating",
            Self::AwaitingReboot => "awaiting-reboot",
            Self::Confirming => "confirming",
            Self::Soaking => "soaking",
            Self::Reverting => "reverting",
            Self::Reverted => "reverted",
            Self::Failed => "failed",
        })
    }
}

impl Phase {
    /// Its name.
    pub fn name(&self) -> StateName {
        match self {
            Self::Converged => StateName::Converged,
            Self::Staging(_) => StateName::Staging,
            Self::Staged(_) => StateName::Staged,
            Self::Activating(_) => StateName::Activating,
            Self::AwaitingReboot(_) => StateName::AwaitingReboot,
            Self::Confirming(_) => StateName::Confirming,
            Self::Soaking(_) => StateName::Soaking,
            Self::Reverting(_) => StateName::Reverting,
            Self::Reverted(_) => StateName::Reverted,
            Self::Failed(_) => StateName::Failed,
        }
    }

    /// What went wrong, where something did.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Reverting(reverting) => reverting.failure.as_ref(),
            Self::Reverted(reverted) => Some(&reverted.failure),
            Self::Failed(failed) => Some(&failed.failure),
            Self::Converged
            | Self::Staging(_)
            | Self::Staged(_)
            | Self::Activating(_)
            | Self::AwaitingReboot(_)
            | Self::Confirming(_)
            | Self::Soaking(_) => None,
        }
    }

    /// What it is about; `None` when the host has settled, where [`super::HostState::settled`] says it.
    pub fn target(&self) -> Option<&Terms> {
        match self {
            Self::Converged => None,
            Self::Staging(Staging { target, .. })
            | Self::Staged(Staged { target, .. })
            | Self::Activating(Activating { flight: Flight { target, .. }, .. })
            | Self::Confirming(Confirming { flight: Flight { target, .. }, .. })
            | Self::Reverting(Reverting { target, .. })
            | Self::Reverted(Reverted { target, .. })
            | Self::Failed(Failed { target, .. }) => Some(target),
            Self::AwaitingReboot(waiting) => Some(waiting.cause.target()),
            Self::Soaking(Soaking { done, .. }) => Some(&done.terms),
        }
    }
}

impl RebootCause {
    /// What the reboot brings.
    pub fn target(&self) -> &Terms {
        match self {
            Self::Deferred { flight, .. } => &flight.target,
            Self::Wanted(done) => &done.terms,
        }
    }
}

impl Reboot {
    /// Waiting, with nothing against it yet.
    pub const NOT_TRIED: Self = Self::Waiting { trouble: None, hooks: Hooks::NotDue };
    /// How long after the warning a host that was told to restart is given to go down.
    pub const GRACE: Secs = Secs(600);

    /// How often something stood against it.
    pub fn tries(&self) -> u32 {
        match self {
            Self::Waiting { trouble, hooks: _ } => trouble.as_ref().map_or(0, |trouble| trouble.tries),
            Self::Draining { tries, .. } | Self::Ordered { tries, .. } => *tries,
        }
    }
}

//! Everything that a host must remember: written before anything is done because of it, read at the next start.

use serde::{Deserialize, Serialize};

use super::effect::Back;
use super::event::Refusal;
use super::gate;
use super::phase::{Done, FailedAt, Phase, RebootCause};
use super::terms::Terms;
use super::trusted::InForce;
use super::waiting::RestartBy;
use super::world::{Setup, World};
use crate::ids::{ActivationId, StorePath};
use crate::model::names::ReleaseId;
use crate::model::policy::OnFailure;
use crate::model::time::UnixMs;

/// What a host remembers. [`super::saved`] is its form on disk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostState {
    /// How many events have changed it: the number of the newest report. It never goes back.
    pub seq: u64,
    /// The last number given to a watch, an activation or a run of hooks.
    pub serial: u32,
    /// Who the agent is; `None` before its first start.
    pub setup: Option<Setup>,
    /// What runs.
    pub world: World,
    /// What is known of the release source.
    pub source: Source,
    /// The root of trust in force; `None` until an agent that tells it has started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<InForce>,
    /// The newest verified release of the channel that is followed.
    pub newest: Option<Box<Terms>>,
    /// The release that is done here; `None` on a fresh host.
    pub settled: Option<Done>,
    /// The release that the control plane wants switched to.
    pub go: Option<ReleaseId>,
    /// The release for which the control plane lets the host restart.
    pub reboot_go: Option<ReleaseId>,
    /// The release from which the control plane wants the host to go back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revert_go: Option<ReleaseId>,
    /// The person who keeps the host where it is.
    pub hold: Option<Hold>,
    /// When it came into the state that it is in, by the host's clock.
    pub since_ms: UnixMs,
    /// The state that it is in.
    pub phase: Phase,
}

/// What is known of the release source.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Whether it answers.
    pub contact: Contact,
    /// What it served last that was refused, unless it has served something good since.
    pub refused: Option<Refused>,
}

/// Whether a source answers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "contact", rename_all = "kebab-case")]
pub enum Contact {
    /// It was not asked yet.
    #[default]
    NotAsked,
    /// It answers.
    Answers {
        /// Since then.
        since_ms: UnixMs,
    },
    /// It does not.
    Silent {
        /// Since then.
        since_ms: UnixMs,
        /// What was seen first.
        why: String,
    },
}

/// Something that the source served and that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refused {
    /// In which way.
    pub kind: Refusal,
    /// What was seen first.
    pub why: String,
    /// Since then.
    pub since_ms: UnixMs,
}

/// A person keeps a host where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
    /// Until then; `None` until somebody lets it go.
    pub until_ms: Option<UnixMs>,
}

impl HostState {
    /// The state of a host that has no state file: nothing is known, and nothing was done.
    pub fn fresh() -> Self {
        Self::default()
    }

    /// The activation in flight, which the agent must look up in the journal when it starts.
    pub fn activation_in_flight(&self) -> Option<&ActivationId> {
        match &self.phase {
            Phase::Activating(activating) => Some(&activating.flight.id),
            Phase::Confirming(confirming) => Some(&confirming.flight.id),
            Phase::Reverting(reverting) => Some(&reverting.id),
            Phase::AwaitingReboot(waiting) => match &waiting.cause {
                RebootCause::Deferred { flight, .. } => Some(&flight.id),
                RebootCause::Wanted(_) => None,
            },
            Phase::Failed(failed) => match &failed.at {
                FailedAt::Revert { id, back: Back::Uncommitted, .. } => Some(id),
                FailedAt::Revert { back: Back::Committed, .. }
                | FailedAt::Stage
                | FailedAt::Activate
                | FailedAt::Soak
                | FailedAt::AfterHooks(_)
                | FailedAt::Found => None,
            },
            Phase::Converged
            | Phase::Staging(_)
            | Phase::Staged(_)
            | Phase::Soaking(_)
            | Phase::Reverted(_) => None,
        }
    }

    /// The system that failed here and is not tried again until a newer release, or until a person asks for it.
    pub fn quarantined(&self) -> Option<&StorePath> {
        match &self.phase {
            Phase::Reverted(reverted) => Some(&reverted.target.system),
            Phase::Failed(failed) => match &failed.at {
                FailedAt::Soak | FailedAt::Revert { .. } => Some(&failed.target.system),
                FailedAt::Stage | FailedAt::Activate | FailedAt::AfterHooks(_) | FailedAt::Found => None,
            },
            Phase::Converged
            | Phase::Staging(_)
            | Phase::Staged(_)
            | Phase::Activating(_)
            | Phase::AwaitingReboot(_)
            | Phase::Confirming(_)
            | Phase::Soaking(_)
            | Phase::Reverting(_) => None,
        }
    }

    /// The release that it runs and was ordered to go back from, if that leads nowhere: its system was there before, or its
    /// signed policy does not say that all go back.
    pub fn no_way_back(&self) -> Option<&ReleaseId> {
        let done = match &self.phase {
            Phase::Soaking(at) => &at.done,
            Phase::Converged => self.settled.as_ref()?,
            Phase::Staging(_)
            | Phase::Staged(_)
            | Phase::Activating(_)
            | Phase::AwaitingReboot(_)
            | Phase::Confirming(_)
            | Phase::Reverting(_)
            | Phase::Reverted(_)
            | Phase::Failed(_) => return None,
        };
        let from = self.revert_go.as_ref().filter(|from| **from == done.terms.release)?;
        gate::ordered_back(self, done).is_none().then_some(from)
    }

    /// Whether it has converged, and its policy wants it restarted into what it runs.
    pub fn wants_reboot(&self) -> bool {
        match &self.phase {
            Phase::Converged => self.settled.as_ref().is_some_and(|done| gate::wants_reboot(self, done)),
            Phase::Staging(_)
            | Phase::Staged(_)
            | Phase::Activating(_)
            | Phase::AwaitingReboot(_)
            | Phase::Confirming(_)
            | Phase::Soaking(_)
            | Phase::Reverting(_)
            | Phase::Reverted(_)
            | Phase::Failed(_) => false,
        }
    }

    /// By whom it is restarted, if it waits for that.
    pub fn restart_by(&self) -> Option<RestartBy> {
        let target = match &self.phase {
            Phase::AwaitingReboot(at) => at.cause.target(),
            Phase::Reverting(at) if at.reboot.is_some() => &at.target,
            Phase::Converged
            | Phase::Staging(_)
            | Phase::Staged(_)
            | Phase::Activating(_)
            | Phase::Confirming(_)
            | Phase::Soaking(_)
            | Phase::Reverting(_)
            | Phase::Reverted(_)
            | Phase::Failed(_) => return None,
        };
        Some(gate::restart_by(self, target))
    }

    /// Systems that must be kept from collection now, beside what runs and what an activation keeps by itself: a
    /// staged target, and the system that a committed one may still be reverted to. Two at most.
    pub fn wanted_systems(&self) -> Vec<&StorePath> {
        match &self.phase {
            Phase::Staging(staging) => self.way_back().chain([&staging.target.system]).collect(),
            Phase::Staged(staged) => self.way_back().chain([&staged.target.system]).collect(),
            Phase::Activating(activating) => {
                vec![&activating.flight.target.system, &activating.flight.previous]
            }
            Phase::Confirming(confirming) => {
                vec![&confirming.flight.target.system, &confirming.flight.previous]
            }
            Phase::Soaking(soaking) => soaking.done.previous.iter().collect(),
            Phase::AwaitingReboot(waiting) => match &waiting.cause {
                RebootCause::Deferred { flight, .. } => vec![&flight.target.system, &flight.previous],
                RebootCause::Wanted(done) => done.previous.iter().collect(),
            },
            Phase::Reverting(reverting) => vec![&reverting.to],
            Phase::Failed(failed) => match &failed.at {
                FailedAt::Revert { to, .. } => vec![to],
                FailedAt::Stage
                | FailedAt::Activate
                | FailedAt::Soak
                | FailedAt::AfterHooks(_)
                | FailedAt::Found => Vec::new(),
            },
            Phase::Converged | Phase::Reverted(_) => self.way_back().collect(),
        }
    }

    /// The system from before the release that is done here, for as long as its signed policy lets a control plane bring
    /// all hosts back to theirs. That may be months after the release.
    fn way_back(&self) -> impl Iterator<Item = &StorePath> {
        let done = self.settled.iter().filter(|done| done.terms.on_failure == OnFailure::RevertAll);
        done.filter_map(|done| done.previous.as_ref().filter(|previous| **previous != done.terms.system))
    }

    /// The root in force, if it does not vouch for `release` yet.
    pub(super) fn vouches_not_yet(&self, release: &ReleaseId) -> Option<&InForce> {
        self.root.as_ref().filter(|root| !root.vouches_for(release))
    }

    /// The newest verified release, if the root in force vouches for it.
    fn vouched_for(&self) -> Option<&Terms> {
        self.newest.as_deref().filter(|newest| self.vouches_not_yet(&newest.release).is_none())
    }

    /// The newest verified release, if it comes after `done` and the root in force vouches for it.
    pub(super) fn news(&self, done: Option<&Terms>) -> Option<&Terms> {
        let newest = self.vouched_for()?;
        done.is_none_or(|done| newest.come_after(done)).then_some(newest)
    }

    /// What time it is by the clock or by what was signed, whichever is later (lesson 16): a clock that is behind makes
    /// nothing valid again that has expired.
    pub(super) fn signed_time(&self, clock: UnixMs) -> UnixMs {
        let newest = self.vouched_for().map(|newest| newest.created_ms);
        let root = self.root.as_ref().map(|root| root.terms.created_ms);
        newest.into_iter().chain(root).fold(clock, UnixMs::max)
    }

    /// The hold, if one is in force.
    pub(super) fn held(&self, clock: UnixMs) -> Option<&Hold> {
        self.hold.as_ref().filter(|hold| hold.until_ms.is_none_or(|until| clock < until))
    }
}

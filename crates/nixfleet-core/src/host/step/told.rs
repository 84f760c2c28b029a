//! What a state is told: events without what was dealt with before, and the four ways of an activation to end reduced to
//! what they mean.

use super::super::event::{Event, HookRun};
use super::super::probing::{ProbeReport, WatchId};
use super::super::world::JournalSays;
use crate::activation::inhibit::Inhibitor;
use crate::activation::outcome::{ActivationOutcome, Failure, Step, Verdict};
use crate::activation::units::TroubledUnit;
use crate::ids::ActivationId;
use crate::model::names::ReleaseId;

/// A fact for a state.
pub(super) enum Told<'a> {
    /// The agent's process came up; the state's effects may be lost and are to be asked for again.
    Started { rebooted: bool, journal: Option<&'a JournalSays> },
    /// Another system runs than before, and not by us.
    WorldChanged,
    /// The source answered over a fresh connection that this watch had asked for.
    SourceProven(WatchId),
    /// A target is staged.
    Staged(&'a ReleaseId),
    /// It could not be.
    StageFailed(&'a ReleaseId, &'a Failure),
    /// An activation began.
    Began(&'a ActivationId),
    /// An activation came to another step.
    Advanced(&'a ActivationId, Step),
    /// An activation ended, or came to where it waits for us.
    Ended(Ended<'a>),
    /// A probe ran.
    Probe(&'a ProbeReport),
    /// The hooks ran.
    HooksRan(HookRun),
    /// A hook failed.
    HookFailed(HookRun, &'a str),
    /// The host did not restart.
    RebootRefused(&'a str),
    /// A person wants another try.
    RetryAsked,
}

/// How an activation ended.
pub(super) struct Ended<'a> {
    /// Everything known; `None` when it ended before there was an activation at all.
    pub(super) outcome: Option<&'a ActivationOutcome>,
    pub(super) end: End<'a>,
}

/// What an end means.
#[derive(Clone, Copy)]
pub(super) enum End<'a> {
    /// The target runs and is the boot default.
    Live,
    /// The target runs on trial for so many seconds more.
    OnTrial(u64),
    /// The target is the boot default and the previous system runs.
    Deferred(&'a [Inhibitor]),
    /// Nothing of the target ran, and what was prepared is put back.
    Unchanged(&'a Failure),
    /// The previous system runs again.
    Reverted(&'a Failure, &'a [TroubledUnit]),
    /// The way back failed: why it was taken, and why it failed.
    RevertFailed(&'a Failure, &'a Failure),
}

impl<'a> Told<'a> {
    /// What a state is told of `event`; `None` for decisions and for what concerns every state.
    pub(super) fn of(event: &'a Event) -> Option<Self> {
        Some(match event {
            Event::TargetStaged { release } => Self::Staged(release),
            Event::StageFailed { release, failure } => Self::StageFailed(release, failure),
            Event::RetryAsked { by: _ } => Self::RetryAsked,
            Event::LocalActivationStarted { id, target: _, at_ms: _ } => Self::Began(id),
            Event::LocalActivationAdvanced { id, step, at_ms: _ } => Self::Advanced(id, *step),
            Event::LocalActivationCompleted { outcome, at_ms: _ }
            | Event::LocalActivationDeferred { outcome, at_ms: _ } => Self::Ended(Ended::by(outcome)),
            Event::LocalActivationFailed { failure, outcome: None, at_ms: _ } => {
                Self::Ended(Ended { outcome: None, end: End::Unchanged(failure) })
            }
            Event::LocalActivationFailed { failure: _, outcome: Some(outcome), at_ms: _ } => {
                Self::Ended(Ended::by(outcome))
            }
            Event::ProbeReported(report) => Self::Probe(report),
            Event::HooksRan { run } => Self::HooksRan(*run),
            Event::HookFailed { run, why } => Self::HookFailed(*run, why),
            Event::RebootRefused { why } => Self::RebootRefused(why),
            Event::AgentStarted { .. }
            | Event::SystemChanged { .. }
            | Event::Woke
            | Event::SourceAnswered { .. }
            | Event::SourceFailed { .. }
            | Event::RootAccepted { .. }
            | Event::ReleaseVerified { .. }
            | Event::ReleaseRefused { .. }
            | Event::OrderedToGo { .. }
            | Event::OrderedToReboot { .. }
            | Event::OrderedToRevert { .. }
            | Event::OrderWithdrawn { .. }
            | Event::Held { .. }
            | Event::Unheld { .. }
            | Event::StagingBegan { .. }
            | Event::WentAhead { .. }
            | Event::TargetAdopted { .. }
            | Event::TargetWithdrawn { .. }
            | Event::ProbesPassed { .. }
            | Event::RevertBegan { .. }
            | Event::SoakPassed { .. }
            | Event::SoakFailed { .. }
            | Event::RebootBegan { .. }
            | Event::RebootOverdue
            | Event::ReportsLost { .. }
            | Event::StateTold { .. } => return None,
        })
    }
}

impl<'a> Ended<'a> {
    /// By the verdict alone: it says more than the name of the event that carries it.
    fn by(outcome: &'a ActivationOutcome) -> Self {
        let end = match &outcome.verdict {
            Verdict::Converged | Verdict::LiveWithFailedUnits { .. } => End::Live,
            Verdict::OnTrial { confirm_within_secs } => End::OnTrial(*confirm_within_secs),
            Verdict::DeferredPendingReboot { inhibitors } => End::Deferred(inhibitors),
            Verdict::SignatureMismatch { failure } | Verdict::Failed { failure } => End::Unchanged(failure),
            Verdict::Reverted { failure, left } => End::Reverted(failure, left),
            Verdict::RevertFailed { failure, revert } => End::RevertFailed(failure, revert),
        };
        Self { outcome: Some(outcome), end }
    }

    /// Whether it is about the activation `id`. What ended before there was an activation is about the one that was asked
    /// for, since there is only one at a time.
    pub(super) fn is_of(&self, id: &ActivationId) -> bool {
        self.outcome.is_none_or(|outcome| outcome.id == *id)
    }
}

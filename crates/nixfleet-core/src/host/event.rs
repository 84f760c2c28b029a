//! Facts about a host, in the past tense. They are what the machine steps through, what the agent keeps in its log, and
//! what it reports: one vocabulary.
//!
//! Three kinds. *Facts* come from workers. *Wishes* come from people or the control plane, and are facts too: that they
//! were uttered. *Decisions* are the machine's own: [`super::Step::then`] says which one follows, and it is stepped
//! through like any other. So a reader of the log learns what was decided and why, and whoever folds the log needs
//! neither the clock nor the time zones by which the host decided.
//!
//! The names in JSON are stable. An event is never changed, only added to with fields that may be missing; another
//! meaning gets another name.

use serde::{Deserialize, Serialize};

use super::probing::{ProbeReport, WatchId};
use super::state::HostState;
use super::trusted::RootTerms;
use super::world::{JournalSays, Setup, World};
use crate::activation::outcome::{ActivationOutcome, Failure, Step};
use crate::ids::{ActivationId, StorePath};
use crate::model::names::ReleaseId;
use crate::model::time::UnixMs;

/// A fact about a host. When it was taken in is said by its [`super::Record`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The agent's process came up: after a boot, a crash, an update of itself. Always the first event of a process.
    AgentStarted {
        /// Who it is, and what it follows.
        setup: Setup,
        /// What it found.
        world: World,
        /// What the activation journal says of the activation that the state has in flight; `None` if it has none.
        journal: Option<JournalSays>,
        /// The root of trust in force; `None` in reports of agents that did not tell it yet.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        root: Option<RootTerms>,
    },
    /// Somebody else changed what runs: a person at the host, or the deadman.
    SystemChanged {
        /// What runs now.
        world: World,
    },
    /// The time came for which the machine asked with [`super::Step::wake_at`], or the runtime's own net under it.
    Woke,

    /// The release source answered.
    SourceAnswered {
        /// The watch that had asked for a fresh connection; `None` for an ordinary look.
        watch: Option<WatchId>,
    },
    /// The release source did not answer.
    SourceFailed {
        /// What was seen, for people.
        why: String,
    },
    /// A newer root of trust was accepted. Nothing is started any more because of a release that was verified under an older
    /// one, until it passes every check under this one, too.
    RootAccepted {
        /// What a host acts upon of it.
        root: RootTerms,
    },
    /// A release and this host's entry in it passed every check. Its terms come with the step.
    ReleaseVerified {
        /// The release.
        release: ReleaseId,
        /// The system, for readers.
        system: StorePath,
        /// How often the root in force has set the channel's floor back; see [`super::Terms::resets`].
        #[serde(default, skip_serializing_if = "super::terms::is_never")]
        resets: u32,
    },
    /// What the source served was refused.
    ReleaseRefused {
        /// In which way.
        kind: Refusal,
        /// What was seen, for people.
        why: String,
    },

    /// The target is fetched, checked and kept from collection.
    TargetStaged {
        /// For which release.
        release: ReleaseId,
    },
    /// It could not be. Nothing was changed.
    StageFailed {
        /// For which release.
        release: ReleaseId,
        /// Why.
        failure: Failure,
    },

    /// The control plane opened this host's turn.
    OrderedToGo {
        /// For which release.
        release: ReleaseId,
    },
    /// The control plane lets this host restart for a release that it runs already.
    OrderedToReboot {
        /// For which release.
        release: ReleaseId,
    },
    /// The control plane wants the host to go back from this release, since its rollout halted. It is done only if the signed
    /// policy says so (`revert-all`), and only by a host that was brought there by a switch of ours.
    OrderedToRevert {
        /// From which release.
        release: ReleaseId,
    },
    /// The control plane takes back what it ordered for this release: it was halted, paused or aborted. What has begun
    /// goes on; the same order may come again.
    OrderWithdrawn {
        /// For which release.
        release: ReleaseId,
    },
    /// A person keeps the host where it is.
    Held {
        /// Who.
        by: String,
        /// Why.
        why: String,
        /// Until then; `None` until somebody lets it go.
        until_ms: Option<UnixMs>,
    },
    /// A person lets it go.
    Unheld {
        /// Who.
        by: String,
    },
    /// A person wants what failed to be tried again.
    RetryAsked {
        /// Who.
        by: String,
    },

    /// The activation was written to the journal and begins.
    LocalActivationStarted {
        /// Which one.
        id: ActivationId,
        /// The system.
        target: StorePath,
        /// Host time, milliseconds since 1970.
        at_ms: u64,
    },
    /// The activation came to another step.
    LocalActivationAdvanced {
        /// Which one.
        id: ActivationId,
        /// The step that begins.
        step: Step,
        /// Host time, milliseconds since 1970.
        at_ms: u64,
    },
    /// The target runs, committed or on trial, perhaps with units worse off; the outcome says which.
    LocalActivationCompleted {
        /// Everything known.
        outcome: ActivationOutcome,
        /// Host time, milliseconds since 1970.
        at_ms: u64,
    },
    /// The target does not run.
    LocalActivationFailed {
        /// Why.
        failure: Failure,
        /// Everything known; `None` when it ended before there was an activation at all.
        outcome: Option<ActivationOutcome>,
        /// Host time, milliseconds since 1970.
        at_ms: u64,
    },
    /// A reboot will finish it. It does not count as done (lesson 6).
    LocalActivationDeferred {
        /// Everything known.
        outcome: ActivationOutcome,
        /// Host time, milliseconds since 1970.
        at_ms: u64,
    },

    /// A probe ran.
    ProbeReported(ProbeReport),
    /// The reboot hooks ran, and all went well.
    HooksRan {
        /// The run that was asked for.
        run: HookRun,
    },
    /// One of them failed; those after it were not run.
    HookFailed {
        /// The run that was asked for.
        run: HookRun,
        /// Which one and how, for people.
        why: String,
    },
    /// The host did not take the order to restart: an inhibitor, a person.
    RebootRefused {
        /// What stood against it.
        why: String,
    },

    /// Decided: this release is taken up, from the start.
    StagingBegan {
        /// Which one.
        release: ReleaseId,
        /// The how manyth try, from 1.
        attempt: u32,
    },
    /// Decided: it is this host's turn, and it switches.
    WentAhead {
        /// For which release.
        release: ReleaseId,
        /// The activation.
        id: ActivationId,
    },
    /// Decided: the system runs already and is the boot default, so nothing is switched.
    TargetAdopted {
        /// For which release.
        release: ReleaseId,
    },
    /// Decided: a target that waits for its reboot gives way to a newer release.
    TargetWithdrawn {
        /// The activation that is given up.
        id: ActivationId,
        /// What it gives way to.
        newer: ReleaseId,
    },
    /// Decided: the trial is good. It is committed.
    ProbesPassed {
        /// The watch that showed it.
        watch: WatchId,
    },
    /// Decided: the host goes back.
    RevertBegan {
        /// The activation that carries it out: the one that is on trial, or a new one.
        id: ActivationId,
        /// Why.
        failure: Failure,
    },
    /// Decided: the host was well for as long as it had to be. The release is done here.
    SoakPassed {
        /// The watch that showed it.
        watch: WatchId,
    },
    /// Decided: it was not, and it stays as it is for a person to look at.
    SoakFailed {
        /// Why.
        failure: Failure,
    },
    /// Decided: the host restarts now, after its hooks.
    RebootBegan {
        /// For which release.
        release: ReleaseId,
    },
    /// Decided: it should have been down by now, and is not.
    RebootOverdue,

    /// In the log only: the records from this number up to that of this record are gone. They were progress for which
    /// there was no room, history that was old, or lines that the disk had altered.
    ReportsLost {
        /// The first of them; not above the record's own number.
        from: u64,
    },
    /// Where the host stands, for whoever cannot know it because reports were lost: the state just before this record.
    StateTold {
        /// The state.
        state: Box<HostState>,
    },
}

/// In which way something that the source served was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// Somebody served what nobody trusted signed, or what was meant for somebody else, or what is too old.
    Trust,
    /// It has expired: the source is *stale*. What runs goes on.
    Expired,
    /// It is dated in the future, or this host's clock is behind.
    Clock,
    /// It is not a release that this program can read; a login page is not, and neither is a newer format.
    Unreadable,
}

/// Names one run of a host's reboot hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookRun {
    /// Which hooks.
    pub when: HookTime,
    /// Tells one run from another.
    pub number: u32,
}

/// Which hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HookTime {
    /// Those before the reboot.
    Before,
    /// Those after it.
    After,
}

/// How much is lost if a report is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// It says how far things are; a later one says more. It goes first when the outbox is full.
    Progress,
    /// It says how something ended or what was decided or asked. It is never dropped.
    Verdict,
}

impl Event {
    /// How much is lost if the report of it is.
    pub fn weight(&self) -> Weight {
        match self {
            Self::Woke
            | Self::SourceAnswered { .. }
            | Self::SourceFailed { .. }
            | Self::LocalActivationStarted { .. }
            | Self::LocalActivationAdvanced { .. }
            | Self::ProbeReported(_)
            | Self::HooksRan { .. }
            // A newer one is told if this one goes.
            | Self::StateTold { .. } => Weight::Progress,
            Self::AgentStarted { .. }
            | Self::SystemChanged { .. }
            | Self::RootAccepted { .. }
            | Self::ReleaseVerified { .. }
            | Self::ReleaseRefused { .. }
            | Self::TargetStaged { .. }
            | Self::StageFailed { .. }
            | Self::OrderedToGo { .. }
            | Self::OrderedToReboot { .. }
            | Self::OrderedToRevert { .. }
            | Self::OrderWithdrawn { .. }
            | Self::Held { .. }
            | Self::Unheld { .. }
            | Self::RetryAsked { .. }
            | Self::LocalActivationCompleted { .. }
            | Self::LocalActivationFailed { .. }
            | Self::LocalActivationDeferred { .. }
            | Self::HookFailed { .. }
            | Self::RebootRefused { .. }
            | Self::StagingBegan { .. }
            | Self::WentAhead { .. }
            | Self::TargetAdopted { .. }
            | Self::TargetWithdrawn { .. }
            | Self::ProbesPassed { .. }
            | Self::RevertBegan { .. }
            | Self::SoakPassed { .. }
            | Self::SoakFailed { .. }
            | Self::RebootBegan { .. }
            | Self::RebootOverdue
            | Self::ReportsLost { .. } => Weight::Verdict,
        }
    }

    /// The release whose terms must come with it.
    pub fn release_verified(&self) -> Option<&ReleaseId> {
        if let Self::ReleaseVerified { release, .. } = self { Some(release) } else { None }
    }

    /// Its name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Self::AgentStarted { .. } => "agent-started",
            Self::SystemChanged { .. } => "system-changed",
            Self::Woke => "woke",
            Self::SourceAnswered { .. } => "source-answered",
            Self::SourceFailed { .. } => "source-failed",
            Self::RootAccepted { .. } => "root-accepted",
            Self::ReleaseVerified { .. } => "release-verified",
            Self::ReleaseRefused { .. } => "release-refused",
            Self::TargetStaged { .. } => "target-staged",
            Self::StageFailed { .. } => "stage-failed",
            Self::OrderedToGo { .. } => "ordered-to-go",
            Self::OrderedToReboot { .. } => "ordered-to-reboot",
            Self::OrderedToRevert { .. } => "ordered-to-revert",
            Self::OrderWithdrawn { .. } => "order-withdrawn",
            Self::Held { .. } => "held",
            Self::Unheld { .. } => "unheld",
            Self::RetryAsked { .. } => "retry-asked",
            Self::LocalActivationStarted { .. } => "local-activation-started",
            Self::LocalActivationAdvanced { .. } => "local-activation-advanced",
            Self::LocalActivationCompleted { .. } => "local-activation-completed",
            Self::LocalActivationFailed { .. } => "local-activation-failed",
            Self::LocalActivationDeferred { .. } => "local-activation-deferred",
            Self::ProbeReported(_) => "probe-reported",
            Self::HooksRan { .. } => "hooks-ran",
            Self::HookFailed { .. } => "hook-failed",
            Self::RebootRefused { .. } => "reboot-refused",
            Self::StagingBegan { .. } => "staging-began",
            Self::WentAhead { .. } => "went-ahead",
            Self::TargetAdopted { .. } => "target-adopted",
            Self::TargetWithdrawn { .. } => "target-withdrawn",
            Self::ProbesPassed { .. } => "probes-passed",
            Self::RevertBegan { .. } => "revert-began",
            Self::SoakPassed { .. } => "soak-passed",
            Self::SoakFailed { .. } => "soak-failed",
            Self::RebootBegan { .. } => "reboot-began",
            Self::RebootOverdue => "reboot-overdue",
            Self::ReportsLost { .. } => "reports-lost",
            Self::StateTold { .. } => "state-told",
        }
    }
}

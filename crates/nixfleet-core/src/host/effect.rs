//! What the machine asks for. The runtime saves the next state first, then performs these in their order.
//!
//! Every request may be repeated after a crash: the state says what is going on, and [`super::event::Event::AgentStarted`]
//! asks again for what that needs. Each ends in an event, so nothing asked for is waited for in vain.

use crate::activation::events::ActivationIntent;
use crate::activation::outcome::Failure;
use crate::ids::{ActivationId, StorePath};
use crate::model::names::ReleaseId;
use crate::model::probe::ProbeSpec;
use crate::model::release::Closure;
use crate::model::schedule::Hook;
use crate::model::time::Secs;

use super::event::HookRun;
use super::probing::{BuiltIn, WatchId};

/// A request to the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Fetch, check and root the target without activating it. Takes the place of any staging that goes on. Ends in
    /// `TargetStaged` or `StageFailed`.
    Stage(StageOrder),
    /// Activate. With [`crate::activation::events::CommitPolicy::AfterConfirm`] the job ends on trial, as for a person
    /// (`ConfirmBy::Person`): [`Effect::Commit`] or [`Effect::Revert`] follows, or else the deadman. Ends in
    /// `LocalActivationCompleted`, `…Failed` or `…Deferred`.
    Activate(Box<ActivationIntent>),
    /// The trial is good: make it the boot default. Ends like an activation.
    Commit(ActivationId),
    /// Go back. Ends like an activation.
    Revert(Box<RevertOrder>),
    /// An earlier process left this activation: finish it, or tell how it ended. A trial that goes on is left alone and
    /// told with `LocalActivationCompleted` on trial. Ends like an activation, and without an outcome only if the journal
    /// does not know it: a lock that is held is waited for.
    TakeUp(ActivationId),
    /// Look at what runs. Gives `SystemChanged`, also if nothing did.
    Look,
    /// Run these probes until told otherwise, in place of any that run. Gives `ProbeReported`.
    StartProbes(ProbeOrder),
    /// Run no probes.
    StopProbes,
    /// Ask the release source over a fresh connection, again until it answers. Gives `SourceAnswered` with this watch.
    AskSource(WatchId),
    /// Run these hooks one after the other. Ends in `HooksRan` or `HookFailed`.
    RunHooks(HookRun, Vec<Hook>),
    /// Restart the host. Ends in `RebootRefused`, or in `AgentStarted` with another boot.
    Reboot {
        /// How long before people who are logged in are warned.
        warn_secs: Secs,
    },
}

/// What to stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageOrder {
    /// For which release.
    pub release: ReleaseId,
    /// The system.
    pub system: StorePath,
    /// What its closure must be.
    pub closure: Closure,
}

/// What to go back from, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevertOrder {
    /// The activation that carries it out.
    pub id: ActivationId,
    /// How.
    pub back: Back,
    /// The recorded system to go back to.
    pub to: StorePath,
    /// Why.
    pub failure: Failure,
}

/// What kind of way back it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Back {
    /// The activation with this id is not over (on trial, or waiting for its reboot) and is reverted itself.
    Uncommitted,
    /// It is over; a new activation, with a new id, brings the recorded system.
    Committed,
}

/// Which probes to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeOrder {
    /// What they run for.
    pub watch: WatchId,
    /// Those that the entry declares and that are not disabled.
    pub declared: Vec<ProbeSpec>,
    /// The agent's own.
    pub built_in: Vec<BuiltIn>,
}

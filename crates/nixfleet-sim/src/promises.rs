//! What must be true after every event: the invariants of the design, and the lessons of the field that can be stated here.

mod fleet;
mod host;
mod rest;

use std::fmt;

use nixfleet_core::model::names::HostName;

/// A promise, with the invariant (`I`) of the design or the lesson (`L`) that it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Promise {
    /// I1, I2: nothing runs but what a verified release named for this host.
    OnlyVerified,
    /// I2, L18: a host never comes to know of an older release than before.
    NeverOlder,
    /// I1: a host never goes before its signed time, outside its windows, or untold.
    NotBeforeItsTurn,
    /// I1: a host goes back from what is done only if the policy that was signed says so, and it was told.
    BackOnlyIfSigned,
    /// I5, L8: numbers count what was saved, and never go back.
    NumbersCount,
    /// I6: never two activations at once, and each is fired once.
    OneSwitch,
    /// I9, L9: what is committed or converged has passed every probe that decides, since it runs.
    Proven,
    /// L1, L2: nothing changed means nothing to revert.
    NothingToRevert,
    /// L3: reverted means that the recorded system runs.
    RevertedToRecorded,
    /// L5, L6: converged means that the target runs and boots.
    ConvergedRuns,
    /// I6, I8: something leads out of every state, and the wait has a name.
    WayOut,
    /// L24: what was acknowledged is in the database.
    AcknowledgedIsKept,
    /// L25: an order that is counted on is with the host, or waits for it.
    OrderStays,
    /// I4: whoever folds the reports arrives at the host's own state.
    FollowedIsTrue,
    /// The second pair of eyes has nothing against any plan.
    NoObjection,
    /// I8: every host has an order or a reason, and not both.
    EveryHostAnswered,
    /// A plan that was carried out leaves nothing to plan.
    NothingLeftToPlan,
    /// L27: not more hosts are on their way than the budgets allow.
    WithinBudget,
    /// L6, L28: a rollout that has converged has: each host runs it, has failed, or is excused.
    ConvergedIsTrue,
    /// L38: where a replica runs, somebody plans within minutes, whoever had the lease.
    SomebodyLeads,
    /// L32: what is kept is bounded.
    Bounded,
    /// When nothing goes wrong any more, the fleet converges or halts, and says why.
    ComesToRest,
    /// After a good release, everybody runs it.
    GoodReleaseArrives,
    /// What is said reads back from its form on the wire.
    ReadsBack,
}

/// A promise that was broken, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Which one.
    pub promise: Promise,
    /// By which host, if by one.
    pub host: Option<HostName>,
    /// When, in ms from the beginning of the run.
    pub at_ms: u64,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { promise, host, at_ms, what } = self;
        write!(f, "{promise:?} is broken {} s into the run", at_ms / 1_000)?;
        if let Some(host) = host {
            write!(f, ", at {host}")?;
        }
        write!(f, ": {what}")
    }
}

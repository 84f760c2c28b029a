//! Reasons while a plan is made: small, by reference, and told in full once for all hosts of a channel that share one.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::ptr;
use std::sync::Arc;

use crate::activation::outcome::FailureClass;
use crate::host::state::Hold;
use crate::host::waiting::{RestartBy, StateName};
use crate::model::names::{HostName, ReleaseId};
use crate::model::policy::{Budget, WaveIndex};
use crate::model::time::UnixMs;
use crate::rollout::progress::{By, FailedHow};
use crate::rollout::reason::{AwaitsRestart, Deadlock, HeldIn, Reason, ReasonId};

/// A [`Reason`] by reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Why<'a> {
    Done,
    /// On its way to the newest release.
    OnItsWay(Option<StateName>, Option<RestartBy>),
    Soaking,
    Superseded(&'a ReleaseId),
    /// By what it was to move for.
    TakenBack(&'a ReleaseId),
    /// One that holds for the whole channel, or for a whole wave.
    Rule(Same<'a, Reason>),
    Held(Same<'a, Hold>),
    Skipped(Same<'a, By>),
    /// By where its system failed.
    Quarantined(&'a HostName),
    Failed(FailureClass),
    TriesAgain(FailureClass),
    Offline(Option<UnixMs>),
    NeverReported,
    NotStaged,
    StageBudget {
        used: u32,
        limit: u32,
    },
    Budget {
        budget: Same<'a, Budget>,
        used: u32,
        limit: u32,
        until_restart: Option<(&'a HostName, RestartBy)>,
    },
    NoSuchWave(WaveIndex),
    /// By who must be done first.
    Edge(&'a HostName),
    /// By who must be done first, and cannot be.
    Circle(&'a HostName),
}

impl Why<'_> {
    /// The reason in full, in a rollout of `release`.
    fn tell(self, release: &ReleaseId) -> Reason {
        match self {
            Self::Done => Reason::Done,
            Self::OnItsWay(state, restart_by) => {
                Reason::OnItsWay { state, release: release.clone(), restart_by }
            }
            Self::Soaking => Reason::Soaking,
            Self::Superseded(release) => Reason::Superseded { release: release.clone() },
            Self::TakenBack(release) => Reason::TakenBack { release: release.clone() },
            Self::Rule(Same(reason)) => reason.clone(),
            Self::Held(Same(Hold { by, why, until_ms })) => {
                Reason::Held { by: by.clone(), why: why.clone(), until_ms: *until_ms }
            }
            Self::Skipped(Same(by)) => Reason::Skipped(by.clone()),
            Self::Quarantined(host) => Reason::Quarantined { host: host.clone() },
            Self::Failed(class) => Reason::Failed { failure: FailedHow::Reported(class) },
            Self::TriesAgain(class) => Reason::TriesAgain { class },
            Self::Offline(since_ms) => Reason::Offline { since_ms },
            Self::NeverReported => Reason::NeverReported,
            Self::NotStaged => Reason::NotStaged,
            Self::StageBudget { used: _, limit: 0 } => Reason::Deadlock { on: Deadlock::StageBudget },
            Self::StageBudget { used, limit } => Reason::StageBudget { used, limit },
            Self::Budget { budget: Same(Budget { hosts, limit: _, scope }), limit: 0, .. } => {
                Reason::Deadlock { on: Deadlock::Budget { hosts: hosts.clone(), scope: *scope } }
            }
            Self::Budget { budget: Same(Budget { hosts, limit: _, scope }), used, limit, until_restart } => {
                let until_restart = until_restart.map(|(host, by)| AwaitsRestart { host: host.clone(), by });
                Reason::Budget { hosts: hosts.clone(), scope: *scope, used, limit, until_restart }
            }
            Self::NoSuchWave(wave) => Reason::NoSuchWave { wave },
            Self::Edge(after) => Reason::Edge { after: after.clone() },
            Self::Circle(after) => Reason::Deadlock { on: Deadlock::Circle { after: after.clone() } },
        }
    }
}

/// A reference that equals another one to the same place, whatever stands there.
#[derive(Debug)]
pub(super) struct Same<'a, T>(pub(super) &'a T);

impl<T> Clone for Same<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Same<'_, T> {}

impl<T> PartialEq for Same<'_, T> {
    fn eq(&self, other: &Self) -> bool {
        ptr::eq(self.0, other.0)
    }
}

impl<T> Eq for Same<'_, T> {}

impl<T> Hash for Same<'_, T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        ptr::hash(self.0, state);
    }
}

/// The reasons of a channel's hosts.
pub(super) struct Reasons<'a> {
    release: &'a ReleaseId,
    known: HashMap<Why<'a>, ReasonId>,
    /// Neighbours mostly wait for the same.
    last: Option<(Why<'a>, ReasonId)>,
    held: HeldIn,
}

impl<'a> Reasons<'a> {
    /// Of hosts with these names, in a rollout of `release`.
    pub(super) fn new(names: &Arc<[HostName]>, release: &'a ReleaseId) -> Self {
        Self { release, known: HashMap::new(), last: None, held: HeldIn::new(Arc::clone(names)) }
    }

    /// Notes why the host at `place` does not move.
    pub(super) fn hold(&mut self, place: usize, why: Why<'a>) {
        let id = match self.last {
            Some((last, id)) if last == why => id,
            Some(_) | None => {
                let (held, release) = (&mut self.held, self.release);
                *self.known.entry(why).or_insert_with(|| held.reason(why.tell(release)))
            }
        };
        self.last = Some((why, id));
        self.held.hold(place, id);
    }

    /// What was noted.
    pub(super) fn end(self) -> HeldIn {
        self.held
    }
}

//! `Failed`: it could not be done or could not be undone. A newer release leads out, a person's retry, and, where
//! waiting may help, the end of a pause.

use super::super::effect::Back;
use super::super::event::Event;
use super::super::gate::Waits;
use super::super::phase::{Failed, FailedAt, Hooks, Phase};
use super::super::retry::pause_ms;
use super::super::state::HostState;
use super::super::time::Now;
use super::super::waiting::WaitingOn;
use super::super::world::{JournalSays, Said};
use super::draft::{Draft, next_id};
use super::told::Told;
use crate::activation::outcome::Failure;
use crate::ids::{ActivationId, StorePath};

pub(super) fn told(draft: &mut Draft<'_>, at: &Failed, told: &Told<'_>) {
    match told {
        Told::Started { rebooted, journal } => {
            if let Some(again_up_ms) = at.again_up_ms.filter(|_| *rebooted) {
                // A time since boot is over with its boot. The first pause, not the longest: a boot may have helped.
                let first = draft.now.up.plus_ms(pause_ms(1, draft.context.seed));
                let again_up_ms = Some(again_up_ms.min(first));
                draft.keep(Phase::Failed(Failed { again_up_ms, ..at.clone() }));
            }
            started(draft, at, *journal);
        }
        Told::WorldChanged => look(draft, at),
        Told::RetryAsked => retry(draft, at),
        Told::SourceProven(_)
        | Told::Staged(_)
        | Told::StageFailed(..)
        | Told::Began(_)
        | Told::Advanced(..)
        | Told::Ended(_)
        | Told::Probe(_)
        | Told::HooksRan(_)
        | Told::HookFailed(..)
        | Told::RebootRefused(_) => {}
    }
}

/// A way back that could not begin, from an activation that is still not over, is taken now: whatever runs, nothing else
/// may begin before that one has ended.
fn started(draft: &mut Draft<'_>, at: &Failed, journal: Option<&JournalSays>) {
    match (&at.at, journal.map(|journal| journal.said)) {
        (FailedAt::Revert { id, back: back @ Back::Uncommitted, to, because }, Some(Said::Pending(_))) => {
            draft.serial();
            revert(draft, at, (id.clone(), *back, to.clone()), because.as_ref());
        }
        (
            FailedAt::Revert { .. }
            | FailedAt::Stage
            | FailedAt::Activate
            | FailedAt::Soak
            | FailedAt::AfterHooks(_)
            | FailedAt::Found,
            Some(Said::Pending(_) | Said::Nothing | Said::Ended) | None,
        ) => look(draft, at),
    }
}

/// A way back that failed may have been completed by a reboot or by a person.
fn look(draft: &mut Draft<'_>, at: &Failed) {
    match &at.at {
        FailedAt::Revert { id: _, back: _, to, because } if draft.state.world.is_settled_on(to) => {
            let failure = because.as_ref().unwrap_or(&at.failure).clone();
            draft.reverted(&at.target, (to, Hooks::NotDue), (failure, &[]));
        }
        FailedAt::AfterHooks(done) => {
            let expected = done.terms.system.clone();
            if let Some(actual) = draft.state.world.runs_other_than(&expected) {
                let failure = Failure::FlippedToUnexpected { expected, actual };
                draft.found_other((&done.terms, at.attempt), failure);
            }
        }
        FailedAt::Revert { .. } | FailedAt::Stage | FailedAt::Activate | FailedAt::Soak | FailedAt::Found => {
        }
    }
}

/// Whether an activation is not over: nothing else may begin before it is.
pub(super) fn is_open(at: &Failed) -> bool {
    match &at.at {
        FailedAt::Revert { back: Back::Uncommitted, .. } => true,
        FailedAt::Revert { back: Back::Committed, .. }
        | FailedAt::Stage
        | FailedAt::Activate
        | FailedAt::Soak
        | FailedAt::AfterHooks(_)
        | FailedAt::Found => false,
    }
}

fn retry(draft: &mut Draft<'_>, at: &Failed) {
    match &at.at {
        FailedAt::Stage | FailedAt::Activate | FailedAt::Soak | FailedAt::Found => {
            draft.try_again(&at.target);
        }
        FailedAt::AfterHooks(done) => {
            let watch = draft.watch(&done.terms);
            draft.soak(done.clone(), at.attempt, watch, Hooks::Due);
        }
        FailedAt::Revert { id, back, to, because } => {
            let id = way_back_id(&draft.state, (id, *back), draft.now);
            draft.serial();
            revert(draft, at, (id, *back, to.clone()), because.as_ref());
        }
    }
}

/// The name of another try: its own, unless the activation is not over.
fn way_back_id(state: &HostState, (id, back): (&ActivationId, Back), now: Now) -> ActivationId {
    match back {
        Back::Uncommitted => id.clone(),
        Back::Committed => next_id(state, now),
    }
}

fn revert(
    draft: &mut Draft<'_>,
    at: &Failed,
    way: (ActivationId, Back, StorePath),
    because: Option<&Failure>,
) {
    let failure = because.unwrap_or(&at.failure).clone();
    draft.revert((&at.target, at.attempt.saturating_add(1)), way, (failure, Hooks::NotDue));
}

pub(super) fn decide(state: &HostState, at: &Failed, now: Now) -> Option<Event> {
    if let Some(newer) = state.news(Some(&at.target)).filter(|_| !is_open(at)) {
        return Some(Event::StagingBegan { release: newer.release.clone(), attempt: 1 });
    }
    at.again_up_ms.filter(|again| now.up >= *again)?;
    Some(match &at.at {
        FailedAt::Revert { id, back, to: _, because } => Event::RevertBegan {
            id: way_back_id(state, (id, *back), now),
            failure: because.as_ref().unwrap_or(&at.failure).clone(),
        },
        FailedAt::Stage | FailedAt::Activate | FailedAt::Soak | FailedAt::AfterHooks(_) | FailedAt::Found => {
            let attempt = at.attempt.saturating_add(1);
            Event::StagingBegan { release: at.target.release.clone(), attempt }
        }
    })
}

/// Decided: the way back is tried again. Says whether there was one.
pub(super) fn revert_again(draft: &mut Draft<'_>, at: &Failed, id: ActivationId) -> bool {
    let FailedAt::Revert { id: _, back, to, because } = &at.at else { return false };
    draft.serial();
    revert(draft, at, (id, *back, to.clone()), because.as_ref());
    true
}

pub(super) fn waits(at: &Failed, now: Now) -> Waits {
    match at.again_up_ms {
        Some(again) => {
            let at_ms = now.clock_at(again);
            Waits::until(WaitingOn::Retry { at_ms, attempt: at.attempt.saturating_add(1) }, at_ms)
        }
        None => Waits::for_news(WaitingOn::NewerReleaseOrRetry),
    }
}

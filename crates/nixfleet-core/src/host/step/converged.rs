//! `Converged`: the host runs the system of its last finished release, or never had one.

use super::super::effect::Back;
use super::super::event::Event;
use super::super::gate::{Gate, Purpose, Waits, may_reboot, ordered_back, wants_reboot};
use super::super::phase::Hooks;
use super::super::state::HostState;
use super::super::time::Now;
use super::super::waiting::WaitingOn;
use super::draft::{Draft, next_id};
use super::told::Told;
use crate::activation::outcome::Failure;
use crate::ids::ActivationId;

pub(super) fn told(draft: &mut Draft<'_>, told: &Told<'_>) {
    match told {
        Told::Started { .. } | Told::WorldChanged => look(draft),
        Told::SourceProven(_)
        | Told::Staged(_)
        | Told::StageFailed(..)
        | Told::Began(_)
        | Told::Advanced(..)
        | Told::Ended(_)
        | Told::Probe(_)
        | Told::HooksRan(_)
        | Told::HookFailed(..)
        | Told::RebootRefused(_)
        | Told::RetryAsked => {}
    }
}

/// Converged means that the release's system runs. Somebody may have changed that.
fn look(draft: &mut Draft<'_>) {
    let Some(done) = draft.state.settled.clone() else { return };
    if let Some(actual) = draft.state.world.runs_other_than(&done.terms.system) {
        let failure = Failure::FlippedToUnexpected { expected: done.terms.system.clone(), actual };
        draft.found_other((&done.terms, 1), failure);
    }
}

pub(super) fn decide(state: &HostState, now: Now) -> Option<Event> {
    let done = state.settled.as_ref();
    if let Some(newer) = state.news(done.map(|done| &*done.terms)) {
        return Some(Event::StagingBegan { release: newer.release.clone(), attempt: 1 });
    }
    if done.and_then(|done| ordered_back(state, done)).is_some() {
        return Some(Event::RevertBegan { id: next_id(state, now), failure: Failure::Asked });
    }
    let done = done.filter(|done| wants_reboot(state, done))?;
    match may_reboot(state, &done.terms, Purpose::Upkeep, now) {
        Gate::Open => Some(Event::RebootBegan { release: done.terms.release.clone() }),
        Gate::Shut(_) => None,
    }
}

/// Decided: the control plane wanted it, and the recorded system comes back. Says whether there is one.
pub(super) fn revert(draft: &mut Draft<'_>, (id, failure): (ActivationId, Failure)) -> bool {
    let done = draft.before.settled.as_ref();
    let Some((done, to)) = done.and_then(|done| Some((done, ordered_back(draft.before, done)?))) else {
        return false;
    };
    draft.serial();
    // What it goes back from is not done here any more.
    draft.state.settled = None;
    draft.revert((&done.terms, 1), (id, Back::Committed, to.clone()), (failure, Hooks::NotDue));
    true
}

pub(super) fn waits(state: &HostState, now: Now) -> Waits {
    let reboot = state.settled.as_ref().filter(|done| wants_reboot(state, done));
    match reboot.map(|done| may_reboot(state, &done.terms, Purpose::Upkeep, now)) {
        Some(Gate::Shut(waits)) => waits,
        Some(Gate::Open) | None => Waits::for_news(WaitingOn::NewerRelease),
    }
}

//! `Staged`: the target is in the store and waits for its turn, a window, or the end of a hold.

use super::super::event::Event;
use super::super::gate::{Gate, Waits, may_switch};
use super::super::phase::Staged;
use super::super::state::HostState;
use super::super::time::Now;
use super::super::waiting::WaitingOn;
use super::draft::{Draft, next_id};
use super::told::Told;

pub(super) fn told(_draft: &mut Draft<'_>, _at: &Staged, told: &Told<'_>) {
    match told {
        // Nothing was asked for, and whatever changed is looked at when it goes ahead.
        Told::Started { .. }
        | Told::WorldChanged
        | Told::SourceProven(_)
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

pub(super) fn decide(state: &HostState, at: &Staged, now: Now) -> Option<Event> {
    let release = &at.target.release;
    if let Some(newer) = state.news(Some(&at.target)) {
        return Some(Event::StagingBegan { release: newer.release.clone(), attempt: 1 });
    }
    match may_switch(state, &at.target, now) {
        Gate::Shut(_) => None,
        Gate::Open if runs_already(state, at) => Some(Event::TargetAdopted { release: release.clone() }),
        Gate::Open => Some(Event::WentAhead { release: release.clone(), id: next_id(state, now) }),
    }
}

/// A release may leave a host's system as it is; then there is nothing to switch and nothing to revert.
///
/// Links and profile do not say what boots: a trial sets both before anything is confirmed, and a way back that failed leaves
/// them. So the host must have booted into the system, or have finished with it.
fn runs_already(state: &HostState, at: &Staged) -> bool {
    let system = Some(&at.target.system);
    let done = state.settled.as_ref().map(|done| &done.terms.system);
    let boots = state.world.booted.as_ref() == system || done == system;
    boots && state.world.current.as_ref() == system && state.world.profile.as_ref() == system
}

pub(super) fn waits(state: &HostState, at: &Staged, now: Now) -> Waits {
    match may_switch(state, &at.target, now) {
        Gate::Shut(waits) => waits,
        Gate::Open => Waits::until(WaitingOn::Activation { step: None }, now.at),
    }
}

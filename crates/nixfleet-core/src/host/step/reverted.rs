//! `Reverted`: back on the previous system. The target is quarantined here: it is not tried again by itself.

use super::super::event::Event;
use super::super::gate::Waits;
use super::super::phase::{Hooks, Phase, Reverted};
use super::super::state::HostState;
use super::super::waiting::WaitingOn;
use super::draft::Draft;
use super::told::Told;
use crate::activation::outcome::Failure;

pub(super) fn told(draft: &mut Draft<'_>, at: &Reverted, told: &Told<'_>) {
    match told {
        Told::Started { .. } => {
            let hooks = draft.ask_hooks_again(&at.target, at.hooks);
            draft.keep(Phase::Reverted(Reverted { hooks, ..at.clone() }));
            look(draft, at);
        }
        Told::WorldChanged => look(draft, at),
        // A hook that failed is told by its event; the host is back, and nothing depends on it.
        Told::HooksRan(run) | Told::HookFailed(run, _) if at.hooks == Hooks::Running(*run) => {
            draft.keep(Phase::Reverted(Reverted { hooks: Hooks::NotDue, ..at.clone() }));
        }
        Told::RetryAsked => draft.try_again(&at.target),
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

/// Reverted means that the previous system runs. Somebody may have changed that.
fn look(draft: &mut Draft<'_>, at: &Reverted) {
    if let Some(actual) = draft.state.world.runs_other_than(&at.to) {
        draft.found_other((&at.target, 1), Failure::FlippedToUnexpected { expected: at.to.clone(), actual });
    }
}

pub(super) fn decide(state: &HostState, at: &Reverted) -> Option<Event> {
    let newer = state.news(Some(&at.target))?;
    Some(Event::StagingBegan { release: newer.release.clone(), attempt: 1 })
}

pub(super) fn waits() -> Waits {
    Waits::for_news(WaitingOn::NewerReleaseOrRetry)
}

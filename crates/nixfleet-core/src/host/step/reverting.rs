//! `Reverting`: on the way back to the recorded system, by the activation that was not over or by a new one.

use super::super::effect::{Back, RevertOrder};
use super::super::event::Event;
use super::super::gate::{Gate, Purpose, Waits, may_try_reboot};
use super::super::phase::{Done, FailedAt, Hooks, Phase, Reboot, Rebooted, Reverting};
use super::super::state::HostState;
use super::super::time::Now;
use super::super::waiting::WaitingOn;
use super::super::world::{JournalSays, Said};
use super::Effect;
use super::activating::hooks_after;
use super::awaiting_reboot::{
    OVERDUE, ask_again, begin, drained, is_overdue, let_in, lets_in, put_off, try_now,
};
use super::draft::Draft;
use super::told::{End, Ended, Told};
use crate::activation::outcome::Failure;
use crate::activation::units::TroubledUnit;

pub(super) fn told(draft: &mut Draft<'_>, at: &Reverting, told: &Told<'_>) {
    match told {
        Told::Started { rebooted, journal } => started(draft, at, *rebooted, *journal),
        Told::Ended(ended) if ended.is_of(&at.id) => self::ended(draft, at, ended),
        // A hook that failed is told by its event; the way back does not depend on it.
        Told::HooksRan(run) | Told::HookFailed(run, _) if at.hooks == Hooks::Running(*run) => {
            draft.keep(Phase::Reverting(Reverting { hooks: Hooks::NotDue, ..at.clone() }));
        }
        Told::HooksRan(run) | Told::HookFailed(run, _)
            if at.reboot.as_ref().is_some_and(|reboot| lets_in(reboot, *run)) =>
        {
            keep(draft, at, |_, reboot| let_in(reboot));
        }
        Told::HooksRan(run) => {
            keep(draft, at, |draft, reboot| drained(draft, &at.target, reboot, |asked| asked == *run));
        }
        Told::HookFailed(run, why) => keep(draft, at, |draft, reboot| match reboot {
            Reboot::Draining { run: asked, .. } if asked == run => put_off(draft, &at.target, reboot, why),
            Reboot::Draining { .. } | Reboot::Waiting { .. } | Reboot::Ordered { .. } => reboot.clone(),
        }),
        Told::RebootRefused(why) => keep(draft, at, |draft, reboot| match reboot {
            Reboot::Ordered { .. } => put_off(draft, &at.target, reboot, why),
            Reboot::Draining { .. } | Reboot::Waiting { .. } => reboot.clone(),
        }),
        Told::RetryAsked => keep(draft, at, |draft, reboot| try_now(draft, reboot)),
        Told::WorldChanged
        | Told::SourceProven(_)
        | Told::Staged(_)
        | Told::StageFailed(..)
        | Told::Began(_)
        | Told::Advanced(..)
        | Told::Ended(_)
        | Told::Probe(_) => {}
    }
}

/// Moves its reboot on, if it waits for one.
fn keep(draft: &mut Draft<'_>, at: &Reverting, change: impl FnOnce(&mut Draft<'_>, &Reboot) -> Reboot) {
    if let Some(reboot) = &at.reboot {
        let reboot = Some(change(draft, reboot));
        draft.keep(Phase::Reverting(Reverting { reboot, ..at.clone() }));
    }
}

fn started(draft: &mut Draft<'_>, at: &Reverting, rebooted: bool, journal: Option<&JournalSays>) {
    if at.reboot.is_some() && !rebooted {
        return keep(draft, at, |draft, reboot| ask_again(draft, &at.target, reboot));
    }
    // What it was drained for is over, whichever system came up: the hooks after it are due.
    let (hooks, reboot) = match &at.reboot {
        Some(reboot) => (hooks_after(reboot), None),
        None => (draft.ask_hooks_again(&at.target, at.hooks), None),
    };
    draft.keep(Phase::Reverting(Reverting { reboot, hooks, ..at.clone() }));
    let said = journal.filter(|journal| journal.id == at.id).map(|journal| journal.said);
    let begun = match (at.back, said) {
        // The order may have been lost before anything was written; it is the same activation, so it is safe to repeat.
        (Back::Uncommitted, Some(Said::Pending(_))) | (Back::Committed, Some(Said::Nothing)) => false,
        (Back::Uncommitted, Some(Said::Nothing | Said::Ended) | None)
        | (Back::Committed, Some(Said::Pending(_) | Said::Ended) | None) => true,
    };
    match &at.failure {
        Some(failure) if !begun => draft.ask(Effect::Revert(Box::new(RevertOrder {
            id: at.id.clone(),
            back: at.back,
            to: at.to.clone(),
            failure: failure.clone(),
        }))),
        Some(_) | None => draft.ask(Effect::TakeUp(at.id.clone())),
    }
}

fn ended(draft: &mut Draft<'_>, at: &Reverting, ended: &Ended<'_>) {
    let target = (&*at.target, at.attempt);
    if let End::Unchanged(failure) = ended.end
        && ended.outcome.is_none()
    {
        // It could not even begin.
        draft.begin_hooks(&at.target, at.hooks);
        return draft.fail(target, again(at), failure.clone());
    }
    match (at.back, ended.end) {
        (Back::Uncommitted, End::Unchanged(failure)) => back(draft, at, ended, (failure, &[])),
        (Back::Uncommitted, End::Reverted(failure, left)) => back(draft, at, ended, (failure, left)),
        (Back::Uncommitted, End::Live) => forward(draft, at, ended),
        (Back::Committed, End::Live) => {
            let asked = Failure::Asked;
            back(draft, at, ended, (at.failure.as_ref().unwrap_or(&asked), &[]));
        }
        (Back::Committed, End::Deferred(_)) => {
            draft.note_world(ended);
            let reboot = Some(at.reboot.clone().unwrap_or(Reboot::NOT_TRIED));
            draft.keep(Phase::Reverting(Reverting { reboot, ..at.clone() }));
        }
        (Back::Committed, End::Unchanged(failure) | End::Reverted(failure, _)) => {
            draft.note_world(ended);
            draft.begin_hooks(&at.target, at.hooks);
            draft.fail(target, over(at), failure.clone());
        }
        (Back::Uncommitted | Back::Committed, End::RevertFailed(_, revert)) => {
            draft.note_world(ended);
            draft.begin_hooks(&at.target, at.hooks);
            draft.fail(target, over(at), revert.clone());
        }
        // A reboot brought the recorded system, and the activation asks whether it is good. It ran before: it is.
        (Back::Committed, End::OnTrial(_)) => {
            draft.note_world(ended);
            draft.ask(Effect::Commit(at.id.clone()));
        }
        // What is being reverted was told again: nothing new.
        (Back::Uncommitted, End::OnTrial(_) | End::Deferred(_)) => {}
    }
}

/// Back on the recorded system; it says which one that was.
fn back(draft: &mut Draft<'_>, at: &Reverting, ended: &Ended<'_>, why: (&Failure, &[TroubledUnit])) {
    let previous = ended.outcome.and_then(|outcome| outcome.previous.clone());
    let to = match at.back {
        Back::Uncommitted => previous.unwrap_or_else(|| at.to.clone()),
        Back::Committed => at.to.clone(),
    };
    draft.note_world(ended);
    // What the machine decided says more than that somebody asked.
    let failure = at.failure.as_ref().unwrap_or(why.0).clone();
    draft.reverted(&at.target, (&to, at.hooks), (failure, why.1));
}

/// The activation found that the way was forward: it had committed, or the boot had brought the target.
fn forward(draft: &mut Draft<'_>, at: &Reverting, ended: &Ended<'_>) {
    draft.note_world(ended);
    let watch = draft.watch(&at.target);
    let done = Done { terms: at.target.clone(), previous: Some(at.to.clone()), rebooted: Rebooted::No };
    draft.soak(done, at.attempt, watch, at.hooks);
}

/// Where the way back stands when it could not begin: the same one again.
fn again(at: &Reverting) -> FailedAt {
    FailedAt::Revert { id: at.id.clone(), back: at.back, to: at.to.clone(), because: at.failure.clone() }
}

/// Where it stands when its activation is over: another try is a new activation.
fn over(at: &Reverting) -> FailedAt {
    let (id, to, because) = (at.id.clone(), at.to.clone(), at.failure.clone());
    FailedAt::Revert { id, back: Back::Committed, to, because }
}

pub(super) fn decide(state: &HostState, at: &Reverting, now: Now) -> Option<Event> {
    let reboot = at.reboot.as_ref()?;
    if is_overdue(reboot, now) {
        return Some(Event::RebootOverdue);
    }
    match may_try_reboot(state, (&at.target, reboot), Purpose::GoBack, now) {
        Gate::Open => Some(Event::RebootBegan { release: at.target.release.clone() }),
        Gate::Shut(_) => None,
    }
}

/// Decided: it restarts.
pub(super) fn reboot_began(draft: &mut Draft<'_>, at: &Reverting) {
    keep(draft, at, |draft, reboot| begin(draft, &at.target, reboot));
}

/// Decided: it should be down and is not.
pub(super) fn overdue(draft: &mut Draft<'_>, at: &Reverting) {
    keep(draft, at, |draft, reboot| put_off(draft, &at.target, reboot, OVERDUE));
}

pub(super) fn waits(state: &HostState, at: &Reverting, now: Now) -> Waits {
    match at.reboot.as_ref().map(|reboot| may_try_reboot(state, (&at.target, reboot), Purpose::GoBack, now)) {
        Some(Gate::Shut(waits)) => waits,
        Some(Gate::Open) => Waits::until(WaitingOn::Reboot, now.at),
        None => Waits::for_news(WaitingOn::WayBack { to: at.to.clone() }),
    }
}

//! `Activating`: the activation job has the host; nothing is decided until it tells.

use super::super::effect::Back;
use super::super::gate::Waits;
use super::super::phase::{
    Activating, AwaitingReboot, Confirmer, Confirming, FailedAt, Flight, Hooks, Phase, Reboot, RebootCause,
    Rebooted, SourceNeed,
};
use super::super::probing::Watch;
use super::super::waiting::WaitingOn;
use super::super::world::{JournalSays, Said};
use super::draft::{Draft, activate_order};
use super::told::{End, Ended, Told};
use super::{Effect, confirming};
use crate::activation::outcome::Step;
use crate::model::time::Secs;

pub(super) fn told(draft: &mut Draft<'_>, at: &Activating, told: &Told<'_>) {
    let flight = &at.flight;
    match told {
        Told::Started { rebooted: _, journal } => started(draft, at, *journal),
        Told::Began(id) if **id == flight.id => step(draft, at, Step::Check),
        Told::Advanced(id, reached) if **id == flight.id => advanced(draft, at, *reached),
        Told::Ended(ended) if ended.is_of(&flight.id) => self::ended(draft, flight, ended),
        Told::WorldChanged
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

/// Only what the journal does not know at all may be begun (again): one id is never fired twice.
fn started(draft: &mut Draft<'_>, at: &Activating, journal: Option<&JournalSays>) {
    match journal.filter(|journal| journal.id == at.flight.id).map(|journal| journal.said) {
        Some(Said::Nothing) => draft.ask(activate_order(&at.flight)),
        Some(Said::Pending(reached)) => {
            draft.ask(Effect::TakeUp(at.flight.id.clone()));
            advanced(draft, at, reached);
        }
        Some(Said::Ended) | None => draft.ask(Effect::TakeUp(at.flight.id.clone())),
    }
}

fn advanced(draft: &mut Draft<'_>, at: &Activating, reached: Step) {
    let flight = &at.flight;
    match reached {
        Step::Check
        | Step::Realise
        | Step::SetProfile
        | Step::ArmDeadman
        | Step::Fire
        | Step::VerifyPoll
        | Step::SelfCorrect
        | Step::Commit
        | Step::Disarm
        | Step::Defer
        | Step::AwaitReboot
        | Step::Repair => step(draft, at, reached),
        Step::Confirm => {
            let watch = draft.watch(&flight.target);
            confirm(draft, flight, (Confirmer::Activation, watch), (Rebooted::No, Hooks::NotDue));
        }
        Step::Revert => going_back(draft, flight, Hooks::NotDue),
    }
}

fn step(draft: &mut Draft<'_>, at: &Activating, reached: Step) {
    draft.keep(Phase::Activating(Activating { flight: at.flight.clone(), step: Some(reached) }));
}

/// The activation reverts by itself; it will tell why.
pub(super) fn going_back(draft: &mut Draft<'_>, flight: &Flight, hooks: Hooks) {
    let Flight { target, attempt, id, previous, source: _ } = flight;
    draft.going_back((target, *attempt), (id.clone(), Back::Uncommitted, previous.clone()), (None, hooks));
}

fn ended(draft: &mut Draft<'_>, flight: &Flight, ended: &Ended<'_>) {
    let flight = &recorded(flight, ended);
    draft.note_world(ended);
    match ended.end {
        End::Live => {
            let watch = draft.watch(&flight.target);
            let done = flight.done(Rebooted::No);
            draft.soak(done, flight.attempt, watch, Hooks::NotDue);
        }
        End::OnTrial(secs) => {
            let watch = draft.watch(&flight.target);
            let by = machine(draft, secs);
            confirm(draft, flight, (by, watch), (Rebooted::No, Hooks::NotDue));
        }
        End::Deferred(inhibitors) => {
            let cause = RebootCause::Deferred { flight: flight.clone(), inhibitors: inhibitors.to_vec() };
            draft.enter(Phase::AwaitingReboot(AwaitingReboot { cause, reboot: Reboot::NOT_TRIED }));
        }
        End::Unchanged(_) | End::Reverted(..) | End::RevertFailed(..) => {
            not_live(draft, (flight, Hooks::NotDue), ended);
        }
    }
}

/// The activation knows best what ran before it.
pub(super) fn recorded(flight: &Flight, ended: &Ended<'_>) -> Flight {
    let previous = ended.outcome.and_then(|outcome| outcome.previous.clone());
    let previous = previous.unwrap_or_else(|| flight.previous.clone());
    Flight { previous, ..flight.clone() }
}

/// The target does not run: nothing changed, or it was changed back, or that failed.
pub(super) fn not_live(draft: &mut Draft<'_>, (flight, hooks): (&Flight, Hooks), ended: &Ended<'_>) {
    let Flight { target, attempt, id, previous, source: _ } = flight;
    match ended.end {
        End::Unchanged(failure) => {
            draft.begin_hooks(target, hooks);
            draft.fail((target, *attempt), FailedAt::Activate, failure.clone());
        }
        End::Reverted(failure, left) => draft.reverted(target, (previous, hooks), (failure.clone(), left)),
        End::RevertFailed(because, revert) => {
            draft.begin_hooks(target, hooks);
            let (id, to, because) = (id.clone(), previous.clone(), Some(because.clone()));
            let at = FailedAt::Revert { id, back: Back::Committed, to, because };
            draft.fail((target, *attempt), at, revert.clone());
        }
        End::Live | End::OnTrial(_) | End::Deferred(_) => {}
    }
}

/// The machine confirms, and has this long.
pub(super) fn machine(draft: &Draft<'_>, secs: u64) -> Confirmer {
    let span = Secs(u32::try_from(secs).unwrap_or(u32::MAX));
    Confirmer::Machine { until_up_ms: draft.now.up.plus(span), commit_from_up_ms: draft.now.up }
}

/// The target is on trial.
pub(super) fn confirm(
    draft: &mut Draft<'_>,
    flight: &Flight,
    (by, watch): (Confirmer, Watch),
    (rebooted, hooks): (Rebooted, Hooks),
) {
    let mut flight = flight.clone();
    if flight.source == SourceNeed::Answered {
        flight.source = SourceNeed::Awaited;
    }
    confirming::ask_source(draft, &flight, &watch);
    draft.enter(Phase::Confirming(Confirming { flight, by, watch, rebooted, hooks }));
}

/// Hooks that are due after a reboot: if those before it ran or were tried, what was drained must be let in again.
pub(super) fn hooks_after(reboot: &Reboot) -> Hooks {
    match reboot {
        Reboot::Waiting { trouble: None, hooks: _ } => Hooks::NotDue,
        Reboot::Waiting { trouble: Some(_), hooks: _ } | Reboot::Draining { .. } | Reboot::Ordered { .. } => {
            Hooks::Due
        }
    }
}

pub(super) fn waits(at: &Activating) -> Waits {
    Waits::for_news(WaitingOn::Activation { step: at.step })
}

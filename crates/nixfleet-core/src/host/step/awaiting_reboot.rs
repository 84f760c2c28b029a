//! `AwaitingReboot`: only a reboot brings the target, or the policy wants the host restarted into one that is done.

use super::super::effect::Back;
use super::super::event::{Event, HookRun, HookTime};
use super::super::gate::{Gate, Purpose, Waits, lacks_leave, may_switch, may_try_reboot};
use super::super::phase::{
    AwaitingReboot, Confirmer, Done, Flight, Hooks, Phase, Reboot, RebootCause, RebootTrouble, Rebooted,
};
use super::super::retry::pause_ms;
use super::super::state::HostState;
use super::super::terms::Terms;
use super::super::time::Now;
use super::super::waiting::WaitingOn;
use super::Effect;
use super::activating::{confirm, going_back, hooks_after, not_live, recorded};
use super::draft::Draft;
use super::told::{End, Ended, Told};
use crate::activation::outcome::Failure;

pub(super) fn told(draft: &mut Draft<'_>, at: &AwaitingReboot, told: &Told<'_>) {
    let target = at.cause.target();
    match told {
        Told::Started { rebooted: true, journal: _ } => booted(draft, at),
        Told::Started { rebooted: false, journal: _ } => {
            let reboot = ask_again(draft, target, &at.reboot);
            keep(draft, at, reboot);
            look(draft, at);
        }
        // A hook that failed is told by its event; the next try does not depend on it.
        Told::HooksRan(run) | Told::HookFailed(run, _) if lets_in(&at.reboot, *run) => {
            let at = AwaitingReboot { cause: at.cause.clone(), reboot: let_in(&at.reboot) };
            keep(draft, &at, at.reboot.clone());
            look(draft, &at);
        }
        Told::HooksRan(run) => {
            let reboot = drained(draft, target, &at.reboot, |asked| asked == *run);
            keep(draft, at, reboot);
        }
        Told::HookFailed(run, why) => {
            let ours =
                |reboot: &Reboot| matches!(reboot, Reboot::Draining { run: asked, .. } if asked == run);
            let reboot =
                if ours(&at.reboot) { put_off(draft, target, &at.reboot, why) } else { at.reboot.clone() };
            keep(draft, at, reboot);
        }
        Told::RebootRefused(why) => {
            let ordered = matches!(at.reboot, Reboot::Ordered { .. });
            let reboot = if ordered { put_off(draft, target, &at.reboot, why) } else { at.reboot.clone() };
            keep(draft, at, reboot);
        }
        Told::RetryAsked => keep(draft, at, try_now(draft, &at.reboot)),
        Told::Ended(ended) => self::ended(draft, at, ended),
        Told::WorldChanged => look(draft, at),
        Told::SourceProven(_)
        | Told::Staged(_)
        | Told::StageFailed(..)
        | Told::Began(_)
        | Told::Advanced(..)
        | Told::Probe(_) => {}
    }
}

/// Goes on waiting, or stands down: a restart for upkeep whose leave was taken back before it began is nobody's turn any
/// more, and who gives turns must see that it is wanted.
fn keep(draft: &mut Draft<'_>, at: &AwaitingReboot, reboot: Reboot) {
    if stands_down(&draft.state, at, &reboot) {
        return draft.enter(Phase::Converged);
    }
    draft.keep(Phase::AwaitingReboot(AwaitingReboot { cause: at.cause.clone(), reboot }));
}

fn stands_down(state: &HostState, at: &AwaitingReboot, reboot: &Reboot) -> bool {
    match (&at.cause, reboot) {
        (RebootCause::Wanted(done), Reboot::Waiting { trouble: _, hooks: Hooks::NotDue }) => {
            lacks_leave(state, &done.terms)
        }
        // What was drained is let in first; what has begun goes on; a deferred target has its own way back.
        (
            RebootCause::Wanted(_),
            Reboot::Waiting { trouble: _, hooks: Hooks::Due | Hooks::Running(_) }
            | Reboot::Draining { .. }
            | Reboot::Ordered { .. },
        )
        | (RebootCause::Deferred { .. }, _) => false,
    }
}

/// An order was taken back.
pub(super) fn leave_taken_back(draft: &mut Draft<'_>) {
    if let Phase::AwaitingReboot(at) = &draft.before.phase {
        keep(draft, at, at.reboot.clone());
    }
}

/// A host that only waits to be restarted into what is done may be changed by a person meanwhile. One that is on its
/// way down is looked at when it is up again, and one that lets in again what was drained when that is over.
fn look(draft: &mut Draft<'_>, at: &AwaitingReboot) {
    let (RebootCause::Wanted(done), Reboot::Waiting { trouble: _, hooks: Hooks::NotDue | Hooks::Due }) =
        (&at.cause, &at.reboot)
    else {
        return;
    };
    let expected = done.terms.system.clone();
    if let Some(actual) = draft.state.world.runs_other_than(&expected) {
        let failure = Failure::FlippedToUnexpected { expected, actual };
        draft.found_other((&done.terms, 1), failure);
    }
}

/// The host is up again, on one system or another.
fn booted(draft: &mut Draft<'_>, at: &AwaitingReboot) {
    let hooks = hooks_after(&at.reboot);
    match &at.cause {
        RebootCause::Deferred { flight, inhibitors: _ } => {
            draft.ask(Effect::TakeUp(flight.id.clone()));
            if draft.state.world.runs_other_than(&flight.target.system).is_some() {
                // The activation puts the boot entries back, and tells.
                return going_back(draft, flight, hooks);
            }
            let watch = draft.watch(&flight.target);
            confirm(draft, flight, (Confirmer::Activation, watch), (Rebooted::Yes, hooks));
        }
        RebootCause::Wanted(done) => {
            let done = Done { rebooted: Rebooted::Yes, ..done.clone() };
            let terms = done.terms.clone();
            if let Some(actual) = draft.state.world.runs_other_than(&terms.system) {
                draft.begin_hooks(&terms, hooks);
                let failure = Failure::BootedElsewhere { expected: terms.system.clone(), actual };
                return draft.found_other((&terms, 1), failure);
            }
            let watch = draft.watch(&terms);
            draft.soak(done, 1, watch, hooks);
        }
    }
}

/// A new process in the same boot: what was asked for is asked for again.
pub(super) fn ask_again(draft: &mut Draft<'_>, target: &Terms, reboot: &Reboot) -> Reboot {
    match reboot {
        Reboot::Waiting { trouble, hooks } => {
            let hooks = draft.ask_hooks_again(target, *hooks);
            return Reboot::Waiting { trouble: trouble.clone(), hooks };
        }
        Reboot::Draining { run: _, tries } => {
            let run = draft.hook_run(HookTime::Before);
            draft.ask(Effect::RunHooks(run, target.reboot.before.clone()));
            return Reboot::Draining { run, tries: *tries };
        }
        Reboot::Ordered { .. } => draft.ask(Effect::Reboot { warn_secs: target.reboot.warn_secs }),
    }
    reboot.clone()
}

/// Begins: the hooks first, if there are any.
pub(super) fn begin(draft: &mut Draft<'_>, target: &Terms, reboot: &Reboot) -> Reboot {
    let tries = reboot.tries();
    if target.reboot.before.is_empty() {
        return order(draft, target, tries);
    }
    let run = draft.hook_run(HookTime::Before);
    draft.ask(Effect::RunHooks(run, target.reboot.before.clone()));
    Reboot::Draining { run, tries }
}

fn order(draft: &mut Draft<'_>, target: &Terms, tries: u32) -> Reboot {
    let warn_secs = target.reboot.warn_secs;
    draft.ask(Effect::Reboot { warn_secs });
    Reboot::Ordered { until_up_ms: draft.now.up.plus(warn_secs).plus(Reboot::GRACE), tries }
}

/// The hooks ran: the host restarts.
pub(super) fn drained(
    draft: &mut Draft<'_>,
    target: &Terms,
    reboot: &Reboot,
    is_ours: impl Fn(HookRun) -> bool,
) -> Reboot {
    match reboot {
        Reboot::Draining { run, tries } if is_ours(*run) => order(draft, target, *tries),
        Reboot::Draining { .. } | Reboot::Waiting { .. } | Reboot::Ordered { .. } => reboot.clone(),
    }
}

/// Whether this run is the one that lets in again what was drained for a reboot that was put off.
pub(super) fn lets_in(reboot: &Reboot, run: HookRun) -> bool {
    matches!(reboot, Reboot::Waiting { trouble: _, hooks: Hooks::Running(ours) } if *ours == run)
}

/// It is let in.
pub(super) fn let_in(reboot: &Reboot) -> Reboot {
    match reboot {
        Reboot::Waiting { trouble, hooks: _ } => {
            Reboot::Waiting { trouble: trouble.clone(), hooks: Hooks::NotDue }
        }
        Reboot::Draining { .. } | Reboot::Ordered { .. } => reboot.clone(),
    }
}

/// Something stood against it: again after a pause, for which what was drained is let in again. The next try does not wait
/// for these hooks, and drains anew.
pub(super) fn put_off(draft: &mut Draft<'_>, target: &Terms, reboot: &Reboot, why: &str) -> Reboot {
    let hooks = draft.begin_hooks(target, hooks_after(reboot));
    let tries = reboot.tries().saturating_add(1);
    let again_up_ms = draft.now.up.plus_ms(pause_ms(tries, draft.context.seed));
    Reboot::Waiting { trouble: Some(RebootTrouble { why: why.to_owned(), tries, again_up_ms }), hooks }
}

/// A person wants no pause.
pub(super) fn try_now(draft: &Draft<'_>, reboot: &Reboot) -> Reboot {
    match reboot {
        Reboot::Waiting { trouble: Some(trouble), hooks } => {
            let again_up_ms = trouble.again_up_ms.min(draft.now.up);
            Reboot::Waiting { trouble: Some(RebootTrouble { again_up_ms, ..trouble.clone() }), hooks: *hooks }
        }
        Reboot::Waiting { trouble: None, hooks: _ } | Reboot::Draining { .. } | Reboot::Ordered { .. } => {
            reboot.clone()
        }
    }
}

/// The deferred activation ended without a reboot that we saw: a person may have withdrawn it.
fn ended(draft: &mut Draft<'_>, at: &AwaitingReboot, ended: &Ended<'_>) {
    let RebootCause::Deferred { flight, inhibitors: _ } = &at.cause else { return };
    if ended.outcome.is_none() || !ended.is_of(&flight.id) {
        return;
    }
    let flight = &recorded(flight, ended);
    match ended.end {
        End::Deferred(_) | End::OnTrial(_) => {}
        End::Live => {
            draft.note_world(ended);
            let watch = draft.watch(&flight.target);
            let done = flight.done(Rebooted::Yes);
            draft.soak(done, flight.attempt, watch, hooks_after(&at.reboot));
        }
        End::Unchanged(_) | End::Reverted(..) | End::RevertFailed(..) => {
            draft.note_world(ended);
            not_live(draft, (flight, hooks_after(&at.reboot)), ended);
        }
    }
}

fn purpose(cause: &RebootCause) -> Purpose {
    match cause {
        RebootCause::Deferred { .. } => Purpose::Finish,
        RebootCause::Wanted(_) => Purpose::Upkeep,
    }
}

pub(super) fn decide(state: &HostState, at: &AwaitingReboot, now: Now) -> Option<Event> {
    let target = at.cause.target();
    if let Some(gives_way) = gives_way(state, at, now) {
        return Some(gives_way);
    }
    if is_overdue(&at.reboot, now) {
        return Some(Event::RebootOverdue);
    }
    match may_try_reboot(state, (target, &at.reboot), purpose(&at.cause), now) {
        Gate::Open => Some(Event::RebootBegan { release: target.release.clone() }),
        Gate::Shut(_) => None,
    }
}

/// While it only waits, a newer release may come first: at once where the target is done, and only when its own turn has
/// come where it is not, since the boot entry would be given up for nothing; at once also where a newer root does not vouch for
/// what the boot entry brings. What was drained is let in again before.
fn gives_way(state: &HostState, at: &AwaitingReboot, now: Now) -> Option<Event> {
    let newer = state.news(Some(at.cause.target()))?;
    let release = newer.release.clone();
    match (&at.reboot, &at.cause) {
        (
            Reboot::Draining { .. }
            | Reboot::Ordered { .. }
            | Reboot::Waiting { trouble: _, hooks: Hooks::Running(_) },
            _,
        ) => None,
        (Reboot::Waiting { .. }, RebootCause::Wanted(_)) => Some(Event::StagingBegan { release, attempt: 1 }),
        (Reboot::Waiting { .. }, RebootCause::Deferred { flight, .. }) => {
            let taken_back = state.vouches_not_yet(&flight.target.release).is_some();
            let its_turn = may_switch(state, newer, now) == Gate::Open;
            (taken_back || its_turn).then(|| Event::TargetWithdrawn { id: flight.id.clone(), newer: release })
        }
    }
}

/// Whether the host should have gone down by now.
pub(super) fn is_overdue(reboot: &Reboot, now: Now) -> bool {
    match reboot {
        Reboot::Ordered { until_up_ms, .. } => now.up >= *until_up_ms,
        Reboot::Waiting { .. } | Reboot::Draining { .. } => false,
    }
}

/// Decided: it restarts.
pub(super) fn reboot_began(draft: &mut Draft<'_>, at: &AwaitingReboot) {
    let reboot = begin(draft, at.cause.target(), &at.reboot);
    keep(draft, at, reboot);
}

/// Decided: it should be down and is not.
pub(super) fn overdue(draft: &mut Draft<'_>, at: &AwaitingReboot) {
    let reboot = put_off(draft, at.cause.target(), &at.reboot, OVERDUE);
    keep(draft, at, reboot);
}

/// What stands against a reboot that did not happen.
pub(super) const OVERDUE: &str = "it was ordered, and the host did not go down";

/// Decided: the deferred target is given up.
pub(super) fn withdrawn(draft: &mut Draft<'_>, flight: &Flight) {
    let Flight { target, attempt, id, previous, source: _ } = flight;
    let way = (id.clone(), Back::Uncommitted, previous.clone());
    // Whatever was drained was let in again when the reboot was put off.
    draft.revert((target, *attempt), way, (Failure::Asked, Hooks::NotDue));
}

pub(super) fn waits(state: &HostState, at: &AwaitingReboot, now: Now) -> Waits {
    let target = at.cause.target();
    match may_try_reboot(state, (target, &at.reboot), purpose(&at.cause), now) {
        Gate::Shut(waits) => {
            // A newer release's turn may come first.
            let newer = state.news(Some(target)).map(|newer| may_switch(state, newer, now));
            let sooner = match newer {
                Some(Gate::Shut(newer)) => newer.until,
                Some(Gate::Open) | None => None,
            };
            Waits { until: [waits.until, sooner].into_iter().flatten().min(), ..waits }
        }
        Gate::Open => Waits::until(WaitingOn::Reboot, now.at),
    }
}

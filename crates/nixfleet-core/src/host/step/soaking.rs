//! `Soaking`: the system is committed, and watched for as long as its wave says. Going back is a new activation now.

use super::super::effect::Back;
use super::super::event::{Event, HookTime};
use super::super::gate::{Waits, ordered_back};
use super::super::phase::{FailedAt, Hooks, Phase, Rebooted, Soaking};
use super::super::probing::ProbeRef;
use super::super::state::HostState;
use super::super::time::Now;
use super::super::waiting::WaitingOn;
use super::Effect;
use super::draft::{Draft, next_id};
use super::told::Told;
use crate::activation::outcome::Failure;
use crate::ids::{ActivationId, StorePath};
use crate::model::policy::OnFailure;

pub(super) fn told(draft: &mut Draft<'_>, at: &Soaking, told: &Told<'_>) {
    match told {
        Told::Started { rebooted, journal: _ } => started(draft, at, *rebooted),
        Told::WorldChanged => {
            if let Some(failure) = elsewhere(&draft.state, at, false) {
                leave(draft, at, failure);
            }
        }
        Told::Probe(report) => {
            let mut next = at.clone();
            next.watch.take(report, draft.now.at);
            draft.keep(Phase::Soaking(next));
        }
        Told::HooksRan(run) if at.hooks == Hooks::Running(*run) => {
            draft.keep(Phase::Soaking(Soaking { hooks: Hooks::NotDue, ..at.clone() }));
        }
        Told::HookFailed(run, why) if at.hooks == Hooks::Running(*run) => {
            let failure = Failure::Internal { what: format!("a hook after the reboot failed: {why}") };
            draft.ask(Effect::StopProbes);
            draft.fail((&at.done.terms, at.attempt), FailedAt::AfterHooks(at.done.clone()), failure);
        }
        Told::SourceProven(_)
        | Told::Staged(_)
        | Told::StageFailed(..)
        | Told::Began(_)
        | Told::Advanced(..)
        | Told::Ended(_)
        | Told::HooksRan(_)
        | Told::HookFailed(..)
        | Told::RebootRefused(_)
        | Told::RetryAsked => {}
    }
}

/// A boot begins the watch anew: what passed before says nothing about what was booted.
fn started(draft: &mut Draft<'_>, at: &Soaking, rebooted: bool) {
    if let Some(failure) = elsewhere(&draft.state, at, rebooted) {
        return leave(draft, at, failure);
    }
    let terms = &at.done.terms;
    if rebooted {
        let mut done = at.done.clone();
        done.rebooted = Rebooted::Yes;
        let watch = draft.watch(terms);
        let since_ms = draft.state.since_ms;
        draft.soak(done, at.attempt, watch, at.hooks);
        draft.state.since_ms = since_ms;
        return;
    }
    let watch = draft.take_over(terms, &at.watch);
    let hooks = match at.hooks {
        Hooks::Running(_) => {
            let run = draft.hook_run(HookTime::After);
            draft.ask(Effect::RunHooks(run, terms.reboot.after.clone()));
            Hooks::Running(run)
        }
        Hooks::NotDue | Hooks::Due => at.hooks,
    };
    draft.keep(Phase::Soaking(Soaking { watch, hooks, ..at.clone() }));
}

/// Why it cannot go on here, if another system runs.
fn elsewhere(state: &HostState, at: &Soaking, booted: bool) -> Option<Failure> {
    let expected = at.done.terms.system.clone();
    let actual = state.world.runs_other_than(&expected)?;
    Some(if booted {
        Failure::BootedElsewhere { expected, actual }
    } else {
        Failure::FlippedToUnexpected { expected, actual }
    })
}

fn leave(draft: &mut Draft<'_>, at: &Soaking, failure: Failure) {
    draft.ask(Effect::StopProbes);
    draft.found_other((&at.done.terms, at.attempt), failure);
}

pub(super) fn decide(state: &HostState, at: &Soaking, now: Now) -> Option<Event> {
    if let Some(failure) = at.watch.sustained() {
        return Some(match way_back(at) {
            Some(_) => Event::RevertBegan { id: next_id(state, now), failure },
            None => Event::SoakFailed { failure },
        });
    }
    if ordered_back(state, &at.done).is_some() {
        return Some(Event::RevertBegan { id: next_id(state, now), failure: Failure::Asked });
    }
    if now.up < at.until_up_ms {
        return None;
    }
    if is_done(at) {
        return Some(Event::SoakPassed { watch: at.watch.id });
    }
    // The time is over and something was never proven: a newer release need not wait for it any longer.
    let newer = state.news(Some(&at.done.terms))?;
    Some(Event::StagingBegan { release: newer.release.clone(), attempt: 1 })
}

fn is_done(at: &Soaking) -> bool {
    at.watch.is_proven() && at.hooks == Hooks::NotDue
}

/// Where a sustained failure leads, if the policy says so and there is a way: nothing switched is nothing to revert.
fn way_back(at: &Soaking) -> Option<&StorePath> {
    match at.done.terms.on_failure {
        OnFailure::Revert | OnFailure::RevertAll => {
            at.done.previous.as_ref().filter(|previous| **previous != at.done.terms.system)
        }
        OnFailure::Halt => None,
    }
}

/// Decided: all was well.
pub(super) fn passed(draft: &mut Draft<'_>, at: &Soaking) {
    draft.ask(Effect::StopProbes);
    draft.state.settled = Some(at.done.clone());
    draft.enter(Phase::Converged);
}

/// Decided: it was not, and stays.
pub(super) fn failed(draft: &mut Draft<'_>, at: &Soaking, failure: Failure) {
    draft.ask(Effect::StopProbes);
    draft.fail((&at.done.terms, at.attempt), FailedAt::Soak, failure);
}

/// Decided: it was not, and the recorded system comes back. Says whether there is one.
pub(super) fn revert(draft: &mut Draft<'_>, at: &Soaking, (id, failure): (ActivationId, Failure)) -> bool {
    let Some(to) = way_back(at).cloned() else { return false };
    draft.serial();
    draft.ask(Effect::StopProbes);
    draft.revert((&at.done.terms, at.attempt), (id, Back::Committed, to), (failure, at.hooks));
    true
}

pub(super) fn waits(at: &Soaking, now: Now) -> Waits {
    let until_ms = now.clock_at(at.until_up_ms);
    let until = (now.up < at.until_up_ms).then_some(until_ms);
    let probes: Vec<ProbeRef> = at.watch.unproven().map(|tally| tally.probe.clone()).collect();
    let on = match at.hooks {
        Hooks::Due | Hooks::Running(_) => WaitingOn::Hooks,
        Hooks::NotDue if probes.is_empty() => WaitingOn::Soak { until_ms },
        Hooks::NotDue => WaitingOn::Proof { probes, source: false, until_ms },
    };
    Waits { on, until }
}

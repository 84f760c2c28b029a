//! `Confirming`: the target is on trial. The boot default is still the previous system, and the deadman is armed, so
//! standing still is safe here; going forward needs proof.

use super::super::effect::Back;
use super::super::event::Event;
use super::super::gate::Waits;
use super::super::phase::{Confirmer, Confirming, Flight, Phase, Rebooted, SourceNeed};
use super::super::time::{Now, UpMs};
use super::super::waiting::WaitingOn;
use super::super::world::{JournalSays, Said};
use super::Effect;
use super::activating::{going_back, machine, not_live, recorded};
use super::draft::Draft;
use super::told::{End, Ended, Told};
use crate::activation::outcome::{Failure, Step};
use crate::model::time::Secs;

use super::super::probing::Watch;

/// The pause before a commit that could not begin is tried again: the activation's lock is held for moments only.
const COMMIT_AGAIN: Secs = Secs(5);

pub(super) fn told(draft: &mut Draft<'_>, at: &Confirming, told: &Told<'_>) {
    let id = &at.flight.id;
    match told {
        Told::Started { rebooted, journal } => started(draft, at, *rebooted, *journal),
        // The deadman may have acted.
        Told::WorldChanged => draft.ask(Effect::TakeUp(id.clone())),
        Told::SourceProven(watch) if *watch == at.watch.id => source_proven(draft, at),
        Told::Probe(report) => {
            let mut next = at.clone();
            next.watch.take(report, draft.now.at);
            draft.keep(Phase::Confirming(next));
        }
        Told::Advanced(of, Step::Revert) if *of == id => {
            draft.ask(Effect::StopProbes);
            going_back(draft, &at.flight, at.hooks);
        }
        Told::Ended(ended) if ended.is_of(id) => self::ended(draft, at, ended),
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

/// A new process goes on where the old one was; after a boot only the journal knows where that is.
fn started(draft: &mut Draft<'_>, at: &Confirming, rebooted: bool, journal: Option<&JournalSays>) {
    let mut next = at.clone();
    if rebooted {
        // What passed before the boot says nothing about what was booted.
        next.watch = draft.watch(&at.flight.target);
        (next.by, next.rebooted) = (Confirmer::Activation, Rebooted::Yes);
        next.flight.source = again(at.flight.source);
    } else {
        next.watch = draft.take_over(&at.flight.target, &at.watch);
    }
    ask_source(draft, &next.flight, &next.watch);
    let said = journal.filter(|journal| journal.id == at.flight.id).map(|journal| journal.said);
    match (&next.by, said) {
        (Confirmer::Machine { .. }, Some(Said::Pending(_))) => {}
        (Confirmer::Committing { .. }, Some(Said::Pending(_))) => {
            draft.ask(Effect::Commit(at.flight.id.clone()));
        }
        (
            Confirmer::Activation | Confirmer::Machine { .. } | Confirmer::Committing { .. },
            Some(Said::Nothing | Said::Pending(_) | Said::Ended) | None,
        ) => draft.ask(Effect::TakeUp(at.flight.id.clone())),
    }
    draft.keep(Phase::Confirming(next));
}

fn again(source: SourceNeed) -> SourceNeed {
    match source {
        SourceNeed::NotNeeded => SourceNeed::NotNeeded,
        SourceNeed::Awaited | SourceNeed::Answered => SourceNeed::Awaited,
    }
}

pub(super) fn ask_source(draft: &mut Draft<'_>, flight: &Flight, watch: &Watch) {
    match flight.source {
        SourceNeed::Awaited => draft.ask(Effect::AskSource(watch.id)),
        SourceNeed::NotNeeded | SourceNeed::Answered => {}
    }
}

fn source_proven(draft: &mut Draft<'_>, at: &Confirming) {
    let mut next = at.clone();
    next.flight.source = match at.flight.source {
        SourceNeed::NotNeeded => SourceNeed::NotNeeded,
        SourceNeed::Awaited | SourceNeed::Answered => SourceNeed::Answered,
    };
    draft.keep(Phase::Confirming(next));
}

fn ended(draft: &mut Draft<'_>, at: &Confirming, ended: &Ended<'_>) {
    let flight = &recorded(&at.flight, ended);
    match ended.end {
        End::Live => {
            draft.note_world(ended);
            let done = flight.done(at.rebooted);
            draft.soak(done, flight.attempt, at.watch.clone(), at.hooks);
        }
        End::OnTrial(secs) => on_trial(draft, at, ended, secs),
        // The commit could not begin, or there was nothing to tell; the trial goes on.
        End::Unchanged(_) if ended.outcome.is_none() => commit_later(draft, at),
        // A deferral is an end of an activation that did not switch, and this one did: nothing that it could tell.
        End::Deferred(_) => commit_later(draft, at),
        End::Unchanged(_) | End::Reverted(..) | End::RevertFailed(..) => {
            draft.note_world(ended);
            draft.ask(Effect::StopProbes);
            not_live(draft, (flight, at.hooks), ended);
        }
    }
}

fn on_trial(draft: &mut Draft<'_>, at: &Confirming, ended: &Ended<'_>, secs: u64) {
    match at.by {
        Confirmer::Activation => {
            draft.note_world(ended);
            let by = machine(draft, secs);
            draft.keep(Phase::Confirming(Confirming { by, ..at.clone() }));
        }
        // It was told before, and its deadline stands.
        Confirmer::Machine { .. } | Confirmer::Committing { .. } => {}
    }
}

fn commit_later(draft: &mut Draft<'_>, at: &Confirming) {
    let until_up_ms = match at.by {
        // Nobody knows of it any more. The probes decide, and the deadline leads out.
        Confirmer::Activation => draft.now.up.plus(at.flight.target.confirm_within_secs),
        Confirmer::Machine { until_up_ms, .. } | Confirmer::Committing { until_up_ms } => until_up_ms,
    };
    let by = Confirmer::Machine { until_up_ms, commit_from_up_ms: draft.now.up.plus(COMMIT_AGAIN) };
    draft.keep(Phase::Confirming(Confirming { by, ..at.clone() }));
}

pub(super) fn decide(at: &Confirming, now: Now) -> Option<Event> {
    let Confirmer::Machine { until_up_ms, commit_from_up_ms } = at.by else { return None };
    let id = at.flight.id.clone();
    if now.up >= until_up_ms {
        return Some(Event::RevertBegan { id, failure: too_late(at) });
    }
    if let Some(failure) = at.watch.sustained() {
        return Some(Event::RevertBegan { id, failure });
    }
    let proven = at.watch.is_proven() && at.flight.source != SourceNeed::Awaited;
    (proven && now.up >= commit_from_up_ms).then_some(Event::ProbesPassed { watch: at.watch.id })
}

/// Why a trial is over: the probe that did not pass, or else the source.
fn too_late(at: &Confirming) -> Failure {
    let within_secs = u64::from(at.flight.target.confirm_within_secs.0);
    let unproven = at.watch.unproven().next();
    unproven.map_or(Failure::ConfirmTimeout { within_secs }, super::super::probing::Tally::failure)
}

/// Confirmed: the activation commits.
pub(super) fn probes_passed(draft: &mut Draft<'_>, at: &Confirming, until_up_ms: UpMs) {
    draft.ask(Effect::Commit(at.flight.id.clone()));
    let by = Confirmer::Committing { until_up_ms };
    draft.keep(Phase::Confirming(Confirming { by, ..at.clone() }));
}

/// Decided: back to the recorded system, by the activation that is on trial.
pub(super) fn revert(draft: &mut Draft<'_>, at: &Confirming, failure: Failure) {
    let Flight { target, attempt, id, previous, source: _ } = &at.flight;
    draft.ask(Effect::StopProbes);
    let way = (id.clone(), Back::Uncommitted, previous.clone());
    draft.revert((target, *attempt), way, (failure, at.hooks));
}

pub(super) fn waits(at: &Confirming, now: Now) -> Waits {
    match at.by {
        Confirmer::Activation => Waits::for_news(WaitingOn::Activation { step: Some(Step::Confirm) }),
        Confirmer::Committing { .. } => Waits::for_news(WaitingOn::Commit),
        Confirmer::Machine { until_up_ms, commit_from_up_ms } => {
            let source = at.flight.source == SourceNeed::Awaited;
            let probes: Vec<_> = at.watch.unproven().map(|tally| tally.probe.clone()).collect();
            let until_ms = now.clock_at(until_up_ms);
            if probes.is_empty() && !source && commit_from_up_ms < until_up_ms {
                return Waits::until(WaitingOn::Commit, now.clock_at(commit_from_up_ms));
            }
            Waits::until(WaitingOn::Proof { probes, source, until_ms }, until_ms)
        }
    }
}

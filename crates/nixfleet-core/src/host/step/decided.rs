//! Carries decisions out: each fits to one state or a few, and is refused in the others.
//!
//! No time, window or proof is looked at here. The host looked before it decided; whoever follows it believes the report.

use super::super::event::Event;
use super::super::phase::{
    Activating, AwaitingReboot, Confirmer, Flight, Hooks, Phase, Reboot, RebootCause, Rebooted, SourceNeed,
};
use super::super::probing::WatchId;
use super::super::state::{Contact, HostState};
use super::draft::{Draft, activate_order};
use super::{Effect, Refused, awaiting_reboot, confirming, converged, failed, reverting, soaking};
use crate::activation::outcome::Failure;
use crate::ids::ActivationId;
use crate::model::names::ReleaseId;

/// It does not fit.
fn not_now(draft: &Draft<'_>, event: &Event) -> Refused {
    Refused::NotNow { event: event.name(), state: draft.before.phase.name() }
}

/// A release is taken up: the newest from wherever the host has come to rest, or the same one once more.
pub(super) fn staging_began(
    draft: &mut Draft<'_>,
    event: &Event,
    (release, attempt): (&ReleaseId, u32),
) -> Result<(), Refused> {
    let before = draft.before;
    let at_rest = match &before.phase {
        Phase::Soaking(_) => {
            draft.ask(Effect::StopProbes);
            true
        }
        Phase::Failed(at) => !failed::is_open(at),
        Phase::Converged
        | Phase::Staging(_)
        | Phase::Staged(_)
        | Phase::Reverted(_)
        | Phase::AwaitingReboot(AwaitingReboot {
            cause: RebootCause::Wanted(_),
            reboot: Reboot::Waiting { .. },
        }) => true,
        Phase::AwaitingReboot(_) | Phase::Activating(_) | Phase::Confirming(_) | Phase::Reverting(_) => false,
    };
    let same = before.phase.target().filter(|target| target.release == *release);
    let newest = before.newest.as_deref().filter(|newest| newest.release == *release);
    match newest.or(same).filter(|_| at_rest) {
        Some(target) => {
            draft.stage(target, attempt);
            Ok(())
        }
        None => Err(not_now(draft, event)),
    }
}

/// The host switches.
pub(super) fn went_ahead(
    draft: &mut Draft<'_>,
    event: &Event,
    (release, id): (&ReleaseId, &ActivationId),
) -> Result<(), Refused> {
    let before = draft.before;
    let (Phase::Staged(at), Some(previous)) = (&before.phase, &before.world.current) else {
        return Err(not_now(draft, event));
    };
    if at.target.release != *release {
        return Err(not_now(draft, event));
    }
    draft.serial();
    let flight = Flight {
        target: at.target.clone(),
        attempt: at.attempt,
        id: id.clone(),
        previous: previous.clone(),
        source: source_need(before),
    };
    draft.ask(activate_order(&flight));
    draft.enter(Phase::Activating(Activating { flight, step: None }));
    Ok(())
}

/// A source that was silent before the switch proves nothing by being silent after it.
fn source_need(state: &HostState) -> SourceNeed {
    match state.source.contact {
        Contact::Answers { .. } => SourceNeed::Awaited,
        Contact::NotAsked | Contact::Silent { .. } => SourceNeed::NotNeeded,
    }
}

/// Nothing is to be switched; the probes decide all the same.
pub(super) fn adopted(draft: &mut Draft<'_>, event: &Event, release: &ReleaseId) -> Result<(), Refused> {
    let before = draft.before;
    let Phase::Staged(at) = &before.phase else { return Err(not_now(draft, event)) };
    if at.target.release != *release {
        return Err(not_now(draft, event));
    }
    let watch = draft.watch(&at.target);
    let done = super::super::phase::Done {
        terms: at.target.clone(),
        previous: None,
        rebooted: kept_boot(before, at.target.system.as_str()),
    };
    draft.soak(done, at.attempt, watch, Hooks::NotDue);
    Ok(())
}

/// A system that is kept was booted into before, if it was.
fn kept_boot(state: &HostState, system: &str) -> Rebooted {
    let done = state.settled.as_ref().filter(|done| done.terms.system.as_str() == system);
    done.map_or(Rebooted::No, |done| done.rebooted)
}

/// A target that waits for its reboot is given up.
pub(super) fn withdrawn(draft: &mut Draft<'_>, event: &Event, id: &ActivationId) -> Result<(), Refused> {
    let before = draft.before;
    let Phase::AwaitingReboot(at) = &before.phase else { return Err(not_now(draft, event)) };
    match (&at.cause, &at.reboot) {
        (RebootCause::Deferred { flight, inhibitors: _ }, Reboot::Waiting { .. }) if flight.id == *id => {
            awaiting_reboot::withdrawn(draft, flight);
            Ok(())
        }
        (RebootCause::Deferred { .. } | RebootCause::Wanted(_), _) => Err(not_now(draft, event)),
    }
}

/// The trial is good.
pub(super) fn probes_passed(draft: &mut Draft<'_>, event: &Event, watch: WatchId) -> Result<(), Refused> {
    let before = draft.before;
    let Phase::Confirming(at) = &before.phase else { return Err(not_now(draft, event)) };
    match at.by {
        Confirmer::Machine { until_up_ms, .. } if at.watch.id == watch => {
            confirming::probes_passed(draft, at, until_up_ms);
            Ok(())
        }
        Confirmer::Activation | Confirmer::Machine { .. } | Confirmer::Committing { .. } => {
            Err(not_now(draft, event))
        }
    }
}

/// The host goes back.
pub(super) fn revert_began(
    draft: &mut Draft<'_>,
    event: &Event,
    (id, failure): (&ActivationId, &Failure),
) -> Result<(), Refused> {
    let before = draft.before;
    let began = match &before.phase {
        Phase::Confirming(at) if at.flight.id == *id => {
            confirming::revert(draft, at, failure.clone());
            true
        }
        Phase::Soaking(at) => soaking::revert(draft, at, (id.clone(), failure.clone())),
        Phase::Failed(at) => failed::revert_again(draft, at, id.clone()),
        Phase::Converged => converged::revert(draft, (id.clone(), failure.clone())),
        Phase::Staging(_)
        | Phase::Staged(_)
        | Phase::Activating(_)
        | Phase::AwaitingReboot(_)
        | Phase::Confirming(_)
        | Phase::Reverting(_)
        | Phase::Reverted(_) => false,
    };
    if began { Ok(()) } else { Err(not_now(draft, event)) }
}

/// The watch ended well.
pub(super) fn soak_passed(draft: &mut Draft<'_>, event: &Event, watch: WatchId) -> Result<(), Refused> {
    let before = draft.before;
    match &before.phase {
        Phase::Soaking(at) if at.watch.id == watch => {
            soaking::passed(draft, at);
            Ok(())
        }
        Phase::Soaking(_)
        | Phase::Converged
        | Phase::Staging(_)
        | Phase::Staged(_)
        | Phase::Activating(_)
        | Phase::AwaitingReboot(_)
        | Phase::Confirming(_)
        | Phase::Reverting(_)
        | Phase::Reverted(_)
        | Phase::Failed(_) => Err(not_now(draft, event)),
    }
}

/// The watch ended badly, and the system stays.
pub(super) fn soak_failed(draft: &mut Draft<'_>, event: &Event, failure: &Failure) -> Result<(), Refused> {
    let before = draft.before;
    let Phase::Soaking(at) = &before.phase else { return Err(not_now(draft, event)) };
    soaking::failed(draft, at, failure.clone());
    Ok(())
}

/// The host restarts: for what it waits for, for the way back, or for upkeep.
pub(super) fn reboot_began(draft: &mut Draft<'_>, event: &Event, release: &ReleaseId) -> Result<(), Refused> {
    let before = draft.before;
    let ours = |target: &super::super::terms::Terms| target.release == *release;
    match &before.phase {
        Phase::AwaitingReboot(at) if ours(at.cause.target()) && is_waiting(Some(&at.reboot)) => {
            awaiting_reboot::reboot_began(draft, at);
        }
        Phase::Reverting(at) if ours(&at.target) && is_waiting(at.reboot.as_ref()) => {
            reverting::reboot_began(draft, at);
        }
        Phase::Converged => {
            let done = before.settled.as_ref().filter(|done| ours(&done.terms));
            let done = done.cloned().ok_or_else(|| not_now(draft, event))?;
            let reboot = awaiting_reboot::begin(draft, &done.terms, &Reboot::NOT_TRIED);
            let cause = RebootCause::Wanted(done);
            draft.enter(Phase::AwaitingReboot(AwaitingReboot { cause, reboot }));
        }
        Phase::AwaitingReboot(_)
        | Phase::Reverting(_)
        | Phase::Staging(_)
        | Phase::Staged(_)
        | Phase::Activating(_)
        | Phase::Confirming(_)
        | Phase::Soaking(_)
        | Phase::Reverted(_)
        | Phase::Failed(_) => return Err(not_now(draft, event)),
    }
    Ok(())
}

fn is_waiting(reboot: Option<&Reboot>) -> bool {
    reboot.is_some_and(|reboot| match reboot {
        Reboot::Waiting { .. } => true,
        Reboot::Draining { .. } | Reboot::Ordered { .. } => false,
    })
}

/// The host should be down and is not.
pub(super) fn reboot_overdue(draft: &mut Draft<'_>, event: &Event) -> Result<(), Refused> {
    let before = draft.before;
    match &before.phase {
        Phase::AwaitingReboot(at) => awaiting_reboot::overdue(draft, at),
        Phase::Reverting(at) => reverting::overdue(draft, at),
        Phase::Converged
        | Phase::Staging(_)
        | Phase::Staged(_)
        | Phase::Activating(_)
        | Phase::Confirming(_)
        | Phase::Soaking(_)
        | Phase::Reverted(_)
        | Phase::Failed(_) => return Err(not_now(draft, event)),
    }
    Ok(())
}

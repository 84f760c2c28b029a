//! Which failures count, and what follows.

use super::View;
use super::seen::{At, Seen, Silence};
use crate::host::waiting::StateName;
use crate::ids::StorePath;
use crate::model::names::HostName;
use crate::model::policy::OnFailure;
use crate::model::time::UnixMs;
use crate::rollout::order::Transition;
use crate::rollout::progress::{Failed, FailedHow, Status};

/// Counts new failures; halts the rollout if they are too many, and quarantines what failed once it has halted.
pub(super) fn count(view: &mut View<'_>, now: UnixMs) {
    if matches!(view.rollout.status, Status::Aborted(_)) {
        return;
    }
    let failed = |(place, seen)| failed(view, seen, now).map(|failed| (place, failed));
    let new: Vec<(usize, Failed)> = view.seen.iter().enumerate().filter_map(failed).collect();
    // Whoever carried a plan out may have been cut off between a failure and the halt that it calls for.
    if let Some((host, how)) = newest(view).filter(|_| too_many(view)) {
        halt(view, host, how, now);
    }
    for (place, failed) in new {
        let Some(seen) = view.seen.get_mut(place) else { continue };
        seen.counted = true;
        let host = seen.name.clone();
        view.decide(Transition::FailureCounted { host: host.clone(), failed: failed.clone() });
        let how = failed.how;
        view.rollout.failures.insert(host.clone(), failed);
        if too_many(view) {
            halt(view, host, how, now);
        }
    }
    if matches!(view.rollout.status, Status::Halted { .. }) {
        quarantine(view);
    }
}

/// Stops the rollout, unless it is stopped.
fn halt(view: &mut View<'_>, host: HostName, failure: FailedHow, now: UnixMs) {
    if !matches!(view.rollout.status, Status::Halted { .. }) {
        view.decide(Transition::Halted { host: host.clone(), failure });
        view.rollout.status = Status::Halted { host, failure, at_ms: now };
    }
}

/// The failure that was counted last.
fn newest(view: &View<'_>) -> Option<(HostName, FailedHow)> {
    let newest = view.rollout.failures.iter().max_by_key(|(_, failed)| failed.at_ms);
    newest.map(|(host, failed)| (host.clone(), failed.how))
}

fn too_many(view: &View<'_>) -> bool {
    let policy = &view.channel.current.policy;
    let failures = view.rollout.failures.len();
    match policy.on_failure {
        OnFailure::Halt => failures > 0,
        OnFailure::Revert | OnFailure::RevertAll => {
            failures > usize::try_from(policy.max_failures).unwrap_or(usize::MAX)
        }
    }
}

/// The host's failure, if it is to be counted now.
fn failed(view: &View<'_>, seen: &Seen<'_>, now: UnixMs) -> Option<Failed> {
    if seen.counted || seen.host.skip.is_some() || seen.host.retry.is_some() {
        return None;
    }
    let (how, system) = match seen.at {
        At::Failed(class) => (FailedHow::Reported(class), blamed(view, seen)),
        At::OnItsWay(_) | At::Soaking if seen.silence == Silence::Offline => {
            (FailedHow::Lost, Some(&seen.host.placed.system))
        }
        At::Behind
        | At::Fetching
        | At::Staged
        | At::OnItsWay(_)
        | At::Soaking
        | At::Done
        | At::Restarting
        | At::TriesAgain(_)
        | At::Older(_) => return None,
    };
    Some(Failed { how, system: system.cloned(), at_ms: now })
}

/// The system that the failure speaks against. A host that went back since its halted rollout wanted all to go back
/// says nothing against its system.
fn blamed<'a>(view: &View<'_>, seen: &Seen<'a>) -> Option<&'a StorePath> {
    let standing = seen.host.standing.as_ref()?;
    let told = view.goes_back() && standing.state == StateName::Reverted;
    if told { None } else { standing.failure.as_ref()?.quarantined.as_ref() }
}

fn quarantine(view: &mut View<'_>) {
    let failures = view.rollout.failures.clone();
    for (host, failed) in failures {
        let Some(system) = failed.system.filter(|system| view.quarantine(system).is_none()) else { continue };
        view.decide(Transition::Quarantined { system: system.clone(), host: host.clone() });
        view.quarantined.insert(system, host);
    }
}

//! Which failures count, and what follows.

use super::View;
use super::seen::{At, Seen, Silence};
use crate::host::waiting::StateName;
use crate::ids::StorePath;
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
    for (place, failed) in new {
        let Some(seen) = view.seen.get_mut(place) else { continue };
        seen.counted = true;
        let host = seen.name.clone();
        view.decide(Transition::FailureCounted { host: host.clone(), failed: failed.clone() });
        let how = failed.how;
        view.rollout.failures.insert(host.clone(), failed);
        let halted = matches!(view.rollout.status, Status::Halted { .. });
        if !halted && too_many(view) {
            view.decide(Transition::Halted { host: host.clone(), failure: how });
            view.rollout.status = Status::Halted { host, failure: how, at_ms: now };
        }
    }
    if matches!(view.rollout.status, Status::Halted { .. }) {
        quarantine(view);
    }
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
        At::OnItsWay(_) if seen.silence == Silence::Offline => {
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
    let halted = matches!(view.rollout.status, Status::Halted { .. });
    let told = halted
        && view.channel.current.policy.on_failure == OnFailure::RevertAll
        && standing.state == StateName::Reverted;
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

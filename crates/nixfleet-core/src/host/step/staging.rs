//! `Staging`: the target is fetched and checked. Nothing of it runs.

use super::super::event::Event;
use super::super::gate::Waits;
use super::super::phase::{FailedAt, Phase, Staged, Staging};
use super::super::state::HostState;
use super::super::waiting::WaitingOn;
use super::draft::{Draft, stage_order};
use super::told::Told;

pub(super) fn told(draft: &mut Draft<'_>, at: &Staging, told: &Told<'_>) {
    let Staging { target, attempt } = at;
    match told {
        Told::Started { .. } => draft.ask(stage_order(target)),
        Told::Staged(release) if **release == target.release => {
            draft.enter(Phase::Staged(Staged { target: target.clone(), attempt: *attempt }));
        }
        Told::StageFailed(release, failure) if **release == target.release => {
            draft.fail((target, *attempt), FailedAt::Stage, (*failure).clone());
        }
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

pub(super) fn decide(state: &HostState, at: &Staging) -> Option<Event> {
    let newer = state.news(Some(&at.target))?;
    Some(Event::StagingBegan { release: newer.release.clone(), attempt: 1 })
}

pub(super) fn waits(at: &Staging) -> Waits {
    Waits::for_news(WaitingOn::Fetch { attempt: at.attempt })
}

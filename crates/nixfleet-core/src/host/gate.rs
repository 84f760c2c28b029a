//! What must be open before a host switches, and before it restarts.
//!
//! Asked by the machine on the host only. Whoever folds its reports is told the answer as an event, and needs neither
//! its clock nor its time zones.

use super::phase::{Done, Reboot, Rebooted};
use super::state::HostState;
use super::terms::Terms;
use super::time::Now;
use super::trusted::RootTerms;
use super::waiting::{RestartBy, WaitingOn};
use super::window::{Opening, opening};
use super::world::{Reboots, SourceKind};
use crate::ids::StorePath;
use crate::model::names::ReleaseId;
use crate::model::policy::{Approval, OnFailure};
use crate::model::schedule::{RebootMode, Window};
use crate::model::time::UnixMs;

/// Whether something may begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Gate {
    /// It may.
    Open,
    /// It may not.
    Shut(Waits),
}

/// What is waited for, and when to look again without being told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waits {
    pub(super) on: WaitingOn,
    pub(super) until: Option<UnixMs>,
}

impl Waits {
    /// For something that somebody will tell.
    pub(super) fn for_news(on: WaitingOn) -> Self {
        Self { on, until: None }
    }

    /// For a time.
    pub(super) fn until(on: WaitingOn, at: UnixMs) -> Self {
        Self { on, until: Some(at) }
    }
}

/// Why a host restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To finish what was begun: its turn had come, and the reboot is part of it.
    Finish,
    /// To go back from what was begun.
    GoBack,
    /// For a release that is done already; under a control plane that is a turn of its own.
    Upkeep,
}

/// Whether the host may switch to `target`.
pub(super) fn may_switch(state: &HostState, target: &Terms, now: Now) -> Gate {
    let checks = [
        hold(state, now),
        vouched(state, target),
        expiry(state, target, now),
        turn(state, target, now),
        known(state),
        windows(&target.windows, target, now),
    ];
    first_shut(checks)
}

/// Whether the host may restart for `target`.
pub(super) fn may_reboot(state: &HostState, target: &Terms, purpose: Purpose, now: Now) -> Gate {
    let person = match reboot_mode(state, target) {
        RebootMode::Never => Some(Waits::for_news(WaitingOn::PersonToReboot)),
        RebootMode::WhenNeeded | RebootMode::Always => None,
    };
    let order = match purpose {
        Purpose::Upkeep if lacks_leave(state, target) => Some(Waits::for_news(WaitingOn::RebootOrder)),
        Purpose::Upkeep | Purpose::Finish | Purpose::GoBack => None,
    };
    let vouched = match purpose {
        Purpose::Finish => vouched(state, target),
        // What runs is not chosen again, and what ran before is good.
        Purpose::Upkeep | Purpose::GoBack => None,
    };
    first_shut([person, hold(state, now), vouched, order, windows(target.reboot_windows(), target, now)])
}

/// Whether a control plane gives turns to restart for upkeep, and has not given this one.
pub(super) fn lacks_leave(state: &HostState, target: &Terms) -> bool {
    match source(state) {
        SourceKind::Static => false,
        SourceKind::ControlPlane => state.reboot_go.as_ref() != Some(&target.release),
    }
}

/// Whether the policy wants a host restarted into a release that is done: once, and not again if that did not help.
pub(super) fn wants_reboot(state: &HostState, done: &Done) -> bool {
    let wanted = match reboot_mode(state, &done.terms) {
        RebootMode::Never => false,
        RebootMode::WhenNeeded => !state.world.reboot_needed.is_empty(),
        RebootMode::Always => true,
    };
    wanted && done.rebooted == Rebooted::No
}

/// By whom the host is restarted, when it is to be.
pub(super) fn restart_by(state: &HostState, target: &Terms) -> RestartBy {
    match reboot_mode(state, target) {
        RebootMode::Never => RestartBy::APerson,
        RebootMode::WhenNeeded | RebootMode::Always if target.reboot_windows().is_empty() => {
            RestartBy::Itself
        }
        RebootMode::WhenNeeded | RebootMode::Always => RestartBy::AWindow,
    }
}

/// When the host restarts: as the release says, unless the host's own configuration leaves it to people.
fn reboot_mode(state: &HostState, terms: &Terms) -> RebootMode {
    match state.setup.as_ref().map_or(Reboots::Never, |setup| setup.reboots) {
        Reboots::AsReleased => terms.reboot.mode,
        Reboots::Never => RebootMode::Never,
    }
}

/// Where the host goes since the control plane wants it to go back from what is done: nowhere, unless the signed policy of
/// that release says that a halt brings all hosts back, and there is a system that a switch of ours took the place of.
pub(super) fn ordered_back<'a>(state: &HostState, done: &'a Done) -> Option<&'a StorePath> {
    let ordered = state.revert_go.as_ref() == Some(&done.terms.release);
    let signed = done.terms.on_failure == OnFailure::RevertAll;
    done.previous.as_ref().filter(|previous| ordered && signed && **previous != done.terms.system)
}

/// Whether a reboot that waits may be tried now: its pause is over, and the gate is open.
pub(super) fn may_try_reboot(
    state: &HostState,
    (target, reboot): (&Terms, &Reboot),
    purpose: Purpose,
    now: Now,
) -> Gate {
    match reboot {
        Reboot::Waiting { trouble: Some(trouble), hooks: _ } if now.up < trouble.again_up_ms => {
            let at = now.clock_at(trouble.again_up_ms);
            let on = WaitingOn::RebootAgain { why: trouble.why.clone(), at_ms: at };
            Gate::Shut(Waits::until(on, at))
        }
        Reboot::Waiting { .. } => may_reboot(state, target, purpose, now),
        Reboot::Draining { .. } => Gate::Shut(Waits::for_news(WaitingOn::Hooks)),
        Reboot::Ordered { until_up_ms, .. } => {
            Gate::Shut(Waits::until(WaitingOn::Reboot, now.clock_at(*until_up_ms)))
        }
    }
}

fn first_shut(checks: impl IntoIterator<Item = Option<Waits>>) -> Gate {
    checks.into_iter().flatten().next().map_or(Gate::Open, Gate::Shut)
}

fn hold(state: &HostState, now: Now) -> Option<Waits> {
    let hold = state.held(now.at)?;
    let on = WaitingOn::Hold { by: hold.by.clone(), why: hold.why.clone(), until_ms: hold.until_ms };
    Some(Waits { on, until: hold.until_ms })
}

/// A root that came since the release was verified may be the answer to a stolen key: the release must pass under it, too.
fn vouched(state: &HostState, target: &Terms) -> Option<Waits> {
    let root = state.vouches_not_yet(&target.release)?;
    Some(Waits::for_news(WaitingOn::VerifiedAnew { root: root.terms.version }))
}

/// Computed each time, and not kept: a clock that was in 2030 for one boot must not leave a mark (lesson 16).
fn expiry(state: &HostState, target: &Terms, now: Now) -> Option<Waits> {
    let time = state.signed_time(now.at);
    if time >= target.expires_ms {
        return Some(Waits::for_news(WaitingOn::ReleaseExpired { since_ms: target.expires_ms }));
    }
    let RootTerms { version, created_ms: _, expires_ms } = state.root.as_ref()?.terms;
    let root = WaitingOn::RootExpired { root: version, since_ms: expires_ms };
    (time >= expires_ms).then(|| Waits::for_news(root))
}

/// The host's turn: nobody hurries it past the signed time, and under a control plane that alone is not enough.
fn turn(state: &HostState, target: &Terms, now: Now) -> Option<Waits> {
    let wave = &target.wave;
    if state.signed_time(now.at) < wave.opens_at_ms {
        let on = WaitingOn::Wave { wave: wave.index, name: wave.name.clone(), opens_at_ms: wave.opens_at_ms };
        return Some(Waits::until(on, wave.opens_at_ms));
    }
    match (source(state), wave.approval) {
        (SourceKind::ControlPlane, Approval::NotNeeded | Approval::ByAPerson) => {
            ordered(state.go.as_ref(), target, WaitingOn::Order)
        }
        (SourceKind::Static, Approval::NotNeeded) => None,
        (SourceKind::Static, Approval::ByAPerson) => {
            let on = WaitingOn::Approval { name: wave.name.clone(), source: SourceKind::Static };
            Some(Waits::for_news(on))
        }
    }
}

fn ordered(order: Option<&ReleaseId>, target: &Terms, on: WaitingOn) -> Option<Waits> {
    (order != Some(&target.release)).then(|| Waits::for_news(on))
}

fn known(state: &HostState) -> Option<Waits> {
    state.world.current.is_none().then(|| Waits::for_news(WaitingOn::RunningSystemUnknown))
}

fn windows(windows: &[Window], target: &Terms, now: Now) -> Option<Waits> {
    if windows.is_empty() {
        return None;
    }
    if now.at < target.created_ms {
        let reach_ms = target.created_ms;
        return Some(Waits::until(WaitingOn::Clock { reach_ms }, reach_ms));
    }
    match opening(windows, now.at) {
        Ok(Opening::Open { .. }) => None,
        Ok(Opening::Opens { at }) => Some(Waits::until(WaitingOn::Window { opens_at_ms: at }, at)),
        Err(never) => Some(Waits::for_news(WaitingOn::WindowNeverOpens { never })),
    }
}

/// Before the first start nothing is due anyway; the stricter kind then.
fn source(state: &HostState) -> SourceKind {
    state.setup.as_ref().map_or(SourceKind::ControlPlane, |setup| setup.source)
}

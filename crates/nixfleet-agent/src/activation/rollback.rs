//! The way back: to the recorded system, by that system's own switch program, verified like the way forward.
//!
//! Taken only when something had changed; [`put_back`] undoes what was merely prepared. Nothing here panics, and no
//! line that cannot be written, no tool that fails and no network that is gone keeps it from going on.

use std::time::Duration;

use nixfleet_core::activation::end::RunEnd;
use nixfleet_core::activation::events::CommitPolicy;
use nixfleet_core::activation::outcome::{Failure, Step, Verdict};
use nixfleet_core::activation::record::{
    Began, Line, OnFailedUnits, Purpose, Reached, Run as RunKind, Unsigned,
};
use nixfleet_core::activation::units::{TroubledUnit, UnitsSeen, worse};
use nixfleet_core::activation::way_back::rollback_to;
use nixfleet_core::ids::{ActivationId, StorePath};
use nixfleet_sys::{clock, text};
use tokio::time::{Instant, sleep};

use super::backend::{Action, ActivationBackend};
use super::journal::{JournalError, history};
use super::run::Run;
use super::types::{ActivationTarget, RollbackOutcome, Weight};
use super::{pipeline, profile};
use crate::failpoint;

/// How often the previous system's switch is run before the revert counts as failed.
const REVERT_TRIES: u32 = 2;
/// How long a unit may be on its way back after the revert; most wait 100 ms to some seconds between two starts.
const BACK_WITHIN: Duration = Duration::from_secs(10);
/// How long a host may take to go down after it took the order: a unit may need 90 s to stop, some longer.
const DOWN_WITHIN: Duration = Duration::from_mins(5);
/// Between two looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Goes back to the system that ran before the newest finished activation: a trial is reverted, anything else is an
/// activation of the recorded system.
pub async fn rollback_with<B: ActivationBackend>(backend: &B) -> anyhow::Result<RollbackOutcome> {
    let id = ActivationId::new(clock::unix_ms(), std::process::id());
    let target = rollback_target(backend, id)?;
    pipeline::activate_with(backend, &target).await
}

/// Why there is nothing that a rollback could bring.
#[derive(Debug, thiserror::Error)]
pub enum NoWayBack {
    /// Nothing runs that the history could know.
    #[error("there is no running system to go back from")]
    NothingRuns,
    /// The history cannot be read.
    #[error(transparent)]
    History(#[from] JournalError),
    /// The history has nothing before what runs.
    #[error("the history knows no system that ran before {current}; give its path to `activate` instead")]
    NotKnown {
        /// What runs.
        current: StorePath,
    },
}

/// What [`rollback_with`] activates: where a way back led that failed, otherwise the system recorded before the newest
/// activation that brought what runs now.
pub fn rollback_target<B: ActivationBackend>(
    backend: &B,
    id: ActivationId,
) -> Result<ActivationTarget, NoWayBack> {
    let host = backend.host();
    let current = host.current().ok_or(NoWayBack::NothingRuns)?;
    let known = history(&host.journal())?;
    let previous = rollback_to(&known, &current).cloned().ok_or(NoWayBack::NotKnown { current })?;
    let mut target = ActivationTarget::new(id, previous);
    target.purpose = Purpose::Rollback;
    target.commit = CommitPolicy::Immediately;
    target.on_failed_units = OnFailedUnits::Keep;
    // It ran here before; whoever needs the way back must not be stopped by a key that was rotated since.
    target.unsigned = Unsigned::Accept;
    Ok(target)
}

/// Undoes what was prepared, when nothing of the target runs: the profile, and boot entries that a run may have
/// written.
///
/// Both become what they were, which need not be what runs: somebody may have written another system for the next boot.
/// A profile that names a third system by now is somebody's, and stays; where that system runs as well, so do the boot entries.
pub async fn put_back<B: ActivationBackend>(run: &mut Run<'_, B>, failure: Failure) -> Verdict {
    let Began { target, previous, previous_generation, .. } = run.began().clone();
    let before = previous_generation.as_ref().map_or(&previous, |generation| &generation.system);
    let (named, current) = (run.backend.host().profile_system(), run.backend.host().current());
    let is_ours = named.as_ref().is_none_or(|named| *named == target);
    // Whoever has switched to a third system has made it the boot default, or is about to.
    let is_theirs =
        named == current && named.is_some_and(|named| ![&target, &previous, before].contains(&&named));
    if run.activation.profile_touched() && is_ours {
        let recorded = previous_generation.as_ref();
        if let Err(why) = profile::put_back(Some(run.tools), run.backend.host(), before, recorded).await {
            return Verdict::RevertFailed { failure, revert: why };
        }
    }
    run.generation = None;
    if !is_theirs && let Err(why) = restore_boot(run, before).await {
        return Verdict::RevertFailed { failure, revert: why };
    }
    failpoint::hit("after-put-back");
    Verdict::unchanged(failure)
}

/// Goes back to the recorded system.
pub async fn revert<B: ActivationBackend>(run: &mut Run<'_, B>, failure: Failure) -> Verdict {
    run.step(Step::Revert);
    let weight = if failure == Failure::Asked { Weight::Note } else { Weight::Warning };
    run.observer.remark(weight, &format!("going back: {failure}"));
    let by_reboot = leads_over_a_reboot(run);
    let going_on = running_revert(run).await;
    failpoint::hit("before-reverting");
    if run.activation.reverting.is_none() {
        run.note_if_possible(Line::Reverting { failure: failure.clone() });
    }
    failpoint::hit("after-reverting");
    if going_on.is_none() {
        end_forward_runs(run).await;
    }
    let began = run.began().clone();
    failpoint::hit("before-revert-profile");
    let back = profile::put_back(
        Some(run.tools),
        run.backend.host(),
        &began.previous,
        began.previous_generation.as_ref(),
    );
    if let Err(why) = back.await {
        // The live system comes first; the profile is tried again at the next start.
        run.warn(format!("the profile could not be put back: {why}"));
    }
    failpoint::hit("after-revert-profile");
    run.generation = None;
    if by_reboot && let Err(why) = go_back_by_reboot(run).await {
        run.warn(format!(
            "the host could not be restarted into the previous system: {why}; switching to it live"
        ));
    }
    let back = switch_back(run, going_on).await;
    failpoint::hit("after-revert");
    // Also when the live way failed: then the next boot is what is left.
    let boot = restore_boot(run, &began.previous).await;
    if let Err(revert) = back.and(boot) {
        return Verdict::RevertFailed { failure, revert };
    }
    Verdict::Reverted { failure, left: restore_units(run).await }
}

/// Whether the target came by a reboot, because it could not be switched to live. Then the previous system cannot be
/// switched to live either: its own check may refuse that, and the target's kernel would go on running.
///
/// Not a second time: if a reboot on the way back brought the target again, live is better than round and round.
fn leads_over_a_reboot<B: ActivationBackend>(run: &Run<'_, B>) -> bool {
    let activation = &run.activation;
    let came_by_reboot = !activation.inhibitors.is_empty()
        && run.backend.host().booted().as_ref() == Some(&activation.began.target);
    let rebooted_since = activation.reverting.is_some() && activation.last_boot != *run.boot();
    came_by_reboot && !rebooted_since
}

/// Makes the previous system the boot default and restarts the host. Returns only when that did not work; otherwise the
/// next boot finds an activation on the way back, on the previous system, and ends it.
async fn go_back_by_reboot<B: ActivationBackend>(run: &mut Run<'_, B>) -> Result<(), String> {
    let previous = run.began().previous.clone();
    restore_boot(run, &previous).await.map_err(|failure| failure.to_string())?;
    run.observer.remark(Weight::Note, "the previous system is the boot default again; restarting into it");
    run.tools.reboot().await.map_err(|error| text::chain(&error))?;
    sleep(DOWN_WITHIN).await;
    Err(format!("it did not go down within {} s", DOWN_WITHIN.as_secs()))
}

/// The revert's own run, if one is going on: another process began it, and a second one would only find the lock.
async fn running_revert<B: ActivationBackend>(run: &Run<'_, B>) -> Option<String> {
    match &run.activation.reached {
        Reached::Running { unit, run: RunKind::Revert } if run.backend.is_running(unit).await => {
            Some(unit.clone())
        }
        Reached::Began
        | Reached::Realising
        | Reached::SettingProfile
        | Reached::ArmingDeadman
        | Reached::Running { .. }
        | Reached::Confirming
        | Reached::Confirmed
        | Reached::AwaitingReboot
        | Reached::Reverting
        | Reached::Finished => None,
    }
}

/// Ends every run of this activation that still goes on, with all that it started: an orphaned `activate` would flip
/// the link back after we are done (`facts/switch.md` 5).
async fn end_forward_runs<B: ActivationBackend>(run: &Run<'_, B>) {
    for fired in run.activation.runs.iter().filter(|fired| fired.end.is_none()) {
        if run.backend.is_running(&fired.unit).await {
            run.backend.end_run(&fired.unit).await;
        }
    }
}

/// `test` of the previous system, which needs no room in `/boot`; its boot entries come after it is live.
async fn switch_back<B: ActivationBackend>(
    run: &mut Run<'_, B>,
    going_on: Option<String>,
) -> Result<(), Failure> {
    let previous = run.began().previous.clone();
    let mut last = Failure::Internal { what: "the way back was not tried".to_owned() };
    let mut going_on = going_on;
    for _ in 0..REVERT_TRIES {
        let (unit, end) = match going_on.take() {
            Some(unit) => {
                let end = run.await_end(&unit, RunKind::Revert).await;
                (unit, end)
            }
            None => match run.run_to_end(RunKind::Revert, &previous, Action::Test).await {
                Ok(ended) => ended,
                Err(failure) => {
                    last = failure;
                    continue;
                }
            },
        };
        let on_previous = run.backend.host().current().as_ref() == Some(&previous);
        if on_previous && run.backend.platform().came_back(end) {
            return Ok(());
        }
        let last_lines = run.last_lines(&unit).await;
        last = Failure::SwitchFailed { step: Step::Revert, end, flipped: on_previous, last_lines };
    }
    Err(last)
}

/// Makes the system the boot default again where a run of ours may have written other entries.
async fn restore_boot<B: ActivationBackend>(run: &mut Run<'_, B>, system: &StorePath) -> Result<(), Failure> {
    if !run.activation.boot_entries_touched() {
        return Ok(());
    }
    let (unit, end) = run.run_to_end(RunKind::RevertBoot, system, Action::Boot).await?;
    match end {
        RunEnd::Exited { code: 0 } => Ok(()),
        RunEnd::Exited { .. } | RunEnd::Killed { .. } | RunEnd::TimedOut | RunEnd::Unknown => {
            Err(Failure::BootNotWritten { end, last_lines: run.last_lines(&unit).await })
        }
    }
}

/// A revert with code 0 need not bring back a unit that nothing wants: those are started by name, once. A unit that
/// is on its way is waited for a moment, so that the verdict does not call lost what comes back by itself.
async fn restore_units<B: ActivationBackend>(run: &Run<'_, B>) -> Vec<TroubledUnit> {
    let none = UnitsSeen::default();
    let before = run.activation.units_before.as_ref().unwrap_or(&none);
    let worse_off = || async {
        let now = run.backend.units().await.unwrap_or_default();
        run.backend.clear_suspects(worse(before, &now)).await
    };
    let mut left = worse_off().await;
    let lost = left.iter().filter(|unit| !unit.trouble.may_pass());
    let names: Vec<String> = lost.map(|unit| unit.unit.clone()).collect();
    if !names.is_empty() {
        run.backend.start_units(&names).await;
        left = worse_off().await;
    }
    let give_up = Instant::now() + BACK_WITHIN;
    while left.iter().any(|unit| unit.trouble.may_pass()) && Instant::now() < give_up {
        sleep(LOOK_EVERY).await;
        left = worse_off().await;
    }
    left
}

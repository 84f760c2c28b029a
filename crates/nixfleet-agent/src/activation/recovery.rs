//! Takes up what a crash, a stop, a reboot or a deadline cut off. The one place that reads the journal at start.
//!
//! Asked by the agent at every start, by [`super::deadman`], by `confirm`, and before every new activation. `resume` in
//! `nixfleet-core` decides; the steps of `pipeline` and `rollback` carry it out.

use std::sync::Arc;
use std::time::Duration;

use nixfleet_core::activation::end::RunEnd;
use nixfleet_core::activation::outcome::{BusyWith, Failure, Step, Verdict};
use nixfleet_core::activation::record::{Activation, ConfirmBy, Fired, Line, Reached, Run as RunKind};
use nixfleet_core::activation::resume::{Resume, RunSeen, World, resume, taken_over};
use nixfleet_core::activation::units::TroubledUnit;
use nixfleet_core::ids::{ActivationId, BootId};
use nixfleet_sys::clock;
use nixfleet_sys::fs::{self, Lock};
use tokio::time::{sleep, timeout};

use super::backend::ActivationBackend;
use super::confirm::ask_once;
use super::deadman::{Deadline, boot_is_over, time_left};
use super::journal::{Journal, history};
use super::pipeline::{await_confirmation, commit, conclude, set_target, settle};
use super::realise::no_space_or_internal;
use super::rollback;
use super::run::{Halt, Run, clean_up, journal_failure};
use super::types::{ActivationOutcome, Observer, Weight};
use super::unfinished::is_unfinished;
use super::verify_poll::read_end;
use crate::failpoint;
use crate::tools::Tools;
use crate::tools::nix_store::REALISE_STALL;

/// How often a held lock is tried again, and after which pause: three seconds in all. Whoever only looks has it for milliseconds, unless
/// the processor goes to others meanwhile.
const LOCK_TRIES: u32 = 60;
pub(super) const LOCK_TRY_EVERY: Duration = Duration::from_millis(50);

type Held = (Lock, Journal);

/// What it takes to work on an activation: the programs, the lock and the journal.
struct Desk<'a> {
    tools: &'a Tools,
    held: Held,
}

impl<'a> Desk<'a> {
    /// This boot.
    fn boot(&self) -> &BootId {
        self.held.1.boot()
    }

    fn take_up<B: ActivationBackend>(
        self,
        backend: &'a B,
        activation: Activation,
        observer: &Arc<dyn Observer>,
    ) -> Run<'a, B> {
        Run::take_up((backend, self.tools), self.held, activation, (observer.clone(), REALISE_STALL))
    }
}

/// Takes the lock and reads the journal.
async fn sit_down<B: ActivationBackend>(backend: &B) -> Result<(Desk<'_>, Vec<Activation>), Failure> {
    let tools = tools_of(backend)?;
    let lock = take_lock(backend).await?;
    let (journal, known) = open(backend).await?;
    Ok((Desk { tools, held: (lock, journal) }, known))
}

/// Finishes the activation that was cut off, if there is one. `None` when there is none, or when it must go on
/// waiting (for a reboot that has not happened, or for a person).
pub async fn recover<B: ActivationBackend>(
    backend: &B,
    observer: &Arc<dyn Observer>,
) -> Result<Option<ActivationOutcome>, Failure> {
    recover_by(backend, (observer, Deadline::AsWritten)).await
}

pub(super) async fn recover_by<B: ActivationBackend>(
    backend: &B,
    (observer, deadline): (&Arc<dyn Observer>, Deadline),
) -> Result<Option<ActivationOutcome>, Failure> {
    let (desk, known) = sit_down(backend).await?;
    let pending = known.iter().rfind(|activation| activation.is_pending());
    if deadline == Deadline::Passed && pending.is_some_and(|it| time_left(it, desk.boot()).is_some()) {
        // The agent wrote a time of its own down since it was asked for, before we had the lock.
        return Err(Failure::Busy { with: BusyWith::Activation });
    }
    let Desk { tools, held } = desk;
    let (_, outcome) = take_up((backend, tools), held, known, (observer, deadline)).await;
    Ok(outcome)
}

/// What became of a person's confirmation.
#[derive(Debug)]
#[must_use = "a trial that was not confirmed goes back"]
pub enum ByHand {
    /// The trial is over: kept, or taken back on the way.
    Over(Box<ActivationOutcome>),
    /// A probe does not pass. The trial goes on.
    NotYet {
        /// The trial, as it stands.
        trial: Box<ActivationOutcome>,
        /// Which probe, and its evidence.
        failure: Failure,
    },
    /// Nothing is on trial, for a person to confirm.
    NothingOnTrial,
}

/// A person's confirmation of a trial: its probes are asked once more, those that are built in among them.
pub async fn confirm_by_hand<B: ActivationBackend>(
    backend: &B,
    observer: &Arc<dyn Observer>,
) -> Result<ByHand, Failure> {
    let (desk, known) = sit_down(backend).await?;
    let on_trial = |activation: &Activation| {
        activation.is_pending()
            && activation.reached == Reached::Confirming
            && activation.began.confirm_by == ConfirmBy::Person
            && activation.last_boot == *desk.boot()
    };
    let Some(activation) = known.into_iter().rfind(on_trial) else { return Ok(ByHand::NothingOnTrial) };
    let mut run = desk.take_up(backend, activation, observer);
    // Whoever has switched to a third system is told so by `commit`; no probe says anything of the target then.
    let probed = match taken_over(&run.activation, backend.host().current().as_ref()) {
        Some(_) => Ok(Vec::new()),
        None => in_time(&mut run).await,
    };
    match probed {
        Ok(units) => {
            let verdict = commit(&mut run, units).await;
            Ok(ByHand::Over(Box::new(conclude(&mut run, verdict).await)))
        }
        Err(failure) => Ok(ByHand::NotYet { trial: Box::new(standing(&mut run)), failure }),
    }
}

/// What the probes say, if they say it before the time of the trial is over: then the deadman is on its way.
async fn in_time<B: ActivationBackend>(run: &mut Run<'_, B>) -> Result<Vec<TroubledUnit>, Failure> {
    let (left, within_secs) = (run.time_left(), run.began().confirm_within_secs);
    timeout(left, ask_once(run)).await.unwrap_or(Err(Failure::ConfirmTimeout { within_secs }))
}

/// What became of an activation that the reducer asked about.
#[derive(Debug)]
pub enum TakenUp {
    /// It is over, or on trial, or waits for its reboot.
    Stands(Box<ActivationOutcome>),
    /// The journal does not know it (any more).
    Unknown,
}

/// The activation of that name, if it is not over; otherwise what there is to tell of it.
fn unfinished(known: Vec<Activation>, id: &ActivationId) -> Result<Activation, TakenUp> {
    let activation = known.into_iter().rfind(|activation| activation.id == *id).ok_or(TakenUp::Unknown)?;
    match activation.outcome {
        Some(outcome) => Err(TakenUp::Stands(Box::new(outcome))),
        None => Ok(activation),
    }
}

/// Finishes this one activation, or tells how it ended. A trial that goes on, and one that waits for its reboot, are left
/// alone and told as what they are.
pub async fn take_up_one<B: ActivationBackend>(
    backend: &B,
    id: &ActivationId,
    observer: &Arc<dyn Observer>,
) -> Result<TakenUp, Failure> {
    let (desk, known) = sit_down(backend).await?;
    let activation = match unfinished(known, id) {
        Ok(activation) => activation,
        Err(told) => return Ok(told),
    };
    let world = look(backend, &desk.held.1, &activation).await;
    let mut run = desk.take_up(backend, activation, observer);
    let outcome = go_on(&mut run, &world, Asks::Reducer).await;
    Ok(TakenUp::Stands(Box::new(outcome.unwrap_or_else(|| standing(&mut run)))))
}

/// The outcome of an activation that is not over and has nothing to do.
fn standing<B: ActivationBackend>(run: &mut Run<'_, B>) -> ActivationOutcome {
    let verdict = match &run.activation.reached {
        Reached::AwaitingReboot => {
            Verdict::DeferredPendingReboot { inhibitors: run.activation.inhibitors.clone() }
        }
        Reached::Began
        | Reached::Realising
        | Reached::SettingProfile
        | Reached::ArmingDeadman
        | Reached::Running { .. }
        | Reached::Confirming
        | Reached::Confirmed
        | Reached::Reverting
        | Reached::Finished => Verdict::OnTrial { confirm_within_secs: run.time_left().as_secs() },
    };
    run.outcome(verdict)
}

/// The reducer's confirmation of a trial. One that was confirmed before is committed (again); of one that is over, the
/// outcome is told.
pub async fn commit_one<B: ActivationBackend>(
    backend: &B,
    id: &ActivationId,
    observer: &Arc<dyn Observer>,
) -> Result<TakenUp, Failure> {
    let (desk, known) = sit_down(backend).await?;
    let on_trial = |activation: &Activation| {
        activation.id == *id
            && activation.is_pending()
            && activation.reached == Reached::Confirming
            && activation.last_boot == *desk.boot()
    };
    let Some(activation) = known.into_iter().rfind(on_trial) else {
        drop(desk);
        return take_up_one(backend, id, observer).await;
    };
    let mut run = desk.take_up(backend, activation, observer);
    let verdict = commit(&mut run, Vec::new()).await;
    Ok(TakenUp::Stands(Box::new(conclude(&mut run, verdict).await)))
}

/// The reducer's way back from an activation that is not over. Of one that is over, the outcome is told.
pub async fn revert_one<B: ActivationBackend>(
    backend: &B,
    (id, failure): (&ActivationId, Failure),
    observer: &Arc<dyn Observer>,
) -> Result<TakenUp, Failure> {
    let (desk, known) = sit_down(backend).await?;
    let activation = match unfinished(known, id) {
        Ok(activation) => activation,
        Err(told) => return Ok(told),
    };
    Ok(TakenUp::Stands(Box::new(take_back(backend, desk, (activation, failure), observer).await)))
}

/// Goes back from an activation that is not over.
async fn take_back<'a, B: ActivationBackend>(
    backend: &'a B,
    desk: Desk<'a>,
    (activation, failure): (Activation, Failure),
    observer: &Arc<dyn Observer>,
) -> ActivationOutcome {
    let waits = activation.reached == Reached::AwaitingReboot && activation.last_boot == *desk.boot();
    let mut run = desk.take_up(backend, activation, observer);
    // Before the reboot nothing of the target runs: its boot entries are all there is to undo.
    let halt = if waits { Halt::PutBack(failure) } else { Halt::Revert(failure) };
    conclude(&mut run, Err(halt)).await
}

/// Finishes what a person's agent left behind, and sweeps. `ours` is the reducer's and left alone.
pub async fn recover_others<B: ActivationBackend>(
    backend: &B,
    ours: Option<&ActivationId>,
    observer: &Arc<dyn Observer>,
) -> Result<Option<ActivationOutcome>, Failure> {
    let known = history(&backend.host().journal()).map_err(|error| journal_failure(&error))?;
    let pending = known.iter().rfind(|activation| activation.is_pending());
    match pending {
        Some(activation) if ours == Some(&activation.id) => Ok(None),
        Some(_) => recover(backend, observer).await,
        None if is_unfinished(backend.host()) => recover(backend, observer).await,
        None => Ok(None),
    }
}

/// Before a new activation: what was cut off is finished, what waits for a reboot is given up, what is on trial
/// keeps the newcomer out.
pub async fn clear_the_way<B: ActivationBackend>(
    (backend, tools): (&B, &Tools),
    held: Held,
    known: Vec<Activation>,
    observer: &Arc<dyn Observer>,
) -> Result<Held, Failure> {
    let (held, _) = take_up((backend, tools), held, known, (observer, Deadline::AsWritten)).await;
    let held = held.ok_or(Failure::Internal { what: "the journal is in use".to_owned() })?;
    let waiting = history(&backend.host().journal()).map_err(|error| journal_failure(&error))?;
    let Some(waiting) = waiting.into_iter().rfind(Activation::is_pending) else { return Ok(held) };
    if waiting.reached != Reached::AwaitingReboot {
        return Err(Failure::Busy { with: BusyWith::Activation });
    }
    let mut run = Run::take_up((backend, tools), held, waiting, (observer.clone(), REALISE_STALL));
    let at = Step::AwaitReboot;
    let ended = conclude(&mut run, Err(Halt::PutBack(Failure::Interrupted { at }))).await;
    match ended.verdict {
        Verdict::RevertFailed { revert, .. } => Err(revert),
        Verdict::Converged
        | Verdict::LiveWithFailedUnits { .. }
        | Verdict::OnTrial { .. }
        | Verdict::DeferredPendingReboot { .. }
        | Verdict::SignatureMismatch { .. }
        | Verdict::Failed { .. }
        | Verdict::Reverted { .. } => Ok(run.release()),
    }
}

fn tools_of<B: ActivationBackend>(backend: &B) -> Result<&Tools, Failure> {
    backend.tools().map_err(|missing| Failure::Internal { what: missing.to_string() })
}

/// The lock, tried again for a moment: whoever only looks holds it for some milliseconds.
pub(super) async fn take_lock<B: ActivationBackend>(backend: &B) -> Result<Lock, Failure> {
    for _ in 0..LOCK_TRIES {
        let taken =
            Lock::try_take(&backend.host().lock).map_err(|error| no_space_or_internal(&error, "/run"))?;
        match taken {
            Some(lock) => {
                lock.name_holder();
                return Ok(lock);
            }
            None => sleep(LOCK_TRY_EVERY).await,
        }
    }
    Err(Failure::Busy { with: BusyWith::Activation })
}

async fn open<B: ActivationBackend>(backend: &B) -> Result<(Journal, Vec<Activation>), Failure> {
    let boot = boot_id(backend).await?;
    Journal::open(&backend.host().journal(), boot).map_err(|error| journal_failure(&error))
}

/// This boot, or the failure of an activation that must not begin without knowing it.
pub(super) async fn boot_id<B: ActivationBackend>(backend: &B) -> Result<BootId, Failure> {
    backend.boot_id().await.map_err(|unknown| Failure::Internal { what: unknown.to_string() })
}

/// Finishes the pending activation and sweeps what finished ones left. The lock and journal come back.
async fn take_up<B: ActivationBackend>(
    (backend, tools): (&B, &Tools),
    held: Held,
    known: Vec<Activation>,
    (observer, deadline): (&Arc<dyn Observer>, Deadline),
) -> (Option<Held>, Option<ActivationOutcome>) {
    sweep(backend, &known).await;
    let Some(activation) = known.into_iter().rfind(Activation::is_pending) else { return (Some(held), None) };
    let mut world = look(backend, &held.1, &activation).await;
    world.deadline_passed |= deadline == Deadline::Passed;
    let mut run = Run::take_up((backend, tools), held, activation, (observer.clone(), REALISE_STALL));
    let outcome = go_on(&mut run, &world, Asks::Activation).await;
    (Some(run.release()), outcome)
}

/// Roots, records and deadmen of activations that are over, or that the journal no longer knows; a way back that failed
/// keeps its system.
async fn sweep<B: ActivationBackend>(backend: &B, known: &[Activation]) {
    let kept = backend.host().kept_root(known);
    for done in known.iter().filter(|activation| !activation.is_pending()) {
        clean_up(backend, &done.id, done.runs.iter().map(|fired| fired.unit.as_str()), kept.as_deref());
    }
    let pending =
        |id: &ActivationId| known.iter().any(|activation| activation.id == *id && activation.is_pending());
    for id in backend.armed_deadmen().await.into_iter().filter(|id| !pending(id)) {
        backend.disarm_deadman(&id).await;
    }
    // An activation that was cut off before its first line has roots and no line.
    let roots = std::fs::read_dir(&backend.host().roots);
    for name in roots.into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok())
    {
        let id = name.rsplit_once('-').and_then(|(id, _)| id.parse::<ActivationId>().ok());
        let root = backend.host().roots.join(&name);
        if id.is_some_and(|id| !pending(&id)) && kept.as_ref() != Some(&root) {
            let _ = fs::remove(&root);
        }
    }
}

async fn look<B: ActivationBackend>(backend: &B, journal: &Journal, activation: &Activation) -> World {
    let same_boot = activation.last_boot == *journal.boot();
    let late = |(boot, at_ms): &(_, u64)| {
        boot == journal.boot() && clock::monotonic() >= Duration::from_millis(*at_ms)
    };
    let deadline_passed = activation.deadline.as_ref().is_some_and(late);
    if !same_boot {
        backend.await_boot().await;
    }
    let run = match activation.runs.last() {
        None => RunSeen::Absent,
        Some(fired) => look_at_run(backend, fired, same_boot).await,
    };
    World { platform: backend.platform(), same_boot, current: backend.host().current(), run, deadline_passed }
}

async fn look_at_run<B: ActivationBackend>(backend: &B, fired: &Fired, same_boot: bool) -> RunSeen {
    // Asked before the record is read: a run that is over by now has left it.
    let running = same_boot && fired.end.is_none() && backend.is_running(&fired.unit).await;
    match (fired.end, read_end(&backend.host().end_of(&fired.unit))) {
        (Some(end), _) => RunSeen::Ended(end),
        (None, Some(record)) => RunSeen::Ended(record.end),
        (None, None) if running => RunSeen::Alive,
        (None, None) if same_boot && backend.has_begun(&fired.unit) => RunSeen::Ended(RunEnd::Unknown),
        (None, None) => RunSeen::Absent,
    }
}

/// Who asks the probes of a trial that a reboot began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    /// The activation itself.
    Activation,
    /// The reducer, for an activation of its own: the release's probes and its source are with it.
    Reducer,
}

/// Carries out what `resume` decided.
async fn go_on<B: ActivationBackend>(
    run: &mut Run<'_, B>,
    world: &World,
    asks: Asks,
) -> Option<ActivationOutcome> {
    let at = run.activation.reached.step();
    let is_the_reducers = asks == Asks::Reducer && run.began().confirm_by == ConfirmBy::Person;
    let verdict = match resume(&run.activation, world) {
        Resume::StillDeferred => return None,
        Resume::Abandon => Err(Halt::PutBack(Failure::Interrupted { at })),
        Resume::Await => await_newest(run).await,
        Resume::Confirm | Resume::LandedOnTarget if is_the_reducers => await_the_reducer(run).await,
        Resume::Confirm => await_confirmation(run, Vec::new(), false).await,
        Resume::Commit => commit_again(run).await,
        Resume::LandedOnTarget => landed_on_target(run).await,
        Resume::Yield(failure) => Ok(rollback::put_back(run, failure).await),
        Resume::LandedOnPrevious(failure) => Ok(landed_on_previous(run, failure).await),
        Resume::Revert(failure) => Err(Halt::Revert(failure)),
    };
    let outcome = conclude(run, verdict).await;
    // A trial that waits for a person goes on waiting.
    if matches!(outcome.verdict, Verdict::OnTrial { .. }) { None } else { Some(outcome) }
}

/// A run of ours goes on or is over: wait for it, and go on as if nothing had happened.
async fn await_newest<B: ActivationBackend>(run: &mut Run<'_, B>) -> Result<Verdict, Halt> {
    let Some(fired) = run.activation.runs.last().cloned() else {
        return Err(Halt::PutBack(Failure::Interrupted { at: Step::Fire }));
    };
    match fired.run {
        RunKind::Switch | RunKind::Repair => settle(run, fired.unit, fired.run).await,
        RunKind::Commit => {
            run.await_end(&fired.unit, fired.run).await;
            commit_again(run).await
        }
        // The boot entries may be half written: the previous ones are written again, and nothing was switched.
        RunKind::Defer => {
            run.await_end(&fired.unit, fired.run).await;
            Err(Halt::PutBack(Failure::Interrupted { at: Step::Defer }))
        }
        RunKind::Revert | RunKind::RevertBoot => Err(Halt::Revert(Failure::Interrupted { at: Step::Revert })),
    }
}

/// Writing boot entries twice is harmless; the profile is set first, as the entries take their number from it. Whoever has
/// switched to a third system keeps both.
async fn commit_again<B: ActivationBackend>(run: &mut Run<'_, B>) -> Result<Verdict, Halt> {
    if taken_over(&run.activation, run.backend.host().current().as_ref()).is_none() {
        set_target(run).await?;
    }
    commit(run, Vec::new()).await
}

/// The reboot brought the target: the probes decide, in a time that counts from now.
async fn landed_on_target<B: ActivationBackend>(run: &mut Run<'_, B>) -> Result<Verdict, Halt> {
    run.observer.remark(Weight::Note, "the host is back on the target; asking the probes");
    run.note(Line::Confirming).map_err(Halt::Revert)?;
    await_confirmation(run, Vec::new(), true).await
}

/// On trial until the reducer has asked its probes. After a reboot that trial begins when the boot is over; its time is
/// written down, and the deadman of that boot waits for it.
async fn await_the_reducer<B: ActivationBackend>(run: &mut Run<'_, B>) -> Result<Verdict, Halt> {
    let confirm_within_secs = run.began().confirm_within_secs;
    let has_a_time = run.activation.deadline.as_ref().is_some_and(|(boot, _)| boot == run.boot());
    if !has_a_time {
        if run.activation.reached != Reached::Confirming {
            run.note(Line::Confirming).map_err(Halt::Revert)?;
        }
        run.step(Step::Confirm);
        failpoint::hit("before-confirm");
        let what = "the reboot brought the target; it is on trial when the boot is over";
        run.observer.remark(Weight::Note, what);
        let within = Duration::from_secs(confirm_within_secs);
        if !boot_is_over(run.backend, within).await {
            let (probe, evidence) = ("boot".to_owned(), "the host is still starting".to_owned());
            return Err(Halt::Revert(Failure::ProbeFailed { probe, evidence, rounds: 0 }));
        }
        run.note_deadline(clock::monotonic() + within).map_err(Halt::Revert)?;
        failpoint::hit("after-confirm");
    }
    Ok(Verdict::OnTrial { confirm_within_secs: run.time_left().as_secs() })
}

/// The host is on the previous system already: only the profile and the boot entries are put back.
async fn landed_on_previous<B: ActivationBackend>(run: &mut Run<'_, B>, failure: Failure) -> Verdict {
    match rollback::put_back(run, failure).await {
        Verdict::Failed { failure } | Verdict::SignatureMismatch { failure } => {
            Verdict::Reverted { failure, left: Vec::new() }
        }
        other @ (Verdict::Converged
        | Verdict::LiveWithFailedUnits { .. }
        | Verdict::OnTrial { .. }
        | Verdict::DeferredPendingReboot { .. }
        | Verdict::Reverted { .. }
        | Verdict::RevertFailed { .. }) => other,
    }
}

/// A person's way back from a trial or from an activation that was cut off. `None` when nothing is on trial.
pub async fn revert_trial<B: ActivationBackend>(
    backend: &B,
    observer: &Arc<dyn Observer>,
) -> Result<Option<ActivationOutcome>, Failure> {
    let (desk, known) = sit_down(backend).await?;
    let Some(activation) = known.into_iter().rfind(Activation::is_pending) else { return Ok(None) };
    Ok(Some(take_back(backend, desk, (activation, Failure::Asked), observer).await))
}

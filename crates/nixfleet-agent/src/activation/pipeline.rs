//! The way forward: check, realise, set the profile, arm the deadman, fire, verify, confirm, commit.
//!
//! Every step either returns or halts with what must be undone ([`Halt`]); nothing here decides what a state of the
//! world means. `recovery` enters the same functions in the middle.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nixfleet_core::activation::end::RunEnd;
use nixfleet_core::activation::events::CommitPolicy;
use nixfleet_core::activation::inhibit::{Inhibitor, inhibitors, parse_inhibitors};
use nixfleet_core::activation::judge::{Judgement, judge};
use nixfleet_core::activation::outcome::{BusyWith, Failure, Step, Verdict};
use nixfleet_core::activation::platform::ProfileSet;
use nixfleet_core::activation::record::{
    Activation, Began, ConfirmBy, Line, OnFailedUnits, Run as RunKind, Unsigned,
};
use nixfleet_core::activation::resume::{taken_over, what_runs};
use nixfleet_core::activation::units::{TroubledUnit, UnitsSeen};
use nixfleet_core::ids::{ActivationId, Generation, StorePath};
use nixfleet_sys::clock;
use nixfleet_sys::fs;
use tokio::sync::OnceCell;

use super::backend::{Action, ActivationBackend, DeadmanOrder, DeadmanTime, NotStarted};
use super::confirm::{confirm, reachable};
use super::host::{HostPaths, RootKind, system_text};
use super::journal::Journal;
use super::realise::{Order, Seen, realise, seen};
use super::run::{Before, Halt, Run, journal_failure};
use super::types::{ActivationOutcome, ActivationTarget};
use super::verify_poll::aftermath;
use super::{boot_space, profile, recovery, rollback};
use crate::failpoint;
use crate::tools::Tools;

/// The deadman leaves the living agent this much time to revert by itself first.
pub const DEADMAN_LATER: Duration = Duration::from_secs(3);
/// That of the next boot leaves it more: the agent's own time begins when the boot has started it.
pub const NEXT_BOOT_LATER: Duration = Duration::from_secs(20);

/// Activates the target. `Err` only for a host on which nothing could even be begun; everything else is an outcome.
pub async fn activate_with<B: ActivationBackend>(
    backend: &B,
    target: &ActivationTarget,
) -> anyhow::Result<ActivationOutcome> {
    let tools = backend.tools()?;
    // What only reads is done before anything is decided, and a refusal does not wait for it. It comes first: `begin`
    // reads and syncs files, and its programs run meanwhile.
    let ahead = Box::pin(async { Ok(look_ahead(backend, tools, target).await) });
    match tokio::try_join!(ahead, begin(backend, tools, target)) {
        Ok(((seen, before), mut begun)) => {
            begun.run.before = before.filter(|_| is_recent(&begun, &seen));
            Ok(drive(&mut begun.run, &seen).await)
        }
        Err(failure) => Ok(refused(backend, target, failure)),
    }
}

/// What is in the store already, and the host as it is. What must be fetched first takes its time; the host is looked
/// at after it.
async fn look_ahead<B: ActivationBackend>(
    backend: &B,
    tools: &Tools,
    target: &ActivationTarget,
) -> (Seen, Option<Before>) {
    if !target.system.as_path().exists() {
        return (Seen::Unknown, None);
    }
    let known = OnceCell::new();
    let settings = || known.get_or_init(async || tools.nix_settings().await.unwrap_or_default());
    let keys = async { settings().await.trusted_keys.clone() };
    let seen = async {
        match target.unsigned {
            Unsigned::Refuse => seen(tools, &target.system, keys).await,
            Unsigned::Accept => Seen::Unknown,
        }
    };
    let reachable = async { reachable(settings().await).await };
    let (seen, reachable, units) = tokio::join!(seen, reachable, backend.units());
    (seen, Some(Before { units, reachable }))
}

/// An activation whose first line is written.
struct Begun<'a, B> {
    run: Run<'a, B>,
    /// Whether another one had to be finished first.
    way_was_clear: bool,
}

/// Whether the host as it was at the beginning is still the host before the switch: nothing was finished since, and
/// no download lies ahead.
fn is_recent<B>(begun: &Begun<'_, B>, seen: &Seen) -> bool {
    begun.way_was_clear && matches!(seen, Seen::Trusted(_))
}

/// The outcome of what was not even begun.
pub fn refused<B: ActivationBackend>(
    backend: &B,
    target: &ActivationTarget,
    failure: Failure,
) -> ActivationOutcome {
    ActivationOutcome {
        id: target.id.clone(),
        target: target.system.clone(),
        previous: backend.host().current(),
        generation: None,
        verdict: Verdict::unchanged(failure),
        warnings: Vec::new(),
        reboot_needed: Vec::new(),
        steps: Vec::new(),
    }
}

/// Takes the lock, finishes what was cut off before, and writes the first line.
async fn begin<'a, B: ActivationBackend>(
    backend: &'a B,
    tools: &'a Tools,
    target: &ActivationTarget,
) -> Result<Begun<'a, B>, Failure> {
    let host = backend.host();
    let since = Instant::now();
    target.observer.step(Step::Check);
    let lock = recovery::take_lock(backend).await?;
    let boot = recovery::boot_id(backend).await?;
    let (journal, known) = Journal::open(&host.journal(), boot).map_err(|error| journal_failure(&error))?;
    if known.iter().any(|activation| activation.id == target.id) {
        return Err(Failure::Internal { what: format!("the activation {} was fired before", target.id) });
    }
    let way_was_clear = !known.iter().any(Activation::is_pending);
    let (lock, journal) =
        recovery::clear_the_way((backend, tools), (lock, journal), known, &target.observer).await?;
    if let Some(with) = backend.busy().await {
        return Err(Failure::Busy { with });
    }
    let can_fire = backend.can_fire().await;
    can_fire.map_err(|NotStarted { last_lines }| Failure::NotFired { last_lines })?;
    let began = describe(host, target)?;
    failpoint::hit("before-began");
    let mut run = Run::begin(
        (backend, tools),
        (lock, journal),
        (target.id.clone(), began),
        (target.observer.clone(), target.stall),
    )?;
    run.checked_since(since);
    failpoint::hit("after-began");
    Ok(Begun { run, way_was_clear })
}

/// Step 3 comes first: what cannot be read leaves nothing changed.
fn describe(host: &HostPaths, target: &ActivationTarget) -> Result<Began, Failure> {
    let previous = host.current().ok_or_else(|| Failure::Internal {
        what: format!("`{}` does not link to a system: this is no NixOS host", host.current_system.display()),
    })?;
    let rescue = rescue(host, &target.id)?;
    root(host, RootKind::Previous, &target.id, &previous)?;
    Ok(Began {
        target: target.system.clone(),
        previous,
        previous_generation: host.generation(),
        commit: target.commit,
        confirm_by: target.confirm_by,
        confirm_within_secs: target.confirm_within.as_secs(),
        observe_secs: target.observe.as_secs(),
        probes: target.probes.clone(),
        inhibit: target.inhibit,
        on_failed_units: target.on_failed_units,
        unsigned: target.unsigned,
        digest: target.digest.clone(),
        rescue,
        purpose: target.purpose,
    })
}

/// The agent that records ends and reverts: our own program, rooted in the store or copied beside the state.
///
/// We are the previous system's own agent, so a broken agent in the target cannot break the rescue.
fn rescue(host: &HostPaths, id: &ActivationId) -> Result<String, Failure> {
    let (own, image) = own_program();
    let program = if let Ok(path) = StorePath::containing(&own) {
        root(host, RootKind::Rescue, id, &path)?;
        own
    } else {
        let copy = host.rescue_copy(id);
        fs::copy_program(&image, &copy)
            .map_err(|error| super::realise::no_space_or_internal(&error, "/var"))?;
        copy
    };
    Ok(program.display().to_string())
}

/// Where our program lies, links resolved, and where its bytes can be read.
///
/// macOS says by which link we were called, and `/run/current-system/sw/bin` is about to lead elsewhere. On Linux the
/// bytes can be read even if the file was replaced since.
fn own_program() -> (PathBuf, PathBuf) {
    let called = std::env::current_exe().unwrap_or_default();
    let own = fs::resolve(&called).unwrap_or(called);
    let image = if cfg!(target_os = "linux") { PathBuf::from("/proc/self/exe") } else { own.clone() };
    (own, image)
}

fn root(host: &HostPaths, kind: RootKind, id: &ActivationId, path: &StorePath) -> Result<(), Failure> {
    let made = fs::make_dir(&host.roots).and_then(|()| fs::link_atomic(path.as_path(), &host.root(kind, id)));
    made.map_err(|error| super::realise::no_space_or_internal(&error, "/nix/var"))
}

/// From the first line to the verdict.
async fn drive<B: ActivationBackend>(run: &mut Run<'_, B>, seen: &Seen) -> ActivationOutcome {
    let verdict = forward(run, seen).await;
    conclude(run, verdict).await
}

/// Carries a halt out, and writes the last line unless the activation goes on without us.
pub async fn conclude<B: ActivationBackend>(
    run: &mut Run<'_, B>,
    verdict: Result<Verdict, Halt>,
) -> ActivationOutcome {
    match verdict {
        Ok(verdict @ (Verdict::OnTrial { .. } | Verdict::DeferredPendingReboot { .. })) => {
            run.outcome(verdict)
        }
        Ok(verdict) => run.finish(verdict).await,
        Err(Halt::PutBack(failure)) => {
            let verdict = rollback::put_back(run, failure).await;
            run.finish(verdict).await
        }
        Err(Halt::Revert(failure)) => {
            let verdict = rollback::revert(run, failure).await;
            run.finish(verdict).await
        }
    }
}

async fn forward<B: ActivationBackend>(run: &mut Run<'_, B>, seen: &Seen) -> Result<Verdict, Halt> {
    fetch(run, seen).await.map_err(Halt::PutBack)?;
    let found = check_system(run).map_err(Halt::PutBack)?;
    boot_space::before_switch(run.backend.host(), &run.began().target).map_err(Halt::PutBack)?;
    undisturbed(run, seen).await.map_err(Halt::PutBack)?;
    if !found.is_empty() {
        return defer(run, found).await;
    }
    let deadline = deadline(run.began());
    prepare(run, deadline).await.map_err(Halt::PutBack)?;
    run.step(Step::Fire);
    let (target, action) = (run.began().target.clone(), fire_action(run.began()));
    let unit = run.fire(RunKind::Switch, &target, action).await.map_err(Halt::PutBack)?;
    settle(run, unit, RunKind::Switch).await
}

async fn fetch<B: ActivationBackend>(run: &mut Run<'_, B>, seen: &Seen) -> Result<(), Failure> {
    run.step(Step::Realise);
    run.note(Line::Realising)?;
    let (began, host) = (run.began(), run.backend.host());
    let order = Order {
        system: &began.target,
        seen,
        host,
        root: &host.root(RootKind::Target, run.id()),
        unsynced: &host.unsynced(),
        unsigned: began.unsigned,
        digest: began.digest.as_ref(),
        stall: run.stall,
        architecture: run.backend.architecture(),
        observer: &*run.observer,
    };
    realise(run.tools, &order).await
}

/// A download takes its time: whoever has switched meanwhile, or does so now, keeps the host. What was read at the
/// beginning would be a way back over theirs. Where nothing was fetched, who is busy was asked a moment ago: asking makes the
/// kernel wait for all its processors (14 ms to read `/proc/locks`).
async fn undisturbed<B: ActivationBackend>(run: &Run<'_, B>, seen: &Seen) -> Result<(), Failure> {
    if *seen == Seen::Unknown
        && let Some(with) = run.backend.busy().await
    {
        return Err(Failure::Busy { with });
    }
    let current = run.backend.host().current();
    if current.as_ref() == Some(&run.began().previous) {
        return Ok(());
    }
    Err(unexpected(&run.began().previous, current.as_ref()))
}

/// Another system runs than the one that should.
fn unexpected(expected: &StorePath, current: Option<&StorePath>) -> Failure {
    Failure::FlippedToUnexpected { expected: expected.clone(), actual: what_runs(current) }
}

/// Refuses what is no system for this host, and returns what keeps it from being switched to live (step 7).
fn check_system<B: ActivationBackend>(run: &Run<'_, B>) -> Result<Vec<Inhibitor>, Failure> {
    let Began { target, previous, inhibit, .. } = run.began();
    is_a_system(run.backend, target)?;
    if !run.backend.platform().defers() {
        return Ok(Vec::new());
    }
    let parts = |system| run.backend.inhibiting_parts(system);
    let own = |system| parse_inhibitors(&system_text(system, "switch-inhibitors"));
    Ok(inhibitors(*inhibit, (&parts(previous), &parts(target)), (&own(previous), &own(target))))
}

/// Refuses what is no system.
pub fn is_a_system<B: ActivationBackend>(backend: &B, target: &StorePath) -> Result<(), Failure> {
    if let Some(lacks) = backend.system_files().iter().find(|file| !target.join(file).exists()) {
        return Err(Failure::NotASystem { path: target.clone(), lacks: (*lacks).to_owned() });
    }
    Ok(())
}

/// The time of this boot at which a trial is over; nothing for what is not on trial.
fn deadline(began: &Began) -> Option<Duration> {
    match began.commit {
        CommitPolicy::Immediately => None,
        CommitPolicy::AfterConfirm => {
            Some(clock::monotonic() + Duration::from_secs(began.confirm_within_secs))
        }
    }
}

/// Sets the profile, arms the deadman and looks at the host as it is, if that was not done: none waits for another.
///
/// The lines of both acts come first, so whoever finds them undoes both, done or not.
async fn prepare<B: ActivationBackend>(
    run: &mut Run<'_, B>,
    deadline: Option<Duration>,
) -> Result<(), Failure> {
    run.step(Step::SetProfile);
    run.note(Line::SettingProfile)?;
    failpoint::hit("before-set-profile");
    if let Some(deadline) = deadline {
        run.note_deadline(deadline)?;
        failpoint::hit("before-arm-deadman");
    }
    let before = run.before.take();
    let now = &*run;
    let look = async {
        match before {
            Some(before) => before,
            None => Box::pin(Before::look(now.backend, now.tools)).await,
        }
    };
    let (set, armed, before) = tokio::join!(set_profile(now), arm(now, deadline), look);
    (run.generation, run.before) = (set?, Some(before));
    armed
}

/// The generation of the target; none while the profile has to wait for the confirmation.
async fn set_profile<B: ActivationBackend>(run: &Run<'_, B>) -> Result<Option<Generation>, Failure> {
    let set = if waits_for_confirmation(run) {
        Ok(None)
    } else {
        profile::set(run.tools, run.backend.host(), &run.began().target).await.map(Some)
    };
    failpoint::hit("after-set-profile");
    set
}

/// Whether the profile goes on naming the previous system until the target is confirmed.
fn waits_for_confirmation<B: ActivationBackend>(run: &Run<'_, B>) -> bool {
    run.backend.platform().profile_set(run.began().commit) == ProfileSet::AtTheCommit
}

async fn arm<B: ActivationBackend>(run: &Run<'_, B>, deadline: Option<Duration>) -> Result<(), Failure> {
    let Some(deadline) = deadline else { return Ok(()) };
    let rescue = PathBuf::from(&run.began().rescue);
    let when = DeadmanTime::ThisBoot(deadline + DEADMAN_LATER);
    let armed = run.backend.arm_deadman(&deadman(run, &rescue, when)).await;
    failpoint::hit("after-arm-deadman");
    armed.map_err(|why| Failure::DeadmanNotArmed { last_lines: why.last_lines })
}

fn deadman<'a, B: ActivationBackend>(
    run: &'a Run<'_, B>,
    rescue: &'a Path,
    when: DeadmanTime,
) -> DeadmanOrder<'a> {
    DeadmanOrder { id: run.id(), when, rescue, state: &run.backend.host().state }
}

fn fire_action(began: &Began) -> Action {
    match began.commit {
        CommitPolicy::Immediately => Action::Switch,
        CommitPolicy::AfterConfirm => Action::Test,
    }
}

/// Waits for a switch, judges the world, and goes on from there.
pub async fn settle<B: ActivationBackend>(
    run: &mut Run<'_, B>,
    unit: String,
    kind: RunKind,
) -> Result<Verdict, Halt> {
    let (mut unit, mut kind) = (unit, kind);
    loop {
        run.step(Step::VerifyPoll);
        failpoint::hit("before-verify-poll");
        let end = run.await_end(&unit, kind).await;
        failpoint::hit("after-verify-poll");
        let began = run.began();
        let none = UnitsSeen::default();
        let before = run.activation.units_before.as_ref().unwrap_or(&none);
        let systems = (&began.target, &began.previous);
        let (seen, units) =
            aftermath(run.backend, (&unit, end), systems, before, kind == RunKind::Repair).await;
        run.just_seen = units;
        match judge(&seen) {
            Judgement::Settled { unrelated } => {
                if unrelated {
                    run.warn("the switch complained about units that it did not touch".to_owned());
                }
                return settled(run, Vec::new()).await;
            }
            Judgement::Units(units) if run.began().on_failed_units == OnFailedUnits::Keep => {
                return settled(run, units).await;
            }
            Judgement::Units(units) => {
                let last_lines = run.last_lines(&unit).await;
                return Err(Halt::Revert(Failure::UnitsFailed { units, end, last_lines }));
            }
            Judgement::Repair => {
                run.warn(format!("the switch was cut off ({end}); it is run once more"));
                run.step(Step::Repair);
                let (target, action) = (run.began().target.clone(), fire_action(run.began()));
                kind = RunKind::Repair;
                unit = run.fire(kind, &target, action).await.map_err(Halt::Revert)?;
            }
            Judgement::Defer => return defer_late(run).await,
            stop @ (Judgement::Refused
            | Judgement::Busy
            | Judgement::Revert
            | Judgement::RevertUnexpected) => {
                return Err(halt(run, &stop, &unit, end).await);
            }
        }
    }
}

async fn halt<B: ActivationBackend>(
    run: &Run<'_, B>,
    judgement: &Judgement,
    unit: &str,
    end: RunEnd,
) -> Halt {
    let last_lines = run.last_lines(unit).await;
    let current = run.backend.host().current();
    let flipped = current.as_ref() == Some(&run.began().target) && run.began().target != run.began().previous;
    let failed = Failure::SwitchFailed { step: Step::VerifyPoll, end, flipped, last_lines };
    match judgement {
        Judgement::Busy => Halt::PutBack(Failure::Busy { with: BusyWith::SwitchSaidSo }),
        Judgement::Refused => Halt::PutBack(failed),
        Judgement::RevertUnexpected => Halt::Revert(unexpected(&run.began().target, current.as_ref())),
        Judgement::Revert
        | Judgement::Settled { .. }
        | Judgement::Units(_)
        | Judgement::Defer
        | Judgement::Repair => Halt::Revert(failed),
    }
}

/// The target runs: repair the profile, confirm, commit.
async fn settled<B: ActivationBackend>(
    run: &mut Run<'_, B>,
    units: Vec<TroubledUnit>,
) -> Result<Verdict, Halt> {
    self_correct_profile(run).await;
    match run.began().commit {
        CommitPolicy::Immediately if units.is_empty() => Ok(Verdict::Converged),
        CommitPolicy::Immediately => Ok(Verdict::LiveWithFailedUnits { units }),
        CommitPolicy::AfterConfirm => {
            run.note(Line::Confirming).map_err(Halt::Revert)?;
            await_confirmation(run, units, false).await
        }
    }
}

/// Step 6: an activation script may have re-pointed the profile. Failing to repair it is not fatal.
async fn self_correct_profile<B: ActivationBackend>(run: &mut Run<'_, B>) {
    run.step(Step::SelfCorrect);
    failpoint::hit("before-self-correct");
    let waits = waits_for_confirmation(run);
    let Began { target, previous, .. } = run.began();
    let (host, wanted) = (run.backend.host(), if waits { previous } else { target }.clone());
    if host.profile_system().as_ref() != Some(&wanted) {
        match profile::set(run.tools, host, &wanted).await {
            Ok(generation) => {
                run.generation = Some(generation).filter(|_| !waits);
                run.warn("the activation script re-pointed the system profile; it was put right".to_owned());
            }
            Err(failure) => {
                run.warn(format!("the re-pointed system profile could not be put right: {failure}"));
            }
        }
    }
    failpoint::hit("after-self-correct");
}

/// Asks the probes and commits, or leaves the trial to a person and the deadman.
pub async fn await_confirmation<B: ActivationBackend>(
    run: &mut Run<'_, B>,
    units: Vec<TroubledUnit>,
    landed_by_reboot: bool,
) -> Result<Verdict, Halt> {
    match run.began().confirm_by {
        ConfirmBy::Person if !landed_by_reboot => {
            return Ok(Verdict::OnTrial { confirm_within_secs: run.time_left().as_secs() });
        }
        ConfirmBy::Person | ConfirmBy::Probes => {}
    }
    run.step(Step::Confirm);
    failpoint::hit("before-confirm");
    confirm(run, landed_by_reboot).await?;
    failpoint::hit("after-confirm");
    commit(run, units).await
}

/// Confirmed: from here on the way is forward, and a deadman that wakes now goes on here instead of reverting.
pub async fn commit<B: ActivationBackend>(
    run: &mut Run<'_, B>,
    units: Vec<TroubledUnit>,
) -> Result<Verdict, Halt> {
    if let Some(failure) = taken_over(&run.activation, run.backend.host().current().as_ref()) {
        return Ok(rollback::put_back(run, failure).await);
    }
    run.step(Step::Commit);
    failpoint::hit("before-confirmed");
    run.note(Line::Confirmed).map_err(Halt::Revert)?;
    failpoint::hit("after-confirmed");
    if waits_for_confirmation(run) {
        set_target(run).await?;
    }
    let target = run.began().target.clone();
    let (unit, end) = run.run_to_end(RunKind::Commit, &target, Action::Boot).await.map_err(Halt::Revert)?;
    failpoint::hit("after-commit");
    if end != (RunEnd::Exited { code: 0 }) {
        let last_lines = run.last_lines(&unit).await;
        return Err(Halt::Revert(Failure::BootNotWritten { end, last_lines }));
    }
    if units.is_empty() { Ok(Verdict::Converged) } else { Ok(Verdict::LiveWithFailedUnits { units }) }
}

/// Points the profile at the target, if it does not already.
pub async fn set_target<B: ActivationBackend>(run: &mut Run<'_, B>) -> Result<(), Halt> {
    let target = run.began().target.clone();
    if run.backend.host().profile_system().as_ref() != Some(&target) {
        let set = profile::set(run.tools, run.backend.host(), &target).await;
        run.generation = Some(set.map_err(Halt::Revert)?);
    }
    Ok(())
}

/// Writes boot entries instead of switching live; the next boot lands on the target.
async fn defer<B: ActivationBackend>(run: &mut Run<'_, B>, found: Vec<Inhibitor>) -> Result<Verdict, Halt> {
    prepare(run, None).await.map_err(Halt::PutBack)?;
    // Before the entries: from their first byte on a power cut may bring the target.
    arm_next_boot(run).await;
    run.step(Step::Defer);
    let target = run.began().target.clone();
    let (unit, end) = run.run_to_end(RunKind::Defer, &target, Action::Boot).await.map_err(Halt::PutBack)?;
    if end != (RunEnd::Exited { code: 0 }) {
        let last_lines = run.last_lines(&unit).await;
        return Err(Halt::PutBack(Failure::BootNotWritten { end, last_lines }));
    }
    failpoint::hit("before-await-reboot");
    run.note(Line::AwaitingReboot { inhibitors: found.clone() }).map_err(Halt::PutBack)?;
    failpoint::hit("after-await-reboot");
    Ok(Verdict::DeferredPendingReboot { inhibitors: found })
}

/// The target's agent may be broken; then only this brings the previous system back. A host that cannot have it is
/// still better off with its update: the outcome says what is missing.
async fn arm_next_boot<B: ActivationBackend>(run: &mut Run<'_, B>) {
    let rescue = PathBuf::from(&run.began().rescue);
    let after = Duration::from_secs(run.began().confirm_within_secs) + NEXT_BOOT_LATER;
    let armed = run.backend.arm_deadman(&deadman(run, &rescue, DeadmanTime::NextBoot(after))).await;
    if let Err(why) = armed {
        let why = why.last_lines.join(" ");
        run.warn(format!("should the new system's agent be broken, nothing reverts after the reboot: {why}"));
    }
}

/// The switch itself said that it cannot be done live (exit 100).
async fn defer_late<B: ActivationBackend>(run: &mut Run<'_, B>) -> Result<Verdict, Halt> {
    run.backend.disarm_deadman(run.id()).await;
    let text = |system: &StorePath| system_text(system, "init-interface-version").trim().to_owned();
    let (old, new) = (text(&run.began().previous), text(&run.began().target));
    defer(run, vec![Inhibitor { key: "init-interface-version".to_owned(), old, new }]).await
}

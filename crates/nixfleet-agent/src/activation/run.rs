//! One activation in our hands: the lock, the journal, what it knows so far, and the few acts that every step uses.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nixfleet_core::activation::end::RunEnd;
use nixfleet_core::activation::outcome::{ActivationOutcome, Failure, Step, StepTime, Verdict, Warning};
use nixfleet_core::activation::record::{Activation, Began, Line, Run as RunKind, fold};
use nixfleet_core::activation::units::UnitsSeen;
use nixfleet_core::ids::{ActivationId, BootId, Generation, StorePath};
use nixfleet_sys::fs::{self, Lock};
use nixfleet_sys::{clock, text};

use super::backend::{Action, ActivationBackend, FireOrder};
use super::confirm::reachable;
use super::host::ROOT_KINDS;
use super::journal::{Journal, JournalError};
use super::realise::no_space_or_internal;
use super::types::{Observer, Weight};
use super::verify_poll::{POLL_BUDGET, Polled, verify_poll};
use crate::tools::Tools;
use crate::tools::journal::FOR_PEOPLE;
use crate::{failpoint, reboot};
use nixfleet_sys::text::chain;

/// Lines of a run's output that go into an outcome.
const LAST_LINES: u32 = 20;

/// How a step stops an activation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Halt {
    /// Nothing of the target runs: put the profile and the boot entries back.
    PutBack(Failure),
    /// Something changed: take the way back.
    Revert(Failure),
}

/// What the verdict is compared with: the host as it was before the switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Before {
    /// All units; `None` when they could not be listed.
    pub units: Option<UnitsSeen>,
    /// The substituters that answered.
    pub reachable: Vec<String>,
}

impl Before {
    /// Looks now.
    pub async fn look<B: ActivationBackend>(backend: &B, tools: &Tools) -> Self {
        let reachable = async { reachable(&tools.nix_settings().await.unwrap_or_default()).await };
        let (units, reachable) = tokio::join!(backend.units(), reachable);
        Self { units, reachable }
    }
}

/// An activation in the hands of the one process that holds the lock.
pub struct Run<'a, B> {
    /// The platform.
    pub backend: &'a B,
    /// The programs.
    pub tools: &'a Tools,
    /// What the journal says of it, kept in step with every line.
    pub activation: Activation,
    /// Is told what happens.
    pub observer: Arc<dyn Observer>,
    /// How long a download may stand still.
    pub stall: Duration,
    /// What else a person should know.
    pub warnings: Vec<Warning>,
    /// The generation of the target, once the profile was set.
    pub generation: Option<Generation>,
    /// The host before the first fire, if a step has looked already.
    pub before: Option<Before>,
    /// The units as the verdict on the switch saw them a moment ago; the first round of probes need not list them again.
    pub just_seen: Option<UnitsSeen>,
    journal: Journal,
    lock: Lock,
    steps: Vec<StepTime>,
    running: Option<(Step, Instant)>,
}

impl<'a, B: ActivationBackend> Run<'a, B> {
    /// Writes the first line of a new activation.
    pub fn begin(
        (backend, tools): (&'a B, &'a Tools),
        (lock, mut journal): (Lock, Journal),
        (id, began): (ActivationId, Began),
        (observer, stall): (Arc<dyn Observer>, Duration),
    ) -> Result<Self, Failure> {
        let entry = journal
            .append(&id, clock::unix_ms(), Line::Began(began))
            .map_err(|error| journal_failure(&error))?;
        let activation = fold(std::slice::from_ref(&entry)).pop();
        let activation =
            activation.ok_or_else(|| Failure::Internal { what: "the journal lost its line".into() })?;
        Ok(Self::take_up((backend, tools), (lock, journal), activation, (observer, stall)))
    }

    /// Takes up an activation that the journal knows.
    pub fn take_up(
        (backend, tools): (&'a B, &'a Tools),
        (lock, journal): (Lock, Journal),
        activation: Activation,
        (observer, stall): (Arc<dyn Observer>, Duration),
    ) -> Self {
        let generation = backend.host().generation().filter(|now| now.system == activation.began.target);
        Self {
            backend,
            tools,
            activation,
            observer,
            stall,
            warnings: Vec::new(),
            generation,
            before: None,
            just_seen: None,
            journal,
            lock,
            steps: Vec::new(),
            running: None,
        }
    }

    /// The lock and the journal, for the next activation.
    pub fn release(self) -> (Lock, Journal) {
        (self.lock, self.journal)
    }

    /// Its id.
    pub fn id(&self) -> &ActivationId {
        &self.activation.id
    }

    /// This boot.
    pub fn boot(&self) -> &BootId {
        self.journal.boot()
    }

    /// What it needs.
    pub fn began(&self) -> &Began {
        &self.activation.began
    }

    /// The first step had begun before there was anything to write down.
    pub fn checked_since(&mut self, since: Instant) {
        self.running = Some((Step::Check, since));
    }

    /// A step begins: the one before is over.
    pub fn step(&mut self, step: Step) {
        self.end_step();
        self.observer.step(step);
        self.running = Some((step, Instant::now()));
    }

    fn end_step(&mut self) {
        if let Some((step, since)) = self.running.take() {
            let ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.steps.push(StepTime { step, ms });
        }
    }

    /// Writes a line before the act that it announces; a line that cannot be written stops the act.
    pub fn note(&mut self, line: Line) -> Result<(), Failure> {
        let entry = self
            .journal
            .append(&self.activation.id, clock::unix_ms(), line)
            .map_err(|error| journal_failure(&error))?;
        self.activation.fold(&entry);
        Ok(())
    }

    /// Writes down until when there is time to confirm, in the time of this boot.
    pub fn note_deadline(&mut self, deadline: Duration) -> Result<(), Failure> {
        let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        self.note(Line::ArmingDeadman { deadline_ms })
    }

    /// Writes a line of the rescue, which goes on without it (invariant 10).
    pub fn note_if_possible(&mut self, line: Line) {
        if let Err(failure) = self.note(line) {
            self.warn(format!("the journal could not be written: {failure}"));
        }
    }

    /// Keeps something for the outcome and tells it now.
    pub fn warn(&mut self, text: String) {
        self.observer.remark(Weight::Warning, &text);
        self.warnings.push(Warning(text));
    }

    /// What is left of the time to confirm; the whole of it when nothing was armed in this boot.
    pub fn time_left(&self) -> Duration {
        match &self.activation.deadline {
            Some((boot, at_ms)) if boot == self.journal.boot() => {
                Duration::from_millis(*at_ms).saturating_sub(clock::monotonic())
            }
            Some(_) | None => Duration::from_secs(self.began().confirm_within_secs),
        }
    }

    /// Starts a detached run, after its line.
    pub async fn fire(
        &mut self,
        kind: RunKind,
        system: &StorePath,
        action: Action,
    ) -> Result<String, Failure> {
        let unit = self.next_unit(kind);
        let before = self.look_before(kind).await;
        let line = Line::Firing {
            unit: unit.clone(),
            run: kind,
            units_before: before.units,
            reachable: before.reachable,
        };
        if is_way_back(kind) {
            self.note_if_possible(line);
        } else {
            self.note(line)?;
        }
        let end_file = self.backend.host().end_of(&unit);
        // A record of that name cannot be there; if it is, it is not the one of this run.
        let _ = fs::make_dir(&self.backend.host().ends()).and_then(|()| fs::remove(&end_file));
        let (before, after) = points(kind);
        failpoint::hit(before);
        let rescue = PathBuf::from(&self.began().rescue);
        let limit = self.limit(kind);
        let order = FireOrder { unit: &unit, system, action, limit, rescue: &rescue, end_file: &end_file };
        let fired = self.backend.fire(&order).await;
        failpoint::hit(after);
        fired.map_err(|why| Failure::NotFired { last_lines: why.last_lines })?;
        Ok(unit)
    }

    /// What the first fire writes down of the host before it; later ones add nothing.
    async fn look_before(&mut self, kind: RunKind) -> Before {
        let first = self.activation.units_before.is_none() && !is_way_back(kind);
        match self.before.take() {
            Some(before) if first => before,
            None if first => Before::look(self.backend, self.tools).await,
            Some(_) | None => Before { units: None, reachable: Vec::new() },
        }
    }

    /// A switch on trial ends with its deadline; everything else has the whole budget.
    fn limit(&self, kind: RunKind) -> Duration {
        match kind {
            RunKind::Switch | RunKind::Repair => {
                self.time_left().min(POLL_BUDGET).max(Duration::from_secs(1))
            }
            RunKind::Commit | RunKind::Defer | RunKind::Revert | RunKind::RevertBoot => POLL_BUDGET,
        }
    }

    /// Waits for the end of a run and writes it down.
    pub async fn await_end(&mut self, unit: &str, kind: RunKind) -> RunEnd {
        let end_file = self.backend.host().end_of(unit);
        let polled: Polled = verify_poll(self.backend, unit, &end_file, self.limit(kind)).await;
        let end = polled.end();
        self.note_if_possible(Line::Ended { unit: unit.to_owned(), end });
        end
    }

    /// Fires and waits.
    pub async fn run_to_end(
        &mut self,
        kind: RunKind,
        system: &StorePath,
        action: Action,
    ) -> Result<(String, RunEnd), Failure> {
        let unit = self.fire(kind, system, action).await?;
        let end = self.await_end(&unit, kind).await;
        Ok((unit, end))
    }

    fn next_unit(&self, kind: RunKind) -> String {
        let word = match kind {
            RunKind::Switch => "switch",
            RunKind::Repair => "repair",
            RunKind::Commit => "commit",
            RunKind::Defer => "defer",
            RunKind::Revert => "revert",
            RunKind::RevertBoot => "revert-boot",
        };
        format!("nixfleet-switch-{}-{}-{word}.service", self.id(), self.activation.runs.len() + 1)
    }

    /// Ends the activation: its last line, then everything that was kept for it goes.
    pub async fn finish(&mut self, verdict: Verdict) -> ActivationOutcome {
        self.step(Step::Disarm);
        failpoint::hit("before-disarm");
        self.backend.disarm_deadman(self.id()).await;
        failpoint::hit("after-disarm");
        let mut outcome = self.outcome(verdict);
        failpoint::hit("before-finish");
        self.note_if_possible(Line::Finished { outcome: Box::new(outcome.clone()) });
        failpoint::hit("after-finish");
        let failed = matches!(outcome.verdict, Verdict::RevertFailed { .. });
        self.clean_up(failed.then(|| self.backend.host().way_back_root(&self.activation)).as_deref());
        failpoint::hit("after-cleanup");
        self.end_step();
        outcome.steps.clone_from(&self.steps);
        outcome
    }

    /// The outcome as it stands, for one that is not over yet as well.
    pub fn outcome(&mut self, verdict: Verdict) -> ActivationOutcome {
        ActivationOutcome {
            id: self.id().clone(),
            target: self.began().target.clone(),
            previous: Some(self.began().previous.clone()),
            generation: self.generation.clone(),
            verdict,
            warnings: self.warnings.clone(),
            reboot_needed: reboot::needed(self.backend.host()),
            steps: self.steps.clone(),
        }
    }

    fn clean_up(&self, kept: Option<&Path>) {
        let units = self.activation.runs.iter().map(|fired| fired.unit.as_str());
        clean_up(self.backend, self.id(), units, kept);
    }

    /// The last lines of the newest run.
    pub async fn last_lines(&self, unit: &str) -> Vec<String> {
        self.backend.last_lines(unit, LAST_LINES, FOR_PEOPLE).await
    }
}

/// Removes the roots, records and rescue copy of an activation that is over, but for the root that is to be kept. What
/// cannot be removed now is found again at the next start.
pub fn clean_up<'u, B: ActivationBackend>(
    backend: &B,
    id: &ActivationId,
    units: impl Iterator<Item = &'u str>,
    kept: Option<&Path>,
) {
    let host = backend.host();
    for root in ROOT_KINDS.map(|kind| host.root(kind, id)) {
        if kept != Some(root.as_path()) {
            let _ = fs::remove(&root);
        }
    }
    for unit in units {
        let _ = fs::remove(&host.end_of(unit));
        backend.forget_run(unit);
    }
    let _ = fs::remove(&host.rescue_copy(id));
}

fn is_way_back(kind: RunKind) -> bool {
    match kind {
        RunKind::Revert | RunKind::RevertBoot => true,
        RunKind::Switch | RunKind::Repair | RunKind::Commit | RunKind::Defer => false,
    }
}

/// The failpoints around the start of a run.
fn points(kind: RunKind) -> (&'static str, &'static str) {
    match kind {
        RunKind::Switch | RunKind::Repair => ("before-fire", "after-fire"),
        RunKind::Commit => ("before-commit-fire", "after-commit-fire"),
        RunKind::Defer => ("before-defer-fire", "after-defer-fire"),
        RunKind::Revert => ("before-revert-fire", "after-revert-fire"),
        RunKind::RevertBoot => ("before-revert-boot", "after-revert-boot"),
    }
}

/// The failure for a journal that cannot be used.
pub fn journal_failure(error: &JournalError) -> Failure {
    match error {
        JournalError::File(file) => no_space_or_internal(file, "/var"),
        JournalError::Newer { .. } | JournalError::Damaged { .. } => {
            Failure::Internal { what: text::printable(&chain(error)) }
        }
    }
}

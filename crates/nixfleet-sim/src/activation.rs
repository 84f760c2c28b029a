//! The activation worker (`runtime/workers/jobs.rs` of the agent) and the switch itself, which goes on without the agent.
//!
//! What an activation that was cut off becomes is written from the table of `activation.md`: in the same boot it goes on
//! where the journal says, after another boot it depends on what came up.

use nixfleet_core::activation::events::CommitPolicy;
use nixfleet_core::activation::outcome::{BusyWith, Failure, Step, Verdict};
use nixfleet_core::host::effect::Back;
use nixfleet_core::host::{Event, Phase};
use nixfleet_core::ids::ActivationId;

use crate::agent::no_space;
use crate::host::Job;
use crate::machine::{Activation, Fate, Stand};
use crate::sim::{Agents, Happens, Machines, Sim, Stage};
use crate::truth::System;

impl Sim {
    /// The worker comes to the next stage of its job.
    pub(crate) fn works(&mut self, host: usize, stage: Stage) {
        let job = self.hosts[host].agent.as_ref().and_then(|agent| agent.job.as_ref());
        let Some(job) = job.map(|(job, _)| job.clone()) else { return };
        match stage {
            Stage::Begins => self.begins(host, job),
            Stage::Fires => self.fires(host, job.id()),
            Stage::Judges => self.judges(host, job.id()),
            Stage::Commits => self.commits(host, job.id()),
            Stage::Reverts => self.reverts(host, job.id()),
        }
    }

    fn begins(&mut self, host: usize, job: Job) {
        let Some(found) = self.hosts[host].machine.find(job.id()) else {
            return match job {
                Job::Activate { id, target, commit, within_ms } => {
                    self.activates(host, &id, target, (commit, within_ms));
                }
                Job::Revert { id, back: Back::Committed, to, failure: _ } => {
                    let to = self.mistaken_way_back(host, to);
                    self.activates(host, &id, to, (CommitPolicy::Immediately, 300_000));
                }
                Job::Commit(id) | Job::TakeUp(id) | Job::Revert { id, back: Back::Uncommitted, .. } => {
                    self.unknown(host, &id);
                }
            };
        };
        let (boot, now_boot) = (self.hosts[host].machine.journal[found].boot, self.hosts[host].machine.boot);
        match (&self.hosts[host].machine.journal[found].stand, job) {
            (Stand::Ended(_), _) => self.tell_end(host, found),
            (Stand::Trial, Job::Commit(_)) if boot == now_boot => {
                // A way back that a reboot brought ran before, so it needs no proof.
                if matches!(self.hosts[host].disk.state.phase, Phase::Confirming(_)) {
                    self.check_proven(host, "it commits");
                }
                self.stands(host, found, Stand::Confirmed);
                self.soon(host, (500, 5_000), Agents::Works(Stage::Commits));
            }
            (Stand::Deferred, Job::Revert { back: Back::Uncommitted, failure, .. }) if boot == now_boot => {
                self.put_back(host, found);
                self.ends(host, found, Verdict::Failed { failure });
            }
            (_, Job::Revert { back: Back::Uncommitted, failure, .. }) => self.goes_back(host, found, failure),
            (_, Job::Activate { .. } | Job::Commit(_) | Job::TakeUp(_) | Job::Revert { .. }) => {
                self.takes_up(host, found);
            }
        }
    }

    /// A new one, up to the fire.
    fn activates(
        &mut self,
        host: usize,
        id: &ActivationId,
        target: System,
        (commit, within_ms): (CommitPolicy, u64),
    ) {
        let trouble = self.story.rates.trouble;
        if self.hosts[host].machine.open().is_some() || self.goes_wrong(trouble / 2) {
            let failure = Failure::Busy { with: BusyWith::Activation };
            return self.job_ends(host, Event::LocalActivationFailed { failure, outcome: None, at_ms: 0 });
        }
        let machine = &mut self.hosts[host].machine;
        let (previous, boot) = (machine.current, machine.boot);
        machine.journal.push(Activation {
            id: id.clone(),
            target,
            previous,
            commit,
            boot,
            stand: Stand::Begun,
            within_ms,
            deadline: None,
            fires: 0,
        });
        let at = machine.journal.len() - 1;
        let is_full = machine.disk_full;
        let told = Event::LocalActivationStarted {
            id: id.clone(),
            target: self.truth.path(target).clone(),
            at_ms: 0,
        };
        self.tell(host, told.into());
        let quality = self.truth.quality(target);
        if is_full {
            return self.ends(host, at, Verdict::Failed { failure: no_space() });
        }
        if self.goes_wrong(trouble / 4) {
            let failure = Failure::Stalled { after_secs: 300 };
            return self.ends(host, at, Verdict::Failed { failure });
        }
        if self.dice.chance(quality.refused) {
            return self.ends(host, at, Verdict::Failed { failure: refused() });
        }
        if target != previous && (quality.needs_reboot || self.truth.quality(previous).needs_reboot) {
            let machine = &mut self.hosts[host].machine;
            (machine.profile, machine.boot_default) = (target, target);
            return self.waits_for_boot(host, at);
        }
        self.soon(host, (200, 4_000), Agents::Works(Stage::Fires));
    }

    fn waits_for_boot(&mut self, host: usize, at: usize) {
        self.stands(host, at, Stand::Deferred);
        self.look_soon(host);
        let verdict = Verdict::DeferredPendingReboot { inhibitors: Vec::new() };
        let outcome = self.hosts[host].machine.outcome(at, verdict, &self.truth);
        self.job_ends(host, Event::LocalActivationDeferred { outcome, at_ms: 0 });
    }

    /// The switch is started, in a unit of its own, with the deadman armed.
    fn fires(&mut self, host: usize, id: &ActivationId) {
        let Some(at) = self.hosts[host].machine.find(id) else { return };
        let (target, commit) = {
            let activation = &self.hosts[host].machine.journal[at];
            (activation.target, activation.commit)
        };
        let fate = self.draw_fate(target);
        let now = self.now;
        let machine = &mut self.hosts[host].machine;
        machine.profile = target;
        if commit == CommitPolicy::Immediately {
            machine.boot_default = target;
        }
        let boot = machine.boot;
        let activation = &mut machine.journal[at];
        activation.fires += 1;
        let deadline = now + activation.within_ms;
        activation.deadline = Some(deadline);
        self.check_fire(host, at);
        self.stands(host, at, Stand::Running { over: false, fate });
        if let Some((_, waits)) = self.hosts[host].agent.as_mut().and_then(|agent| agent.job.as_mut()) {
            *waits = true;
        }
        let span = self.dice.between(2_000, 45_000);
        self.queue.push(now + span, Happens::Machine(host, boot, Machines::UnitEnds(at)));
        if commit == CommitPolicy::AfterConfirm {
            self.queue.push(deadline, Happens::Machine(host, boot, Machines::Deadman(at)));
        }
        let told = Event::LocalActivationAdvanced { id: id.clone(), step: Step::Fire, at_ms: 0 };
        self.tell(host, told.into());
    }

    fn draw_fate(&mut self, target: System) -> Fate {
        let trouble = self.story.rates.trouble;
        if !self.dice.chance(self.truth.quality(target).units) {
            Fate::Live
        } else if self.goes_wrong(trouble) {
            Fate::StaysBroken
        } else {
            Fate::UnitsFail
        }
    }

    /// The unit of the switch is over; whoever waits for it judges.
    pub(crate) fn unit_ends(&mut self, host: usize, at: usize) {
        let target = self.hosts[host].machine.journal[at].target;
        let Stand::Running { over, fate: _ } = &mut self.hosts[host].machine.journal[at].stand else {
            return;
        };
        if std::mem::replace(over, true) {
            return;
        }
        let quality = self.truth.quality(target);
        let sick_at = if self.dice.chance(quality.probe) {
            Some(self.now)
        } else if self.dice.chance(quality.later) {
            Some(self.now + self.dice.between(30_000, 400_000))
        } else {
            None
        };
        self.hosts[host].machine.runs(target, sick_at);
        self.look_soon(host);
        let id = self.hosts[host].machine.journal[at].id.clone();
        let waits = self.hosts[host].agent.as_ref().and_then(|agent| agent.job.as_ref());
        if waits.is_some_and(|(job, waits)| *waits && *job.id() == id) {
            self.soon(host, (10, 500), Agents::Works(Stage::Judges));
        }
    }

    /// What the switch made of the host.
    fn judges(&mut self, host: usize, id: &ActivationId) {
        let Some(at) = self.hosts[host].machine.find(id) else { return };
        let activation = &self.hosts[host].machine.journal[at];
        let Stand::Running { over: true, fate } = activation.stand else { return self.takes_up(host, at) };
        match (fate, activation.commit) {
            (Fate::Live, CommitPolicy::Immediately) => self.ends(host, at, Verdict::Converged),
            (Fate::Live, CommitPolicy::AfterConfirm) => self.is_on_trial(host, at),
            (Fate::UnitsFail, _) => self.goes_back(host, at, units_failed()),
            (Fate::StaysBroken, _) => {
                let (failure, revert) = (units_failed(), units_failed());
                self.ends(host, at, Verdict::RevertFailed { failure, revert });
            }
        }
    }

    fn is_on_trial(&mut self, host: usize, at: usize) {
        self.stands(host, at, Stand::Trial);
        let left = self.hosts[host].machine.journal[at].deadline.unwrap_or(0).saturating_sub(self.now);
        let verdict = Verdict::OnTrial { confirm_within_secs: left / 1_000 };
        let outcome = self.hosts[host].machine.outcome(at, verdict, &self.truth);
        self.job_ends(host, Event::LocalActivationCompleted { outcome, at_ms: 0 });
    }

    /// The boot entries of a confirmed trial are written.
    fn commits(&mut self, host: usize, id: &ActivationId) {
        let Some(at) = self.hosts[host].machine.find(id) else { return };
        let machine = &mut self.hosts[host].machine;
        if !matches!(machine.journal[at].stand, Stand::Confirmed) {
            return self.takes_up(host, at);
        }
        let target = machine.journal[at].target;
        (machine.profile, machine.boot_default) = (target, target);
        self.ends(host, at, Verdict::Converged);
    }

    /// The way back begins: a switch of its own, which takes a while.
    fn goes_back(&mut self, host: usize, at: usize, failure: Failure) {
        self.stands(host, at, Stand::Reverting(failure));
        self.soon(host, (2_000, 20_000), Agents::Works(Stage::Reverts));
    }

    fn reverts(&mut self, host: usize, id: &ActivationId) {
        let Some(at) = self.hosts[host].machine.find(id) else { return };
        let Stand::Reverting(failure) = &self.hosts[host].machine.journal[at].stand else {
            return self.takes_up(host, at);
        };
        let failure = failure.clone();
        let trouble = self.story.rates.trouble / 8;
        if self.goes_wrong(trouble) {
            let revert = Failure::BootNotWritten {
                end: nixfleet_core::activation::end::RunEnd::Exited { code: 1 },
                last_lines: Vec::new(),
            };
            return self.ends(host, at, Verdict::RevertFailed { failure, revert });
        }
        self.put_back(host, at);
        self.ends(host, at, Verdict::Reverted { failure, left: Vec::new() });
    }

    /// The recorded system runs again, and boots.
    fn put_back(&mut self, host: usize, at: usize) {
        let previous = self.hosts[host].machine.journal[at].previous;
        let previous = self.mistaken_way_back(host, previous);
        let machine = &mut self.hosts[host].machine;
        (machine.profile, machine.boot_default) = (previous, previous);
        if machine.current != previous {
            machine.runs(previous, None);
        }
    }

    /// An earlier process left it: what is done next is decided by the journal and by what runs.
    fn takes_up(&mut self, host: usize, at: usize) {
        let machine = &self.hosts[host].machine;
        let activation = &machine.journal[at];
        let same_boot = activation.boot == machine.boot;
        let on_target = machine.current == activation.target;
        let late = activation.deadline.is_some_and(|deadline| deadline <= self.now);
        match (&activation.stand, same_boot) {
            (Stand::Ended(_), _) => self.tell_end(host, at),
            (Stand::Begun, _) => {
                self.put_back_links(host, at);
                let failure = Failure::Interrupted { at: Step::Realise };
                self.ends(host, at, Verdict::Failed { failure });
            }
            (Stand::Running { over: false, .. }, true) => {
                if let Some((_, waits)) = self.hosts[host].agent.as_mut().and_then(|agent| agent.job.as_mut())
                {
                    *waits = true;
                }
            }
            (Stand::Running { over: true, .. }, true) => {
                let id = activation.id.clone();
                self.judges(host, &id);
            }
            (Stand::Trial, true) if late => {
                let within_secs = 300;
                self.goes_back(host, at, Failure::ConfirmTimeout { within_secs });
            }
            (Stand::Trial, true) => self.is_on_trial(host, at),
            (Stand::Confirmed, true) => self.soon(host, (500, 5_000), Agents::Works(Stage::Commits)),
            (Stand::Confirmed, false) if on_target => {
                self.soon(host, (500, 5_000), Agents::Works(Stage::Commits));
            }
            (Stand::Deferred, true) => self.waits_for_boot(host, at),
            (Stand::Reverting(failure), true) => {
                let failure = failure.clone();
                self.goes_back(host, at, failure);
            }
            (Stand::Deferred | Stand::Running { .. } | Stand::Trial, false) if on_target => {
                self.landed_on_target(host, at);
            }
            (Stand::Reverting(failure), false) if on_target => {
                let failure = failure.clone();
                self.goes_back(host, at, failure);
            }
            (
                Stand::Deferred
                | Stand::Running { .. }
                | Stand::Trial
                | Stand::Confirmed
                | Stand::Reverting(_),
                false,
            ) => {
                self.put_back(host, at);
                let failure = Failure::Rebooted { at: Step::Confirm };
                self.ends(host, at, Verdict::Reverted { failure, left: Vec::new() });
            }
        }
    }

    /// A boot brought the target: it is on trial from now on.
    fn landed_on_target(&mut self, host: usize, at: usize) {
        let deadline = self.now + 300_000;
        self.hosts[host].machine.journal[at].deadline = Some(deadline);
        let boot = self.hosts[host].machine.boot;
        self.queue.push(deadline, Happens::Machine(host, boot, Machines::Deadman(at)));
        self.is_on_trial(host, at);
    }

    /// Nothing ran: only the profile may have been prepared.
    fn put_back_links(&mut self, host: usize, at: usize) {
        let machine = &mut self.hosts[host].machine;
        let previous = machine.journal[at].previous;
        if machine.current == previous {
            (machine.profile, machine.boot_default) = (previous, previous);
        }
    }

    /// The deadman of a trial that nobody confirmed.
    pub(crate) fn deadman(&mut self, host: usize, at: usize) {
        let machine = &self.hosts[host].machine;
        let activation = &machine.journal[at];
        let is_due = activation.deadline.is_some_and(|deadline| deadline <= self.now)
            && activation.boot == machine.boot
            && matches!(activation.stand, Stand::Trial | Stand::Running { over: true, .. });
        if !is_due {
            return;
        }
        self.counts.deadmen += 1;
        self.note(Some(host), || "the deadman goes back".to_owned());
        self.put_back(host, at);
        let failure = Failure::ConfirmTimeout { within_secs: 300 };
        let verdict = Verdict::Reverted { failure, left: Vec::new() };
        let outcome = self.hosts[host].machine.outcome(at, verdict, &self.truth);
        self.stands(host, at, Stand::Ended(Box::new(outcome)));
        self.look_soon(host);
    }

    // The worker's answers.

    /// Writes a line into the journal.
    fn stands(&mut self, host: usize, at: usize, stand: Stand) {
        let machine = &mut self.hosts[host].machine;
        let boot = machine.boot;
        let activation = &mut machine.journal[at];
        (activation.stand, activation.boot) = (stand, boot);
    }

    /// It is over, and the reducer is told.
    fn ends(&mut self, host: usize, at: usize, verdict: Verdict) {
        match verdict {
            Verdict::Reverted { .. } => self.counts.reverted += 1,
            Verdict::Converged => self.counts.live += 1,
            _ => {}
        }
        if matches!(verdict, Verdict::Failed { .. }) {
            self.put_back_links(host, at);
        }
        let outcome = self.hosts[host].machine.outcome(at, verdict, &self.truth);
        self.stands(host, at, Stand::Ended(Box::new(outcome)));
        self.look_soon(host);
        self.tell_end(host, at);
    }

    /// Tells how it ended.
    fn tell_end(&mut self, host: usize, at: usize) {
        let Stand::Ended(outcome) = &self.hosts[host].machine.journal[at].stand else { return };
        let (outcome, at_ms) = ((**outcome).clone(), 0);
        let event = match outcome.verdict.failure().cloned() {
            None => Event::LocalActivationCompleted { outcome, at_ms },
            Some(failure) => Event::LocalActivationFailed { failure, outcome: Some(outcome), at_ms },
        };
        self.job_ends(host, event);
    }

    /// The journal does not know it: nobody knows what was done.
    fn unknown(&mut self, host: usize, id: &ActivationId) {
        let failure = Failure::Internal { what: format!("the journal does not know {id}") };
        let target = self.truth.path(self.hosts[host].machine.current).clone();
        let outcome = nixfleet_core::activation::outcome::ActivationOutcome {
            id: id.clone(),
            target,
            previous: None,
            generation: None,
            verdict: Verdict::RevertFailed { failure: failure.clone(), revert: failure.clone() },
            warnings: Vec::new(),
            reboot_needed: Vec::new(),
            steps: Vec::new(),
        };
        self.job_ends(host, Event::LocalActivationFailed { failure, outcome: Some(outcome), at_ms: 0 });
    }

    /// The one answer of a job; then the next one.
    fn job_ends(&mut self, host: usize, event: Event) {
        if let Some(agent) = &mut self.hosts[host].agent {
            agent.job = None;
        }
        self.look_soon(host);
        self.tell(host, event.into());
        self.next_job(host);
    }

    // The machine itself.

    /// It goes down, by an order or by a power cut, and comes up again.
    pub(crate) fn goes_down(&mut self, host: usize) {
        self.note(Some(host), || "the host goes down".to_owned());
        self.counts.boots += 1;
        self.hosts[host].agent = None;
        self.hosts[host].machine.is_up = false;
        let at = self.now + self.dice.between(20_000, 120_000);
        self.queue.push(at, Happens::Boots(host));
    }

    /// It comes up, on its boot default.
    pub(crate) fn boots(&mut self, host: usize) {
        let now = self.now;
        let machine = &mut self.hosts[host].machine;
        (machine.is_up, machine.booted_at, machine.boot) = (true, now, machine.boot + 1);
        let system = machine.boot_default;
        let sick_at = machine.sick_at.filter(|_| machine.current == system).map(|_| now);
        machine.booted = system;
        machine.runs(system, sick_at);
        let quality = self.truth.quality(system);
        let first = self.hosts[host]
            .machine
            .journal
            .last()
            .is_some_and(|last| last.target == system && matches!(last.stand, Stand::Deferred));
        if first && self.dice.chance(quality.probe) {
            self.hosts[host].machine.sick_at = Some(now);
        }
        let boot = self.hosts[host].machine.boot;
        self.queue.push(now + 5_000, Happens::Starts(host, boot));
    }
}

/// The system's own check said no, before anything was changed.
fn refused() -> Failure {
    let end = nixfleet_core::activation::end::RunEnd::Exited { code: 1 };
    Failure::SwitchFailed { step: Step::VerifyPoll, end, flipped: false, last_lines: Vec::new() }
}

fn units_failed() -> Failure {
    let end = nixfleet_core::activation::end::RunEnd::Exited { code: 4 };
    Failure::UnitsFailed { units: Vec::new(), end, last_lines: Vec::new() }
}

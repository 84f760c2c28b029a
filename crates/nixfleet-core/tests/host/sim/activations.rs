//! The activation worker of a [`Sim`]: what becomes of the running system, the profile and the journal.

use super::*;

impl Sim {
    /// Whether it was cut off in the middle, by the death of the agent.
    pub(super) fn has_begun(&self, job: &Job) -> bool {
        self.journal.get(job.id()).is_some_and(|entry| matches!(entry.stand, Stand::Begun))
    }

    /// Does the job; `None` when it could not begin, was cut off, or knows of nothing. An activation is always taken up,
    /// however long its lock is held.
    pub(super) fn outcome_of(&mut self, job: &Job) -> Option<ActivationOutcome> {
        let waits_for_its_lock = match job {
            Job::TakeUp(_) => true,
            // A way back that came up on trial after a reboot.
            Job::Commit(id) => self.journal.get(id).is_some_and(|at| at.commit == CommitPolicy::Immediately),
            Job::Activate { .. } | Job::Revert { .. } => false,
        };
        if !waits_for_its_lock && self.dice.throw(8) == 7 {
            return None;
        }
        let id = job.id();
        if let Some(Stand::Ended(outcome)) = self.journal.get(id).map(|entry| &entry.stand) {
            return Some((**outcome).clone());
        }
        match job {
            Job::Activate { target, commit, .. } => self.activates(id, target, *commit),
            Job::Revert { back: Back::Committed, to, .. } => {
                self.activates(id, to, CommitPolicy::Immediately)
            }
            Job::Commit(_) => self.journal.contains_key(id).then(|| self.commits(id)),
            Job::Revert { back: Back::Uncommitted, .. } => {
                self.journal.contains_key(id).then(|| self.reverts(id))
            }
            Job::TakeUp(_) => self.journal.contains_key(id).then(|| self.takes_up(id)),
        }
    }

    fn activates(
        &mut self,
        id: &ActivationId,
        target: &StorePath,
        commit: CommitPolicy,
    ) -> Option<ActivationOutcome> {
        let (target, previous, boot) = (target.clone(), self.current.clone(), self.boot);
        let entry = Entry { target, previous, commit, boot, stand: Stand::Begun };
        self.journal.insert(id.clone(), entry);
        // The agent dies in the middle, if it is about to.
        (self.dice.throw(6) < 5).then(|| self.goes_on(id))
    }

    fn goes_on(&mut self, id: &ActivationId) -> ActivationOutcome {
        let live = match self.journal[id].commit {
            CommitPolicy::Immediately => Verdict::Converged,
            CommitPolicy::AfterConfirm => Verdict::OnTrial { confirm_within_secs: 290 },
        };
        let failure = Failure::NotFired { last_lines: vec![] };
        let verdict = match self.dice.throw(8) {
            0..=2 => live,
            3 => Verdict::DeferredPendingReboot { inhibitors: vec![] },
            4 => Verdict::Failed { failure: Failure::Interrupted { at: Step::Check } },
            5 => Verdict::Failed { failure },
            6 => Verdict::Reverted { failure, left: vec![] },
            _ => Verdict::RevertFailed { failure: failure.clone(), revert: failure },
        };
        self.settle(id, verdict)
    }

    fn commits(&mut self, id: &ActivationId) -> ActivationOutcome {
        match self.dice.throw(4) {
            0..=2 => self.settle(id, Verdict::Converged),
            _ => self.reverts(id),
        }
    }

    fn reverts(&mut self, id: &ActivationId) -> ActivationOutcome {
        let failure = Failure::Asked;
        let verdict = match self.dice.throw(4) {
            0..=2 => Verdict::Reverted { failure, left: vec![] },
            _ => Verdict::RevertFailed { failure: failure.clone(), revert: failure },
        };
        self.settle(id, verdict)
    }

    fn takes_up(&mut self, id: &ActivationId) -> ActivationOutcome {
        let entry = &self.journal[id];
        let booted = entry.boot != self.boot;
        let verdict = match entry.stand {
            Stand::Begun if !booted => return self.goes_on(id),
            Stand::Begun => Verdict::Reverted { failure: Failure::Rebooted { at: Step::Fire }, left: vec![] },
            Stand::Trial if booted => {
                Verdict::Reverted { failure: Failure::Rebooted { at: Step::Confirm }, left: vec![] }
            }
            Stand::Trial => Verdict::OnTrial { confirm_within_secs: 200 },
            Stand::Deferred if !booted => Verdict::DeferredPendingReboot { inhibitors: vec![] },
            Stand::Deferred if self.current == entry.target => Verdict::OnTrial { confirm_within_secs: 290 },
            Stand::Deferred => {
                let actual = self.current.to_string();
                let failure = Failure::BootedElsewhere { expected: entry.target.clone(), actual };
                Verdict::Failed { failure }
            }
            Stand::Ended(_) => panic!("it was told above"),
        };
        self.settle(id, verdict)
    }

    /// Makes the world what the verdict says, and writes it into the journal.
    pub(super) fn settle(&mut self, id: &ActivationId, verdict: Verdict) -> ActivationOutcome {
        let entry = &self.journal[id];
        let (target, previous) = (entry.target.clone(), entry.previous.clone());
        let before = self.current.clone();
        let outcome = ActivationOutcome {
            id: id.clone(),
            target: target.clone(),
            previous: Some(previous.clone()),
            generation: None,
            verdict,
            warnings: vec![],
            reboot_needed: vec![],
            steps: vec![],
        };
        let ended = Stand::Ended(Box::new(outcome.clone()));
        let (current, profile, stand) = match &outcome.verdict {
            Verdict::Converged | Verdict::LiveWithFailedUnits { .. } => (target.clone(), target, ended),
            Verdict::OnTrial { .. } => (target, previous, Stand::Trial),
            Verdict::DeferredPendingReboot { .. } => (previous, target, Stand::Deferred),
            Verdict::Failed { .. } | Verdict::SignatureMismatch { .. } | Verdict::Reverted { .. } => {
                (previous.clone(), previous, ended)
            }
            Verdict::RevertFailed { .. } => match self.dice.throw(2) {
                0 => (target.clone(), target, ended),
                _ => (target, previous, ended),
            },
        };
        (self.current, self.profile) = (current, profile);
        if let Some(entry) = self.journal.get_mut(id) {
            (entry.stand, entry.boot) = (stand, self.boot);
        }
        if self.current != before {
            self.passed.clear();
        }
        outcome
    }
}

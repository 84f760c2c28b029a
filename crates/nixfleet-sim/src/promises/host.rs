//! What is promised of one host.
//!
//! The core asks nearly the same of one host alone, with other throws (`nixfleet-core`, `tests/host/sim/promises.rs`). It stands
//! twice: what a host is and what its workers are about differs between the two, the core has no code that is for tests only (a
//! feature for it would be on in each build of the workspace), and nobody may depend on the core's tests. A way to wait that is new
//! does not compile in either until both say what leads out of it.

use nixfleet_core::activation::outcome::Failure;
use nixfleet_core::host::effect::{Back, RevertOrder};
use nixfleet_core::host::phase::{FailedAt, Phase};
use nixfleet_core::host::probing::{BuiltIn, ProbeRef};
use nixfleet_core::host::waiting::{StateName, WaitingOn};
use nixfleet_core::host::window::{Opening, opening};
use nixfleet_core::host::world::SourceKind;
use nixfleet_core::host::{Event, HostState, Record, Terms};
use nixfleet_core::model::names::ReleaseId;
use nixfleet_core::model::policy::{Approval, OnFailure};
use nixfleet_core::model::probe::ProbeMode;

use super::Promise;
use crate::host::Job;
use crate::machine::Stand;
use crate::sim::Sim;

/// One of so many records is taken through its form on the wire.
const READ_BACK: u64 = 64;

impl Sim {
    /// After a save.
    pub(crate) fn check_turn(&mut self, host: usize, before: &HostState, records: &[Record]) {
        self.check_numbers(host, before, records);
        let (was, is) = (before.phase.name(), self.hosts[host].disk.state.phase.name());
        if was != is {
            self.note_move(host, (was, is), records);
            match is {
                StateName::Converged => self.check_converged(host),
                StateName::Reverted => self.check_reverted(host),
                _ => {}
            }
        }
        for record in records {
            match &record.fact {
                Event::WentAhead { release, .. } | Event::TargetAdopted { release } => {
                    self.check_turn_of(host, &release.clone());
                }
                Event::RevertBegan { failure: Failure::Asked, .. } => self.check_way_back(host, before),
                Event::OrderWithdrawn { release } => self.forgets(host, &release.clone()),
                _ => {}
            }
            if self.dice.below(READ_BACK) == 0 {
                let read = Record::from_json(record.to_json().as_bytes());
                self.must(
                    read.as_ref().is_ok_and(|read| read == record),
                    Promise::ReadsBack,
                    Some(host),
                    || format!("{record:?} reads back as {read:?}"),
                );
            }
        }
    }

    fn note_move(&mut self, host: usize, (was, is): (StateName, StateName), records: &[Record]) {
        if self.trace.is_on() {
            let names: Vec<&str> = records.iter().map(|record| record.fact.name()).collect();
            let why = self.hosts[host].disk.state.phase.failure().map(|why| format!(" ({why})"));
            let line = format!("{was} -> {is} by {}{}", names.join(", "), why.unwrap_or_default());
            self.note(Some(host), || line);
        }
    }

    fn check_numbers(&mut self, host: usize, before: &HostState, records: &[Record]) {
        let it = &mut self.hosts[host];
        let state = &it.disk.state;
        let counts = state.seq == before.seq + records.len() as u64
            && records.iter().zip(before.seq + 1..).all(|(record, number)| record.seq == number)
            && state.seq >= it.seen.saved;
        let (seq, saved) = (state.seq, it.seen.saved);
        it.seen.saved = saved.max(seq);
        let newest = state.newest.as_ref().map(|newest| newest.release.seq);
        let floor = it.seen.floor;
        it.seen.floor = floor.max(newest);
        let bounded = it.disk.outbox.len() <= self.story.outbox_max
            || it.disk.outbox.verdicts_unsent() * 2 >= self.story.outbox_max;
        let kept = it.disk.outbox.len();
        self.must(counts, Promise::NumbersCount, Some(host), || {
            format!(
                "number {seq} with {} records after {}; {saved} was saved before",
                records.len(),
                before.seq
            )
        });
        self.must(newest >= floor, Promise::NeverOlder, Some(host), || {
            format!("release {newest:?} is the newest, after {floor:?}")
        });
        self.must(bounded, Promise::Bounded, Some(host), || format!("the outbox has {kept} records"));
    }

    fn check_converged(&mut self, host: usize) {
        let it = &self.hosts[host];
        if it.machine.is_by_hand {
            return;
        }
        let Some(done) = &it.disk.state.settled else { return };
        let system = self.truth.system(&done.terms.system);
        let machine = &it.machine;
        let runs = system == Some(machine.current)
            && machine.boot_default == machine.current
            && machine.profile == machine.current;
        let what = format!(
            "{} is done, and {} runs, {} boots",
            done.terms.release,
            self.truth.path(machine.current),
            self.truth.path(machine.boot_default)
        );
        self.must(runs, Promise::ConvergedRuns, Some(host), || what);
        self.check_proven(host, "it has converged");
    }

    fn check_reverted(&mut self, host: usize) {
        let Phase::Reverted(reverted) = &self.hosts[host].disk.state.phase else { return };
        let current = self.hosts[host].machine.current;
        if self.hosts[host].machine.is_by_hand {
            return;
        }
        let same = self.truth.system(&reverted.to) == Some(current);
        let what = format!("{} was recorded, and {} runs", reverted.to, self.truth.path(current));
        self.must(same, Promise::RevertedToRecorded, Some(host), || what);
    }

    /// Every probe that decides was seen to pass since the running system was last changed.
    pub(crate) fn check_proven(&mut self, host: usize, when: &str) {
        let it = &self.hosts[host];
        let Some(terms) =
            it.disk.state.phase.target().or(it.disk.state.settled.as_ref().map(|done| &*done.terms))
        else {
            return;
        };
        let missing = unproven(terms, &it.machine.passed);
        self.must(missing.is_none(), Promise::Proven, Some(host), || {
            format!("{when}, and {} has not passed since the system runs", missing.unwrap_or_default())
        });
    }

    /// It was called back and has noted that: it must not go before it is told anew (L26).
    pub(crate) fn forgets(&mut self, host: usize, release: &ReleaseId) {
        let seen = &mut self.hosts[host].seen;
        if seen.let_go.get(release).is_some_and(|number| *number < seen.called_back) {
            seen.let_go.remove(release);
        }
    }

    /// It went ahead: by its own clock it was its turn.
    fn check_turn_of(&mut self, host: usize, release: &ReleaseId) {
        let it = &self.hosts[host];
        let clock = it.machine.now(self.now).at;
        let state = &it.disk.state;
        let followed = state.phase.target().filter(|terms| terms.release == *release);
        // What was signed counts, and not what the host made of it.
        let Some(terms) = self.truth.terms(it.channel, host, release).or(followed) else { return };
        let time = state.newest.as_ref().map_or(clock, |newest| clock.max(newest.created_ms));
        let in_window =
            terms.windows.is_empty() || matches!(opening(&terms.windows, clock), Ok(Opening::Open { .. }));
        let told = match it.setup.source {
            SourceKind::Static => terms.wave.approval == Approval::NotNeeded,
            SourceKind::ControlPlane => {
                state.go.as_ref() == Some(release)
                    && (it.seen.let_go.contains_key(release) || it.seen.was_misled || self.plane.was_tampered)
            }
        };
        self.counts.static_turns += u64::from(it.setup.source == SourceKind::Static);
        let good = time >= terms.wave.opens_at_ms && time < terms.expires_ms && in_window && told;
        let what = format!("{release} at {clock}: window {in_window}, told {told}, {:?}", terms.wave);
        self.must(good, Promise::NotBeforeItsTurn, Some(host), || what);
    }

    /// It begins to go back from what was done, since it was asked to: only by a policy that says so, and by an order.
    fn check_way_back(&mut self, host: usize, before: &HostState) {
        self.counts.went_back += 1;
        let it = &self.hosts[host];
        // Also once more, after a way back that failed.
        let settled = before.settled.as_ref().map(|done| &*done.terms);
        let Some(release) = before.phase.target().or(settled).map(|terms| terms.release.clone()) else {
            return;
        };
        let signed = self.story.channels[it.channel].policy.on_failure;
        let told = it.seen.told_back.contains(&release) || it.seen.was_misled || self.plane.was_tampered;
        let good = signed == OnFailure::RevertAll && told;
        self.must(good, Promise::BackOnlyIfSigned, Some(host), || {
            format!("it goes back from {release}: the policy says {signed:?}, told {told}")
        });
    }

    /// Something is asked of the activation worker.
    pub(crate) fn check_job(&mut self, host: usize, job: &Job) {
        let Some(agent) = &self.hosts[host].agent else { return };
        let other = agent
            .jobs
            .iter()
            .chain(agent.job.iter().map(|(job, _)| job))
            .find(|other| other.id() != job.id() && !self.is_over(host, other));
        let open = self.hosts[host].machine.open().filter(|open| open.id != *job.id());
        let what = match (other, open) {
            (Some(other), _) => Some(format!("{job:?} while {other:?} is worked on")),
            (None, Some(open)) => Some(format!("{job:?} while {} is open", open.id)),
            (None, None) => None,
        };
        self.must(what.is_none(), Promise::OneSwitch, Some(host), || what.unwrap_or_default());
    }

    /// Whether the journal says that the activation of a job has ended: the job can only tell how.
    fn is_over(&self, host: usize, job: &Job) -> bool {
        let machine = &self.hosts[host].machine;
        machine.find(job.id()).is_some_and(|at| !machine.journal[at].is_open())
    }

    /// The switch of an activation is started.
    pub(crate) fn check_fire(&mut self, host: usize, at: usize) {
        let it = &self.hosts[host];
        let activation = &it.machine.journal[at];
        let open = it.machine.journal.iter().filter(|other| other.is_open()).count();
        let running = it
            .machine
            .journal
            .iter()
            .filter(|other| matches!(other.stand, Stand::Running { over: false, .. }));
        let once = activation.fires == 1 && open == 1 && running.count() == 0;
        let known = it.seen.allowed.contains(&activation.target);
        let (id, target) = (activation.id.clone(), self.truth.path(activation.target).clone());
        self.must(once, Promise::OneSwitch, Some(host), || format!("{id} fires again, or {open} are open"));
        self.must(known, Promise::OnlyVerified, Some(host), || {
            format!("{target} was in no verified release")
        });
    }

    /// The machine goes back: something must have changed.
    pub(crate) fn check_revert(&mut self, host: usize, order: &RevertOrder) {
        let machine = &self.hosts[host].machine;
        if machine.is_by_hand {
            return;
        }
        let changed = match (order.back, machine.find(&order.id)) {
            // The target may run, or is what boots.
            (Back::Uncommitted, Some(at)) => !matches!(machine.journal[at].stand, Stand::Begun),
            (Back::Uncommitted, None) => false,
            (Back::Committed, _) => {
                // After a way back that failed and a boot, what runs may be right and what is prepared not.
                let links = [machine.current, machine.profile, machine.boot_default];
                links.iter().any(|link| self.truth.system(&order.to) != Some(*link))
                    || machine.find(&order.id).is_some_and(|at| machine.journal[at].is_open())
            }
        };
        self.must(changed, Promise::NothingToRevert, Some(host), || {
            format!("{} goes back to {} ({}), and nothing had changed", order.id, order.to, order.failure)
        });
    }

    /// After a turn: it is not woken at once for ever, and something leads out of where it is.
    pub(crate) fn check_rest(&mut self, host: usize) {
        if self.broken.is_some() || self.hosts[host].agent.is_none() {
            return;
        }
        let waiting = self.hosts[host].disk.state.describe(self.hosts[host].machine.now(self.now)).waiting;
        let leads_out = self.leads_out(host, &waiting);
        let state = self.hosts[host].disk.state.phase.name();
        self.must(leads_out, Promise::WayOut, Some(host), || format!("{state} waits for {waiting} in vain"));
    }

    fn leads_out(&self, host: usize, waiting: &WaitingOn) -> bool {
        let it = &self.hosts[host];
        let Some(agent) = &it.agent else { return true };
        // What is still to be taken in may be what it waits for.
        if !agent.inbox.is_empty() {
            return true;
        }
        let state = &it.disk.state;
        let woken = agent.wants_at.is_some();
        let working = state.activation_in_flight().is_some_and(|id| {
            agent.jobs.iter().chain(agent.job.iter().map(|(job, _)| job)).any(|job| job.id() == id)
        });
        match waiting {
            WaitingOn::AgentStart
            | WaitingOn::NewerRelease
            | WaitingOn::Hold { .. }
            | WaitingOn::ReleaseExpired { .. }
            | WaitingOn::RootExpired { .. }
            | WaitingOn::VerifiedAnew { .. }
            | WaitingOn::Approval { .. }
            | WaitingOn::Order
            | WaitingOn::RebootOrder
            | WaitingOn::WindowNeverOpens { .. }
            | WaitingOn::RunningSystemUnknown
            | WaitingOn::PersonToReboot => true,
            WaitingOn::NewerReleaseOrRetry => match &state.phase {
                Phase::Failed(failed) => {
                    !matches!(failed.at, FailedAt::Revert { back: Back::Uncommitted, .. })
                }
                _ => true,
            },
            WaitingOn::Fetch { .. } => agent.staging.is_some(),
            WaitingOn::Wave { .. }
            | WaitingOn::Clock { .. }
            | WaitingOn::Window { .. }
            | WaitingOn::Soak { .. }
            | WaitingOn::RebootAgain { .. }
            | WaitingOn::Retry { .. }
            | WaitingOn::Reboot => woken,
            WaitingOn::Activation { .. } | WaitingOn::WayBack { .. } => working,
            WaitingOn::Commit => working || woken,
            WaitingOn::Proof { .. } => woken || agent.probing.is_some(),
            WaitingOn::Hooks => !agent.hooks.is_empty(),
        }
    }

    /// The control plane said that it has everything below `next`.
    pub(crate) fn check_acknowledged(&mut self, host: usize, next: u64) {
        let told = self.plane.rows[host].follower.told();
        let excused = self.plane.was_tampered;
        self.must(excused || next <= told + 1, Promise::AcknowledgedIsKept, Some(host), || {
            format!("everything below {next} was acknowledged, and {told} is the newest that is kept")
        });
    }

    /// What was folded from reports is the host's own state at that number.
    pub(crate) fn check_followed(&mut self, host: usize) {
        let (followed, own) = (self.plane.rows[host].follower.state(), &self.hosts[host].disk.state);
        let same = followed.seq != own.seq || followed == own;
        if !same {
            let what =
                format!("at number {} it is {:?}, and {:?} was folded", own.seq, own.phase, followed.phase);
            self.must(false, Promise::FollowedIsTrue, Some(host), || what);
        }
    }
}

/// The first probe that decides and has not passed.
fn unproven(terms: &Terms, passed: &[ProbeRef]) -> Option<String> {
    let enforced = terms.probes.iter().filter(|probe| probe.mode == ProbeMode::Enforce);
    let mut wanted: Vec<ProbeRef> = enforced.map(|probe| ProbeRef::Declared(probe.name.clone())).collect();
    if wanted.is_empty() {
        wanted.push(ProbeRef::BuiltIn(BuiltIn::Units));
    }
    wanted.into_iter().find(|probe| !passed.contains(probe)).map(|probe| probe.to_string())
}

//! Mistakes of the field (`lessons.md`), put back one at a time to see that a run finds them. They are made here, around the
//! product's code and never in it: what goes into it or comes out of it is altered.

use std::sync::Arc;

use nixfleet_core::host::Event;
use nixfleet_core::host::Terms;
use nixfleet_core::host::probing::{ProbeReport, ProbeResult, WatchId};
use nixfleet_core::host::waiting::StateName;
use nixfleet_core::model::policy::OnFailure;
use nixfleet_core::model::time::UnixMs;
use nixfleet_core::rollout::{Order, Plan, Snapshot, Standing, Status, What};
use nixfleet_core::wire::{EventsTaken, Then};

use crate::sim::Sim;
use crate::truth::{Signed, System};
use crate::wire::{Answer, Ask, Request};

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mistake {
    /// L9: what probes found before the activation counts.
    ProbesFromBefore,
    /// L9, I9: a probe that could not be run has passed.
    UnrunCountsAsPassed,
    /// L24: reports are acknowledged before they are in the database.
    AcknowledgedFirst,
    /// L24: a report that arrives twice is folded twice.
    RepeatsFolded,
    /// L25: an order is forgotten when it is sent, not when the host has it.
    OrderForgotten,
    /// L8, L17: a state file that cannot be read is a fresh host.
    StateLost,
    /// L3: the way back is one generation down, whatever that is.
    GenerationBelow,
    /// L6: a host that waits for its reboot counts as done.
    DeferredCountsAsDone,
    /// L27: hosts that were ordered and are silent count in no budget.
    SilentNotCounted,
    /// L26: the planner reads whether a rollout halted where nobody writes it.
    HaltForgotten,
    /// L26: a halt does not call back who has the order and has not begun.
    NobodyCalledBack,
    /// L26: a host that is called back goes all the same.
    CallBackIgnored,
    /// I5, L8: something is done before the state that says so is saved.
    EffectsBeforeSave,
    /// L16: a time that only a clock said is remembered.
    ClockRemembered,
    /// I1, I2: the control plane's word is enough for what to run.
    UnsignedTaken,
    /// I1: without a control plane the signed time of a wave is not waited for.
    WaveTimeIgnored,
    /// L16, L34: a release that has expired is begun.
    ExpiredTaken,
    /// I1: the control plane's word is enough for going back.
    BackByWordAlone,
    /// L26: a halt of a rollout that takes all back leaves those who are done where they are.
    NobodyGoesBack,
    /// L38: a leader that stood still writes what it had planned, whoever leads by now.
    LateLeaderWrites,
    /// L25: each replica numbers its orders by itself, so some are below what the host has seen.
    NumbersOfEachReplica,
    /// L27: a host that has fetched still counts as one that fetches.
    FetchedStillCounts,
    /// L27, I9: whoever falls silent while it is watched is excused.
    SilenceExcusesTheWatched,
}

impl Mistake {
    /// All of them.
    pub const ALL: [Self; 23] = [
        Self::ProbesFromBefore,
        Self::UnrunCountsAsPassed,
        Self::AcknowledgedFirst,
        Self::RepeatsFolded,
        Self::OrderForgotten,
        Self::StateLost,
        Self::GenerationBelow,
        Self::DeferredCountsAsDone,
        Self::SilentNotCounted,
        Self::HaltForgotten,
        Self::NobodyCalledBack,
        Self::CallBackIgnored,
        Self::EffectsBeforeSave,
        Self::ClockRemembered,
        Self::UnsignedTaken,
        Self::WaveTimeIgnored,
        Self::ExpiredTaken,
        Self::BackByWordAlone,
        Self::NobodyGoesBack,
        Self::LateLeaderWrites,
        Self::NumbersOfEachReplica,
        Self::FetchedStillCounts,
        Self::SilenceExcusesTheWatched,
    ];
}

impl Sim {
    /// Results that no run after the activation gave.
    pub(crate) fn mistaken_probes(&mut self, host: usize, watch: WatchId) {
        let is_new = self.hosts[host].machine.passed.is_empty();
        let passes = self.makes(Mistake::ProbesFromBefore)
            || (self.makes(Mistake::UnrunCountsAsPassed) && self.dice.chance(20));
        if !is_new || !passes {
            return;
        }
        let probing = self.hosts[host].agent.as_ref().and_then(|agent| agent.probing.as_ref());
        let probes = probing.map(|probing| probing.probes.clone()).unwrap_or_default();
        for probe in probes {
            let (result, evidence) = (ProbeResult::Passed, String::new());
            let report = ProbeReport { watch, probe, run: 1, result, evidence };
            if let Some(agent) = &mut self.hosts[host].agent {
                agent.inbox.push_back(Event::ProbeReported(report).into());
            }
        }
        self.later(host, 1, crate::sim::Agents::Writes);
    }

    /// The system to which a way back really goes.
    pub(crate) fn mistaken_way_back(&self, host: usize, to: System) -> System {
        if !self.makes(Mistake::GenerationBelow) {
            return to;
        }
        // Generations are numbered by when they were made, and a way back makes one too.
        let journal = &self.hosts[host].machine.journal;
        journal.iter().rev().nth(1).map_or(to, |before| before.target)
    }

    /// What the planner is told of a host.
    pub(crate) fn mistaken_standing(&self, mut standing: Standing) -> Standing {
        if self.makes(Mistake::DeferredCountsAsDone) && standing.state == StateName::AwaitingReboot {
            standing.state = StateName::Converged;
        }
        standing
    }

    /// What the planner plans from, if it is not what is known.
    pub(crate) fn mistaken_snapshot(&self, now: UnixMs) -> Option<Snapshot> {
        let mistake = self.settings.mistake?;
        let mut snapshot = self.plane.snapshot.clone();
        match mistake {
            Mistake::SilentNotCounted => {
                let hosts = snapshot.channels.values_mut().flat_map(|channel| channel.hosts.rows_mut());
                hosts.for_each(|host| host.ordered = None);
            }
            Mistake::HaltForgotten => {
                let rollouts = snapshot.channels.values_mut().filter_map(|channel| channel.rollout.as_mut());
                for rollout in rollouts.filter(|rollout| matches!(rollout.status, Status::Halted { .. })) {
                    rollout.status = Status::Going;
                    rollout.failures.clear();
                }
            }
            Mistake::FetchedStillCounts => {
                let hosts = snapshot.channels.values_mut().flat_map(|channel| channel.hosts.rows_mut());
                let standings = hosts.filter_map(|host| host.standing.as_mut());
                for standing in standings.filter(|at| at.state == StateName::Staged) {
                    standing.state = StateName::Staging;
                }
            }
            Mistake::SilenceExcusesTheWatched => excuse_the_watched(&mut snapshot, now),
            Mistake::NobodyGoesBack => {
                for channel in snapshot.channels.values_mut() {
                    let policy = &mut channel.current.policy;
                    if policy.on_failure == OnFailure::RevertAll {
                        policy.on_failure = OnFailure::Revert;
                    }
                }
            }
            Mistake::ProbesFromBefore
            | Mistake::UnrunCountsAsPassed
            | Mistake::AcknowledgedFirst
            | Mistake::RepeatsFolded
            | Mistake::OrderForgotten
            | Mistake::StateLost
            | Mistake::GenerationBelow
            | Mistake::DeferredCountsAsDone
            | Mistake::NobodyCalledBack
            | Mistake::CallBackIgnored
            | Mistake::EffectsBeforeSave
            | Mistake::ClockRemembered
            | Mistake::UnsignedTaken
            | Mistake::WaveTimeIgnored
            | Mistake::ExpiredTaken
            | Mistake::BackByWordAlone
            | Mistake::LateLeaderWrites
            | Mistake::NumbersOfEachReplica => return None,
        }
        Some(snapshot)
    }

    /// What a host makes of what a release says to it, if no follower has to make the same of it.
    pub(crate) fn mistaken_terms(&self, host: usize, mut terms: Arc<Terms>) -> Arc<Terms> {
        match self.settings.mistake.filter(|_| self.is_static(host)) {
            Some(Mistake::WaveTimeIgnored) => {
                let made = terms.created_ms;
                Arc::make_mut(&mut terms).wave.opens_at_ms = made;
            }
            Some(Mistake::ExpiredTaken) => Arc::make_mut(&mut terms).expires_ms = UnixMs::MAX,
            Some(_) | None => {}
        }
        terms
    }

    /// What agents of today make of a release, all of them and whoever follows them.
    pub(crate) fn mistaken_signed(&self, signed: &mut Signed) {
        if self.makes(Mistake::BackByWordAlone) {
            for terms in signed.terms.iter_mut().flatten() {
                Arc::make_mut(terms).on_failure = OnFailure::RevertAll;
            }
        }
    }

    /// The number of the next order.
    pub(crate) fn mistaken_number(&self, number: u64) -> u64 {
        if self.makes(Mistake::NumbersOfEachReplica) {
            // Some replicas were there from the beginning.
            number / (1 + self.plane.acting as u64 * 3)
        } else {
            number
        }
    }

    /// What becomes of a plan before it is carried out.
    pub(crate) fn mistaken_plan(&self, made: &mut Plan) {
        if self.makes(Mistake::NobodyCalledBack) {
            let known = |order: &Order| {
                let host = self.plane.snapshot.host(&order.host);
                let standing = host.and_then(|(_, host)| host.standing.as_ref());
                standing.is_some_and(|standing| standing.may_begin(&order.release))
            };
            made.orders.retain(|order| order.what != What::Withdraw || !known(order));
        }
    }

    /// The answer is sent, and the process dies before it has written.
    pub(crate) fn acknowledges_first(&mut self, request: &Request) {
        if let Ask::Events(records) = &request.what {
            let next = records.last().map_or(1, |last| last.seq + 1);
            self.answer(request, Answer::Taken(EventsTaken { next, then: Then::GoOn }));
        }
        self.kill_replica();
    }
}

/// Whoever is watched and away has not begun.
fn excuse_the_watched(snapshot: &mut Snapshot, now: UnixMs) {
    let listens = snapshot.listening_since_ms;
    for channel in snapshot.channels.values_mut() {
        let patience = channel.current.policy.offline_after_secs;
        for host in channel.hosts.rows_mut() {
            let heard = host.heard_ms.unwrap_or(now).max(listens);
            let standing = host.standing.as_mut().filter(|at| at.state == StateName::Soaking);
            if let Some(at) = standing.filter(|_| now >= heard.plus(patience)) {
                (at.state, at.go) = (StateName::Staged, None);
            }
        }
    }
}

//! What is promised of the fleet: of plans, of budgets, of rollouts.

use std::collections::BTreeSet;

use nixfleet_core::activation::outcome::Failure;
use nixfleet_core::host::HostState;
use nixfleet_core::host::phase::{Phase, StateName};
use nixfleet_core::model::names::HostName;
use nixfleet_core::model::policy::Scope;
use nixfleet_core::model::time::UnixMs;
use nixfleet_core::rollout::snapshot::Channel;
use nixfleet_core::rollout::{Decision, Host, Order, Plan, PlanReport, Standing, Transition, What, plan};

use super::Promise;
use crate::plane::place_of;
use crate::sim::Sim;

/// One of so many plans is made again after it was carried out.
const AGAIN: u64 = 16;

impl Sim {
    /// Every host has an order or a reason.
    pub(crate) fn check_answers(&mut self, made: &Plan, report: &PlanReport) {
        let ordered: BTreeSet<&HostName> = made.orders.iter().map(|order| &order.host).collect();
        let homes = &self.plane.snapshot.homes;
        let both = ordered.iter().find(|host| report.held.get(host).is_some());
        let held = report.held.iter().count();
        let counted = ordered.len() + held == homes.len();
        let what = match both {
            Some(host) => format!("{host} has an order and a reason"),
            None => format!("{} orders and {} reasons for {} hosts", ordered.len(), held, homes.len()),
        };
        self.must(both.is_none() && counted, Promise::EveryHostAnswered, None, || what);
    }

    /// An order that the planner counts on is with the host by its reports, or is found when it asks.
    pub(crate) fn check_order_stays(&mut self, host: usize) {
        let lost = self.lost_order(host).map(|ordered| {
            let state = self.plane.rows[host].follower.state();
            let known = (state.seq, state.phase.name(), &state.go, &state.reboot_go, &state.revert_go);
            format!("{ordered:?} is neither there, by {known:?}, nor on its way")
        });
        self.must(lost.is_none(), Promise::OrderStays, Some(host), || lost.unwrap_or_default());
    }

    /// A plan that was carried out leaves nothing to plan at the same time.
    pub(crate) fn check_nothing_left(&mut self, now: UnixMs, made: &Plan) {
        if self.dice.below(AGAIN) == 0 && self.settings.mistake.is_none() {
            let (again, _) = plan(&self.plane.snapshot, now);
            self.must(again.is_empty(), Promise::NothingLeftToPlan, None, || {
                format!("{again:?} after {made:?}")
            });
        }
    }

    /// A rollout that is called converged has: each of its hosts runs the release, has failed, or is excused.
    pub(crate) fn check_decision(&mut self, decision: &Decision, at: UnixMs) {
        if decision.becomes != Transition::Converged {
            return;
        }
        let Some(channel) = self.plane.snapshot.channels.get(&decision.rollout.channel) else { return };
        let wrong = channel.hosts.iter().find(|(name, _)| self.is_missing((channel, name), at));
        let wrong = wrong.map(|(name, known)| format!("{name}, of which is known {known:?}"));
        self.must(wrong.is_none(), Promise::ConvergedIsTrue, None, || {
            format!(
                "{} has converged, and this host does not run it: {}",
                decision.rollout,
                wrong.unwrap_or_default()
            )
        });
    }

    /// Whether a host neither runs the newest release by the truth nor is one that nobody waits for.
    fn is_missing(&self, (channel, name): (&Channel, &HostName), at: UnixMs) -> bool {
        let (Some(known), Some(host)) = (channel.hosts.get(name), place_of(name)) else { return false };
        let it = &self.hosts[host];
        let runs =
            it.disk.state.settled.as_ref().is_some_and(|done| done.terms.release == channel.current.id);
        let rollout = channel.rollout.as_ref();
        let counted = rollout
            .is_some_and(|rollout| rollout.failures.contains_key(name) || rollout.forgiven.contains(name));
        // Who the thief sent back may not have told that yet.
        let excused = known.skip.is_some()
            || it.seen.was_misled
            || known.hold.is_some()
            || it.disk.state.hold.is_some()
            || known.standing.as_ref().is_some_and(|standing| standing.hold.is_some())
            || (self.is_silent(channel, known.heard_ms, at) && !is_watched(channel, known));
        !runs && !counted && !excused
    }

    /// Whether a host was silent for as long as its policy allows, by the clock that said `at` when it was planned: it may have
    /// been set since.
    fn is_silent(&self, channel: &Channel, heard: Option<UnixMs>, at: UnixMs) -> bool {
        let opened = channel.rollout.as_ref().map_or(UnixMs::EPOCH, |rollout| rollout.opened_ms);
        let heard = heard.unwrap_or(opened).max(self.plane.snapshot.listening_since_ms);
        at >= heard.plus(channel.current.policy.offline_after_secs)
    }

    /// After a plan was carried out: by the hosts' own states, it sent nobody on the way where that makes too many.
    pub(crate) fn check_budgets(&mut self, made: &Plan) {
        if self.plane.was_tampered || self.broken.is_some() {
            return;
        }
        let moving: Vec<bool> =
            (0..self.hosts.len()).map(|host| self.counts_as_moving(host, made.at_ms)).collect();
        let mut over = None;
        for channel in self.plane.snapshot.channels.values() {
            for budget in &channel.current.policy.max_in_flight {
                let is_sent = |order: &&Order| {
                    let sent = !matches!(order.what, What::Stage | What::Withdraw);
                    let known = channel.hosts.get(&order.host).filter(|_| sent);
                    known.is_some_and(|known| budget.hosts.means(&order.host, &known.placed.tags))
                };
                if !made.orders.iter().any(|order| is_sent(&order)) {
                    continue;
                }
                let homes: Vec<&Channel> = match budget.scope {
                    Scope::Channel => vec![channel],
                    Scope::Fleet => self.plane.snapshot.channels.values().collect(),
                };
                let (mut size, mut used) = (0, 0);
                let hosts = homes.into_iter().flat_map(|home| &home.hosts);
                let of_group = hosts.filter(|(name, known)| budget.hosts.means(name, &known.placed.tags));
                for (name, _) in of_group {
                    size += 1;
                    used += u32::from(place_of(name).is_some_and(|host| moving[host]));
                }
                let limit = budget.limit.of(size);
                if used > limit {
                    over = Some(format!(
                        "{used} hosts of `{}` are on their way, and {limit} may be",
                        budget.hosts
                    ));
                }
            }
        }
        self.must(over.is_none(), Promise::WithinBudget, None, || over.unwrap_or_default());
    }

    /// Remembers whose order was taken back, and who was told anew.
    pub(crate) fn note_taken_back(&mut self, order: &Order) {
        let Some(host) = place_of(&order.host) else { return };
        let seen = &mut self.hosts[host].seen;
        match order.what {
            What::Withdraw => seen.is_taken_back = true,
            What::Go | What::Retry | What::Reboot | What::Revert => seen.is_taken_back = false,
            What::Stage => {}
        }
    }

    /// Whether a host is on its way by its own state. One that the control plane had given up since it was silent for too long
    /// does not count until it has arrived; nor one that began since its order arrived before what takes it back.
    fn counts_as_moving(&mut self, host: usize, at: UnixMs) -> bool {
        // Who follows a web server goes by its own clock, and is in nobody's budget.
        if self.is_static(host) || !moves(&self.hosts[host].disk.state) {
            self.hosts[host].seen.is_given_up = false;
            return false;
        }
        let name = &self.story.hosts[host].name;
        let Some((channel, known)) = self.plane.snapshot.host(name) else { return false };
        let (silent, skipped) = (self.is_silent(channel, known.heard_ms, at), known.skip.is_some());
        let seen = &mut self.hosts[host].seen;
        seen.is_given_up |= silent || skipped || seen.is_taken_back;
        !seen.is_given_up
    }
}

/// Whether it runs the newest release by its own word and was not done with it: it may be that release that silenced it.
fn is_watched(channel: &Channel, known: &Host) -> bool {
    let soaks =
        |at: &Standing| at.state == StateName::Soaking && at.about.as_ref() == Some(&channel.current.id);
    known.standing.as_ref().is_some_and(soaks)
}

/// A move that somebody told it to make.
fn moves(state: &HostState) -> bool {
    let let_go = |release| state.go.as_ref() == Some(release);
    match &state.phase {
        Phase::Activating(_) | Phase::Confirming(_) | Phase::AwaitingReboot(_) => true,
        Phase::Staging(at) => let_go(&at.target.release),
        Phase::Staged(at) => let_go(&at.target.release),
        Phase::Reverting(at) => at.failure == Some(Failure::Asked),
        Phase::Converged | Phase::Soaking(_) | Phase::Reverted(_) | Phase::Failed(_) => false,
    }
}

//! The planner: passes over the fleet, each over what the one before found out.
//!
//! 1. [`seen`]: how each host stands to the newest release of its channel, who is excused, and which [`groups`] it is
//!    in. Nobody looks into the snapshot's hosts after that, but for those that are ordered or kept.
//! 2. [`failures`]: which failures count, which rollouts halt, which systems are quarantined.
//! 3. [`waves`]: which waves open and which rollouts have converged; repeated until nothing changes, since channels wait
//!    for one another.
//! 4. [`turns`]: who gets an order and why everybody else does not, by the channel's [`rules`], with [`gauges`] counting
//!    the budgets and [`deadlock`] looking for who can never be done.
//!
//! Each pass works on what the decisions before it will have made of the snapshot. So whoever folds a plan's decisions
//! and orders and plans again at the same time finds nothing more to do.
//!
//! Hosts are known by their place in their channel and nothing is allocated for one that does not move: reasons are
//! small while they are looked for ([`why`]), and told in full once for all hosts that share one.

mod deadlock;
mod failures;
mod gauges;
mod groups;
mod rules;
mod seen;
mod turns;
mod waves;
mod why;

use std::collections::BTreeMap;

use self::groups::Groups;
use self::seen::{CalledFrom, Recall, Seen};
use self::waves::Tally;
use super::order::{Decision, Plan, Transition};
use super::progress::{Rollout, RolloutId, Status};
use super::reason::{PlanReport, WaveWaits};
use super::snapshot::{Channel, Snapshot};
use crate::ids::StorePath;
use crate::model::names::{ChannelName, HostName};
use crate::model::policy::OnFailure;
use crate::model::select::Selector;
use crate::model::time::UnixMs;

/// What is to be done at `now`, and why nothing is done with everybody else.
pub fn plan(snapshot: &Snapshot, now: UnixMs) -> (Plan, PlanReport) {
    let mut wake = Wake { now, next: None };
    let fleet = groups::of_fleet(snapshot);
    let channels = snapshot.channels.iter();
    let mut views: Vec<View<'_>> =
        channels.map(|(name, channel)| View::new(name, channel, snapshot, &fleet, &mut wake)).collect();
    waves::open(&mut views, &mut wake);
    let (orders, held) = turns::give(&views, &mut wake);
    let decisions = views.into_iter().flat_map(|view| view.decisions).collect();
    (Plan { at_ms: now, decisions, orders }, PlanReport { held, again_ms: wake.next })
}

/// A channel, with what the decisions so far have made of it.
struct View<'a> {
    name: &'a ChannelName,
    channel: &'a Channel,
    rollout: Rollout,
    /// Systems that this plan quarantines, with where they failed.
    quarantined: BTreeMap<StorePath, HostName>,
    decisions: Vec<Decision>,
    /// The hosts by place.
    seen: Vec<Seen<'a>>,
    /// Which groups they are in.
    groups: Groups,
    /// How far each wave is, by what its hosts show.
    tallies: Vec<Tally<'a>>,
    /// What the next wave waits for; `None` if all are open.
    waits: Option<WaveWaits>,
}

impl<'a> View<'a> {
    /// A channel with all that can be told without the others.
    fn new(
        name: &'a ChannelName,
        channel: &'a Channel,
        snapshot: &'a Snapshot,
        fleet: &[&Selector],
        wake: &mut Wake,
    ) -> Self {
        let (rollout, decisions) = begin(channel, wake.now);
        let seen = seen::all(snapshot, channel, &rollout, wake);
        let groups = Groups::new(&channel.current.policy, &channel.hosts, fleet);
        let (quarantined, tallies) = (BTreeMap::new(), Vec::new());
        let mut view =
            Self { name, channel, rollout, quarantined, decisions, seen, groups, tallies, waits: None };
        failures::count(&mut view, wake.now);
        view.call_back(wake);
        view.tallies = waves::tallies(&view);
        view
    }

    /// Nobody begins in a rollout that does not go on, and nobody begins to move to a system that failed or for a release
    /// that has expired: its host would not go, and would keep its place in the budgets of others for ever.
    fn call_back(&mut self, wake: &mut Wake) {
        wake.at(self.channel.current.expires_ms);
        let is_expired = self.is_expired(wake.now);
        let is_stopped = match self.rollout.status {
            Status::Halted { .. } | Status::Aborted(_) | Status::Paused(_) => true,
            Status::Going => false,
        };
        let (release, known) = (&self.channel.current.id, &self.channel.quarantine);
        if !is_stopped && !is_expired && known.is_empty() {
            return;
        }
        let goes_back = self.goes_back();
        for seen in &mut self.seen {
            let system = &seen.host.placed.system;
            if goes_back && seen::may_go_back_instead(seen, release) {
                seen.recall = Recall::GoBackInstead;
            } else if is_stopped {
                seen::call_back(seen, release, CalledFrom::Everything);
            } else if is_expired || known.contains_key(system) {
                seen::call_back(seen, release, CalledFrom::Switching);
            }
        }
    }

    fn decide(&mut self, becomes: Transition) {
        self.decisions.push(Decision { rollout: self.rollout.id(), becomes });
    }

    /// Whether hosts that run the release go back from it.
    fn goes_back(&self) -> bool {
        matches!(self.rollout.status, Status::Halted { .. })
            && self.channel.current.policy.on_failure == OnFailure::RevertAll
    }

    fn is_expired(&self, now: UnixMs) -> bool {
        now >= self.channel.current.expires_ms
    }

    /// Where the system failed, if it is not to be offered.
    fn quarantine(&self, system: &StorePath) -> Option<&HostName> {
        let known = self.channel.quarantine.get(system).map(|known| &known.host);
        known.or_else(|| self.quarantined.get(system))
    }
}

/// The rollout that the newest release calls for, which may be one that begins now.
fn begin(channel: &Channel, now: UnixMs) -> (Rollout, Vec<Decision>) {
    let release = &channel.current.id;
    if let Some(rollout) = channel.rollout.as_ref().filter(|rollout| rollout.release == *release) {
        return (rollout.clone(), Vec::new());
    }
    let mut decisions = Vec::new();
    if let Some(older) = channel.rollout.as_ref().filter(|older| older.converged_ms.is_none()) {
        decisions.push(Decision { rollout: older.id(), becomes: Transition::Superseded { by: release.seq } });
    }
    let becomes = Transition::Opened { release: release.clone() };
    decisions.push(Decision { rollout: RolloutId::from(release), becomes });
    (Rollout::new(release.clone(), now), decisions)
}

/// The time, and when it will next make a difference.
struct Wake {
    now: UnixMs,
    next: Option<UnixMs>,
}

impl Wake {
    /// Something may change then.
    fn at(&mut self, at: UnixMs) {
        if at > self.now {
            self.next = Some(self.next.map_or(at, |next| next.min(at)));
        }
    }
}

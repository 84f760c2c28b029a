//! The planner: four passes over the fleet, each over what the one before found out.
//!
//! 1. [`seen`]: how each host stands to the newest release of its channel, and who is excused.
//! 2. [`failures`]: which failures count, which rollouts halt, which systems are quarantined.
//! 3. [`waves`]: which waves open and which rollouts have converged; repeated until nothing changes, since channels wait
//!    for one another.
//! 4. [`turns`]: who gets an order and why everybody else does not, with [`gauges`] counting the budgets.
//!
//! Each pass works on what the decisions before it will have made of the snapshot. So whoever folds a plan's decisions
//! and orders and plans again at the same time finds nothing more to do.

mod failures;
mod gauges;
mod seen;
mod turns;
mod waves;

use std::collections::BTreeMap;

use self::seen::Seen;
use self::waves::Tally;
use super::order::{Decision, Order, Plan, Transition};
use super::progress::{Rollout, RolloutId};
use super::reason::{PlanReport, Reason, WaveWaits};
use super::snapshot::{Channel, Snapshot};
use crate::ids::StorePath;
use crate::model::names::{ChannelName, HostName};
use crate::model::time::UnixMs;

/// What is to be done at `now`, and why nothing is done with everybody else.
pub fn plan(snapshot: &Snapshot, now: UnixMs) -> (Plan, PlanReport) {
    let mut wake = Wake { now, next: None };
    let mut views: BTreeMap<&ChannelName, View<'_>> = BTreeMap::new();
    for (name, channel) in &snapshot.channels {
        let mut view = View::begin(channel, now);
        view.seen = seen::all(snapshot, channel, &view.rollout, &mut wake);
        failures::count(&mut view, now);
        view.tallies = waves::tallies(&view);
        views.insert(name, view);
    }
    waves::open(&mut views, &mut wake);
    let mut out = Out { orders: Vec::new(), held: Vec::with_capacity(snapshot.homes.len()) };
    turns::give(&views, &mut wake, &mut out);
    out.orders.sort_by(|a, b| a.0.cmp(&b.0));
    out.held.sort_unstable_by(|a, b| a.0.cmp(b.0));
    let held = out.held.into_iter().map(|(host, reason)| (host.clone(), reason)).collect();
    let plan = Plan {
        at_ms: now,
        decisions: views.into_values().flat_map(|view| view.decisions).collect(),
        orders: out.orders.into_iter().map(|(_, order)| order).collect(),
    };
    (plan, PlanReport { held, again_ms: wake.next })
}

/// A channel, with what the decisions so far have made of it.
struct View<'a> {
    channel: &'a Channel,
    rollout: Rollout,
    /// Systems that this plan quarantines, with where they failed.
    quarantined: BTreeMap<StorePath, HostName>,
    decisions: Vec<Decision>,
    /// The hosts, by name.
    seen: Vec<Seen<'a>>,
    /// How far each wave is, by what its hosts show.
    tallies: Vec<Tally<'a>>,
    /// What the next wave waits for; `None` if all are open.
    waits: Option<WaveWaits>,
}

impl<'a> View<'a> {
    /// The rollout that the newest release calls for, which may be one that begins now.
    fn begin(channel: &'a Channel, now: UnixMs) -> Self {
        let release = &channel.current.id;
        let mut decisions = Vec::new();
        let rollout = match &channel.rollout {
            Some(rollout) if rollout.release == *release => rollout.clone(),
            older => {
                if let Some(older) = older.as_ref().filter(|older| older.converged_ms.is_none()) {
                    let becomes = Transition::Superseded { by: release.seq };
                    decisions.push(Decision { rollout: older.id(), becomes });
                }
                let becomes = Transition::Opened { release: release.clone() };
                decisions.push(Decision { rollout: RolloutId::from(release), becomes });
                Rollout::new(release.clone(), now)
            }
        };
        let (quarantined, seen, tallies) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { channel, rollout, quarantined, decisions, seen, tallies, waits: None }
    }

    fn decide(&mut self, becomes: Transition) {
        self.decisions.push(Decision { rollout: self.rollout.id(), becomes });
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

/// What comes out, in the order in which it was found.
struct Out<'a> {
    /// With the place of each in the plan.
    orders: Vec<((&'a ChannelName, u16, &'a HostName), Order)>,
    held: Vec<(&'a HostName, Reason)>,
}

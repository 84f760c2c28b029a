//! The second pair of eyes: what is wrong with a plan, by the rules alone.
//!
//! Nothing of the planner is used here, and none of its ideas: each rule is asked of the plan by itself, in the plainest
//! way that is fast enough to run on every plan. An objection stops the plan and calls for a person; it means a mistake in
//! our program, never one of the fleet.

mod rules;
mod view;

use std::collections::BTreeMap;

use super::order::{Order, Plan};
use super::progress::RolloutId;
use super::snapshot::Snapshot;
use crate::model::names::HostName;
use crate::model::policy::WaveIndex;
use crate::model::select::Selector;
use view::Hindsight;

/// What is wrong with a plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Objection {
    /// Nobody knows the host.
    #[error("{0} is ordered, and no release names it")]
    UnknownHost(HostName),
    /// A host cannot do two things.
    #[error("{0} is ordered twice")]
    OrderedTwice(HostName),
    /// An order for what is not the newest release of the host's channel.
    #[error("{0} is ordered to move for a release that is not its newest")]
    OtherRelease(HostName),
    /// The host is not where the order takes it from.
    #[error("{0} cannot do what is ordered from where it stands")]
    WrongState(HostName),
    /// The rollout does not go on.
    #[error("{0} is ordered, and its rollout is stopped")]
    Stopped(HostName),
    /// The release has expired.
    #[error("{0} is ordered for a release that has expired")]
    Expired(HostName),
    /// The wave is not open.
    #[error("{0} is ordered before its wave is open")]
    WaveNotOpen(HostName),
    /// The system failed.
    #[error("{0} is ordered to move to a system in quarantine")]
    Quarantined(HostName),
    /// A person keeps it, or left it out.
    #[error("{0} is ordered although a person keeps it or left it out")]
    Kept(HostName),
    /// It is away.
    #[error("{0} is ordered although it is away")]
    Away(HostName),
    /// No window is open.
    #[error("{0} is ordered outside of its windows")]
    OutsideWindow(HostName),
    /// Another host comes first.
    #[error("{host} is ordered before {after} is done")]
    EdgeCrossed {
        /// The host.
        host: HostName,
        /// Who comes first.
        after: HostName,
    },
    /// Too many are on their way.
    #[error("{on_their_way} hosts of `{hosts}` would be on their way, and {limit} may be")]
    OverBudget {
        /// The group.
        hosts: Selector,
        /// With this plan.
        on_their_way: u32,
        /// The limit.
        limit: u32,
    },
    /// Too many would fetch.
    #[error("{fetching} hosts of {rollout} would fetch, and {limit} may")]
    OverStageBudget {
        /// The rollout.
        rollout: RolloutId,
        /// With this plan.
        fetching: u32,
        /// The limit.
        limit: u32,
    },
    /// A decision about a rollout that is not the current one.
    #[error("something is decided about {0}, which is not the current rollout")]
    NotCurrent(RolloutId),
    /// A wave opens too early, or out of its order.
    #[error("wave {wave} of {rollout} must not open: {why}")]
    WaveTooEarly {
        /// The rollout.
        rollout: RolloutId,
        /// The wave.
        wave: WaveIndex,
        /// Why.
        why: &'static str,
    },
    /// A rollout is called converged and is not.
    #[error("{0} has not converged")]
    NotConverged(RolloutId),
    /// A rollout halts without enough failures.
    #[error("{0} has no reason to halt")]
    NoReasonToHalt(RolloutId),
    /// A rollout goes on with too many failures.
    #[error("{0} has to halt")]
    MustHalt(RolloutId),
    /// A failure is counted of a host that has not failed.
    #[error("{0} has not failed")]
    NotFailed(HostName),
}

/// Everything that is wrong with `plan`, which was made of `snapshot`. Empty if nothing is.
pub fn object(plan: &Plan, snapshot: &Snapshot) -> Vec<Objection> {
    let mut out = Vec::new();
    let hindsight = rules::decisions(plan, snapshot, &mut out);
    let orders = known_orders(plan, snapshot, &mut out);
    for order in orders.values() {
        rules::order(order, plan.at_ms, snapshot, &hindsight, &mut out);
    }
    rules::edges(&orders, plan.at_ms, snapshot, &mut out);
    rules::budgets(&orders, plan.at_ms, snapshot, &mut out);
    out
}

/// The orders by host, where each host is known and ordered once.
fn known_orders<'a>(
    plan: &'a Plan,
    snapshot: &Snapshot,
    out: &mut Vec<Objection>,
) -> BTreeMap<&'a HostName, &'a Order> {
    let mut orders = BTreeMap::new();
    for order in &plan.orders {
        if snapshot.host(&order.host).is_none() {
            out.push(Objection::UnknownHost(order.host.clone()));
        } else if orders.insert(&order.host, order).is_some() {
            out.push(Objection::OrderedTwice(order.host.clone()));
        }
    }
    orders
}

/// The rollouts by channel, as they will be once the plan's decisions are taken.
type Rollouts = BTreeMap<crate::model::names::ChannelName, Hindsight>;

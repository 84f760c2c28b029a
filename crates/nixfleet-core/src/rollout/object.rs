//! The second pair of eyes: what is wrong with a plan, by the rules alone.
//!
//! Nothing of the planner is used here, and none of its ideas: each rule is asked of the plan by itself, in the plainest
//! way that is fast enough to run on every plan: [`decisions`] one after the other, [`orders`] each by itself, and what they
//! do [`together`]. An objection stops its channel's [`part`] of the plan and calls for a person; it means a mistake in
//! our program, never one of the fleet.

mod decisions;
mod orders;
mod part;
mod together;
mod view;

use std::collections::BTreeMap;

use self::orders::Case;
pub use self::part::{Opinion, Sound, sound_part};
use self::together::Told;
use super::order::Plan;
use super::progress::RolloutId;
use super::snapshot::Snapshot;
use crate::ids::StorePath;
use crate::model::names::{ChannelName, HostName};
use crate::model::policy::WaveIndex;
use crate::model::select::Selector;

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
    /// The rollout does not go on, or the system failed, and an order that has not begun stays.
    #[error("{0} has an order that must not begin, and it is not taken back")]
    NotTakenBack(HostName),
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
    #[error(
        "{on_their_way} hosts of `{hosts}` would be on their way, and {limit} may be by the policy of {channel}"
    )]
    OverBudget {
        /// Whose budget it is.
        channel: ChannelName,
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
    /// A system is quarantined, and no failure that counts speaks against it.
    #[error("there is no reason to quarantine {0}")]
    NoReasonToQuarantine(StorePath),
    /// A failure is counted of a host that has not failed.
    #[error("{0} has not failed")]
    NotFailed(HostName),
}

/// Everything that is wrong with `plan`, which was made of `snapshot`. Empty if nothing is.
pub fn object(plan: &Plan, snapshot: &Snapshot) -> Vec<Objection> {
    let mut out = Vec::new();
    let after = decisions::take(plan, snapshot, &mut out);
    let told = told(plan, snapshot, &mut out);
    for Told { channel, orders } in &told {
        let case = Case::new(plan.at_ms, snapshot, channel, after.get(&channel.current.id.channel));
        if case.is_quiet() && orders.iter().all(Option::is_none) {
            continue;
        }
        for (order, (name, host)) in orders.iter().zip(&channel.hosts) {
            match order {
                Some(order) => orders::check(&case, order, host, &mut out),
                None => out.extend(orders::is_left_with_its_order(&case, name, host)),
            }
        }
    }
    together::check(&told, plan.at_ms, snapshot, &mut out);
    out
}

/// The channels with their orders. Every host that is ordered is known, and is ordered once.
fn told<'a>(plan: &'a Plan, snapshot: &'a Snapshot, out: &mut Vec<Objection>) -> Vec<Told<'a>> {
    let mut told: Vec<Told<'_>> = snapshot.channels.values().map(Told::new).collect();
    let numbers: BTreeMap<&ChannelName, usize> = snapshot.channels.keys().zip(0..).collect();
    for order in &plan.orders {
        // Where the order says, or else where the host is: then it is for another release, and that is said elsewhere.
        let place = |channel: &ChannelName| {
            let number = *numbers.get(channel)?;
            Some((number, told.get(number)?.channel.hosts.place(&order.host)?))
        };
        let home = || snapshot.homes.get(&order.host);
        let Some((number, place)) = place(&order.release.channel).or_else(|| place(home()?)) else {
            out.push(Objection::UnknownHost(order.host.clone()));
            continue;
        };
        if let Some(slot) = told.get_mut(number).and_then(|told| told.orders.get_mut(place))
            && slot.replace(order).is_some()
        {
            out.push(Objection::OrderedTwice(order.host.clone()));
        }
    }
    told
}

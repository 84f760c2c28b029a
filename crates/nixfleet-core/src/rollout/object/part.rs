//! The part of a plan that may be carried out although something else is wrong with it.
//!
//! An objection means a mistake in our program, and a mistake about one channel must not stop the fixes of all others. So a
//! channel stands still whose part is objected to; what is left is looked at anew, since it may have counted on what is
//! withheld.

use std::collections::{BTreeMap, BTreeSet};

use super::Objection;
use crate::model::names::{ChannelName, HostName};
use crate::rollout::order::{Plan, Transition};
use crate::rollout::snapshot::Snapshot;

/// Who looks at plans: [`super::object()`], but in tests of what becomes of an objection.
pub type Opinion = fn(&Plan, &Snapshot) -> Vec<Objection>;

/// What may be carried out of a plan, and why the rest may not.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "what is objected to calls for a person"]
pub struct Sound {
    /// The part that nothing is wrong with, without anything of the channels that are objected to.
    pub plan: Plan,
    /// Every objection.
    pub objections: Vec<Objection>,
    /// The channels that stand still, each with what is said about it.
    pub withheld: BTreeMap<ChannelName, Vec<Objection>>,
}

/// The part of `plan` that nothing is wrong with in this opinion.
pub fn sound_part(plan: Plan, snapshot: &Snapshot, opinion: Opinion) -> Sound {
    let mut sound = Sound { plan, objections: Vec::new(), withheld: BTreeMap::new() };
    // Each round but the last withholds a channel more, so there are finitely many.
    loop {
        let plan = &sound.plan;
        let more = opinion(plan, snapshot).into_iter().map(|one| (concerned(&one, plan, snapshot), one));
        // A channel that stands still has orders that are not taken back, or should halt. That is said already.
        let is_said = |name: &ChannelName| sound.withheld.contains_key(name);
        let more: Vec<_> =
            more.filter(|(concerned, _)| concerned.is_empty() || !concerned.iter().all(is_said)).collect();
        if more.is_empty() {
            return sound;
        }
        // Where it cannot be told where the mistake is, it may be anywhere.
        let is_anywhere = more.iter().any(|(concerned, _)| concerned.is_empty());
        for (mut concerned, objection) in more {
            if is_anywhere {
                concerned.extend(snapshot.channels.keys().cloned());
            }
            for name in concerned {
                sound.withheld.entry(name).or_default().push(objection.clone());
            }
            sound.objections.push(objection);
        }
        if is_anywhere {
            (sound.plan.decisions, sound.plan.orders) = (Vec::new(), Vec::new());
            return sound;
        }
        withhold(&mut sound.plan, &sound.withheld, snapshot);
    }
}

/// Takes everything of these channels out of a plan.
fn withhold(plan: &mut Plan, withheld: &BTreeMap<ChannelName, Vec<Objection>>, snapshot: &Snapshot) {
    let is_withheld = |name: &ChannelName| withheld.contains_key(name);
    plan.decisions.retain(|decision| !is_withheld(&decision.rollout.channel));
    plan.orders.retain(|order| {
        let home = snapshot.homes.get(&order.host);
        !is_withheld(&order.release.channel) && !home.is_some_and(is_withheld)
    });
}

/// The channels whose part of the plan an objection is about.
fn concerned(objection: &Objection, plan: &Plan, snapshot: &Snapshot) -> BTreeSet<ChannelName> {
    use Objection as O;
    match objection {
        O::UnknownHost(host)
        | O::OrderedTwice(host)
        | O::OtherRelease(host)
        | O::WrongState(host)
        | O::Stopped(host)
        | O::NotTakenBack(host)
        | O::Expired(host)
        | O::WaveNotOpen(host)
        | O::Quarantined(host)
        | O::Kept(host)
        | O::Away(host)
        | O::OutsideWindow(host)
        | O::EdgeCrossed { host, after: _ } => of_host(host, plan, snapshot),
        O::NotFailed(host) => that_decide(
            plan,
            |becomes| matches!(becomes, Transition::FailureCounted { host: counted, .. } if counted == host),
        ),
        O::NoReasonToQuarantine(system) => that_decide(
            plan,
            |becomes| matches!(becomes, Transition::Quarantined { system: taken, .. } if taken == system),
        ),
        O::OverBudget { channel, .. } => [channel.clone()].into(),
        O::OverStageBudget { rollout, .. }
        | O::NotCurrent(rollout)
        | O::WaveTooEarly { rollout, .. }
        | O::NotConverged(rollout)
        | O::NoReasonToHalt(rollout)
        | O::MustHalt(rollout) => [rollout.channel.clone()].into(),
    }
}

/// The host's own channel, and those for whose releases it is ordered.
fn of_host(host: &HostName, plan: &Plan, snapshot: &Snapshot) -> BTreeSet<ChannelName> {
    let orders = plan.orders.iter().filter(|order| order.host == *host);
    let ordered = orders.map(|order| order.release.channel.clone());
    snapshot.homes.get(host).cloned().into_iter().chain(ordered).collect()
}

/// The channels of which the plan decides this.
fn that_decide(plan: &Plan, is_it: impl Fn(&Transition) -> bool) -> BTreeSet<ChannelName> {
    let decisions = plan.decisions.iter().filter(|decision| is_it(&decision.becomes));
    decisions.map(|decision| decision.rollout.channel.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against one channel, and against nobody can tell which.
    fn of_one_and_of_all(_: &Plan, snapshot: &Snapshot) -> Vec<Objection> {
        let of_one = Objection::Away(snapshot.homes.keys().next().expect("a host").clone());
        vec![of_one, Objection::UnknownHost("stranger".parse().expect("a name"))]
    }

    #[test]
    fn what_is_about_one_channel_is_told_of_it_once_where_all_stand_still() {
        let snapshots = include_str!("../../../tests/fixtures/rollout-1/snapshot.jsonl");
        let snapshot: Snapshot =
            serde_json::from_str(snapshots.lines().nth(1).expect("a line")).expect("one");
        let plan = Plan { at_ms: snapshot.listening_since_ms, decisions: Vec::new(), orders: Vec::new() };
        let sound = sound_part(plan, &snapshot, of_one_and_of_all);
        assert_eq!(sound.objections.len(), 2);
        let told: Vec<usize> = sound.withheld.values().map(Vec::len).collect();
        assert_eq!(told, vec![2; snapshot.channels.len()], "{:?}", sound.withheld);
    }
}

//! The part of a plan that may be carried out although something else is wrong with it.
//!
//! An objection means a mistake in our program, and a mistake about one channel must not stop the fixes of all others. So a
//! channel stands still whose part is objected to; what is left is looked at anew, since it may have counted on what is
//! withheld.

use std::collections::BTreeSet;

use super::{Objection, object};
use crate::model::names::{ChannelName, HostName};
use crate::rollout::order::{Plan, Transition};
use crate::rollout::snapshot::Snapshot;

/// The part of `plan` that nothing is wrong with, without anything of the channels that are objected to; and every objection.
pub fn sound_part(mut plan: Plan, snapshot: &Snapshot) -> (Plan, Vec<Objection>) {
    let (mut said, mut withheld) = (Vec::new(), BTreeSet::new());
    // Each round but the last withholds a channel more, so there are finitely many.
    loop {
        let more = object(&plan, snapshot).into_iter().map(|one| (concerned(&one, &plan, snapshot), one));
        // A channel that stands still has orders that are not taken back, or should halt. That is said already.
        let more = more.filter(|(concerned, _)| concerned.is_empty() || !concerned.is_subset(&withheld));
        let (concerned, mut more): (Vec<_>, Vec<_>) = more.unzip();
        if more.is_empty() {
            return (plan, said);
        }
        said.append(&mut more);
        if concerned.iter().any(BTreeSet::is_empty) {
            // It cannot be told where the mistake is.
            (plan.decisions, plan.orders) = (Vec::new(), Vec::new());
            return (plan, said);
        }
        withheld.extend(concerned.into_iter().flatten());
        plan.decisions.retain(|decision| !withheld.contains(&decision.rollout.channel));
        plan.orders.retain(|order| {
            let home = snapshot.homes.get(&order.host);
            !withheld.contains(&order.release.channel) && home.is_none_or(|home| !withheld.contains(home))
        });
    }
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

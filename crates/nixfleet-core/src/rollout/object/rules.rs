//! The rules, one by one.

use std::collections::{BTreeMap, BTreeSet};

use super::view::{self, Hindsight};
use super::{Objection, Rollouts};
use crate::host::window::{Opening, opening};
use crate::model::names::HostName;
use crate::model::policy::{Approval, OnFailure, Scope, WaveIndex};
use crate::model::schedule::Window;
use crate::model::time::UnixMs;
use crate::rollout::order::{Decision, Order, Plan, Transition, What};
use crate::rollout::progress::{FailedHow, Rollout, RolloutId, Status};
use crate::rollout::snapshot::{Channel, Host, Snapshot};

/// Takes the decisions one after the other, and objects to those that may not be taken.
pub(super) fn decisions(plan: &Plan, snapshot: &Snapshot, out: &mut Vec<Objection>) -> Rollouts {
    let mut after: Rollouts = BTreeMap::new();
    for (name, channel) in &snapshot.channels {
        if let Some(rollout) = &channel.rollout {
            let quarantined = channel.quarantine.keys().cloned().collect();
            after.insert(name.clone(), Hindsight { rollout: rollout.clone(), quarantined });
        }
    }
    // Which channels have converged is asked of the whole plan: their decisions may stand behind those that need them.
    let converged: BTreeSet<&RolloutId> = plan
        .decisions
        .iter()
        .filter(|decision| decision.becomes == Transition::Converged)
        .map(|decision| &decision.rollout)
        .collect();
    for decision in &plan.decisions {
        let Some(channel) = snapshot.channels.get(&decision.rollout.channel) else {
            out.push(Objection::NotCurrent(decision.rollout.clone()));
            continue;
        };
        take(decision, plan.at_ms, (snapshot, channel, &converged), &mut after, out);
    }
    for (name, hindsight) in &after {
        let Some(channel) = snapshot.channels.get(name) else { continue };
        let current = hindsight.rollout.release == channel.current.id;
        let goes = matches!(hindsight.rollout.status, Status::Going | Status::Paused(_));
        if current && goes && too_many(channel, &hindsight.rollout) {
            out.push(Objection::MustHalt(hindsight.rollout.id()));
        }
    }
    after
}

fn too_many(channel: &Channel, rollout: &Rollout) -> bool {
    let allowed = match channel.current.policy.on_failure {
        OnFailure::Halt => 0,
        OnFailure::Revert | OnFailure::RevertAll => u64::from(channel.current.policy.max_failures),
    };
    rollout.failures.len() as u64 > allowed
}

type Where<'a> = (&'a Snapshot, &'a Channel, &'a BTreeSet<&'a RolloutId>);

fn take(decision: &Decision, now: UnixMs, at: Where<'_>, after: &mut Rollouts, out: &mut Vec<Objection>) {
    let (snapshot, channel, converged) = at;
    let id = &decision.rollout;
    let newest = RolloutId::from(&channel.current.id);
    if let Transition::Opened { release } = &decision.becomes {
        let older = after.get(&id.channel).is_none_or(|old| old.rollout.release.seq < id.seq);
        if *release != channel.current.id || *id != newest || !older {
            out.push(Objection::NotCurrent(id.clone()));
        }
        let quarantined = channel.quarantine.keys().cloned().collect();
        let rollout = Rollout::new(release.clone(), now);
        after.insert(id.channel.clone(), Hindsight { rollout, quarantined });
        return;
    }
    let Some(old) = after.get_mut(&id.channel).filter(|old| old.rollout.id() == *id) else {
        out.push(Objection::NotCurrent(id.clone()));
        return;
    };
    match &decision.becomes {
        Transition::Opened { .. } => {}
        Transition::Superseded { by } => {
            if *by != newest.seq || newest.seq <= id.seq {
                out.push(Objection::NotCurrent(id.clone()));
            }
        }
        Transition::FailureCounted { host, failed } => {
            let found = channel.hosts.get(host);
            let true_one = found.is_some_and(|found| match failed.how {
                FailedHow::Reported(_) => view::failed(channel, found),
                FailedHow::Lost => {
                    view::away(snapshot, channel, found, now)
                        && view::on_the_way(found)
                        && !view::unreached(found)
                }
            });
            if !true_one {
                out.push(Objection::NotFailed(host.clone()));
            }
            old.rollout.failures.insert(host.clone(), failed.clone());
        }
        Transition::Halted { host, failure } => {
            if !too_many(channel, &old.rollout) {
                out.push(Objection::NoReasonToHalt(id.clone()));
            }
            old.rollout.status = Status::Halted { host: host.clone(), failure: *failure, at_ms: now };
        }
        Transition::Quarantined { system, host: _ } => {
            old.quarantined.insert(system.clone());
        }
        Transition::WaveOpened { wave } => {
            if let Some(why) = shut(*wave, now, at, &old.rollout) {
                out.push(Objection::WaveTooEarly { rollout: id.clone(), wave: *wave, why });
            }
            old.rollout.waves_opened.push(now);
        }
        Transition::Converged => {
            let waves = channel.current.policy.waves.len();
            let all =
                (0..waves).all(|wave| wave_is_over(wave, now, (snapshot, channel, converged), &old.rollout));
            if old.rollout.waves_opened.len() != waves || !all || old.rollout.status != Status::Going {
                out.push(Objection::NotConverged(id.clone()));
            }
            old.rollout.converged_ms = Some(now);
        }
    }
}

/// Why the wave must not open.
fn shut(wave: WaveIndex, now: UnixMs, at: Where<'_>, rollout: &Rollout) -> Option<&'static str> {
    let (snapshot, channel, converged) = at;
    let current = &channel.current;
    let Some(rules) = current.policy.waves.get(usize::from(wave.0)) else {
        return Some("there is no such wave");
    };
    let opens = current.created_ms.get().saturating_add(rules.opens_after_secs.ms());
    let first = |name| {
        let other: Option<&Channel> = snapshot.channels.get(name);
        other.is_some_and(|other| {
            let done = other.rollout.as_ref().filter(|done| done.release == other.current.id);
            let done = done.is_some_and(|done| done.converged_ms.is_some());
            other.current.revision == current.revision
                && (done || converged.contains(&RolloutId::from(&other.current.id)))
        })
    };
    if rollout.waves_opened.len() != usize::from(wave.0) {
        Some("it is not the next one")
    } else if rollout.status != Status::Going {
        Some("the rollout is stopped")
    } else if now >= current.expires_ms {
        Some("the release has expired")
    } else if now.get() < opens {
        Some("its signed time has not come")
    } else if rules.approval == Approval::ByAPerson && !rollout.approved.contains_key(&wave) {
        Some("nobody approved it")
    } else if !current.policy.after.iter().all(first) {
        Some("another channel comes first")
    } else if !(0..usize::from(wave.0)).all(|earlier| wave_is_over(earlier, now, at, rollout)) {
        Some("an earlier wave is not over")
    } else {
        None
    }
}

/// Each of its hosts is done, failed and counted, or one that nobody waits for; and one is done, if any was asked.
fn wave_is_over(wave: usize, now: UnixMs, (snapshot, channel, _): Where<'_>, rollout: &Rollout) -> bool {
    let hosts = channel.hosts.iter().filter(|(_, host)| usize::from(host.placed.wave.0) == wave);
    let (mut done, mut asked) = (false, false);
    for (name, host) in hosts {
        let counted = rollout.failures.contains_key(name) || rollout.forgiven.contains(name);
        let over = view::runs_newest(channel, host)
            || (counted && host.retry.is_none())
            || view::nobody_waits(snapshot, channel, host, now);
        if !over {
            return false;
        }
        done |= view::runs_newest(channel, host);
        asked |= host.skip.is_none();
    }
    done || !asked
}

/// What may be said against one order by itself.
pub(super) fn order(
    order: &Order,
    now: UnixMs,
    snapshot: &Snapshot,
    after: &Rollouts,
    out: &mut Vec<Objection>,
) {
    let Some((channel, host)) = snapshot.host(&order.host) else { return };
    let mut object_if = |wrong: bool, what: fn(HostName) -> Objection| {
        if wrong {
            out.push(what(order.host.clone()));
        }
    };
    let away = view::away(snapshot, channel, host, now);
    if order.what == What::Withdraw {
        let told = host.ordered.as_ref().is_some_and(|ordered| ordered.release == order.release);
        object_if(!told || !away || !view::unreached(host), Objection::WrongState);
        return;
    }
    object_if(order.release != channel.current.id, Objection::OtherRelease);
    object_if(host.skip.is_some() || view::held(host, now), Objection::Kept);
    object_if(away, Objection::Away);
    let Some(rollout) = after.get(&channel.current.id.channel) else {
        object_if(true, Objection::Stopped);
        return;
    };
    let goes = rollout.rollout.status == Status::Going && rollout.rollout.release == channel.current.id;
    let policy = &channel.current.policy;
    match order.what {
        What::Stage => object_if(!view::lacks_newest(channel, host), Objection::WrongState),
        What::Go => object_if(!view::waits_staged(channel, host), Objection::WrongState),
        What::Retry => {
            let asked = view::failed(channel, host) && host.retry.is_some() && host.ordered.is_none();
            object_if(!asked, Objection::WrongState);
        }
        What::Reboot => {
            object_if(!view::wants_restart(channel, host) || host.ordered.is_some(), Objection::WrongState);
        }
        What::Revert => {
            let there = view::runs_newest(channel, host) || view::soaks(channel, host);
            object_if(!there || host.ordered.is_some(), Objection::WrongState);
            object_if(!rollout.halted() || policy.on_failure != OnFailure::RevertAll, Objection::Stopped);
        }
        What::Withdraw => {}
    }
    let new = matches!(order.what, What::Stage | What::Go | What::Retry);
    let turn = matches!(order.what, What::Go | What::Retry);
    object_if(order.what != What::Revert && !goes, Objection::Stopped);
    object_if(new && now >= channel.current.expires_ms, Objection::Expired);
    object_if(new && rollout.quarantined.contains(&host.placed.system), Objection::Quarantined);
    let opened = rollout.rollout.waves_opened.len();
    object_if(turn && usize::from(host.placed.wave.0) >= opened, Objection::WaveNotOpen);
    let reboot = order.what == What::Reboot && !policy.reboot.windows.is_empty();
    let windows = if reboot { &policy.reboot.windows } else { &policy.windows };
    let needs = turn || order.what == What::Reboot;
    object_if(needs && !is_open(windows, now), Objection::OutsideWindow);
}

fn is_open(windows: &[Window], now: UnixMs) -> bool {
    matches!(opening(windows, now), Ok(Opening::Open { .. }))
}

type Orders<'a> = BTreeMap<&'a HostName, &'a Order>;

/// Nobody goes before those who come first are done.
pub(super) fn edges(orders: &Orders<'_>, now: UnixMs, snapshot: &Snapshot, out: &mut Vec<Objection>) {
    for channel in snapshot.channels.values() {
        for edge in &channel.current.policy.edges {
            let open: Vec<&HostName> = view::group(&channel.hosts, &edge.after)
                .filter(|(_, host)| !view::runs_newest(channel, host))
                .filter(|(_, host)| !view::nobody_waits(snapshot, channel, host, now))
                .map(|(name, _)| name)
                .take(2)
                .collect();
            for (name, _) in view::group(&channel.hosts, &edge.hosts) {
                let goes = orders.get(name).is_some_and(|order| matches!(order.what, What::Go | What::Retry));
                if let Some(after) = open.iter().find(|after| goes && **after != name) {
                    out.push(Objection::EdgeCrossed { host: name.clone(), after: (*after).clone() });
                }
            }
        }
    }
}

/// Nobody is sent on the way if that makes too many.
pub(super) fn budgets(orders: &Orders<'_>, now: UnixMs, snapshot: &Snapshot, out: &mut Vec<Objection>) {
    let sent = |name: &HostName| {
        let what = orders.get(name).map(|order| order.what);
        matches!(what, Some(What::Go | What::Retry | What::Reboot | What::Revert))
    };
    let back = |name: &HostName| orders.get(name).is_some_and(|order| order.what == What::Withdraw);
    for channel in snapshot.channels.values() {
        for budget in &channel.current.policy.max_in_flight {
            let own = view::group(&channel.hosts, &budget.hosts).any(|(name, _)| sent(name));
            if !own {
                continue;
            }
            let over: Vec<&BTreeMap<HostName, Host>> = match budget.scope {
                Scope::Channel => vec![&channel.hosts],
                Scope::Fleet => snapshot.channels.values().map(|channel| &channel.hosts).collect(),
            };
            let (mut size, mut on_their_way) = (0u32, 0u32);
            for (name, host) in over.into_iter().flat_map(|hosts| view::group(hosts, &budget.hosts)) {
                size += 1;
                on_their_way += u32::from(sent(name) || (view::on_the_way(host) && !back(name)));
            }
            let limit = budget.limit.of(size);
            if on_their_way > limit {
                out.push(Objection::OverBudget { hosts: budget.hosts.clone(), on_their_way, limit });
            }
        }
        stage_budget(channel, orders, now, snapshot, out);
    }
}

fn stage_budget(
    channel: &Channel,
    orders: &Orders<'_>,
    now: UnixMs,
    snapshot: &Snapshot,
    out: &mut Vec<Objection>,
) {
    let Some(limit) = channel.current.policy.stage_in_flight else { return };
    let limit = limit.of(u32::try_from(channel.hosts.len()).unwrap_or(u32::MAX));
    let (mut told, mut fetching) = (0u32, 0u32);
    for (name, host) in &channel.hosts {
        told += u32::from(orders.get(name).is_some_and(|order| order.what == What::Stage));
        let fetches = view::fetches(channel, host) && !view::away(snapshot, channel, host, now);
        fetching += u32::from(fetches);
    }
    if told > 0 && told + fetching > limit {
        let rollout = RolloutId::from(&channel.current.id);
        out.push(Objection::OverStageBudget { rollout, fetching: told + fetching, limit });
    }
}

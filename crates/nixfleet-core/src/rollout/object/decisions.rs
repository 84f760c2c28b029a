//! The rules of decisions, one by one. They are asked in the order in which the decisions stand, each of what the
//! decisions before it have made of the rollout.

use std::collections::{BTreeMap, BTreeSet};

use super::Objection;
use super::view::{self, Hindsight};
use crate::ids::StorePath;
use crate::model::names::{ChannelName, HostName, ReleaseId, Seq};
use crate::model::policy::{Approval, OnFailure, WaveIndex};
use crate::model::time::UnixMs;
use crate::rollout::order::{Decision, Plan, Transition};
use crate::rollout::progress::{Failed, FailedHow, Rollout, RolloutId, Status};
use crate::rollout::snapshot::{Channel, Snapshot};

/// The rollouts by channel, as they will be once the plan's decisions are taken.
pub(super) type Rollouts = BTreeMap<ChannelName, Hindsight>;

/// What a decision is looked at with.
#[derive(Clone, Copy)]
struct Case<'a> {
    now: UnixMs,
    snapshot: &'a Snapshot,
    channel: &'a Channel,
    /// The rollouts that converge by this plan: their decisions may stand behind those that need them.
    converging: &'a BTreeSet<&'a RolloutId>,
}

/// Takes the decisions one after the other, and objects to those that may not be taken.
pub(super) fn take(plan: &Plan, snapshot: &Snapshot, out: &mut Vec<Objection>) -> Rollouts {
    let known = snapshot.channels.iter().filter_map(|(name, channel)| {
        Some((name.clone(), Hindsight::new(channel.rollout.clone()?, channel)))
    });
    let mut after: Rollouts = known.collect();
    let converging = plan.decisions.iter().filter(|decision| decision.becomes == Transition::Converged);
    let converging: BTreeSet<&RolloutId> = converging.map(|decision| &decision.rollout).collect();
    for decision in &plan.decisions {
        let Some(channel) = snapshot.channels.get(&decision.rollout.channel) else {
            out.push(Objection::NotCurrent(decision.rollout.clone()));
            continue;
        };
        let case = Case { now: plan.at_ms, snapshot, channel, converging: &converging };
        out.extend(take_one(decision, case, &mut after));
    }
    for (name, hindsight) in &after {
        out.extend(snapshot.channels.get(name).and_then(|channel| must_halt(channel, hindsight)));
    }
    after
}

/// Takes a decision, and objects if it may not be taken.
fn take_one(decision: &Decision, case: Case<'_>, after: &mut Rollouts) -> Option<Objection> {
    let Decision { rollout: id, becomes } = decision;
    if let Transition::Opened { release } = becomes {
        let objection = opens_the_newest(id, release, case, after);
        let rollout = Rollout::new(release.clone(), case.now);
        after.insert(id.channel.clone(), Hindsight::new(rollout, case.channel));
        return objection;
    }
    let Some(old) = after.get_mut(&id.channel).filter(|old| old.rollout.id() == *id) else {
        return Some(Objection::NotCurrent(id.clone()));
    };
    let objection = ask(becomes, case, old);
    old.take(becomes, case.now);
    objection
}

/// Asks the rule for this kind of decision.
fn ask(becomes: &Transition, case: Case<'_>, old: &mut Hindsight) -> Option<Objection> {
    match becomes {
        Transition::Opened { release: _ } => None,
        Transition::Superseded { by } => superseded_by_the_newest(*by, case, old),
        Transition::FailureCounted { host, failed } => counts_what_failed(host, failed, case),
        Transition::Halted { host, failure: _ } => halts_for_a_reason(host, case, old),
        Transition::Quarantined { system, host } => quarantines_what_failed(system, host, old),
        Transition::WaveOpened { wave } => opens_when_it_may(*wave, case, old),
        Transition::Converged => converges_at_the_end(case, old),
    }
}

/// Only the newest release is rolled out, and only once.
fn opens_the_newest(
    id: &RolloutId,
    release: &ReleaseId,
    case: Case<'_>,
    after: &Rollouts,
) -> Option<Objection> {
    let newest = &case.channel.current.id;
    let is_newer = after.get(&id.channel).is_none_or(|old| old.rollout.release.seq < id.seq);
    let fair = release == newest && *id == RolloutId::from(newest) && is_newer;
    (!fair).then(|| Objection::NotCurrent(id.clone()))
}

/// What takes a rollout's place is the newest release, and a newer one than its own.
fn superseded_by_the_newest(by: Seq, case: Case<'_>, old: &Hindsight) -> Option<Objection> {
    let newest = case.channel.current.id.seq;
    let fair = by == newest && newest > old.rollout.release.seq;
    (!fair).then(|| Objection::NotCurrent(old.rollout.id()))
}

/// A failure counts only if the host failed, or was lost after it had the order.
fn counts_what_failed(host: &HostName, failed: &Failed, case: Case<'_>) -> Option<Objection> {
    let Case { now, snapshot, channel, converging: _ } = case;
    let fair = channel.hosts.get(host).is_some_and(|found| match failed.how {
        FailedHow::Reported(_) => view::failed(channel, found),
        FailedHow::Lost => {
            let away = view::away(snapshot, channel, found, now);
            away && view::on_the_way(found) && !view::unreached(found)
        }
    });
    (!fair).then(|| Objection::NotFailed(host.clone()))
}

/// A rollout halts only for too many failures, the host's own among them.
fn halts_for_a_reason(host: &HostName, case: Case<'_>, old: &Hindsight) -> Option<Objection> {
    let fair = too_many(case.channel, &old.rollout) && old.rollout.failures.contains_key(host);
    (!fair).then(|| Objection::NoReasonToHalt(old.rollout.id()))
}

/// A rollout with too many failures halts.
fn must_halt(channel: &Channel, hindsight: &Hindsight) -> Option<Objection> {
    let rollout = &hindsight.rollout;
    let goes_on = match rollout.status {
        Status::Going | Status::Paused(_) => rollout.release == channel.current.id,
        Status::Halted { .. } | Status::Aborted(_) => false,
    };
    (goes_on && too_many(channel, rollout)).then(|| Objection::MustHalt(rollout.id()))
}

fn too_many(channel: &Channel, rollout: &Rollout) -> bool {
    let allowed = match channel.current.policy.on_failure {
        OnFailure::Halt => 0,
        OnFailure::Revert | OnFailure::RevertAll => u64::from(channel.current.policy.max_failures),
    };
    rollout.failures.len() as u64 > allowed
}

/// A system is quarantined only if a failure that counts in a halted rollout speaks against it.
fn quarantines_what_failed(system: &StorePath, host: &HostName, old: &Hindsight) -> Option<Objection> {
    let failed = old.rollout.failures.get(host);
    let fair = old.is_halted() && failed.is_some_and(|failed| failed.system.as_ref() == Some(system));
    (!fair).then(|| Objection::NoReasonToQuarantine(system.clone()))
}

/// A wave opens when it is the next one and nothing keeps it shut.
fn opens_when_it_may(wave: WaveIndex, case: Case<'_>, old: &mut Hindsight) -> Option<Objection> {
    let why = shut(wave, case, old)?;
    Some(Objection::WaveTooEarly { rollout: old.rollout.id(), wave, why })
}

/// Why the wave must not open.
fn shut(wave: WaveIndex, case: Case<'_>, old: &mut Hindsight) -> Option<&'static str> {
    let current = &case.channel.current;
    let Some(rules) = current.policy.waves.get(usize::from(wave.0)) else {
        return Some("there is no such wave");
    };
    let opens = current.created_ms.get().saturating_add(rules.opens_after_secs.ms());
    let unapproved = rules.approval == Approval::ByAPerson && !old.rollout.approved.contains_key(&wave);
    let is_next = old.rollout.waves_opened.len() == usize::from(wave.0);
    let earlier = usize::from(wave.0);
    let objections = [
        (!is_next, "it is not the next one"),
        (old.rollout.status != Status::Going, "the rollout is stopped"),
        (case.now >= current.expires_ms, "the release has expired"),
        (case.now.get() < opens, "its signed time has not come"),
        (unapproved, "nobody approved it"),
        (!current.policy.after.iter().all(|first| has_converged(first, case)), "another channel comes first"),
    ];
    let first = objections.into_iter().find_map(|(wrong, why)| wrong.then_some(why));
    first.or_else(|| {
        let over = waves_over(case, old).iter().take(earlier).all(|over| *over);
        (!over).then_some("an earlier wave is not over")
    })
}

/// Whether the channel has converged on this one's source revision, or does so by this plan.
fn has_converged(name: &ChannelName, case: Case<'_>) -> bool {
    case.snapshot.channels.get(name).is_some_and(|first| {
        let done = first.rollout.as_ref().filter(|done| done.release == first.current.id);
        let done = done.is_some_and(|done| done.converged_ms.is_some());
        first.current.revision == case.channel.current.revision
            && (done || case.converging.contains(&RolloutId::from(&first.current.id)))
    })
}

/// A rollout has converged only when all of its waves are open and over.
fn converges_at_the_end(case: Case<'_>, old: &mut Hindsight) -> Option<Objection> {
    let all_open = old.rollout.waves_opened.len() == case.channel.current.policy.waves.len();
    let going = old.rollout.status == Status::Going;
    let fair = all_open && going && waves_over(case, old).iter().all(|over| *over);
    (!fair).then(|| Objection::NotConverged(old.rollout.id()))
}

/// By wave: each of its hosts is done, failed and counted, or one that nobody waits for; and one is done, if any was
/// asked. The hosts are gone through once for all decisions between two failures.
fn waves_over<'h>(case: Case<'_>, old: &'h mut Hindsight) -> &'h [bool] {
    let Case { now, snapshot, channel, converging: _ } = case;
    let rollout = &old.rollout;
    old.waves_over.get_or_insert_with(|| {
        let mut waves = vec![(true, false, false); channel.current.policy.waves.len()];
        for (name, host) in &channel.hosts {
            let Some((over, done, asked)) = waves.get_mut(usize::from(host.placed.wave.0)) else { continue };
            let runs = view::runs_newest(snapshot, channel, host, now);
            let counted = || rollout.failures.contains_key(name) || rollout.forgiven.contains(name);
            *over &= runs
                || (host.retry.is_none() && counted())
                || view::nobody_waits(snapshot, channel, host, now);
            *done |= runs;
            *asked |= host.skip.is_none();
        }
        waves.into_iter().map(|(over, done, asked)| over && (done || !asked)).collect()
    })
}

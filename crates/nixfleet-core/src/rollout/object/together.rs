//! The rules that orders keep together: nobody before those who come first, and never too many.

use std::collections::HashMap;

use super::Objection;
use super::view;
use crate::model::names::HostName;
use crate::model::policy::{Budget, Edge, Scope};
use crate::model::select::Selector;
use crate::model::time::UnixMs;
use crate::rollout::order::{Order, What};
use crate::rollout::progress::RolloutId;
use crate::rollout::snapshot::{Channel, Host, Snapshot};

/// A channel with its orders, by place.
pub(super) struct Told<'a> {
    pub(super) channel: &'a Channel,
    pub(super) orders: Vec<Option<&'a Order>>,
}

impl<'a> Told<'a> {
    /// A channel that nobody has been told anything in yet.
    pub(super) fn new(channel: &'a Channel) -> Self {
        Self { channel, orders: vec![None; channel.hosts.len()] }
    }

    /// Every host with what it is told by this plan.
    fn hosts(&self) -> impl Iterator<Item = (&'a HostName, &'a Host, Option<What>)> {
        let orders = self.orders.iter().map(|order| order.map(|order| order.what));
        self.channel.hosts.iter().zip(orders).map(|((name, host), what)| (name, host, what))
    }

    /// How many hosts of a group there are, how many of them are on their way or may still be, and how many others this plan
    /// puts there.
    fn count(&self, group: &Selector) -> (u32, u32, u32) {
        let hosts = self.hosts().filter(|(name, host, _)| group.means(name, &host.placed.tags));
        hosts.fold((0, 0, 0), |(size, going, sent), (_, host, what)| {
            let goes_on = match what {
                Some(What::Withdraw) => view::on_the_way_unless_told(host),
                Some(_) | None => view::on_the_way(host),
            };
            let is_sent = !goes_on && what.is_some_and(puts_on_the_way);
            (size + 1, going + u32::from(goes_on), sent + u32::from(is_sent))
        })
    }

    fn tells(&self, means: impl Fn(What) -> bool) -> bool {
        self.orders.iter().flatten().any(|order| means(order.what))
    }
}

/// Asks every rule.
pub(super) fn check(told: &[Told<'_>], now: UnixMs, snapshot: &Snapshot, out: &mut Vec<Objection>) {
    let mut counted = Counted::default();
    for own in told {
        nobody_before_those_who_come_first(own, now, snapshot, out);
        if own.tells(puts_on_the_way) {
            for budget in &own.channel.current.policy.max_in_flight {
                out.extend(not_too_many_on_their_way(budget, own, told, &mut counted));
            }
        }
        out.extend(not_too_many_fetch(own, now, snapshot));
    }
}

fn switches(what: What) -> bool {
    matches!(what, What::Go | What::Retry)
}

fn puts_on_the_way(what: What) -> bool {
    matches!(what, What::Go | What::Retry | What::Reboot | What::Revert)
}

/// No host switches before those are done who come first by an edge.
fn nobody_before_those_who_come_first(
    told: &Told<'_>,
    now: UnixMs,
    snapshot: &Snapshot,
    out: &mut Vec<Objection>,
) {
    let channel = told.channel;
    if channel.current.policy.edges.is_empty() || !told.tells(switches) {
        return;
    }
    let is_open = |host| {
        !view::runs_newest(snapshot, channel, host, now) && !view::nobody_waits(snapshot, channel, host, now)
    };
    let open: Vec<(&HostName, &Host)> = channel.hosts.iter().filter(|(_, host)| is_open(host)).collect();
    for Edge { hosts, after } in &channel.current.policy.edges {
        // Two, since a host may be among those that it waits for, and does not wait for itself.
        let mut first = open.iter().filter(|(name, host)| after.means(name, &host.placed.tags));
        let first: [Option<&HostName>; 2] = std::array::from_fn(|_| first.next().map(|(name, _)| *name));
        for (name, host, what) in told.hosts().filter(|(_, _, what)| what.is_some_and(switches)) {
            let crossed = first.into_iter().flatten().find(|after| *after != name);
            if let (Some(after), true, Some(_)) = (crossed, hosts.means(name, &host.placed.tags), what) {
                out.push(Objection::EdgeCrossed { host: name.clone(), after: after.clone() });
            }
        }
    }
}

/// The groups of the whole fleet that were counted already.
type Counted<'a> = HashMap<&'a Selector, Group>;

/// The hosts that a budget is about.
struct Group {
    size: u32,
    /// On their way already, or called back from it without an answer.
    going: u32,
    /// Put on the way by this plan, under a budget of this many for the same hosts.
    sent: Vec<(u32, u32)>,
}

impl Group {
    /// How many will be on their way when the last one was sent who may be sent while fewer than `limit` are. Channels have
    /// limits of their own, or none: those who may go later do not count against those who go before them.
    fn on_their_way(&self, limit: u32) -> u32 {
        let before = self.sent.iter().filter(|(most, _)| *most <= limit);
        self.going + before.map(|(_, sent)| sent).sum::<u32>()
    }
}

/// Nobody is put on the way if that makes too many of a group.
fn not_too_many_on_their_way<'a>(
    budget: &'a Budget,
    own: &Told<'a>,
    all: &[Told<'a>],
    counted: &mut Counted<'a>,
) -> Option<Objection> {
    let hosts = &budget.hosts;
    // Who is on its way already, to an older release, takes the place that it has.
    let mut sent =
        own.hosts().filter(|(_, host, what)| what.is_some_and(puts_on_the_way) && !view::on_the_way(host));
    if !sent.any(|(name, host, _)| hosts.means(name, &host.placed.tags)) {
        return None;
    }
    let of_channel;
    let group = match budget.scope {
        Scope::Channel => {
            of_channel = count(budget, std::slice::from_ref(own));
            &of_channel
        }
        Scope::Fleet => counted.entry(hosts).or_insert_with(|| count(budget, all)),
    };
    let limit = budget.limit.of(group.size);
    let on_their_way = group.on_their_way(limit);
    let hosts = hosts.clone();
    (on_their_way > limit).then_some(Objection::OverBudget { hosts, on_their_way, limit })
}

/// Counts the hosts of a budget in these channels.
fn count(budget: &Budget, over: &[Told<'_>]) -> Group {
    let counts: Vec<(u32, u32, u32)> = over.iter().map(|told| told.count(&budget.hosts)).collect();
    let size = counts.iter().map(|(size, _, _)| size).sum();
    let limited = |told: &Told<'_>| {
        let same = told.channel.current.policy.max_in_flight.iter();
        let same = same.filter(|other| other.hosts == budget.hosts && other.scope == budget.scope);
        same.map(|other| other.limit.of(size)).min()
    };
    let sent = over.iter().zip(&counts).filter_map(|(told, (_, _, sent))| Some((limited(told)?, *sent)));
    Group { size, going: counts.iter().map(|(_, going, _)| going).sum(), sent: sent.collect() }
}

/// Nobody is told to fetch if that makes too many.
fn not_too_many_fetch(told: &Told<'_>, now: UnixMs, snapshot: &Snapshot) -> Option<Objection> {
    let channel = told.channel;
    let limit = channel.current.policy.stage_in_flight?;
    let limit = limit.of(u32::try_from(channel.hosts.len()).unwrap_or(u32::MAX));
    if !told.tells(|what| what == What::Stage) {
        return None;
    }
    let fetches = |host| view::fetches(channel, host) && !view::away(snapshot, channel, host, now);
    let fetching = told.hosts().fold(0u32, |sum, (_, host, what)| {
        sum + u32::from(what == Some(What::Stage)) + u32::from(fetches(host))
    });
    let rollout = RolloutId::from(&channel.current.id);
    (fetching > limit).then_some(Objection::OverStageBudget { rollout, fetching, limit })
}

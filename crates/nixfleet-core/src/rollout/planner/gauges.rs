//! Budgets: how many of each group are on their way.

use std::collections::{BTreeMap, HashMap};

use super::View;
use super::seen::{Seen, takes_a_place};
use crate::model::names::ChannelName;
use crate::model::policy::{Budget, Scope};
use crate::model::select::Selector;
use crate::rollout::reason::Reason;

/// A group and those of it who are on their way.
struct Gauge<'a> {
    hosts: &'a Selector,
    size: u32,
    used: u32,
}

impl<'a> Gauge<'a> {
    fn new(hosts: &'a Selector) -> Self {
        Self { hosts, size: 0, used: 0 }
    }

    fn see(&mut self, view: &View<'_>) {
        if *self.hosts == Selector::All {
            let taken = view.seen.iter().filter(|seen| takes_a_place(seen)).count();
            self.size = self.size.saturating_add(number(view.seen.len()));
            self.used = self.used.saturating_add(number(taken));
            return;
        }
        for seen in view.seen.iter().filter(|seen| means(self.hosts, seen)) {
            self.size = self.size.saturating_add(1);
            self.used = self.used.saturating_add(u32::from(takes_a_place(seen)));
        }
    }
}

fn means(hosts: &Selector, seen: &Seen<'_>) -> bool {
    hosts.means(seen.name, &seen.host.placed.tags)
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// All budgets of the fleet. Those over the whole fleet with the same group share their gauge, whoever set the limit.
pub(super) struct Gauges<'a> {
    of_channel: BTreeMap<&'a ChannelName, Vec<Gauge<'a>>>,
    of_fleet: Vec<Gauge<'a>>,
    /// Where in `of_fleet` a group is.
    places: HashMap<&'a Selector, usize>,
}

impl<'a> Gauges<'a> {
    /// Counts who is on their way now.
    pub(super) fn new(views: &BTreeMap<&'a ChannelName, View<'a>>) -> Self {
        let mut out = Self { of_channel: BTreeMap::new(), of_fleet: Vec::new(), places: HashMap::new() };
        for (name, view) in views {
            let budgets: &'a [Budget] = &view.channel.current.policy.max_in_flight;
            let own = budgets.iter().filter(|budget| budget.scope == Scope::Channel);
            let mut own: Vec<_> = own.map(|budget| Gauge::new(&budget.hosts)).collect();
            for gauge in &mut own {
                gauge.see(view);
            }
            out.of_channel.insert(name, own);
            for budget in budgets.iter().filter(|budget| budget.scope == Scope::Fleet) {
                let next = out.of_fleet.len();
                if *out.places.entry(&budget.hosts).or_insert(next) == next {
                    out.of_fleet.push(Gauge::new(&budget.hosts));
                }
            }
        }
        for gauge in &mut out.of_fleet {
            for view in views.values() {
                gauge.see(view);
            }
        }
        out
    }

    /// The first budget of the host's channel that has no place left for it.
    pub(super) fn full(&self, view: &View<'_>, seen: &Seen<'_>) -> Option<Reason> {
        let policy = &view.channel.current.policy;
        let mut own = self.of_channel.get(&view.channel.current.id.channel)?.iter();
        for Budget { hosts, limit, scope } in &policy.max_in_flight {
            let gauge = match scope {
                Scope::Channel => own.next(),
                Scope::Fleet => self.places.get(hosts).and_then(|place| self.of_fleet.get(*place)),
            };
            let Some(Gauge { hosts: _, size, used }) = gauge else { continue };
            let (used, limit) = (*used, limit.of(*size));
            if used >= limit && means(hosts, seen) {
                return Some(Reason::Budget { hosts: hosts.clone(), scope: *scope, used, limit });
            }
        }
        None
    }

    /// One host more is on its way.
    pub(super) fn take(&mut self, channel: &ChannelName, seen: &Seen<'_>) {
        let own = self.of_channel.get_mut(channel).into_iter().flatten();
        for gauge in own.chain(&mut self.of_fleet).filter(|gauge| means(gauge.hosts, seen)) {
            gauge.used = gauge.used.saturating_add(1);
        }
    }
}

//! Budgets: how many of each group are on their way.

use super::View;
use super::groups::Group;
use super::why::{Same, Why};
use crate::host::waiting::RestartBy;
use crate::model::names::HostName;
use crate::model::policy::{Budget, Scope};

/// A group and those of it who are on their way.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Gauge<'a> {
    size: u32,
    used: u32,
    /// The first of those who may have to wait longest for a restart.
    until_restart: Option<(&'a HostName, RestartBy)>,
}

impl<'a> Gauge<'a> {
    /// Notes a host that keeps its place until it is restarted.
    fn waits_for(&mut self, one: Option<(&'a HostName, RestartBy)>) {
        if one.map(|(_, by)| by) > self.until_restart.map(|(_, by)| by) {
            self.until_restart = one;
        }
    }
}

/// Counts each group of a channel over the channel's own hosts.
pub(super) fn of_channel<'a>(view: &View<'a>) -> Vec<Gauge<'a>> {
    let mut out = vec![Gauge::default(); view.groups.len()];
    for (place, seen) in view.seen.iter().enumerate() {
        let used = u32::from(seen.takes_a_place);
        let restart = seen.awaits_restart().filter(|_| seen.takes_a_place).map(|by| (seen.name, by));
        for group in view.groups.of(place) {
            if let Some(gauge) = out.get_mut(group) {
                gauge.size = gauge.size.saturating_add(1);
                gauge.used = gauge.used.saturating_add(used);
                gauge.waits_for(restart);
            }
        }
    }
    out
}

/// The groups of the fleet, over all channels.
pub(super) fn of_fleet<'a>(views: &[View<'_>], gauges: &[Vec<Gauge<'a>>]) -> Vec<Gauge<'a>> {
    let mut out = vec![Gauge::default(); views.first().map_or(0, |view| view.groups.of_fleet)];
    for own in gauges {
        for (sum, gauge) in out.iter_mut().zip(own) {
            sum.size = sum.size.saturating_add(gauge.size);
            sum.used = sum.used.saturating_add(gauge.used);
            sum.waits_for(gauge.until_restart);
        }
    }
    out
}

/// The budgets of a channel while its hosts get their turn.
pub(super) struct Budgets<'v, 'f, 'n> {
    limits: Vec<Limit<'v>>,
    own: Vec<Gauge<'n>>,
    fleet: &'f mut [Gauge<'n>],
}

struct Limit<'v> {
    budget: &'v Budget,
    group: Group,
    /// So many hosts.
    most: u32,
}

impl<'v, 'f, 'n: 'v> Budgets<'v, 'f, 'n> {
    /// The budgets of the channel's policy.
    pub(super) fn new(view: &'v View<'v>, own: Vec<Gauge<'n>>, fleet: &'f mut [Gauge<'n>]) -> Self {
        let budgets = view.channel.current.policy.max_in_flight.iter().zip(&view.groups.budgets);
        let limits = budgets.map(|(budget, &group)| {
            let gauges: &[Gauge<'_>] = match budget.scope {
                Scope::Channel => &own,
                Scope::Fleet => fleet,
            };
            let size = gauges.get(group).map_or(0, |gauge| gauge.size);
            Limit { budget, group, most: budget.limit.of(size) }
        });
        Self { limits: limits.collect(), own, fleet }
    }

    /// The first budget that has no place left for the host at `place`.
    pub(super) fn full(&self, view: &View<'_>, place: usize) -> Option<Why<'v>> {
        self.limits.iter().find_map(|Limit { budget, group, most }| {
            let gauge = match budget.scope {
                Scope::Channel => self.own.get(*group),
                Scope::Fleet => self.fleet.get(*group),
            };
            let Gauge { size: _, used, until_restart } = *gauge?;
            let full = used >= *most && view.groups.means(*group, place);
            full.then_some(Why::Budget { budget: Same(budget), used, limit: *most, until_restart })
        })
    }

    /// The host at `place` is on its way from now on.
    pub(super) fn take(&mut self, view: &View<'_>, place: usize) {
        for group in view.groups.of(place) {
            for gauge in self.own.get_mut(group).into_iter().chain(self.fleet.get_mut(group)) {
                gauge.used = gauge.used.saturating_add(1);
            }
        }
    }
}

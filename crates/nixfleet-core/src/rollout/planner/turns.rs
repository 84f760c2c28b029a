//! Whose turn it is, and why everybody else waits.

use std::collections::BTreeMap;

use super::gauges::{self, Budgets};
use super::rules::{Rules, Shared};
use super::seen::{At, Recall, Seen, Silence};
use super::why::{Reasons, Same, Why};
use super::{View, Wake};
use crate::rollout::order::{Order, What};
use crate::rollout::reason::{Held, HeldIn};
use crate::rollout::snapshot::RebootWanted;

/// Gives every host an order or a reason: channel by channel, wave by wave, by name.
pub(super) fn give(views: &[View<'_>], wake: &mut Wake) -> (Vec<Order>, Held) {
    let counted: Vec<_> = views.iter().map(gauges::of_channel).collect();
    let mut fleet = gauges::of_fleet(views, &counted);
    let (mut orders, mut held) = (Vec::new(), BTreeMap::new());
    for (view, own) in views.iter().zip(counted) {
        let shared = Shared::new(view, wake);
        let budgets = Budgets::new(view, own, &mut fleet);
        let turns = Turns { view, rules: Rules::new(view, &shared), budgets, fetching: Fetching::new(view) };
        held.insert(view.name.clone(), turns.give(&mut orders));
    }
    (orders, Held { channels: held })
}

enum Answer<'v> {
    Order(What),
    Nothing(Why<'v>),
}

/// A channel while its hosts get their turn.
struct Turns<'v, 'f, 'n> {
    view: &'v View<'v>,
    rules: Rules<'v>,
    budgets: Budgets<'v, 'f, 'n>,
    fetching: Fetching,
}

/// How many fetch, and may.
struct Fetching {
    now: u32,
    max: u32,
}

impl Fetching {
    fn new(view: &View<'_>) -> Self {
        let number = |count| u32::try_from(count).unwrap_or(u32::MAX);
        let fetch = |seen: &&Seen<'_>| seen.at == At::Fetching && seen.silence == Silence::Heard;
        let max = view.channel.current.policy.stage_in_flight;
        Self {
            now: number(view.seen.iter().filter(fetch).count()),
            max: max.map_or(u32::MAX, |amount| amount.of(number(view.seen.len()))),
        }
    }
}

impl<'v, 'n: 'v> Turns<'v, '_, 'n> {
    fn give(mut self, orders: &mut Vec<Order>) -> HeldIn {
        let view = self.view;
        let mut turn: Vec<(usize, &Seen<'v>)> = view.seen.iter().enumerate().collect();
        turn.sort_by_key(|(_, seen)| seen.wave);
        let mut reasons = Reasons::new(view.channel.hosts.names(), &view.rollout.release);
        for (place, seen) in turn {
            match self.answer(place, seen) {
                Answer::Nothing(why) => reasons.hold(place, why),
                Answer::Order(what) => orders.push(self.order(place, seen, what)),
            }
        }
        reasons.end()
    }

    fn order(&mut self, place: usize, seen: &Seen<'_>, what: What) -> Order {
        match what {
            What::Stage => self.fetching.now = self.fetching.now.saturating_add(1),
            What::Go | What::Retry | What::Reboot | What::Revert => {
                if !seen.takes_a_place {
                    self.budgets.take(self.view, place);
                }
            }
            What::Withdraw => {}
        }
        let told = seen.host.ordered.as_ref().filter(|_| what == What::Withdraw);
        let release = told.map_or(&self.view.rollout.release, |ordered| &ordered.release).clone();
        Order { host: seen.name.clone(), release, what }
    }

    fn answer(&self, place: usize, seen: &'v Seen<'v>) -> Answer<'v> {
        match seen.recall {
            Recall::TakeBack => return Answer::Order(What::Withdraw),
            Recall::GoBackInstead => return Answer::Order(What::Revert),
            Recall::No => {}
        }
        if let Some(ordered) = seen.host.ordered.as_ref().filter(|ordered| ordered.what == What::Withdraw) {
            return Answer::Nothing(Why::TakenBack(&ordered.release));
        }
        let told = match seen.at {
            At::Done | At::Soaking if self.view.goes_back() => return self.way_back(place, seen),
            At::Done => return self.restart(place, seen),
            At::Behind | At::Fetching | At::Staged => return self.forward(place, seen),
            At::Failed(_) if seen.host.retry.is_some() => return self.forward(place, seen),
            At::Older(_) if seen.may_be_overtaken() => return self.overtake(place, seen),
            At::Soaking => Why::Soaking,
            At::Restarting => {
                let state = seen.host.standing.as_ref().map(|standing| standing.state);
                Why::OnItsWay(state, seen.awaits_restart())
            }
            At::OnItsWay(state) => Why::OnItsWay(state, seen.awaits_restart()),
            At::Older(release) => silent(seen).unwrap_or(Why::Superseded(release)),
            At::Failed(class) => kept(seen).unwrap_or(Why::Failed(class)),
            At::TriesAgain(class) => kept(seen).unwrap_or(Why::TriesAgain(class)),
        };
        Answer::Nothing(told)
    }

    /// Towards the newest release: first it fetches, then it waits for its turn.
    fn forward(&self, place: usize, seen: &'v Seen<'v>) -> Answer<'v> {
        let held = kept(seen).or_else(|| away(seen)).or_else(|| self.rules.stopped());
        if let Some(why) = held.or_else(|| self.rules.quarantine(seen)) {
            return Answer::Nothing(why);
        }
        let what = match seen.at {
            At::Behind if self.fetching.now < self.fetching.max => return Answer::Order(What::Stage),
            At::Behind => {
                let Fetching { now: used, max: limit } = self.fetching;
                return Answer::Nothing(Why::StageBudget { used, limit });
            }
            At::Fetching => return Answer::Nothing(Why::NotStaged),
            At::Failed(_) => What::Retry,
            At::Staged
            | At::OnItsWay(_)
            | At::Soaking
            | At::Done
            | At::Restarting
            | At::TriesAgain(_)
            | At::Older(_) => What::Go,
        };
        let waits = self.rules.wave(seen).or_else(|| self.rules.edge(place, seen));
        let waits = waits.or_else(|| self.rules.window());
        order_unless(waits.or_else(|| self.budgets.full(self.view, place)), what)
    }

    /// Past the reboot that an older release waits for. It is on its way already, so there is a place for it, and it fetches when
    /// it has given the older one up: before that it cannot say that it has fetched.
    fn overtake(&self, place: usize, seen: &'v Seen<'v>) -> Answer<'v> {
        let held = kept(seen).or_else(|| away(seen)).or_else(|| self.rules.stopped());
        let held = held.or_else(|| self.rules.quarantine(seen)).or_else(|| self.rules.wave(seen));
        let held = held.or_else(|| self.rules.edge(place, seen)).or_else(|| self.rules.window());
        order_unless(held, What::Go)
    }

    /// A restart for a release that is done is a turn of its own, whatever became of the rollout, unless a person stopped
    /// it.
    fn restart(&self, place: usize, seen: &'v Seen<'v>) -> Answer<'v> {
        let wanted = seen.host.standing.as_ref().map(|standing| standing.reboot);
        if wanted != Some(RebootWanted::Yes) {
            return Answer::Nothing(Why::Done);
        }
        let held = kept(seen).or_else(|| away(seen)).or_else(|| self.rules.stopped());
        let held = held.or_else(|| self.rules.reboot_window());
        order_unless(held.or_else(|| self.budgets.full(self.view, place)), What::Reboot)
    }

    /// Back from the newest release. Who cannot go back stays with what is done.
    fn way_back(&self, place: usize, seen: &'v Seen<'v>) -> Answer<'v> {
        if seen.stays_on(&self.view.channel.current.id) {
            return Answer::Nothing(if seen.at == At::Soaking { Why::Soaking } else { Why::Done });
        }
        let held = kept(seen).or_else(|| away(seen));
        order_unless(held.or_else(|| self.budgets.full(self.view, place)), What::Revert)
    }
}

fn order_unless(why: Option<Why<'_>>, what: What) -> Answer<'_> {
    match why {
        Some(why) => Answer::Nothing(why),
        None => Answer::Order(what),
    }
}

/// Why a person does not let it move.
fn kept<'v>(seen: &Seen<'v>) -> Option<Why<'v>> {
    let skipped = seen.host.skip.as_ref().map(|by| Why::Skipped(Same(by)));
    skipped.or_else(|| seen.hold.map(|hold| Why::Held(Same(hold))))
}

/// Why nothing can be said to it.
fn away<'v>(seen: &Seen<'v>) -> Option<Why<'v>> {
    silent(seen).or_else(|| seen.host.standing.is_none().then_some(Why::NeverReported))
}

/// Why nothing is to be expected of it.
fn silent<'v>(seen: &Seen<'v>) -> Option<Why<'v>> {
    match seen.silence {
        Silence::Offline => Some(Why::Offline(seen.host.heard_ms)),
        Silence::Heard => None,
    }
}

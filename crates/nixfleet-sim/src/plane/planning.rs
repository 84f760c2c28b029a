//! The planning loop: gather news, plan, ask the second pair of eyes, carry out one write after the other.

use nixfleet_core::model::names::{HostName, ReleaseId};
use nixfleet_core::rollout::{Fact, Order, Plan, What, object, plan};
use nixfleet_core::wire::Wish;

use crate::promises::Promise;
use crate::sim::Sim;

impl Sim {
    /// A plan is made and carried out.
    pub(crate) fn plans(&mut self) {
        // Another time was set since.
        if self.plane.plans_at != Some(self.now) {
            return;
        }
        self.plane.plans_at = None;
        // When it comes up again, it plans.
        if !self.plane.is_up || self.plane.thief {
            return;
        }
        let now = self.plane.now(self.now);
        let (mut made, report) = match self.mistaken_snapshot() {
            Some(snapshot) => plan(&snapshot, now),
            None => plan(&self.plane.snapshot, now),
        };
        self.mistaken_plan(&mut made);
        self.counts.plans += 1;
        let objections = object(&made, &self.plane.snapshot);
        if !objections.is_empty() {
            let said: Vec<String> = objections.iter().map(ToString::to_string).collect();
            let what = format!("{}; the plan: {made:?}", said.join("; "));
            self.must(false, Promise::NoObjection, None, || what);
        }
        self.check_answers(&made, &report);
        if let Some(again) = report.again_ms {
            let at = self.now + again.ms_since(now).max(1_000);
            self.plan_by(at);
        }
        self.plane.report = report;
        let is_empty = made.is_empty();
        if self.broken.is_none() && self.carry_out(&made) && !is_empty {
            self.check_nothing_left(now, &made);
        }
    }

    /// Says whether all of it was carried out: it may be cut off between any two writes.
    fn carry_out(&mut self, made: &Plan) -> bool {
        let cut = self.story.rates.plane_cut;
        for decision in &made.decisions {
            if self.goes_wrong(cut) {
                self.kill_plane();
                return false;
            }
            self.note(None, || format!("decided: {} {:?}", decision.rollout, decision.becomes));
            self.check_decision(decision);
            self.fold(&Fact::Decided(decision.clone()));
        }
        for order in &made.orders {
            if self.goes_wrong(cut) {
                self.kill_plane();
                return false;
            }
            self.counts.orders += 1;
            self.fold(&Fact::Ordered(order.clone()));
            self.give(order);
        }
        self.check_budgets(made);
        true
    }

    /// What an order of the planner is on the wire. Hosts look at what is served by themselves.
    pub(super) fn give(&mut self, order: &Order) {
        let Some(host) = place_of(&order.host) else { return };
        let release = order.release.clone();
        let withdrawn = Wish::Withdraw { release: release.clone() };
        match order.what {
            What::Withdraw => self.plane.rows[host].drop_orders(),
            What::Go | What::Retry | What::Reboot | What::Revert => {
                self.plane.rows[host].forget(Some(&withdrawn));
            }
            What::Stage => {}
        }
        match order.what {
            What::Stage => {}
            What::Revert => self.order(host, Wish::Revert { release }),
            What::Go => {
                self.lets_go(host, &release);
                self.order(host, Wish::Go { release });
            }
            What::Reboot => self.order(host, Wish::Reboot { release }),
            What::Withdraw => self.order(host, Wish::Withdraw { release }),
            What::Retry => {
                self.lets_go(host, &release);
                self.order(host, Wish::Retry { by: "ann".to_owned() });
            }
        }
    }

    /// The next order lets the host go.
    fn lets_go(&mut self, host: usize, release: &ReleaseId) {
        let number = self.plane.newest + 1;
        self.hosts[host].seen.let_go.insert(release.clone(), number);
    }
}

/// The host of that name: names of stories are their places.
pub(crate) fn place_of(name: &HostName) -> Option<usize> {
    name.as_str().get(1..)?.parse().ok()
}

//! The planning loop: gather news, plan, ask the second pair of eyes, carry out one write after the other.

use nixfleet_core::model::names::{HostName, ReleaseId};
use nixfleet_core::model::time::UnixMs;
use nixfleet_core::rollout::{Fact, Order, Plan, PlanReport, What, object, plan};
use nixfleet_core::wire::Wish;

use super::replicas::Asleep;
use crate::mistakes::Mistake;
use crate::promises::Promise;
use crate::sim::{Happens, Sim};

/// Whoever does not lead looks again so much later.
const PLANS_AGAIN_MS: u64 = 2_000;

impl Sim {
    /// A plan is made and carried out.
    pub(crate) fn plans(&mut self) {
        // Another time was set since.
        if self.plane.plans_at != Some(self.now) {
            return;
        }
        self.plane.plans_at = None;
        // When one comes up again, it plans.
        if self.plane.thief || self.some_replica().is_none() {
            self.plane.unled_since = None;
            return;
        }
        let now = self.plane.now(self.now);
        if !self.leads(now) {
            self.check_led();
            return self.plan_by(self.now + PLANS_AGAIN_MS);
        }
        let stall = self.story.rates.plane_stall;
        if self.goes_wrong(stall) {
            return self.falls_asleep(now);
        }
        let planned = self.makes_plan(now);
        self.writes_plan(now, planned);
    }

    /// What is planned by a clock.
    fn makes_plan(&mut self, now: UnixMs) -> (Plan, PlanReport) {
        self.plane.snapshot.listening_since_ms = self.plane.replicas[self.plane.acting].listens_since;
        let (mut made, report) = match self.mistaken_snapshot(now) {
            Some(snapshot) => plan(&snapshot, now),
            None => plan(&self.plane.snapshot, now),
        };
        self.mistaken_plan(&mut made);
        self.counts.plans += 1;
        (made, report)
    }

    /// The leader has looked at its clock, and stands still. Others go on when its lease is over.
    fn falls_asleep(&mut self, clock: UnixMs) {
        let (acting, planned) = (self.plane.acting, self.makes_plan(clock));
        self.note(None, || format!("replica {acting} falls asleep"));
        self.plane.replicas[acting].asleep = Some(Asleep { clock, planned });
        let at = self.now + self.dice.between(1_000, 120_000);
        let process = self.plane.replicas[acting].process;
        self.queue.push(at, Happens::LeaderWakes(acting, process));
        self.plan_soon();
    }

    /// It goes on where it was: it plans anew within its write, if the lease is still its own by what its clock had said.
    pub(crate) fn leader_wakes(&mut self, replica: usize, process: u32) {
        if self.plane.replicas[replica].process != process || self.plane.thief {
            return;
        }
        let Some(Asleep { clock, planned }) = self.plane.replicas[replica].asleep.take() else { return };
        self.plane.acting = replica;
        self.note(None, || format!("replica {replica} wakes"));
        self.counts.late_leaders += 1;
        if self.makes(Mistake::LateLeaderWrites) {
            let _ = self.carry_out(&planned.0);
            return;
        }
        if self.still_leads(clock) {
            let planned = self.makes_plan(clock);
            self.writes_plan(clock, planned);
        }
    }

    /// The second pair of eyes looks at a plan, and it is carried out.
    fn writes_plan(&mut self, now: UnixMs, (made, report): (Plan, PlanReport)) {
        let objections = object(&made, &self.plane.snapshot);
        if !objections.is_empty() {
            let said: Vec<String> = objections.iter().map(ToString::to_string).collect();
            let what = format!("{}; the plan: {made:?}", said.join("; "));
            self.must(false, Promise::NoObjection, None, || what);
        }
        self.check_answers(&made, &report);
        self.note(None, || format!("planned: {} orders, again at {:?}", made.orders.len(), report.again_ms));
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
                self.kill_replica();
                return false;
            }
            self.note(None, || format!("decided: {} {:?}", decision.rollout, decision.becomes));
            self.check_decision(decision, made.at_ms);
            self.fold_at(&Fact::Decided(decision.clone()), made.at_ms);
        }
        for order in &made.orders {
            if self.goes_wrong(cut) {
                self.kill_replica();
                return false;
            }
            self.counts.orders += 1;
            self.note(None, || format!("ordered: {order}"));
            self.fold_at(&Fact::Ordered(order.clone()), made.at_ms);
            self.give(order);
            self.note_taken_back(order);
            if let Some(host) = place_of(&order.host) {
                self.check_order_stays(host);
            }
        }
        self.check_budgets(made);
        true
    }

    /// What an order of the planner is on the wire.
    pub(super) fn give(&mut self, order: &Order) {
        let Some(host) = place_of(&order.host) else { return };
        let release = order.release.clone();
        let withdrawn = Wish::Withdraw { release: release.clone() };
        match order.what {
            What::Withdraw => self.plane.rows[host].drop_orders(),
            What::Revert => {
                self.plane.rows[host].drop_orders();
                self.plane.rows[host].forget(Some(&withdrawn));
            }
            What::Go | What::Retry | What::Reboot => {
                self.plane.rows[host].forget(Some(&withdrawn));
                self.plane.rows[host].forget(Some(&Wish::Revert { release: release.clone() }));
            }
            What::Stage => {}
        }
        match order.what {
            What::Stage => self.order(host, Wish::Stage { release }),
            What::Revert => {
                self.hosts[host].seen.told_back.insert(release.clone());
                self.order(host, Wish::Revert { release });
            }
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

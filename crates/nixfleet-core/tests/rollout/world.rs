//! A fleet to plan for: releases, hosts that do as they are ordered or fail, and a clock.

use std::collections::{BTreeMap, BTreeSet};

use nixfleet_core::activation::outcome::FailureClass;
use nixfleet_core::host::waiting::{RestartBy, StateName};
use nixfleet_core::ids::StorePath;
use nixfleet_core::model::names::{HostName, ReleaseId, Sha256};
use nixfleet_core::model::policy::Policy;
use nixfleet_core::model::time::{Secs, UnixMs};
use nixfleet_core::rollout::fact::{Current, Placed};
use nixfleet_core::rollout::snapshot::{RebootWanted, StandingFailure, Then};
use nixfleet_core::rollout::{
    Fact, NotFolded, Order, Plan, PlanReport, Snapshot, Standing, Verb, What, object, plan,
};

/// When stories begin: Monday, 5 January 2026, 00:00 UTC.
pub(crate) const MONDAY: u64 = 1_767_571_200_000;

/// A fleet with its clock. Every plan is checked: no objection, nothing left to plan, and every host has an answer.
pub(crate) struct World {
    pub(crate) snapshot: Snapshot,
    pub(crate) now: UnixMs,
    /// Tells one state of a host from the next.
    pub(crate) ticks: u64,
}

impl World {
    pub(crate) fn new() -> Self {
        let now = UnixMs::new(MONDAY).unwrap();
        Self { snapshot: Snapshot::new(now), now, ticks: 0 }
    }

    pub(crate) fn pass(&mut self, span: Secs) {
        self.now = self.now.plus(span);
    }

    /// Folds a fact, and counts what it touched: one host and one rollout at most, however large the fleet is. Only a new
    /// release concerns more.
    pub(crate) fn fold(&mut self, fact: &Fact) -> Result<(), NotFolded> {
        let before = self.snapshot.clone();
        let folded = self.snapshot.fold(fact, self.now);
        if !matches!(fact, Fact::ReleaseTaken { .. }) {
            let (hosts, rollouts) = touched(&before, &self.snapshot);
            assert!(
                hosts + rollouts <= 2 && hosts <= 1,
                "{fact:?} touched {hosts} hosts, {rollouts} rollouts"
            );
        }
        folded
    }

    pub(crate) fn release(&mut self, current: Current, hosts: BTreeMap<HostName, Placed>) {
        self.fold(&Fact::ReleaseTaken { release: Box::new(current), hosts }).unwrap();
    }

    pub(crate) fn ask(&mut self, verb: Verb) -> Result<(), NotFolded> {
        self.fold(&Fact::Asked { verb, who: "ann".to_owned(), why: "says so".to_owned() })
    }

    /// Plans, checks the plan, and carries it out.
    pub(crate) fn plan(&mut self) -> (Plan, PlanReport) {
        let (made, report) = plan(&self.snapshot, self.now);
        assert_eq!(object(&made, &self.snapshot), [], "{made:#?}");
        let ordered: BTreeSet<&HostName> = made.orders.iter().map(|order| &order.host).collect();
        for host in self.snapshot.homes.keys() {
            assert_ne!(ordered.contains(host), report.held.get(host).is_some(), "{host} has one answer");
        }
        for decision in &made.decisions {
            self.fold(&Fact::Decided(decision.clone())).unwrap();
        }
        for order in &made.orders {
            self.fold(&Fact::Ordered(order.clone())).unwrap();
        }
        let (again, _) = plan(&self.snapshot, self.now);
        assert!(again.is_empty(), "a plan that was carried out leaves nothing to plan: {again:#?}");
        (made, report)
    }

    pub(crate) fn current(&self, host: &HostName) -> ReleaseId {
        self.snapshot.host(host).unwrap().0.current.id.clone()
    }

    /// The host reports a state for a release.
    pub(crate) fn stands(&mut self, host: &HostName, state: StateName, release: ReleaseId) {
        let old = self.snapshot.host(host).unwrap().1.standing.clone();
        let go = old.as_ref().and_then(|old| old.go.clone());
        let moved = !matches!(state, StateName::Staging | StateName::Staged | StateName::Failed);
        self.ticks += 1;
        let standing = Standing {
            state,
            since_ms: UnixMs::new(self.now.get() + self.ticks).unwrap(),
            go: if moved { Some(release.clone()) } else { go },
            about: Some(release),
            reboot_go: old.as_ref().and_then(|old| old.reboot_go.clone()),
            reboot: RebootWanted::No,
            no_way_back: None,
            restart_by: (state == StateName::AwaitingReboot).then_some(RestartBy::Itself),
            failure: None,
            hold: old.and_then(|old| old.hold),
        };
        self.report(host, standing);
    }

    /// The host reports that it failed, and went back if it had begun.
    pub(crate) fn fails(&mut self, host: &HostName, state: StateName, then: Then) {
        self.stands(host, state, self.current(host));
        let (_, found) = self.snapshot.host(host).unwrap();
        let (mut standing, system) = (found.standing.clone().unwrap(), found.placed.system.clone());
        let quarantined = (state == StateName::Reverted).then_some(system);
        standing.failure = Some(StandingFailure { class: FailureClass::Probe, then, quarantined });
        self.report(host, standing);
    }

    pub(crate) fn report(&mut self, host: &HostName, standing: Standing) {
        self.fold(&Fact::HostStands { host: host.clone(), standing: Box::new(standing) }).unwrap();
    }

    /// Does at once what a healthy host does in the end because of an order.
    pub(crate) fn obey(&mut self, order: &Order) {
        let state = match order.what {
            What::Stage => StateName::Staged,
            What::Go | What::Retry | What::Reboot => StateName::Converged,
            What::Revert => return self.fails(&order.host, StateName::Reverted, Then::Stays),
            What::Withdraw => return self.forgets(&order.host),
        };
        self.stands(&order.host, state, order.release.clone());
    }

    /// The host reports that it has what it was told last, and does not begin yet.
    pub(crate) fn notes(&mut self, host: &HostName) {
        let (_, found) = self.snapshot.host(host).unwrap();
        let (Some(ordered), Some(mut standing)) = (found.ordered.clone(), found.standing.clone()) else {
            return;
        };
        match ordered.what {
            What::Go => standing.go = Some(ordered.release),
            What::Reboot => standing.reboot_go = Some(ordered.release),
            What::Retry => {
                (standing.state, standing.failure) = (StateName::Staging, None);
                self.ticks += 1;
                standing.since_ms = UnixMs::new(self.now.get() + self.ticks).unwrap();
            }
            What::Withdraw => (standing.go, standing.reboot_go) = (None, None),
            What::Stage | What::Revert => return,
        }
        self.report(host, standing);
    }

    /// The host reports that it has no order any more, if it had one.
    fn forgets(&mut self, host: &HostName) {
        if let Some(mut standing) = self.snapshot.host(host).unwrap().1.standing.clone() {
            (standing.go, standing.reboot_go) = (None, None);
            self.report(host, standing);
        }
    }

    /// Plans and obeys until a plan is empty; how many plans that took.
    pub(crate) fn settle(&mut self) -> u32 {
        for round in 1..1_000 {
            let (made, _) = self.plan();
            if made.is_empty() {
                return round;
            }
            made.orders.iter().for_each(|order| self.obey(order));
        }
        panic!("it never settles");
    }
}

/// How many hosts, and how many channels beside their hosts, are not as they were.
fn touched(before: &Snapshot, after: &Snapshot) -> (usize, usize) {
    assert_eq!((&before.homes, before.channels.len()), (&after.homes, after.channels.len()));
    let (mut hosts, mut rollouts) = (0, 0);
    for (old, new) in before.channels.values().zip(after.channels.values()) {
        assert_eq!(old.hosts.names(), new.hosts.names());
        hosts += old.hosts.rows().iter().zip(new.hosts.rows()).filter(|(old, new)| old != new).count();
        rollouts += usize::from((&old.rollout, &old.quarantine) != (&new.rollout, &new.quarantine));
    }
    (hosts, rollouts)
}

/// A system, by a word of its own.
pub(crate) fn system(word: &str) -> StorePath {
    let hash =
        format!("{:0>32}", word.bytes().fold(7u64, |sum, byte| sum * 31 % 1_000_003 + u64::from(byte)));
    format!("/nix/store/{hash}-{word}").parse().unwrap()
}

/// The release `seq` of a channel.
pub(crate) fn release(channel: &str, seq: u64, now: UnixMs, policy: Policy) -> Current {
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&seq.to_be_bytes());
    Current {
        id: ReleaseId {
            channel: channel.parse().unwrap(),
            seq: seq.try_into().unwrap(),
            digest: Sha256::new(digest),
        },
        revision: format!("rev{seq}").parse().unwrap(),
        created_ms: now,
        expires_ms: now.plus(Secs(30 * 86_400)),
        policy,
    }
}

/// The simplest policy that there is, with this much in place of its own.
pub(crate) fn policy(with: &str) -> Policy {
    let mut json: serde_json::Value = serde_json::json!({
        "waves": [{ "name": "all", "opens_after_secs": 0, "soak_secs": 60 }],
        "max_failures": 0, "on_failure": "revert", "commit": "after-confirm", "confirm_within_secs": 300,
        "reboot": { "mode": "when-needed", "warn_secs": 0 }, "offline_after_secs": 86_400,
    });
    let with: serde_json::Value = serde_json::from_str(with).unwrap();
    for (key, value) in with.as_object().unwrap() {
        json[key] = value.clone();
    }
    serde_json::from_value(json).unwrap()
}

//! The control plane: what it keeps, what it takes in, and how it carries plans out. Its decisions are core's: the follower of a
//! host's reports, the fold of facts, `plan` and `object`.

mod ingest;
mod planning;
mod replicas;

pub(crate) use planning::place_of;
pub(crate) use replicas::{Lease, Replica};

use std::sync::Arc;

use nixfleet_core::host::Follower;
use nixfleet_core::model::time::UnixMs;
use nixfleet_core::rollout::{Fact, PlanReport, Snapshot};
use nixfleet_core::wire::Wish;

use crate::sim::{Happens, Sim};
use crate::story::{Follows, Story};
use crate::truth::Signed;

/// The control plane with its database.
pub(crate) struct Plane {
    pub(crate) replicas: Vec<Replica>,
    /// Which of them does what is done now.
    pub(crate) acting: usize,
    /// Who plans.
    pub(crate) lease: Option<Lease>,
    /// Since when a plan is due, and nobody got the lease.
    pub(crate) unled_since: Option<u64>,
    /// Folded from its log, and so the same again after a crash.
    pub(crate) snapshot: Snapshot,
    /// By host.
    pub(crate) rows: Vec<Row>,
    /// The newest release that it serves, by channel.
    pub(crate) served: Vec<Option<Arc<Signed>>>,
    /// The number of the newest event.
    pub(crate) newest: u64,
    /// When the next plan is made.
    pub(crate) plans_at: Option<u64>,
    /// What the newest plan said of those who stay.
    pub(crate) report: PlanReport,
    /// Whether somebody else holds it.
    pub(crate) thief: bool,
    /// Whether its database was lost, or a thief had it: what hosts were told is not all known here.
    pub(crate) was_tampered: bool,
}

/// What is kept of a host.
pub(crate) struct Row {
    pub(crate) follower: Follower,
    /// Its reports cannot be folded: its state is wanted.
    pub(crate) has_diverged: bool,
    /// When it was heard of last, as far as that was written: it is written now and then.
    pub(crate) heard_at: u64,
    /// Orders that it has not reported to have, by topic.
    pub(crate) orders: [Option<(u64, Wish)>; TOPICS],
}

/// How many topics orders have.
pub(crate) const TOPICS: usize = 6;

impl Row {
    pub(crate) fn new() -> Self {
        Self {
            follower: Follower::default(),
            has_diverged: false,
            heard_at: 0,
            orders: [const { None }; TOPICS],
        }
    }
}

impl Plane {
    pub(crate) fn new(story: &Story, now: u64) -> Self {
        let since = UnixMs::new(now).unwrap_or(UnixMs::MAX);
        Self {
            replicas: (0..story.replicas).map(|_| Replica::new(story.hosts.len(), since)).collect(),
            acting: 0,
            lease: None,
            unled_since: None,
            snapshot: Snapshot::new(since),
            rows: story.hosts.iter().map(|_| Row::new()).collect(),
            served: story.channels.iter().map(|_| None).collect(),
            newest: 0,
            plans_at: None,
            report: PlanReport::default(),
            thief: false,
            was_tampered: false,
        }
    }

    /// What the clock of the replica that acts says.
    pub(crate) fn now(&self, now: u64) -> UnixMs {
        let skew = self.replicas[self.acting].skew;
        UnixMs::new(now.saturating_add_signed(skew)).unwrap_or(UnixMs::MAX)
    }
}

impl Sim {
    /// Folds a fact into what the planner plans from. One that does not fit changes nothing.
    pub(crate) fn fold(&mut self, fact: &Fact) -> bool {
        let now = self.plane.now(self.now);
        self.fold_at(fact, now)
    }

    /// The same, with a time that was looked at before.
    pub(crate) fn fold_at(&mut self, fact: &Fact, at: UnixMs) -> bool {
        self.plane.snapshot.fold(fact, at).is_ok()
    }

    /// There is news: it plans in a moment.
    pub(crate) fn plan_soon(&mut self) {
        let after = self.story.plan_after;
        self.plan_by(self.now + after);
    }

    pub(crate) fn plan_by(&mut self, at: u64) {
        if self.plane.plans_at.is_none_or(|set| set > at) {
            self.plane.plans_at = Some(at);
            self.queue.push(at, Happens::Plans);
        }
    }

    /// A round of releases: signed, pushed, and served from then on.
    pub(crate) fn publishes(&mut self, round: u64) {
        let bad = if self.is_calm { 0 } else { self.story.rates.bad_release };
        for channel in 0..self.story.channels.len() {
            if round == 1 || self.is_calm || self.dice.chance(700) {
                let what = (round, self.now, bad);
                let mut signed = self.truth.sign((&self.story, &mut self.dice), channel, what);
                self.mistaken_signed(&mut signed);
                let signed = Arc::new(signed);
                self.truth.signed[channel].push(Arc::clone(&signed));
                self.note(None, || format!("{} is signed", signed.id));
                self.web.served[channel] = Some(Arc::clone(&signed));
                if self.story.channels[channel].follows != Follows::TheWebAlone {
                    self.serve(channel, signed);
                }
            }
        }
        if round < self.story.releases && !self.is_calm {
            let span = (self.story.calm_at - crate::story::START_MS) / self.story.releases;
            self.queue.push(self.now + span, Happens::Publishes(round + 1));
        }
    }

    fn serve(&mut self, channel: usize, signed: Arc<Signed>) {
        let _ = self.some_replica();
        let hosts = signed.placed(&self.story);
        let release = Box::new(signed.current.clone());
        // An order for an older release is not delivered after a newer one.
        for host in hosts.keys().filter_map(place_of) {
            self.plane.rows[host].drop_older();
        }
        self.fold(&Fact::ReleaseTaken { release, hosts });
        self.plane.served[channel] = Some(signed);
        self.plan_soon();
    }
}

//! The control plane: what it keeps, what it takes in, and how it carries plans out. Its decisions are core's: the follower of a
//! host's reports, the fold of facts, `plan` and `object`.

mod ingest;
mod planning;

pub(crate) use planning::place_of;

use std::sync::Arc;

use nixfleet_core::host::Follower;
use nixfleet_core::model::time::UnixMs;
use nixfleet_core::rollout::{Fact, PlanReport, Snapshot};
use nixfleet_core::wire::Wish;

use crate::sim::{Happens, Sim};
use crate::story::Story;
use crate::truth::Signed;
use crate::wire::{Answer, Request};

/// The control plane with its database.
pub(crate) struct Plane {
    pub(crate) is_up: bool,
    /// What its clock is ahead, in ms.
    pub(crate) skew: i64,
    /// Folded from its log, and so the same again after a crash.
    pub(crate) snapshot: Snapshot,
    /// By host.
    pub(crate) rows: Vec<Row>,
    /// The newest release that it serves, by channel.
    pub(crate) served: Vec<Option<Arc<Signed>>>,
    /// The number of the newest event.
    pub(crate) newest: u64,
    /// Polls that are held, by host: they die with the process.
    pub(crate) polls: Vec<Option<Request>>,
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
        Self {
            is_up: true,
            skew: 0,
            snapshot: Snapshot::new(UnixMs::new(now).unwrap_or(UnixMs::MAX)),
            rows: story.hosts.iter().map(|_| Row::new()).collect(),
            served: story.channels.iter().map(|_| None).collect(),
            newest: 0,
            polls: story.hosts.iter().map(|_| None).collect(),
            plans_at: None,
            report: PlanReport::default(),
            thief: false,
            was_tampered: false,
        }
    }

    /// What its clock says.
    pub(crate) fn now(&self, now: u64) -> UnixMs {
        UnixMs::new(now.saturating_add_signed(self.skew)).unwrap_or(UnixMs::MAX)
    }
}

impl Sim {
    /// Folds a fact into what the planner plans from. One that does not fit changes nothing.
    pub(crate) fn fold(&mut self, fact: &Fact) -> bool {
        let now = self.plane.now(self.now);
        self.plane.snapshot.fold(fact, now).is_ok()
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

    /// The process dies between two writes: all that is not in the database is gone.
    pub(crate) fn kill_plane(&mut self) {
        self.stop_plane((2_000, 300_000));
    }

    /// The same; it comes up again within this span.
    pub(crate) fn stop_plane(&mut self, (from, to): (u64, u64)) {
        if !self.plane.is_up {
            return;
        }
        self.note(None, || "the control plane is killed".to_owned());
        self.counts.plane_starts += 1;
        (self.plane.is_up, self.plane.plans_at) = (false, None);
        for row in &mut self.plane.rows {
            // What came early was only in memory.
            row.follower = Follower::resume(row.follower.state().clone(), row.follower.told());
        }
        for host in 0..self.plane.polls.len() {
            if let Some(poll) = self.plane.polls[host].take() {
                self.answer(&poll, Answer::Broken);
            }
        }
        let at = self.now + self.dice.between(from, to);
        self.queue.push(at, Happens::PlaneStarts);
    }

    /// It comes up again.
    pub(crate) fn plane_starts(&mut self) {
        if !self.plane.is_up {
            self.plane.is_up = true;
            self.plane.snapshot.listening_since_ms = self.plane.now(self.now);
            self.plan_soon();
        }
    }

    /// A round of releases: signed, pushed, and served from then on.
    pub(crate) fn publishes(&mut self, round: u64) {
        let bad = if self.is_calm { 0 } else { self.story.rates.bad_release };
        for channel in 0..self.story.channels.len() {
            if round == 1 || self.is_calm || self.dice.chance(700) {
                let what = (round, self.now, bad);
                let signed = self.truth.sign((&self.story, &mut self.dice), channel, what);
                self.note(None, || format!("{} is signed", signed.id));
                self.serve(channel, signed);
            }
        }
        if round < self.story.releases && !self.is_calm {
            let span = (self.story.calm_at - crate::story::START_MS) / self.story.releases;
            self.queue.push(self.now + span, Happens::Publishes(round + 1));
        }
    }

    fn serve(&mut self, channel: usize, signed: Arc<Signed>) {
        let hosts = signed.placed(&self.story);
        let release = Box::new(signed.current.clone());
        self.fold(&Fact::ReleaseTaken { release, hosts });
        self.plane.served[channel] = Some(signed);
        self.plan_soon();
    }
}

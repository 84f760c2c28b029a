//! The processes of the control plane: one or more on one database, behind a balancer that knows nothing of them. Each has its
//! own clock and its own polls; who plans is said by a lease, as `store/lease.rs` and `planner.rs` of the control plane have it.

use nixfleet_core::host::Follower;
use nixfleet_core::model::time::UnixMs;
use nixfleet_core::rollout::{Plan, PlanReport};

use crate::promises::Promise;
use crate::sim::{Happens, Sim};
use crate::wire::{Answer, Request};

/// For how long the lease is taken. Here it is taken for each plan and not kept in between, so it changes hands all the time.
const LEASE_MS: u64 = 6_000;
/// Other replicas see what was written within this time.
const TICK_MS: u64 = 1_000;
/// How far the clocks of replicas may be apart.
const APART_MS: u64 = 60_000;
/// For so long a plan may wait for the lease, while replicas run and look again and again.
const UNLED_MAX_MS: u64 = 300_000;

/// One process.
pub(crate) struct Replica {
    pub(crate) is_up: bool,
    /// How many processes there were in its place.
    pub(crate) process: u32,
    /// What its clock is ahead, in ms.
    pub(crate) skew: i64,
    /// Since when it listens, by its own clock.
    pub(crate) listens_since: UnixMs,
    /// Polls that it holds, by host: they die with it.
    pub(crate) polls: Vec<Option<Request>>,
    /// The plan with which it fell asleep.
    pub(crate) asleep: Option<Asleep>,
}

/// A leader that stands still between its look at the clock and its write.
pub(crate) struct Asleep {
    /// What its clock said.
    pub(crate) clock: UnixMs,
    /// What it would have done then.
    pub(crate) planned: (Plan, PlanReport),
}

/// Who plans, and until when by the holder's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) holder: (usize, u32),
    pub(crate) until: UnixMs,
}

impl Replica {
    pub(crate) fn new(hosts: usize, since: UnixMs) -> Self {
        let polls = (0..hosts).map(|_| None).collect();
        Self { is_up: true, process: 1, skew: 0, listens_since: since, polls, asleep: None }
    }
}

impl Sim {
    /// One that runs, by chance; from here on it is the one that acts. `None` if none does.
    pub(crate) fn some_replica(&mut self) -> Option<usize> {
        let up = |replica: &&Replica| replica.is_up;
        let running = self.plane.replicas.iter().filter(up).count();
        let wanted = if running > 1 { self.dice.index(running) } else { 0 };
        let numbered = self.plane.replicas.iter().enumerate();
        let found = numbered.filter(|(_, replica)| replica.is_up).nth(wanted).map(|(at, _)| at);
        self.plane.acting = found.unwrap_or(self.plane.acting);
        found
    }

    /// Where a connection leads: the balancer does not know who is gone.
    pub(crate) fn balanced(&mut self) -> bool {
        let count = self.plane.replicas.len();
        self.plane.acting = if count > 1 { self.dice.index(count) } else { 0 };
        self.plane.replicas[self.plane.acting].is_up
    }

    /// The process that acts dies between two writes: all that is not in the database is gone.
    pub(crate) fn kill_replica(&mut self) {
        self.stop_replica(self.plane.acting, (2_000, 300_000));
    }

    /// All processes end, as the machine or the database below them is gone.
    pub(crate) fn stop_plane(&mut self, span: (u64, u64)) {
        for replica in 0..self.plane.replicas.len() {
            self.stop_replica(replica, span);
        }
    }

    /// It ends, and another one comes up in its place within this span.
    fn stop_replica(&mut self, at: usize, (from, to): (u64, u64)) {
        if !self.plane.replicas[at].is_up {
            return;
        }
        self.note(None, || format!("replica {at} is killed"));
        self.counts.plane_starts += 1;
        let replica = &mut self.plane.replicas[at];
        (replica.is_up, replica.asleep) = (false, None);
        for row in &mut self.plane.rows {
            // What came early was only in memory.
            row.follower = Follower::resume(row.follower.state().clone(), row.follower.told());
        }
        for host in 0..self.story.hosts.len() {
            if let Some(poll) = self.plane.replicas[at].polls[host].take() {
                self.answer(&poll, Answer::Broken);
            }
        }
        let starts = self.now + self.dice.between(from, to);
        self.queue.push(starts, Happens::ReplicaStarts(at));
    }

    /// It comes up again.
    pub(crate) fn replica_starts(&mut self, at: usize) {
        let now = self.now;
        let replica = &mut self.plane.replicas[at];
        if !replica.is_up {
            (replica.is_up, replica.process) = (true, replica.process + 1);
            let clock = now.saturating_add_signed(replica.skew);
            replica.listens_since = UnixMs::new(clock).unwrap_or(UnixMs::MAX);
            self.plan_soon();
        }
    }

    /// Takes the lease for the one that acts, if it is free, over, or its own already.
    pub(super) fn leads(&mut self, clock: UnixMs) -> bool {
        let me = self.me();
        let lease = self.plane.lease;
        let after = |ms: u64| UnixMs::new(clock.get() + ms).unwrap_or(UnixMs::MAX);
        let until = after(LEASE_MS);
        // What ends later than that was said by a clock that is wrong.
        let in_force = |lease: &Lease| lease.until >= clock && lease.until <= after(LEASE_MS + APART_MS);
        if lease.is_some_and(|lease| lease.holder != me && in_force(&lease)) {
            return false;
        }
        self.plane.unled_since = None;
        self.counts.leaders += u64::from(lease.is_some_and(|lease| lease.holder != me));
        self.plane.lease = Some(Lease { holder: me, until });
        true
    }

    /// Nobody keeps the others out for long.
    pub(super) fn check_led(&mut self) {
        let since = *self.plane.unled_since.get_or_insert(self.now);
        let lease = self.plane.lease;
        self.must(self.now < since + UNLED_MAX_MS, Promise::SomebodyLeads, None, || {
            format!("for {} s nobody has planned: {lease:?}", UNLED_MAX_MS / 1_000)
        });
    }

    /// Whether the lease is still its own when it writes, by what its clock said before.
    pub(super) fn still_leads(&self, clock: UnixMs) -> bool {
        self.plane.lease.is_some_and(|lease| lease.holder == self.me() && lease.until >= clock)
    }

    fn me(&self) -> (usize, u32) {
        (self.plane.acting, self.plane.replicas[self.plane.acting].process)
    }

    /// Wakes the poll of a host that was asked for something: at once where that was written, elsewhere when it is seen.
    pub(super) fn wakes_polls(&mut self, host: usize) {
        let writer = self.plane.acting;
        self.poll_has_news(host, writer);
        for other in (0..self.plane.replicas.len()).filter(|at| *at != writer) {
            if self.plane.replicas[other].polls[host].is_some() {
                let at = self.now + self.dice.below(TICK_MS);
                self.queue.push(at, Happens::PollHasNews(host, other));
            }
        }
    }
}

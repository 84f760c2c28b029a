//! A run from its seed to its end: a storm, a calm in which the fleet must come to rest, a good release that must arrive.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::promises::{Broken, Promise};
use crate::settings::Settings;
use crate::sim::Sim;
use crate::story::{HOUR, MINUTE};
use crate::trace::Trace;
use crate::truth::LAST_ROUND;

/// How long a fleet for which all goes well may take to come to rest: retries pause for an hour at most, a window opens every
/// day, and a budget may let few hosts go at a time.
const REST_WITHIN: u64 = 72 * HOUR;
/// Between two looks whether it has.
const LOOK_EVERY: u64 = 15 * MINUTE;

/// What happened in runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each counts what its name says")]
pub struct Counts {
    pub events: u64,
    pub turns: u64,
    pub folded: u64,
    pub states_sent: u64,
    pub plans: u64,
    pub orders: u64,
    pub starts: u64,
    pub boots: u64,
    pub live: u64,
    pub reverted: u64,
    pub deadmen: u64,
    pub plane_starts: u64,
    pub leaders: u64,
    pub late_leaders: u64,
    pub went_back: u64,
    pub static_turns: u64,
    pub expired: u64,
    pub databases_lost: u64,
    pub thieves: u64,
    pub halted: u64,
    /// How long it was in the runs' own time.
    pub minutes: u64,
}

impl Counts {
    /// The sum.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            events: self.events + other.events,
            turns: self.turns + other.turns,
            folded: self.folded + other.folded,
            states_sent: self.states_sent + other.states_sent,
            plans: self.plans + other.plans,
            orders: self.orders + other.orders,
            starts: self.starts + other.starts,
            boots: self.boots + other.boots,
            live: self.live + other.live,
            reverted: self.reverted + other.reverted,
            deadmen: self.deadmen + other.deadmen,
            plane_starts: self.plane_starts + other.plane_starts,
            leaders: self.leaders + other.leaders,
            late_leaders: self.late_leaders + other.late_leaders,
            went_back: self.went_back + other.went_back,
            static_turns: self.static_turns + other.static_turns,
            expired: self.expired + other.expired,
            databases_lost: self.databases_lost + other.databases_lost,
            thieves: self.thieves + other.thieves,
            halted: self.halted + other.halted,
            minutes: self.minutes + other.minutes,
        }
    }
}

/// What a seed found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The seed.
    pub seed: u64,
    /// The other half of what makes a run.
    pub settings: Settings,
    /// What was broken.
    pub what: Found,
    /// The last lines before that.
    pub lines: Vec<String>,
}

/// What was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A promise.
    Promise(Broken),
    /// The program itself panicked.
    Panic(String),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, settings, what, lines } = self;
        for line in lines {
            writeln!(f, "{line}")?;
        }
        match what {
            Found::Promise(broken) => writeln!(f, "seed {seed}: {broken}")?,
            Found::Panic(what) => writeln!(f, "seed {seed}: it panicked: {what}")?,
        }
        let Settings { hosts, faults, mistake } = settings;
        write!(f, "hosts {hosts}, faults {faults:?}, mistake {mistake:?}; again: ")?;
        write!(f, "cargo xtask test --sim --hosts {hosts} --seed {seed}")?;
        mistake.map_or(Ok(()), |mistake| write!(f, " --mistake {mistake:?}"))
    }
}

/// Runs a seed. One that finds something is run again, for its last `lines`; that it finds the same is part of the promise.
pub fn run(seed: u64, settings: Settings, lines: usize) -> Result<Counts, Box<Finding>> {
    let (first, _) = attempt(seed, settings, Trace::off());
    let what = match first {
        Ok(counts) => return Ok(counts),
        Err(what) => what,
    };
    let (again, mut lines) = attempt(seed, settings, Trace::last(lines));
    if again != Err(what.clone()) {
        lines.push(format!("the second run was another one: {again:?}"));
    }
    Err(Box::new(Finding { seed, settings, what, lines }))
}

fn attempt(seed: u64, settings: Settings, trace: Trace) -> (Result<Counts, Found>, Vec<String>) {
    let mut sim = Sim::new(seed, settings, trace);
    let played = catch_unwind(AssertUnwindSafe(|| sim.play_all()));
    let lines = std::mem::take(&mut sim.trace).into_lines();
    let out = match (played, sim.broken) {
        (Err(panic), _) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(Found::Panic(text.unwrap_or_default()))
        }
        (Ok(()), Some(broken)) => Err(Found::Promise(broken)),
        (Ok(()), None) => Ok(sim.counts),
    };
    (out, lines)
}

impl Sim {
    fn play_all(&mut self) {
        let begun = self.now;
        self.play(self.story.calm_at);
        self.calms_down();
        self.play_until(Promise::ComesToRest, Self::at_rest);
        let stopped = |channel: &nixfleet_core::rollout::Channel| {
            let status = channel.rollout.as_ref().map(|rollout| &rollout.status);
            matches!(status, Some(nixfleet_core::rollout::Status::Halted { .. }))
        };
        self.counts.halted +=
            self.plane.snapshot.channels.values().filter(|channel| stopped(channel)).count() as u64;
        let now = self.plane.now(self.now);
        let expired =
            self.plane.snapshot.channels.values().filter(|channel| channel.current.expires_ms <= now);
        self.counts.expired += expired.count() as u64;
        if self.broken.is_none() {
            self.publishes(LAST_ROUND);
            self.play_until(Promise::GoodReleaseArrives, Self::all_run_the_newest);
        }
        self.counts.minutes = (self.now - begun) / MINUTE;
    }

    /// Plays until it is so, with people who help where they are asked.
    fn play_until(&mut self, promise: Promise, is_so: fn(&Self) -> Result<(), String>) {
        let give_up = self.now + REST_WITHIN;
        let mut next = self.now;
        loop {
            next += LOOK_EVERY;
            self.play(next);
            if self.broken.is_some() {
                return;
            }
            self.people_help();
            match is_so(self) {
                Ok(()) => return,
                Err(who) if self.now >= give_up => return self.never_rests(promise, &who),
                Err(_) => {}
            }
        }
    }
}

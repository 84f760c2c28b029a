//! One run: the queue, and who takes what from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use nixfleet_core::host::event::HookRun;
use nixfleet_core::host::probing::WatchId;

use crate::dice::Dice;
use crate::host::Host;
use crate::mistakes::Mistake;
use crate::plane::Plane;
use crate::promises::{Broken, Promise};
use crate::queue::Queue;
use crate::run::Counts;
use crate::settings::Settings;
use crate::story::{START_MS, Story};
use crate::trace::Trace;
use crate::truth::{Signed, Truth};
use crate::web::Web;
use crate::wire::{Answer, Request};

/// Everything that there is in a run.
pub(crate) struct Sim {
    pub(crate) settings: Settings,
    pub(crate) now: u64,
    pub(crate) dice: Dice,
    pub(crate) queue: Queue<Happens>,
    pub(crate) story: Story,
    pub(crate) truth: Truth,
    pub(crate) hosts: Vec<Host>,
    pub(crate) plane: Plane,
    pub(crate) web: Web,
    /// What a thief made up, by channel and number.
    pub(crate) forged: BTreeMap<(usize, u64), Arc<Signed>>,
    /// The number of the newest request.
    pub(crate) requests: u64,
    /// Whether nothing goes wrong any more.
    pub(crate) is_calm: bool,
    pub(crate) broken: Option<Broken>,
    pub(crate) trace: Trace,
    pub(crate) counts: Counts,
}

/// Something that happens.
pub(crate) enum Happens {
    /// The host comes up.
    Boots(usize),
    /// The agent's process starts in this boot.
    Starts(usize, u32),
    /// Something of one process of the agent.
    Agent(usize, u32, Agents),
    /// Something of one boot of the machine.
    Machine(usize, u32, Machines),
    /// A request arrives at the control plane.
    Asks(Box<Request>),
    /// An answer arrives at the process that asked.
    Answers(usize, u32, u64, Box<Answer>),
    /// A poll for orders has been held for long enough by this replica.
    PollEnds(usize, u64, usize),
    /// This replica sees that the host was asked for something.
    PollHasNews(usize, usize),
    /// The control plane plans.
    Plans,
    /// A leader that stood still goes on, if it is still this process.
    LeaderWakes(usize, u32),
    /// A replica of the control plane comes up again.
    ReplicaStarts(usize),
    /// A round of releases is published.
    Publishes(u64),
    /// Something goes wrong somewhere.
    Disturbs,
    /// What went wrong there is over.
    Heals(crate::faults::Fault),
    /// A person does something.
    Acts,
    /// The thief comes, or goes.
    Thief(bool),
}

/// What happens in the agent's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Agents {
    Wakes,
    Looks,
    /// Once, since it was told to fetch.
    LooksNow,
    Proves(WatchId),
    Stages(u32),
    Works(Stage),
    Probes(WatchId),
    Hooks(HookRun),
    Restarts,
    LooksAtSystem,
    Writes,
    Reports,
    Polls,
}

/// How far the activation worker is with its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Begins,
    Fires,
    Judges,
    Commits,
    Reverts,
}

/// What happens in the machine, with or without an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Machines {
    /// The unit of the switch ends.
    UnitEnds(usize),
    /// The deadman of an activation fires, if it is still armed.
    Deadman(usize),
    /// The machine goes down and comes up again.
    GoesDown,
}

impl Sim {
    pub(crate) fn new(seed: u64, settings: Settings, trace: Trace) -> Self {
        let mut dice = Dice::new(seed);
        let story = Story::draw(&mut dice, settings);
        let truth = Truth::new(&story);
        let host = |host: &crate::story::HostStory| {
            let system = Truth::first_system(host.channel, host.role);
            Host::new(host, &story.channels[host.channel], system, START_MS - 1_000_000)
        };
        let hosts = story.hosts.iter().map(host).collect();
        let (plane, channels) = (Plane::new(&story, START_MS), story.channels.len());
        let mut sim = Self {
            settings,
            now: START_MS,
            dice,
            queue: Queue::new(),
            story,
            truth,
            hosts,
            plane,
            web: Web::new(channels),
            forged: BTreeMap::new(),
            requests: 0,
            is_calm: false,
            broken: None,
            trace,
            counts: Counts::default(),
        };
        sim.begin();
        sim
    }

    fn begin(&mut self) {
        for host in 0..self.hosts.len() {
            let at = self.now + self.dice.below(60_000);
            self.queue.push(at, Happens::Starts(host, 1));
        }
        self.queue.push(self.now + 1_000, Happens::Publishes(1));
        self.schedule_faults();
    }

    /// Lets happen what comes until `until`, unless a promise is broken.
    pub(crate) fn play(&mut self, until: u64) {
        while self.broken.is_none() && self.queue.next_at().is_some_and(|at| at < until) {
            if let Some((at, happens)) = self.queue.pop() {
                self.now = at;
                self.counts.events += 1;
                self.happens(happens);
            }
        }
        self.now = self.now.max(until);
    }

    fn happens(&mut self, happens: Happens) {
        match happens {
            Happens::Boots(host) => self.boots(host),
            Happens::Starts(host, boot) => self.starts(host, boot),
            Happens::Agent(host, number, what) => {
                if self.hosts[host].agent.as_ref().is_some_and(|agent| agent.number == number) {
                    self.agent(host, what);
                }
            }
            Happens::Machine(host, boot, what) => {
                let machine = &self.hosts[host].machine;
                if machine.is_up && machine.boot == boot {
                    self.machine(host, what);
                }
            }
            Happens::Asks(request) => self.asked(*request),
            Happens::Answers(host, number, id, answer) => {
                if self.hosts[host].agent.as_ref().is_some_and(|agent| agent.number == number) {
                    self.answered(host, id, *answer);
                }
            }
            Happens::PollEnds(host, id, replica) => self.poll_ends(host, id, replica),
            Happens::PollHasNews(host, replica) => self.poll_has_news(host, replica),
            Happens::Plans => self.plans(),
            Happens::LeaderWakes(replica, process) => self.leader_wakes(replica, process),
            Happens::ReplicaStarts(replica) => self.replica_starts(replica),
            Happens::Publishes(round) => self.publishes(round),
            Happens::Disturbs => self.disturbs(),
            Happens::Heals(fault) => self.heals(fault),
            Happens::Acts => self.a_person_acts(),
            Happens::Thief(comes) => self.thief(comes),
        }
    }

    fn agent(&mut self, host: usize, what: Agents) {
        match what {
            Agents::Wakes => self.wakes(host),
            Agents::Looks => self.looks(host),
            Agents::LooksNow => self.looks_now(host),
            Agents::Proves(watch) => self.proves(host, watch),
            Agents::Stages(number) => self.stages(host, number),
            Agents::Works(stage) => self.works(host, stage),
            Agents::Probes(watch) => self.probes(host, watch),
            Agents::Hooks(run) => self.hooks(host, run),
            Agents::Restarts => self.restarts(host),
            Agents::LooksAtSystem => self.looks_at_system(host),
            Agents::Writes => self.writes(host),
            Agents::Reports => self.reports(host),
            Agents::Polls => self.polls(host),
        }
    }

    fn machine(&mut self, host: usize, what: Machines) {
        match what {
            Machines::UnitEnds(activation) => self.unit_ends(host, activation),
            Machines::Deadman(activation) => self.deadman(host, activation),
            Machines::GoesDown => self.goes_down(host),
        }
    }

    /// Something of the agent that runs now, some time from now.
    pub(crate) fn later(&mut self, host: usize, after_ms: u64, what: Agents) {
        if let Some(agent) = &self.hosts[host].agent {
            self.queue.push(self.now + after_ms, Happens::Agent(host, agent.number, what));
        }
    }

    /// The same, within a span that is drawn.
    pub(crate) fn soon(&mut self, host: usize, (from, to): (u64, u64), what: Agents) {
        let after = self.dice.between(from, to);
        self.later(host, after, what);
    }

    /// Whether this run has the mistake.
    pub(crate) fn makes(&self, mistake: Mistake) -> bool {
        self.settings.mistake == Some(mistake)
    }

    /// A throw for something that goes wrong: never while it is calm.
    pub(crate) fn goes_wrong(&mut self, in_thousand: u64) -> bool {
        !self.is_calm && self.dice.chance(in_thousand)
    }

    /// Notes that a promise is broken, if it is; the first one ends the run.
    pub(crate) fn must(
        &mut self,
        holds: bool,
        promise: Promise,
        host: Option<usize>,
        what: impl FnOnce() -> String,
    ) {
        if !holds && self.broken.is_none() {
            let host = host.map(|host| self.story.hosts[host].name.clone());
            self.broken = Some(Broken { promise, host, at_ms: self.now - START_MS, what: what() });
        }
    }

    /// A line for people, if somebody wants one.
    pub(crate) fn note(&mut self, host: Option<usize>, line: impl FnOnce() -> String) {
        if self.trace.is_on() {
            let who = host.map_or("", |host| self.story.hosts[host].name.as_str());
            self.trace.line(self.now - START_MS, who, &line());
        }
    }
}

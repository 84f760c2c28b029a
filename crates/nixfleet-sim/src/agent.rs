//! The agent's reducer, as `runtime/reducer.rs` and `runtime/follow.rs` of the agent have it: an input, the pure machine, the log,
//! the state, the effects; killed between any two of them.

mod effects;
mod source;
mod workers;

pub(crate) use workers::no_space;

use nixfleet_core::activation::outcome::Step;
use nixfleet_core::host::world::{JournalSays, Said};
use nixfleet_core::host::{Advance, Context, Event, HostState, advance};
use nixfleet_core::model::time::UnixMs;

use crate::host::{Agent, Input, Trust};
use crate::machine::Stand;
use crate::mistakes::Mistake;
use crate::promises::Promise;
use crate::sim::{Agents, Happens, Sim, Stage};

/// Where a turn is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    BeforeLog,
    AfterLog,
    AfterSave,
    /// After so many effects.
    AmongEffects(usize),
}

/// How long the agent waits before it tries again to write; longer than the real one, as a run has many full disks.
const WRITE_AGAIN_MS: u64 = 15_000;
/// One of so many turns that changed nothing is checked all the same.
const UNCHANGED_CHECKED: u64 = 8;
/// The shortest sleep of its timer.
const SHORTEST_MS: u64 = 50;

impl Sim {
    /// The agent's process starts.
    pub(crate) fn starts(&mut self, host: usize, boot: u32) {
        let it = &mut self.hosts[host];
        if !it.machine.is_up || it.machine.boot != boot || it.agent.is_some() {
            return;
        }
        it.processes += 1;
        it.agent = Some(Agent::new(it.processes));
        if self.settings.mistake == Some(Mistake::StateLost) && it.processes.is_multiple_of(4) {
            (it.disk.state, it.disk.trust) = (HostState::fresh(), Trust::default());
        }
        it.disk.outbox.drop_after(it.disk.state.seq);
        let journal = it.disk.state.activation_in_flight().map(|id| {
            let found = it.machine.find(id).map(|at| &it.machine.journal[at].stand);
            JournalSays { id: id.clone(), said: found.map_or(Said::Nothing, said) }
        });
        let (setup, world) = (it.setup.clone(), it.machine.world(&self.truth));
        self.counts.starts += 1;
        self.tell(host, Event::AgentStarted { setup, world, journal, root: None }.into());
        self.soon(host, (100, 20_000), Agents::Looks);
        if !self.is_static(host) {
            self.soon(host, (100, 2_000), Agents::Reports);
            self.soon(host, (100, 2_000), Agents::Polls);
        }
    }

    /// The process dies; what is on the disk stays. It is started again after a moment.
    pub(crate) fn kill_agent(&mut self, host: usize) {
        if self.hosts[host].agent.take().is_some() {
            self.note(Some(host), || "the agent is killed".to_owned());
            let boot = self.hosts[host].machine.boot;
            let at = self.now + self.dice.between(1_000, 20_000);
            self.queue.push(at, Happens::Starts(host, boot));
        }
    }

    /// The reducer is told something: taken in at once, or when it can be written.
    pub(crate) fn tell(&mut self, host: usize, input: Input) {
        let it = &mut self.hosts[host];
        let is_full = it.machine.disk_full;
        let Some(agent) = &mut it.agent else { return };
        // The first event of a process needs no room: the reserve is given up for it.
        if is_full && !matches!(input.event, Event::AgentStarted { .. }) || !agent.inbox.is_empty() {
            agent.inbox.push_back(input);
            if agent.inbox.len() == 1 {
                self.later(host, WRITE_AGAIN_MS, Agents::Writes);
            }
            return;
        }
        self.take_in(host, &input);
    }

    /// One turn of the reducer, and one more where the outbox lost reports.
    fn take_in(&mut self, host: usize, input: &Input) {
        self.turn(host, input);
        if self.hosts[host].agent.is_some() && self.hosts[host].disk.outbox.owes_state() {
            let state = Box::new(self.hosts[host].disk.state.clone());
            self.turn(host, &Event::StateTold { state }.into());
        }
    }

    /// Another attempt to write.
    pub(crate) fn writes(&mut self, host: usize) {
        if self.hosts[host].machine.disk_full {
            return self.later(host, WRITE_AGAIN_MS, Agents::Writes);
        }
        while let Some(input) = self.hosts[host].agent.as_mut().and_then(|agent| agent.inbox.pop_front()) {
            self.take_in(host, &input);
        }
    }

    /// One turn of the reducer.
    fn turn(&mut self, host: usize, input: &Input) {
        self.counts.turns += 1;
        let it = &mut self.hosts[host];
        let now = it.machine.now(self.now);
        let context = Context { seed: it.seed, terms: input.terms.as_deref() };
        let Advance { next, records, effects, wake_at } =
            match advance(&it.disk.state, &input.event, &context, now) {
                Ok(followed) => followed,
                Err(refused) => {
                    it.disk.trust = input.trust.clone().unwrap_or_else(|| it.disk.trust.clone());
                    return self
                        .note(Some(host), || format!("{} is not taken: {refused}", input.event.name()));
                }
            };
        let changed = !records.is_empty() || !effects.is_empty() || input.trust.is_some();
        if changed {
            let cut = self.draw_cut();
            if self.makes(Mistake::EffectsBeforeSave) && cut.is_some() {
                for effect in effects {
                    self.perform(host, effect);
                }
                // The worker is quick.
                self.works(host, Stage::Begins);
                return self.kill_agent(host);
            }
            if cut == Some(Cut::BeforeLog) {
                return self.kill_agent(host);
            }
            let max = self.story.outbox_max;
            self.hosts[host].disk.outbox.append(&records, max);
            if cut == Some(Cut::AfterLog) {
                return self.kill_agent(host);
            }
            let disk = &mut self.hosts[host].disk;
            let before = std::mem::replace(&mut disk.state, next);
            if let Some(trust) = &input.trust {
                disk.trust.clone_from(trust);
            }
            self.check_turn(host, &before, &records);
            if !records.is_empty() {
                self.report_soon(host);
            }
            let performed = match cut {
                Some(Cut::AfterSave) => 0,
                Some(Cut::AmongEffects(count)) => count,
                Some(Cut::BeforeLog | Cut::AfterLog) | None => usize::MAX,
            };
            for effect in effects.into_iter().take(performed) {
                self.perform(host, effect);
            }
            if cut.is_some() {
                return self.kill_agent(host);
            }
        }
        self.must(wake_at.is_none_or(|at| at > now.at), Promise::WayOut, Some(host), || {
            format!("it wants to be woken at {wake_at:?}, and it is {}", now.at)
        });
        self.sleep_until(host, wake_at, now.at);
        if changed || self.dice.below(UNCHANGED_CHECKED) == 0 {
            self.check_rest(host);
        }
    }

    fn draw_cut(&mut self) -> Option<Cut> {
        let rate = self.story.rates.agent_cut;
        if !self.goes_wrong(rate) {
            return None;
        }
        Some(match self.dice.below(5) {
            0 => Cut::BeforeLog,
            1 => Cut::AfterLog,
            2 => Cut::AfterSave,
            count => Cut::AmongEffects(usize::try_from(count - 2).unwrap_or(1)),
        })
    }

    /// Sets the timer: the machine names a time by the host's clock, and what is slept for is the difference.
    fn sleep_until(&mut self, host: usize, wake_at: Option<UnixMs>, asked: UnixMs) {
        let now = self.now;
        let Some(agent) = &mut self.hosts[host].agent else { return };
        agent.wants_at = wake_at.map(|at| now + at.ms_since(asked).max(SHORTEST_MS));
        if let Some(at) = agent.wants_at.filter(|at| agent.wakes_at.is_none_or(|set| set > *at)) {
            agent.wakes_at = Some(at);
            self.queue.push(at, Happens::Agent(host, agent.number, Agents::Wakes));
        }
    }

    /// The timer.
    pub(crate) fn wakes(&mut self, host: usize) {
        let now = self.now;
        let Some(agent) = &mut self.hosts[host].agent else { return };
        if agent.wakes_at != Some(now) {
            // Another one was set since, or a clock was set and the net under the timer wakes it.
            return;
        }
        agent.wakes_at = None;
        match agent.wants_at {
            Some(at) if at > now => {
                agent.wakes_at = Some(at);
                self.queue.push(at, Happens::Agent(host, agent.number, Agents::Wakes));
            }
            Some(_) => self.tell(host, Event::Woke.into()),
            None => {}
        }
    }
}

/// How far the journal says that it came.
fn said(stand: &Stand) -> Said {
    match stand {
        Stand::Begun => Said::Pending(Step::Realise),
        Stand::Running { .. } => Said::Pending(Step::VerifyPoll),
        Stand::Trial => Said::Pending(Step::Confirm),
        Stand::Confirmed => Said::Pending(Step::Commit),
        Stand::Deferred => Said::Pending(Step::AwaitReboot),
        Stand::Reverting(_) => Said::Pending(Step::Revert),
        Stand::Ended(_) => Said::Ended,
    }
}

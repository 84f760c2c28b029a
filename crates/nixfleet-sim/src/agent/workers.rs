//! The workers that fetch, probe, run hooks, restart the host and look at what runs.

use nixfleet_core::activation::outcome::Failure;
use nixfleet_core::host::Event;
use nixfleet_core::host::event::HookRun;
use nixfleet_core::host::probing::{ProbeRef, ProbeReport, ProbeResult, WatchId};
use nixfleet_core::host::{HostState, Phase};

use crate::sim::{Agents, Happens, Machines, Sim};

/// Between two rounds of probes, in ms.
const ROUND_MS: u64 = 20_000;
/// One of so many results that would change nothing is told all the same.
const REDUNDANT_TOLD: u64 = 8;

impl Sim {
    /// A fetch ends.
    pub(crate) fn stages(&mut self, host: usize, number: u32) {
        let Some(agent) = self.hosts[host].agent.as_mut().filter(|agent| agent.stagings == number) else {
            return;
        };
        let Some(release) = agent.staging.take() else { return };
        let trouble = self.story.rates.trouble;
        let event = if self.hosts[host].machine.disk_full {
            Event::StageFailed { release, failure: no_space() }
        } else if self.goes_wrong(trouble) {
            let failure = Failure::CacheUnreachable { asked: Vec::new(), last_lines: Vec::new() };
            Event::StageFailed { release, failure }
        } else {
            Event::TargetStaged { release }
        };
        self.tell(host, event.into());
    }

    /// One round of the probes of a watch.
    pub(crate) fn probes(&mut self, host: usize, watch: WatchId) {
        let Some(agent) = &mut self.hosts[host].agent else { return };
        let Some(probing) = agent.probing.as_mut().filter(|probing| probing.watch == watch) else { return };
        probing.runs += 1;
        let (run, probes) = (probing.runs, probing.probes.clone());
        for probe in probes {
            let result = self.runs_probe(host, &probe);
            if result == ProbeResult::Failed || self.is_news(host, watch, &probe) {
                let evidence = if result == ProbeResult::Passed { "200" } else { "503" }.to_owned();
                let report = ProbeReport { watch, probe, run, result, evidence };
                self.tell(host, Event::ProbeReported(report).into());
            }
        }
        let round = ROUND_MS + self.dice.below(2_000);
        self.later(host, round, Agents::Probes(watch));
    }

    /// What a probe finds, by the truth.
    fn runs_probe(&mut self, host: usize, probe: &ProbeRef) -> ProbeResult {
        let is_sick = self.hosts[host].machine.sick_at.is_some_and(|at| at <= self.now);
        let flaps = self.story.rates.trouble / 6;
        if is_sick || self.goes_wrong(flaps) {
            return ProbeResult::Failed;
        }
        let passed = &mut self.hosts[host].machine.passed;
        if !passed.contains(probe) {
            passed.push(probe.clone());
        }
        ProbeResult::Passed
    }

    /// Whether the reducer learns something from a pass; one in some is told without that.
    fn is_news(&mut self, host: usize, watch: WatchId, probe: &ProbeRef) -> bool {
        let tallies = match &self.hosts[host].disk.state.phase {
            Phase::Confirming(at) => Some(&at.watch),
            Phase::Soaking(at) => Some(&at.watch),
            _ => None,
        };
        let known = tallies.filter(|known| known.id == watch).is_some_and(|known| {
            let tally = known.probes.iter().find(|tally| tally.probe == *probe);
            tally.is_some_and(|tally| tally.passed_at_ms.is_some() && tally.failing.is_none())
        });
        !known || self.dice.below(REDUNDANT_TOLD) == 0
    }

    /// Hooks end.
    pub(crate) fn hooks(&mut self, host: usize, run: HookRun) {
        let Some(agent) = &mut self.hosts[host].agent else { return };
        let Some(at) = agent.hooks.iter().position(|asked| *asked == run) else { return };
        agent.hooks.remove(at);
        let trouble = self.story.rates.trouble / 3;
        let event = if self.goes_wrong(trouble) {
            Event::HookFailed { run, why: "it ended with 1".to_owned() }
        } else {
            Event::HooksRan { run }
        };
        self.tell(host, event.into());
    }

    /// The order to restart is carried out, or refused.
    pub(crate) fn restarts(&mut self, host: usize) {
        let Some(agent) = &mut self.hosts[host].agent else { return };
        if !std::mem::take(&mut agent.reboot) {
            return;
        }
        let trouble = self.story.rates.trouble;
        if self.goes_wrong(trouble) {
            return self.tell(host, Event::RebootRefused { why: "a backup runs".to_owned() }.into());
        }
        let boot = self.hosts[host].machine.boot;
        self.queue.push(self.now + 100, Happens::Machine(host, boot, Machines::GoesDown));
    }

    /// Somebody may have changed what runs. What was asked for by the machine is told even if it is no news.
    pub(crate) fn looks_at_system(&mut self, host: usize) {
        let world = self.hosts[host].machine.world(&self.truth);
        let Some(agent) = &mut self.hosts[host].agent else { return };
        agent.looks_soon = false;
        let HostState { world: known, .. } = &self.hosts[host].disk.state;
        if *known != world {
            self.tell(host, Event::SystemChanged { world }.into());
        }
    }

    /// The links of the running system or the journal changed: the agent looks in a moment.
    pub(crate) fn look_soon(&mut self, host: usize) {
        let Some(agent) = self.hosts[host].agent.as_mut().filter(|agent| !agent.looks_soon) else { return };
        agent.looks_soon = true;
        self.soon(host, (100, 2_000), Agents::LooksAtSystem);
    }
}

/// No room on the disk.
pub(crate) fn no_space() -> Failure {
    Failure::NoSpace { at: "/nix".to_owned(), need_bytes: 3_000, free_bytes: 0 }
}

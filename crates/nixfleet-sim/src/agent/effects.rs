//! The applier: the one `match` over what the machine asks for.

use nixfleet_core::host::Effect;
use nixfleet_core::host::effect::ProbeOrder;
use nixfleet_core::host::probing::ProbeRef;
use nixfleet_core::ids::StorePath;

use crate::host::{Job, Probing};
use crate::promises::Promise;
use crate::sim::{Agents, Sim, Stage};
use crate::truth::System;

impl Sim {
    /// Has one thing done; never waits for it.
    pub(super) fn perform(&mut self, host: usize, effect: Effect) {
        match effect {
            Effect::Stage(order) => {
                if let Some(agent) = &mut self.hosts[host].agent {
                    agent.stagings += 1;
                    agent.staging = Some(order.release);
                    let number = agent.stagings;
                    self.soon(host, (3_000, 90_000), Agents::Stages(number));
                }
            }
            Effect::Activate(intent) => {
                let (id, commit) = (intent.id, intent.commit);
                let target = self.known(host, &intent.target);
                let within_ms = intent.confirm_within_secs * 1_000;
                self.push_job(host, Job::Activate { id, target, commit, within_ms });
            }
            Effect::Commit(id) => self.push_job(host, Job::Commit(id)),
            Effect::Revert(order) => {
                let to = self.known(host, &order.to);
                self.check_revert(host, &order);
                let (id, back, failure) = (order.id, order.back, order.failure);
                self.push_job(host, Job::Revert { id, back, to, failure });
            }
            Effect::TakeUp(id) => self.push_job(host, Job::TakeUp(id)),
            Effect::Look => self.soon(host, (10, 100), Agents::LooksAtSystem),
            Effect::StartProbes(order) => self.start_probes(host, &order),
            Effect::StopProbes => {
                if let Some(agent) = &mut self.hosts[host].agent {
                    agent.probing = None;
                }
            }
            Effect::AskSource(watch) => {
                if let Some(agent) = &mut self.hosts[host].agent {
                    agent.asks = Some(watch);
                }
                self.soon(host, (100, 3_000), Agents::Proves(watch));
            }
            Effect::RunHooks(run, hooks) => {
                self.must(!hooks.is_empty(), Promise::WayOut, Some(host), || {
                    "no hooks were to be run".into()
                });
                if let Some(agent) = &mut self.hosts[host].agent {
                    agent.hooks.push(run);
                }
                self.soon(host, (500, 30_000), Agents::Hooks(run));
            }
            Effect::Reboot { warn_secs } => {
                if let Some(agent) = &mut self.hosts[host].agent {
                    agent.reboot = true;
                }
                let warn = warn_secs.ms();
                self.soon(host, (warn + 1_000, warn + 20_000), Agents::Restarts);
            }
        }
    }

    fn known(&mut self, host: usize, path: &StorePath) -> System {
        let system = self.truth.system(path);
        self.must(system.is_some(), Promise::OnlyVerified, Some(host), || format!("nobody made {path}"));
        system.unwrap_or(self.hosts[host].machine.current)
    }

    fn start_probes(&mut self, host: usize, order: &ProbeOrder) {
        let declared = order.declared.iter().map(|spec| ProbeRef::Declared(spec.name.clone()));
        let probes = declared.chain(order.built_in.iter().map(|probe| ProbeRef::BuiltIn(*probe))).collect();
        let watch = order.watch;
        if let Some(agent) = &mut self.hosts[host].agent {
            agent.probing = Some(Probing { watch, probes, runs: 0 });
        }
        self.soon(host, (200, 15_000), Agents::Probes(watch));
        self.mistaken_probes(host, watch);
    }

    /// Puts it behind what waits. What waits already is not done twice.
    fn push_job(&mut self, host: usize, job: Job) {
        self.check_job(host, &job);
        let Some(agent) = &mut self.hosts[host].agent else { return };
        if agent.jobs.contains(&job) {
            return;
        }
        // What waits about an earlier one could only tell how that ended, which is known by now.
        agent.jobs.retain(|other| other.id() == job.id());
        agent.jobs.push_back(job);
        self.next_job(host);
    }

    /// The worker takes what waits first, if it has nothing to do.
    pub(crate) fn next_job(&mut self, host: usize) {
        let Some(agent) = self.hosts[host].agent.as_mut().filter(|agent| agent.job.is_none()) else { return };
        if let Some(job) = agent.jobs.pop_front() {
            agent.job = Some((job, false));
            self.soon(host, (50, 3_000), Agents::Works(Stage::Begins));
        }
    }
}

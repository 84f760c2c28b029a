//! The one `match` over what the machine asks for. Nothing is waited for here: each request goes to the worker whose it is,
//! and what comes of it comes back as an input.

use std::sync::Arc;

use nixfleet_core::activation::outcome::Failure;
use nixfleet_core::host::{Effect, Event};
use nixfleet_core::ids::{ActivationId, BootId};
use nixfleet_sys::clock;
use tokio::sync::mpsc;

use super::input::Input;
use super::recovery::look;
use super::workers::hooks::Hooks;
use super::workers::jobs::{Job, Jobs};
use super::workers::probes::Probes;
use super::workers::reboot::Reboot;
use super::workers::source::Asks;
use super::workers::staging::Staging;
use crate::activation::ActivationBackend;

/// The workers that are asked for something.
#[derive(Debug)]
pub struct Workers<B> {
    /// Activations.
    pub jobs: Jobs,
    /// Fetches.
    pub staging: Staging,
    /// Probes.
    pub probes: Probes<B>,
    /// The release source.
    pub asks: Asks,
    /// Reboot hooks.
    pub hooks: Hooks,
    /// The restart itself.
    pub reboot: Reboot,
}

/// Has things done.
#[derive(Debug)]
pub struct Applier<B> {
    backend: Arc<B>,
    boot: BootId,
    workers: Workers<B>,
    inputs: mpsc::Sender<Input>,
}

impl<B: ActivationBackend + Send + 'static> Applier<B> {
    /// With these workers.
    pub fn new((backend, boot): (Arc<B>, BootId), workers: Workers<B>, inputs: mpsc::Sender<Input>) -> Self {
        Self { backend, boot, workers, inputs }
    }

    /// Has one thing done.
    pub fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Stage(order) => self.workers.staging.begin(order),
            Effect::Activate(intent) => self.job(Job::Activate(intent)),
            Effect::Commit(id) => self.job(Job::Commit(id)),
            Effect::Revert(order) => self.job(Job::Revert(order)),
            Effect::TakeUp(id) => self.job(Job::TakeUp(id)),
            Effect::Look => self.tell(Event::SystemChanged { world: look(&*self.backend, &self.boot) }),
            Effect::StartProbes(order) => self.workers.probes.start(order),
            Effect::StopProbes => self.workers.probes.stop(),
            Effect::AskSource(watch) => self.workers.asks.ask(watch),
            Effect::RunHooks(run, hooks) => self.workers.hooks.run(run, hooks),
            Effect::Reboot { warn_secs } => self.workers.reboot.order(warn_secs),
        }
    }

    /// Finishes what a person's agent left behind, if it did.
    pub fn tidy_up(&mut self, ours: Option<ActivationId>) {
        // Without room there is more important work to do first, and the next look asks again.
        self.workers.jobs.push(Job::TidyUp { ours });
    }

    fn job(&mut self, job: Job) {
        if !self.workers.jobs.push(job) {
            let failure = Failure::Internal { what: "too many activations wait".to_owned() };
            self.tell(Event::LocalActivationFailed { failure, outcome: None, at_ms: clock::unix_ms() });
        }
    }

    /// Tells the reducer something from within its own turn, so without waiting for it.
    fn tell(&self, event: Event) {
        let inputs = self.inputs.clone();
        // Closed: the reducer is gone.
        tokio::spawn(async move { drop(inputs.send(Input::Told(event)).await) });
    }
}

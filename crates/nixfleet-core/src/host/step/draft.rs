//! The next state while it is being worked out, and the moves that several states make.

use super::super::effect::{Back, Effect, ProbeOrder, RevertOrder, StageOrder};
use super::super::event::{HookRun, HookTime};
use super::super::phase::{
    Done, Failed, FailedAt, Flight, Hooks, Phase, Reverted, Reverting, Soaking, Staging,
};
use super::super::probing::{BuiltIn, ProbeRef, Watch, WatchId};
use super::super::retry::pause_ms;
use super::super::state::HostState;
use super::super::terms::Terms;
use super::super::time::Now;
use super::Context;
use super::told::{End, Ended};
use crate::activation::events::ActivationIntent;
use crate::activation::outcome::Failure;
use crate::activation::units::TroubledUnit;
use crate::ids::{ActivationId, StorePath};
use crate::model::probe::ProbeMode;

/// The next state in the making.
pub(super) struct Draft<'a> {
    /// The state before the event.
    pub(super) before: &'a HostState,
    /// The state after it.
    pub(super) state: HostState,
    pub(super) context: &'a Context<'a>,
    pub(super) now: Now,
    effects: Vec<Effect>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(before: &'a HostState, context: &'a Context<'a>, now: Now) -> Self {
        Self { before, state: before.clone(), context, now, effects: Vec::new() }
    }

    pub(super) fn done(self) -> (HostState, Vec<Effect>) {
        (self.state, self.effects)
    }

    pub(super) fn ask(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// Another state begins.
    pub(super) fn enter(&mut self, phase: Phase) {
        self.state.since_ms = self.now.at;
        self.state.phase = phase;
    }

    /// The same state goes on with other contents.
    pub(super) fn keep(&mut self, phase: Phase) {
        self.state.phase = phase;
    }

    /// A number that nothing on this host had before.
    pub(super) fn serial(&mut self) -> u32 {
        self.state.serial = self.state.serial.wrapping_add(1);
        self.state.serial
    }

    pub(super) fn hook_run(&mut self, when: HookTime) -> HookRun {
        HookRun { when, number: self.serial() }
    }

    /// Fetches and checks `target`.
    pub(super) fn stage(&mut self, target: &Terms, attempt: u32) {
        self.ask(stage_order(target));
        self.enter(Phase::Staging(Staging { target: Box::new(target.clone()), attempt }));
    }

    /// The same, since a person asks for it: an order to go back from it is older than that, and done with.
    pub(super) fn try_again(&mut self, target: &Terms) {
        self.state.revert_go.take_if(|from| *from == target.release);
        self.stage(target, 1);
    }

    /// A watch of `target`'s probes that begins now.
    pub(super) fn watch(&mut self, target: &Terms) -> Watch {
        let watch = Watch::begin(WatchId(self.serial()), target);
        self.run_probes(target, &watch);
        watch
    }

    /// A watch that an earlier process began goes on under a number of its own.
    pub(super) fn take_over(&mut self, target: &Terms, watch: &Watch) -> Watch {
        let watch = watch.taken_over(WatchId(self.serial()));
        self.run_probes(target, &watch);
        watch
    }

    /// Asks for the probes of a watch.
    fn run_probes(&mut self, target: &Terms, watch: &Watch) {
        let declared = target.probes.iter().filter(|probe| probe.mode != ProbeMode::Disabled).cloned();
        let built_in = |probe: &ProbeRef| match probe {
            ProbeRef::BuiltIn(BuiltIn::Units) => Some(BuiltIn::Units),
            ProbeRef::Declared(_) => None,
        };
        self.ask(Effect::StartProbes(ProbeOrder {
            watch: watch.id,
            declared: declared.collect(),
            built_in: watch.probes.iter().filter_map(|tally| built_in(&tally.probe)).collect(),
        }));
    }

    /// The system is committed: it is watched for as long as its wave says.
    pub(super) fn soak(&mut self, done: Done, attempt: u32, watch: Watch, hooks: Hooks) {
        let until_up_ms = self.now.up.plus(done.terms.wave.soak_secs);
        let hooks = self.begin_hooks(&done.terms, hooks);
        self.enter(Phase::Soaking(Soaking { done, attempt, watch, until_up_ms, hooks }));
    }

    /// Runs the hooks after a reboot, if they are due and there are any.
    pub(super) fn begin_hooks(&mut self, target: &Terms, hooks: Hooks) -> Hooks {
        match hooks {
            Hooks::NotDue => Hooks::NotDue,
            Hooks::Due | Hooks::Running(_) if target.reboot.after.is_empty() => Hooks::NotDue,
            Hooks::Due | Hooks::Running(_) => {
                let run = self.hook_run(HookTime::After);
                self.ask(Effect::RunHooks(run, target.reboot.after.clone()));
                Hooks::Running(run)
            }
        }
    }

    /// A new process: hooks after a reboot that ran under the old one run again.
    pub(super) fn ask_hooks_again(&mut self, target: &Terms, hooks: Hooks) -> Hooks {
        match hooks {
            Hooks::Running(_) => self.begin_hooks(target, hooks),
            Hooks::NotDue | Hooks::Due => hooks,
        }
    }

    /// Goes back, by the activation `id`.
    pub(super) fn revert(
        &mut self,
        (target, attempt): (&Terms, u32),
        (id, back, to): (ActivationId, Back, StorePath),
        (failure, hooks): (Failure, Hooks),
    ) {
        let order = RevertOrder { id: id.clone(), back, to: to.clone(), failure: failure.clone() };
        self.ask(Effect::Revert(Box::new(order)));
        self.going_back((target, attempt), (id, back, to), (Some(failure), hooks));
    }

    /// The activation `id` is on the way back already.
    pub(super) fn going_back(
        &mut self,
        (target, attempt): (&Terms, u32),
        (id, back, to): (ActivationId, Back, StorePath),
        (failure, hooks): (Option<Failure>, Hooks),
    ) {
        let target = Box::new(target.clone());
        let reboot = None;
        self.enter(Phase::Reverting(Reverting { target, attempt, id, back, to, failure, reboot, hooks }));
    }

    /// Back on `to`, where the hooks after a reboot run if they are due.
    pub(super) fn reverted(
        &mut self,
        target: &Terms,
        (to, hooks): (&StorePath, Hooks),
        why: (Failure, &[TroubledUnit]),
    ) {
        let (failure, left) = (why.0, why.1.to_vec());
        let hooks = self.begin_hooks(target, hooks);
        let target = Box::new(target.clone());
        self.state.world.current = Some(to.clone());
        self.enter(Phase::Reverted(Reverted { target, to: to.clone(), failure, left, hooks }));
    }

    /// It failed at `at`; tried again after a pause if that may help by itself, and in any case as long as an activation
    /// is not over: nothing else may begin before.
    pub(super) fn fail(&mut self, (target, attempt): (&Terms, u32), at: FailedAt, failure: Failure) {
        let may_retry = match at {
            FailedAt::Revert { back: Back::Uncommitted, .. } => true,
            FailedAt::Stage | FailedAt::Activate | FailedAt::Revert { back: Back::Committed, .. } => {
                failure.is_transient()
            }
            FailedAt::Soak | FailedAt::AfterHooks(_) | FailedAt::Found => false,
        };
        let pause = || self.now.up.plus_ms(pause_ms(attempt, self.context.seed));
        let again_up_ms = may_retry.then(pause);
        let target = Box::new(target.clone());
        self.enter(Phase::Failed(Failed { target, attempt, at, failure, again_up_ms }));
    }

    /// Another system runs than `expected`: whatever is going on here is over.
    pub(super) fn found_other(&mut self, (target, attempt): (&Terms, u32), failure: Failure) {
        self.fail((target, attempt), FailedAt::Found, failure);
    }

    /// What an ended activation says of what runs now.
    pub(super) fn note_world(&mut self, ended: &Ended<'_>) {
        let Some(outcome) = ended.outcome else { return };
        let world = &mut self.state.world;
        let (target, previous) = (Some(outcome.target.clone()), outcome.previous.clone());
        match ended.end {
            End::Live => {
                (world.current, world.profile) = (target.clone(), target);
                world.reboot_needed.clone_from(&outcome.reboot_needed);
            }
            End::OnTrial(_) => world.current = target,
            End::Deferred(_) => (world.current, world.profile) = (previous, target),
            // Neither is known: the runtime looks, and tells.
            End::RevertFailed(..) | End::Unchanged(Failure::FlippedToUnexpected { .. }) => {
                (world.current, world.profile) = (None, None);
                self.effects.push(Effect::Look);
            }
            End::Unchanged(_) | End::Reverted(..) => {
                (world.current, world.profile) = (previous.clone(), previous);
            }
        }
    }
}

pub(super) fn stage_order(target: &Terms) -> Effect {
    Effect::Stage(StageOrder {
        release: target.release.clone(),
        system: target.system.clone(),
        closure: target.closure.clone(),
    })
}

pub(super) fn activate_order(flight: &Flight) -> Effect {
    let target = &flight.target;
    Effect::Activate(Box::new(ActivationIntent {
        id: flight.id.clone(),
        target: target.system.clone(),
        digest: Some(target.closure.digest.clone()),
        commit: target.commit,
        confirm_within_secs: u64::from(target.confirm_within_secs.0),
        // The machine asks the probes itself, so that a commit and a soak rest on the same results.
        probes: Vec::new(),
    }))
}

/// The name of the next activation of a host: the time, and its serial number to come.
pub(super) fn next_id(state: &HostState, now: Now) -> ActivationId {
    ActivationId::new(now.at.get(), state.serial.wrapping_add(1))
}

//! A model of a host under the reducer: a disk, an activation journal and what runs survive a crash; everything else is
//! lost. The agent is cut off at any write, between any two effects, and by reboots, in any order with all that workers
//! tell.
//!
//! What must hold: no activation is begun that the journal knows, nor while another is not over; the log that is left
//! folds to the state that is left; and once the blows stop, the host comes to rest.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use nixfleet_core::activation::events::CommitPolicy;
use nixfleet_core::activation::outcome::{ActivationOutcome, Failure, Step, Verdict};
use nixfleet_core::host::effect::Back;
use nixfleet_core::host::phase::StateName;
use nixfleet_core::host::probing::{ProbeReport, ProbeResult, WatchId};
use nixfleet_core::host::terms::WaveTerms;
use nixfleet_core::host::world::{JournalSays, Reboots, Said, Setup, SourceKind, World};
use nixfleet_core::host::{Effect, Event, Follower, HostState, Now, Record, Terms, UpMs};
use nixfleet_core::ids::{ActivationId, BootId, StorePath};
use nixfleet_core::model::names::{ReleaseId, Seq, Sha256};
use nixfleet_core::model::policy::{Approval, OnFailure, WaveIndex};
use nixfleet_core::model::release::Closure;
use nixfleet_core::model::schedule::RebootPolicy;
use nixfleet_core::model::time::{Secs, UnixMs};
use proptest::prelude::*;

use super::*;
use crate::runtime::workers::activation::event_of;

const START_MS: u64 = 1_772_452_800_000;
const SEED: u64 = 7;

fn ms(at: u64) -> UnixMs {
    UnixMs::new(at).expect("in range")
}

fn system(name: &str) -> StorePath {
    format!("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-nixos-system-{name}").parse().expect("well-formed")
}

fn terms(seq: u64) -> Terms {
    let channel = "stable".parse().expect("a name");
    let mut digest = [0; 32];
    digest[24..].copy_from_slice(&seq.to_be_bytes());
    Terms {
        release: ReleaseId { channel, seq: Seq::new(seq).expect("in range"), digest: Sha256::new(digest) },
        resets: 0,
        system: system(&format!("s{seq}")),
        closure: Closure {
            digest: format!("sha256:{seq:064x}").parse().expect("a digest"),
            fetch_bytes: 1,
            unpacked_bytes: 1,
        },
        created_ms: ms(START_MS),
        expires_ms: ms(START_MS + 1_000_000_000_000),
        wave: WaveTerms {
            index: WaveIndex(0),
            name: "all".parse().expect("a name"),
            opens_at_ms: ms(START_MS),
            soak_secs: Secs(60),
            approval: Approval::NotNeeded,
        },
        probes: Vec::new(),
        on_failure: OnFailure::Revert,
        commit: CommitPolicy::AfterConfirm,
        confirm_within_secs: Secs(300),
        windows: Vec::new(),
        reboot: RebootPolicy::default(),
    }
}

/// How far an activation of the model is.
#[derive(Debug, Clone, PartialEq)]
enum Reached {
    Switching,
    OnTrial,
    Ended(Verdict),
}

#[derive(Debug, Clone)]
struct Activation {
    target: StorePath,
    previous: StorePath,
    reached: Reached,
}

/// What a crash leaves.
#[derive(Debug)]
struct Disk {
    log: Vec<Record>,
    saved: Option<Saved>,
    journal: BTreeMap<ActivationId, Activation>,
    runs: StorePath,
    boots: StorePath,
    boot: u32,
    fires: usize,
}

/// What a crash takes.
#[derive(Debug, Default)]
struct Memory {
    effects: VecDeque<Effect>,
    told: VecDeque<Event>,
    watch: Option<(WatchId, u32)>,
    /// How many writes and effects are left until the agent is cut off, and whether the last one still happens.
    fuse: Option<(u32, bool)>,
    cut_off: bool,
}

struct Model {
    disk: Disk,
    memory: Memory,
    /// Whether workers carry out what they are asked for in the very moment.
    eager: bool,
}

impl Model {
    /// What a worker does.
    fn carry_out(&mut self, effect: Effect, well: bool) {
        match effect {
            Effect::Stage(order) => {
                let release = order.release;
                self.memory.told.push_back(if well {
                    Event::TargetStaged { release }
                } else {
                    let failure = Failure::Stalled { after_secs: 300 };
                    Event::StageFailed { release, failure }
                });
            }
            Effect::Activate(intent) => {
                self.disk.begin(&intent.id, &intent.target);
                let told = self.disk.switch(&intent.id, well);
                self.memory.told.push_back(told);
            }
            Effect::Commit(id) => {
                let told = self.disk.commit(&id);
                self.memory.told.push_back(told);
            }
            Effect::Revert(order) => {
                let told = match order.back {
                    Back::Uncommitted => self.disk.revert(&order.id),
                    Back::Committed => {
                        self.disk.begin(&order.id, &order.to);
                        self.disk.end(&order.id, Verdict::Converged)
                    }
                };
                self.memory.told.push_back(told);
            }
            Effect::TakeUp(id) => {
                let told = self.disk.take_up(&id);
                self.memory.told.push_back(told);
            }
            Effect::Look => {
                let world = world(&self.disk);
                self.memory.told.push_back(Event::SystemChanged { world });
            }
            Effect::StartProbes(order) => self.memory.watch = Some((order.watch, 0)),
            Effect::StopProbes => self.memory.watch = None,
            Effect::AskSource(watch) => {
                self.memory.told.push_back(Event::SourceAnswered { watch: Some(watch) });
            }
            Effect::RunHooks(run, _) => self.memory.told.push_back(Event::HooksRan { run }),
            Effect::Reboot { .. } => self.memory.told.push_back(Event::RebootRefused { why: "no".into() }),
        }
    }
}

#[derive(Clone)]
struct ModelDesk(Rc<RefCell<Model>>);

#[derive(Debug)]
struct CutOff;

impl ModelDesk {
    /// Whether the act happens, and whether the agent lives on after it.
    fn burn(&self) -> (bool, Result<(), CutOff>) {
        let memory = &mut self.0.borrow_mut().memory;
        if memory.cut_off {
            return (false, Err(CutOff));
        }
        match &mut memory.fuse {
            Some((0, happens)) => {
                let happens = *happens;
                memory.cut_off = true;
                (happens, Err(CutOff))
            }
            Some((left, _)) => {
                *left -= 1;
                (true, Ok(()))
            }
            None => (true, Ok(())),
        }
    }
}

impl Desk for ModelDesk {
    type Error = CutOff;

    fn append(&mut self, records: &[Record]) -> Result<(), CutOff> {
        let (happens, lives) = self.burn();
        if happens {
            self.0.borrow_mut().disk.log.extend_from_slice(records);
        }
        lives
    }

    fn save(&mut self, saved: &Saved) -> Result<(), CutOff> {
        let (happens, lives) = self.burn();
        if happens {
            self.0.borrow_mut().disk.saved = Some(saved.clone());
        }
        lives
    }

    fn keep(&mut self, _wanted: &[&StorePath]) {}

    fn perform(&mut self, effect: Effect) {
        let (happens, _) = self.burn();
        if happens {
            let model = &mut *self.0.borrow_mut();
            if model.eager { model.carry_out(effect, true) } else { model.memory.effects.push_back(effect) }
        }
    }

    fn owes_state(&self) -> bool {
        false
    }
}

/// What may happen next.
#[derive(Debug, Clone)]
enum Blow {
    /// A worker carries out what it was asked for.
    Work {
        well: bool,
    },
    /// From now on workers carry out what they are asked for at once, or not.
    Eager(bool),
    /// The reducer takes in what a worker told.
    Take,
    /// A probe runs.
    Probe {
        well: bool,
    },
    /// The source answers, or comes with the next release.
    Source,
    Offer,
    /// Time passes.
    Wait(u32),
    /// The agent is cut off after so many writes and effects more.
    CutAfter(u32, bool),
    /// The process dies now.
    Kill,
    /// The host restarts now.
    Reboot,
    /// A person undoes the trial, or makes what runs the boot default.
    Person,
}

fn blows() -> impl Strategy<Value = Vec<Blow>> {
    let one = prop_oneof![
        6 => any::<bool>().prop_map(|well| Blow::Work { well }),
        8 => Just(Blow::Take),
        2 => any::<bool>().prop_map(Blow::Eager),
        3 => any::<bool>().prop_map(|well| Blow::Probe { well }),
        2 => Just(Blow::Source),
        2 => Just(Blow::Offer),
        2 => (1u32..400).prop_map(Blow::Wait),
        4 => (0u32..6, any::<bool>()).prop_map(|(after, happens)| Blow::CutAfter(after, happens)),
        1 => Just(Blow::Kill),
        1 => Just(Blow::Reboot),
        1 => Just(Blow::Person),
    ];
    proptest::collection::vec(one, 1..120)
}

/// A host with its agent.
struct Story {
    model: Rc<RefCell<Model>>,
    reducer: Reducer<ModelDesk>,
    now: Now,
    offered: u64,
    restarts: usize,
}

impl Story {
    fn new() -> Self {
        let disk = Disk {
            log: Vec::new(),
            saved: None,
            journal: BTreeMap::new(),
            runs: system("s0"),
            boots: system("s0"),
            boot: 1,
            fires: 0,
        };
        let model = Rc::new(RefCell::new(Model { disk, memory: Memory::default(), eager: false }));
        let reducer = Reducer::new(Saved::default(), SEED, ModelDesk(Rc::clone(&model)));
        let now = Now { at: ms(START_MS), up: UpMs(1_000) };
        let mut story = Self { model, reducer, now, offered: 0, restarts: 0 };
        story.start();
        story
    }

    /// A process starts: whatever was in memory is gone, and the log ends where the state does.
    fn start(&mut self) {
        loop {
            let event = {
                let mut model = self.model.borrow_mut();
                model.memory = Memory::default();
                let saved = model.disk.saved.clone().unwrap_or_default();
                model.disk.log.retain(|record| record.seq <= saved.host.seq);
                let journal = saved.host.activation_in_flight().map(|id| says(&model.disk, id));
                self.reducer = Reducer::new(saved, SEED, ModelDesk(Rc::clone(&self.model)));
                Event::AgentStarted { setup: setup(), world: world(&model.disk), journal }
            };
            self.restarts += 1;
            if self.try_take(event.into()) {
                return;
            }
        }
    }

    /// Whether the agent lives on after it took the fact in.
    fn try_take(&mut self, fact: Fact) -> bool {
        let (mut prepared, refused) = self.reducer.prepare(fact, self.now);
        assert!(refused.is_none(), "{refused:?}");
        if self.reducer.persist(&mut prepared).is_err() {
            return false;
        }
        self.reducer.finish(prepared);
        !self.model.borrow().memory.cut_off
    }

    fn take(&mut self, fact: impl Into<Fact>) {
        if !self.try_take(fact.into()) {
            self.start();
        }
    }

    fn strike(&mut self, blow: &Blow) {
        match blow {
            Blow::Work { well } => self.work(*well),
            Blow::Eager(eager) => self.model.borrow_mut().eager = *eager,
            Blow::Take => {
                let told = self.model.borrow_mut().memory.told.pop_front();
                if let Some(event) = told {
                    self.take(event);
                }
            }
            Blow::Probe { well } => self.probe(*well),
            Blow::Source => self.take(Event::SourceAnswered { watch: None }),
            Blow::Offer => self.offer(),
            Blow::Wait(secs) => {
                self.now = Now { at: self.now.at.plus(Secs(*secs)), up: self.now.up.plus(Secs(*secs)) };
                self.take(Event::Woke);
            }
            Blow::CutAfter(after, happens) => {
                self.model.borrow_mut().memory.fuse = Some((*after, *happens));
            }
            Blow::Kill => self.start(),
            Blow::Reboot => {
                self.model.borrow_mut().disk.reboot();
                self.now.up = UpMs(1_000);
                self.start();
            }
            Blow::Person => {
                let changed = self.model.borrow_mut().disk.person_reverts();
                if changed {
                    let world = world(&self.model.borrow().disk);
                    self.take(Event::SystemChanged { world });
                }
            }
        }
    }

    fn work(&mut self, well: bool) {
        let model = &mut *self.model.borrow_mut();
        if let Some(effect) = model.memory.effects.pop_front() {
            model.carry_out(effect, well);
        }
    }

    fn probe(&mut self, well: bool) {
        let report = {
            let memory = &mut self.model.borrow_mut().memory;
            let Some((watch, run)) = &mut memory.watch else { return };
            *run += 1;
            let result = if well { ProbeResult::Passed } else { ProbeResult::Failed };
            let probe = "built-in:units".parse().expect("a probe");
            ProbeReport { watch: *watch, probe, run: *run, result, evidence: "seen".into() }
        };
        self.take(Event::ProbeReported(report));
    }

    fn offer(&mut self) {
        self.offered += 1;
        let terms = terms(self.offered);
        let event = Event::ReleaseVerified {
            release: terms.release.clone(),
            system: terms.system.clone(),
            resets: 0,
        };
        self.take(Fact { event: Some(event), terms: Some(Box::new(terms)), trust: None });
    }

    /// No more blows: everything goes well, until nothing is left to do.
    fn rest(&mut self) {
        for _ in 0..400 {
            self.strike(&Blow::Work { well: true });
            self.strike(&Blow::Take);
            self.strike(&Blow::Probe { well: true });
            let busy = {
                let memory = &self.model.borrow().memory;
                !memory.effects.is_empty() || !memory.told.is_empty()
            };
            if !busy {
                self.strike(&Blow::Wait(120));
            }
        }
    }

    fn state(&self) -> &HostState {
        self.reducer.state()
    }

    /// What the log that is left says, folded by somebody who was not there.
    fn assert_the_log_is_the_state(&self) {
        let model = self.model.borrow();
        let all: Vec<Terms> = (1..=self.offered).map(terms).collect();
        let find = |id: &ReleaseId| all.iter().find(|terms| terms.release == *id);
        let mut follower = Follower::default();
        for record in &model.disk.log {
            follower.take(record.clone(), SEED, &find).expect("the log can be followed");
        }
        let saved = model.disk.saved.as_ref().expect("saved");
        assert_eq!(follower.state(), &saved.host);
    }
}

fn setup() -> Setup {
    Setup {
        agent: "0.1.0".into(),
        host: "web-1".parse().expect("a name"),
        channel: "stable".parse().expect("a name"),
        source: SourceKind::Static,
        reboots: Reboots::default(),
    }
}

fn world(disk: &Disk) -> World {
    World {
        boot: Some(BootId::new(&format!("boot-{}", disk.boot))),
        booted: None,
        current: Some(disk.runs.clone()),
        profile: Some(disk.boots.clone()),
        reboot_needed: Vec::new(),
    }
}

fn says(disk: &Disk, id: &ActivationId) -> JournalSays {
    let said = match disk.journal.get(id).map(|activation| &activation.reached) {
        None => Said::Nothing,
        Some(Reached::Switching) => Said::Pending(Step::Fire),
        Some(Reached::OnTrial) => Said::Pending(Step::Confirm),
        Some(Reached::Ended(_)) => Said::Ended,
    };
    JournalSays { id: id.clone(), said }
}

impl Disk {
    fn begin(&mut self, id: &ActivationId, target: &StorePath) {
        assert!(!self.journal.contains_key(id), "{id} is begun twice");
        let pending = self.journal.values().any(|one| !matches!(one.reached, Reached::Ended(_)));
        assert!(!pending, "{id} is begun while another is not over");
        self.fires += 1;
        let (target, previous) = (target.clone(), self.runs.clone());
        self.journal.insert(id.clone(), Activation { target, previous, reached: Reached::Switching });
    }

    fn switch(&mut self, id: &ActivationId, well: bool) -> Event {
        if !well {
            return self.end(id, Verdict::Failed { failure: Failure::Interrupted { at: Step::Fire } });
        }
        let activation = self.journal.get_mut(id).expect("it was begun");
        activation.reached = Reached::OnTrial;
        self.runs = activation.target.clone();
        self.tell(id)
    }

    fn commit(&mut self, id: &ActivationId) -> Event {
        match self.journal.get(id).map(|one| one.reached.clone()) {
            Some(Reached::OnTrial) => self.end(id, Verdict::Converged),
            _ => self.take_up(id),
        }
    }

    fn revert(&mut self, id: &ActivationId) -> Event {
        match self.journal.get(id).map(|one| one.reached.clone()) {
            Some(Reached::Ended(_)) | None => self.tell(id),
            Some(Reached::Switching | Reached::OnTrial) => {
                let verdict = Verdict::Reverted { failure: Failure::Asked, left: Vec::new() };
                self.end(id, verdict)
            }
        }
    }

    fn take_up(&mut self, id: &ActivationId) -> Event {
        match self.journal.get(id).map(|one| one.reached.clone()) {
            Some(Reached::Switching) => self.switch(id, true),
            Some(Reached::OnTrial | Reached::Ended(_)) | None => self.tell(id),
        }
    }

    fn end(&mut self, id: &ActivationId, verdict: Verdict) -> Event {
        let activation = self.journal.get_mut(id).expect("it was begun");
        let runs = match &verdict {
            Verdict::Converged => &activation.target,
            _ => &activation.previous,
        };
        (self.runs, self.boots) = (runs.clone(), runs.clone());
        activation.reached = Reached::Ended(verdict);
        self.tell(id)
    }

    fn tell(&self, id: &ActivationId) -> Event {
        let Some(activation) = self.journal.get(id) else {
            let failure = Failure::Internal { what: "unknown".into() };
            return Event::LocalActivationFailed { failure, outcome: None, at_ms: 0 };
        };
        let verdict = match &activation.reached {
            Reached::Switching | Reached::OnTrial => Verdict::OnTrial { confirm_within_secs: 300 },
            Reached::Ended(verdict) => verdict.clone(),
        };
        let outcome = ActivationOutcome {
            id: id.clone(),
            target: activation.target.clone(),
            previous: Some(activation.previous.clone()),
            generation: None,
            verdict,
            warnings: Vec::new(),
            reboot_needed: Vec::new(),
            steps: Vec::new(),
        };
        event_of(Ok(outcome), 0)
    }

    /// What a boot brings is the boot default; a trial is over by that, and its activation says so.
    fn reboot(&mut self) {
        self.boot += 1;
        self.runs = self.boots.clone();
        let failure = Failure::Rebooted { at: Step::Confirm };
        for activation in self.journal.values_mut() {
            if !matches!(activation.reached, Reached::Ended(_)) {
                let verdict = Verdict::Reverted { failure: failure.clone(), left: Vec::new() };
                activation.reached = Reached::Ended(verdict);
            }
        }
    }

    fn person_reverts(&mut self) -> bool {
        let on_trial = self.journal.iter().find(|(_, one)| one.reached == Reached::OnTrial);
        let Some(id) = on_trial.map(|(id, _)| id.clone()) else { return false };
        self.end(&id, Verdict::Reverted { failure: Failure::Asked, left: Vec::new() });
        true
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_cuts_the_agent_off_it_goes_on_and_never_begins_two_switches(blows in blows()) {
        let mut story = Story::new();
        for blow in &blows {
            story.strike(blow);
        }
        story.model.borrow_mut().memory.fuse = None;
        // The last release is one that nobody has spoiled.
        story.offer();
        story.rest();
        story.assert_the_log_is_the_state();
        let newest = system(&format!("s{}", story.offered));
        prop_assert_eq!(story.state().phase.name(), StateName::Converged, "{:?}", story.state().phase);
        prop_assert_eq!(&story.model.borrow().disk.runs, &newest);
    }
}

#[test]
fn a_release_is_followed_to_its_end_in_the_model() {
    let mut story = Story::new();
    story.strike(&Blow::Source);
    story.offer();
    story.rest();
    assert_eq!(story.state().phase.name(), StateName::Converged);
    assert_eq!(story.model.borrow().disk.fires, 1);
    story.assert_the_log_is_the_state();
}

#[test]
fn a_write_that_fails_is_tried_again_with_the_same_and_nothing_is_done_before() {
    let mut story = Story::new();
    story.offered = 1;
    let release = terms(1);
    let event = Event::ReleaseVerified {
        release: release.release.clone(),
        system: release.system.clone(),
        resets: 0,
    };
    let fact = Fact { event: Some(event), terms: Some(Box::new(release)), trust: None };
    let (mut prepared, _) = story.reducer.prepare(fact, story.now);
    // The log is written, and the state is not.
    story.model.borrow_mut().memory.fuse = Some((1, false));
    story.reducer.persist(&mut prepared).expect_err("the disk is full");
    assert!(story.model.borrow().memory.effects.is_empty());
    let logged = story.model.borrow().disk.log.len();
    let memory = Memory::default();
    story.model.borrow_mut().memory = memory;
    story.reducer.persist(&mut prepared).expect("there is room again");
    assert_eq!(story.model.borrow().disk.log.len(), logged, "no record is there twice");
    story.reducer.finish(prepared);
    assert!(matches!(story.model.borrow().memory.effects.front(), Some(Effect::Stage(_))));
    story.assert_the_log_is_the_state();
}

#[test]
fn what_changes_nothing_is_not_written() {
    let mut story = Story::new();
    story.model.borrow_mut().memory.fuse = Some((0, false));
    story.take(Event::Woke);
    assert_eq!(story.restarts, 1, "no write was cut off");
}

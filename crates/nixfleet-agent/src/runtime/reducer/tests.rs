//! A model of a host under the reducer: a disk, an activation journal and what runs survive a crash; everything else is
//! lost. The agent is cut off at any write, between any two effects, and by reboots, in any order with all that workers
//! tell.
//!
//! What must hold: no activation is begun that the journal knows, nor while another is not over; the log that is left
//! folds to the state that is left; and once the blows stop, the host comes to rest.

pub(in crate::runtime) mod disk;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use nixfleet_core::activation::outcome::{Failure, Verdict};
use nixfleet_core::host::effect::Back;
use nixfleet_core::host::phase::StateName;
use nixfleet_core::host::probing::{ProbeReport, ProbeResult, WatchId};
use nixfleet_core::host::{Effect, Event, Follower, HostState, Now, Record, Terms, UpMs};
use nixfleet_core::ids::StorePath;
use nixfleet_core::model::names::ReleaseId;
use nixfleet_core::model::time::Secs;
use proptest::prelude::*;

use super::*;
use disk::{Disk, START_MS, ms, says, setup, system, terms, world};

const SEED: u64 = 7;

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
                Event::AgentStarted { setup: setup(), world: world(&model.disk), journal, root: None }
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

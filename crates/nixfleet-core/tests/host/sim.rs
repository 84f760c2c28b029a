//! A host that dice play: a machine with a running system, a profile and an activation journal, and an agent's workers
//! that do what was asked of them, well or badly, early or late, and are killed. Written from what `effect.rs` promises,
//! not from the machine.

mod activations;
mod promises;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use nixfleet_core::activation::events::CommitPolicy;
use nixfleet_core::activation::outcome::{ActivationOutcome, BusyWith, Failure, Step, Verdict};
use nixfleet_core::host::effect::Back;
use nixfleet_core::host::event::{Event, HookRun};
use nixfleet_core::host::phase::{FailedAt, Phase, RebootCause, StateName};
use nixfleet_core::host::probing::{ProbeRef, ProbeReport, ProbeResult, WatchId};
use nixfleet_core::host::trusted::RootTerms;
use nixfleet_core::host::waiting::WaitingOn;
use nixfleet_core::host::world::{JournalSays, Said, SourceKind, World};
use nixfleet_core::host::{Effect, HostState, Terms};
use nixfleet_core::ids::{ActivationId, BootId, StorePath};
use nixfleet_core::model::names::ReleaseId;
use nixfleet_core::model::policy::{Approval, OnFailure};
use nixfleet_core::model::probe::ProbeMode;
use nixfleet_core::model::schedule::{Hook, RebootMode, Window};
use nixfleet_core::model::time::Secs;

use crate::support::{Host, ended, ms, outage, probe, release, root, setup, system, terms};

/// Throws that were thrown before: the same bytes, the same story.
pub(crate) struct Dice {
    throws: std::vec::IntoIter<u8>,
}

impl Dice {
    /// One of `0..sides`; 0, mostly the good end, once the throws are used up.
    fn throw(&mut self, sides: u8) -> u8 {
        self.throws.next().map_or(0, |byte| byte % sides)
    }

    fn are_thrown(&self) -> bool {
        self.throws.len() == 0
    }
}

/// What the activation worker was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Job {
    Activate { id: ActivationId, target: StorePath, commit: CommitPolicy },
    Commit(ActivationId),
    Revert { id: ActivationId, back: Back, to: StorePath },
    TakeUp(ActivationId),
}

impl Job {
    fn id(&self) -> &ActivationId {
        match self {
            Self::Activate { id, .. } | Self::Commit(id) | Self::Revert { id, .. } | Self::TakeUp(id) => id,
        }
    }
}

/// An activation in the journal.
struct Entry {
    target: StorePath,
    previous: StorePath,
    commit: CommitPolicy,
    boot: u32,
    stand: Stand,
}

#[derive(Clone)]
enum Stand {
    Begun,
    Trial,
    Deferred,
    Ended(Box<ActivationOutcome>),
}

pub(crate) struct Sim {
    pub(crate) host: Host,
    dice: Dice,
    boot: u32,
    current: StorePath,
    profile: StorePath,
    journal: BTreeMap<ActivationId, Entry>,
    /// Done one after the other, in the order in which they were asked for.
    jobs: VecDeque<Job>,
    staging: Option<ReleaseId>,
    hooks: Vec<HookRun>,
    probes: Option<(WatchId, Vec<ProbeRef>, u32)>,
    source: Option<WatchId>,
    look: bool,
    reboot: bool,
    /// The probes that passed since the running system was last changed or booted.
    passed: BTreeSet<ProbeRef>,
    offered: u64,
    /// The root of trust in force.
    root: RootTerms,
    /// The releases that passed every check under it.
    vouched: BTreeSet<ReleaseId>,
    history: Vec<Event>,
    trace: Vec<String>,
}

impl Drop for Sim {
    /// A story that ends badly is told.
    #[allow(clippy::print_stderr, reason = "it is what a failed property shows")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let newest = self.trace.len().saturating_sub(25);
            eprintln!("The end of the story:\n  {}", self.trace[newest..].join("\n  "));
        }
    }
}

fn names_of(effects: &[Effect]) -> String {
    let name =
        |effect: &Effect| format!("{effect:?}").chars().take_while(char::is_ascii_alphanumeric).collect();
    effects.iter().map(name).collect::<Vec<String>>().join(", ")
}

impl Sim {
    pub(crate) fn new(throws: Vec<u8>) -> Self {
        let mut dice = Dice { throws: throws.into_iter() };
        let kind = if dice.throw(2) == 0 { SourceKind::Static } else { SourceKind::ControlPlane };
        let mut sim = Self {
            host: Host::new(kind),
            dice,
            boot: 1,
            current: system("s0"),
            profile: system("s0"),
            journal: BTreeMap::new(),
            jobs: VecDeque::new(),
            staging: None,
            hooks: vec![],
            probes: None,
            source: None,
            look: false,
            reboot: false,
            passed: BTreeSet::new(),
            offered: 0,
            root: root(1),
            vouched: BTreeSet::new(),
            history: vec![],
            trace: vec![],
        };
        sim.starts();
        sim
    }

    /// Plays until the dice are thrown.
    pub(crate) fn play(&mut self) {
        while !self.dice.are_thrown() {
            self.turn();
        }
    }

    fn turn(&mut self) {
        match self.dice.throw(22) {
            0 | 1 => self.works(),
            2 => self.sleeps(),
            3 => self.waits(),
            4 | 5 => self.job(),
            6 => self.stages(),
            7 | 8 => self.probes(),
            9 => self.source(),
            10 => self.hooks(),
            11 => self.looks(),
            12 => self.is_killed(),
            13 => self.boots(),
            14 => self.offer(),
            15 => self.people(),
            16 => self.orders(),
            17 => self.clock(),
            18 => self.deadman(),
            19 => self.repeat(),
            20 => self.roots(),
            _ => self.tells(),
        }
    }

    /// It tells where it stands, as it does when reports were lost. That is all it does.
    pub(crate) fn tells(&mut self) {
        let before = self.host.state.clone();
        self.feed(Event::StateTold { state: Box::new(before.clone()) });
        assert_eq!(self.host.state, HostState { seq: before.seq + 1, ..before });
    }

    /// Whatever is asked for is done, so that many throws lead somewhere.
    fn works(&mut self) {
        self.stages();
        self.job();
        self.probes();
        self.source();
        self.hooks();
        self.looks();
    }

    fn feed(&mut self, event: Event) {
        let before = (self.host.name(), self.host.state.seq, self.host.log.len());
        self.host.try_feed(&event).unwrap_or_else(|refused| panic!("{event:?}: {refused}"));
        self.took(&event, before);
        self.history.push(event);
    }

    /// Takes note of what was asked for, and looks whether all is as it must be.
    fn took(&mut self, event: &Event, (was, seq, logged): (StateName, u64, usize)) {
        let told =
            format!("{} -> {}, which waits for {}", event.name(), self.host.name(), self.host.waiting());
        self.trace.push(format!("{told}; asked: {}", names_of(&self.host.asked)));
        // One that is refused does not come here, and an older root that is told again changes nothing.
        self.vouched.extend(event.release_verified().cloned());
        for effect in std::mem::take(&mut self.host.asked) {
            self.ask(effect);
        }
        self.check(was, (seq, logged));
    }

    fn ask(&mut self, effect: Effect) {
        match effect {
            Effect::Stage(order) => self.staging = Some(order.release),
            Effect::Activate(intent) => {
                self.begin(Job::Activate { id: intent.id, target: intent.target, commit: intent.commit });
            }
            Effect::Commit(id) => self.begin(Job::Commit(id)),
            Effect::Revert(order) => {
                self.begin(Job::Revert { id: order.id, back: order.back, to: order.to });
            }
            Effect::TakeUp(id) => self.begin(Job::TakeUp(id)),
            Effect::Look => self.look = true,
            Effect::StartProbes(order) => {
                let declared = order.declared.iter().map(|spec| ProbeRef::Declared(spec.name.clone()));
                let all = declared.chain(order.built_in.iter().map(|probe| ProbeRef::BuiltIn(*probe)));
                // A watch that goes on is counted on by the agent.
                let runs =
                    self.probes.as_ref().filter(|(id, ..)| *id == order.watch).map_or(1_000, |at| at.2);
                self.probes = Some((order.watch, all.collect(), runs));
            }
            Effect::StopProbes => self.probes = None,
            Effect::AskSource(watch) => self.source = Some(watch),
            Effect::RunHooks(run, hooks) => {
                assert!(!hooks.is_empty(), "no hooks are nothing to run");
                self.hooks.push(run);
            }
            Effect::Reboot { warn_secs: _ } => self.reboot = true,
        }
    }

    /// Never two switches at once: neither among what waits nor with what the journal has open. What waits about an earlier
    /// activation is overtaken, and can only have been going to tell how that ended.
    fn begin(&mut self, job: Job) {
        for (id, entry) in &self.journal {
            let open = !matches!(entry.stand, Stand::Ended(_));
            assert!(!open || id == job.id(), "{job:?} while {id} is open");
        }
        for other in &self.jobs {
            let is_over = matches!(self.journal.get(other.id()), Some(Entry { stand: Stand::Ended(_), .. }));
            assert!(is_over || other.id() == job.id(), "{job:?} while {other:?} waits");
        }
        self.jobs.retain(|other| other.id() == job.id());
        // One that waits already is not done twice: its answer is for both.
        if !self.jobs.contains(&job) {
            self.jobs.push_back(job);
        }
    }

    fn world(&self) -> World {
        World {
            boot: Some(BootId::new(&format!("boot-{}", self.boot))),
            booted: Some(self.current.clone()),
            current: Some(self.current.clone()),
            profile: Some(self.profile.clone()),
            reboot_needed: vec![],
        }
    }

    fn starts(&mut self) {
        (self.staging, self.probes, self.source, self.look, self.reboot) = (None, None, None, false, false);
        self.jobs.clear();
        self.hooks.clear();
        let said = |id: &ActivationId| match self.journal.get(id).map(|entry| &entry.stand) {
            None => Said::Nothing,
            Some(Stand::Begun) => Said::Pending(Step::Fire),
            Some(Stand::Trial) => Said::Pending(Step::Confirm),
            Some(Stand::Deferred) => Said::Pending(Step::AwaitReboot),
            Some(Stand::Ended(_)) => Said::Ended,
        };
        let journal =
            self.host.state.activation_in_flight().map(|id| JournalSays { id: id.clone(), said: said(id) });
        let setup = setup(self.host.source);
        self.feed(Event::AgentStarted { setup, world: self.world(), journal, root: Some(self.root) });
    }

    fn is_killed(&mut self) {
        // Killed while it worked: the journal may have the beginning, the worker did not tell.
        if self.dice.throw(2) == 0
            && let Some(job) = self.jobs.pop_front()
        {
            let _ = self.outcome_of(&job);
        }
        self.starts();
    }

    fn boots(&mut self) {
        if self.dice.throw(3) == 0
            && let Some(job) = self.jobs.pop_front()
        {
            let _ = self.outcome_of(&job);
        }
        self.boot += 1;
        self.current = self.profile.clone();
        self.passed.clear();
        self.host.now.up = nixfleet_core::host::UpMs(40_000);
        self.starts();
    }

    fn sleeps(&mut self) {
        if let Some(at) = self.host.wake_at {
            let span = at.ms_since(self.host.now.at);
            self.host.now.at = at;
            self.host.now.up = self.host.now.up.plus_ms(span);
            self.feed(Event::Woke);
        }
    }

    fn waits(&mut self) {
        let secs = Secs([1, 7, 60, 301, 4_000, 90_000][usize::from(self.dice.throw(6))]);
        self.host.now.at = self.host.now.at.plus(secs);
        self.host.now.up = self.host.now.up.plus(secs);
        self.feed(Event::Woke);
    }

    /// The clock is set: to 1970, to 2030, and right again.
    fn clock(&mut self) {
        let start = crate::support::START_MS;
        let at = [start, 0, 1_893_456_000_000, start + 86_400_000];
        self.host.now.at = ms(at[usize::from(self.dice.throw(4))]);
        self.feed(Event::Woke);
    }

    fn stages(&mut self) {
        let Some(release) = self.staging.take() else { return };
        let event = match self.dice.throw(4) {
            0 | 1 => Event::TargetStaged { release },
            2 => Event::StageFailed { release, failure: outage() },
            _ => {
                let failure = Failure::NotASystem { path: system("s1"), lacks: "init".into() };
                Event::StageFailed { release, failure }
            }
        };
        self.feed(event);
    }

    fn probes(&mut self) {
        let Some((watch, probes, runs)) = self.probes.as_mut() else { return };
        let (watch, probes) = (*watch, probes.clone());
        *runs += 1;
        let run = *runs;
        for probe in probes {
            let result = if self.dice.throw(5) < 4 { ProbeResult::Passed } else { ProbeResult::Failed };
            if result == ProbeResult::Passed {
                self.passed.insert(probe.clone());
            }
            let evidence = "seen".to_owned();
            self.feed(Event::ProbeReported(ProbeReport { watch, probe, run, result, evidence }));
        }
    }

    fn source(&mut self) {
        match (self.dice.throw(4), self.source) {
            (0 | 1, Some(watch)) => {
                self.source = None;
                self.feed(Event::SourceAnswered { watch: Some(watch) });
            }
            (0..=2, _) => self.feed(Event::SourceAnswered { watch: None }),
            _ => self.feed(Event::SourceFailed { why: "refused".into() }),
        }
    }

    fn hooks(&mut self) {
        if self.reboot && self.dice.throw(2) == 0 {
            return self.restarts();
        }
        let Some(run) = self.hooks.pop() else { return };
        let event = match self.dice.throw(3) {
            0 | 1 => Event::HooksRan { run },
            _ => Event::HookFailed { run, why: "drain failed".into() },
        };
        self.feed(event);
    }

    fn restarts(&mut self) {
        self.reboot = false;
        match self.dice.throw(3) {
            0 | 1 => self.boots(),
            _ => self.feed(Event::RebootRefused { why: "a backup runs".into() }),
        }
    }

    fn looks(&mut self) {
        if std::mem::take(&mut self.look) {
            self.feed(Event::SystemChanged { world: self.world() });
        }
    }

    fn people(&mut self) {
        let by = || "ada".to_owned();
        match self.dice.throw(5) {
            0 => self.feed(Event::Unheld { by: by() }),
            1 => {
                let until_ms = (self.dice.throw(2) == 0).then(|| self.host.now.at.plus(Secs(600)));
                self.feed(Event::Held { by: by(), why: "a sale".into(), until_ms });
            }
            2 | 3 => self.feed(Event::RetryAsked { by: by() }),
            _ => self.person_switches(),
        }
    }

    /// Only where no activation is open: what a switch does that another runs into is not the machine's to know.
    fn person_switches(&mut self) {
        let open = self.journal.values().any(|entry| !matches!(entry.stand, Stand::Ended(_)));
        if !open && self.jobs.is_empty() {
            let to = system(["s0", "s1", "s9"][usize::from(self.dice.throw(3))]);
            if to != self.current {
                self.passed.clear();
            }
            (self.current, self.profile) = (to.clone(), to);
            self.feed(Event::SystemChanged { world: self.world() });
        }
    }

    fn orders(&mut self) {
        if self.offered > 0 {
            let release = release(self.offered);
            let order = match self.dice.throw(5) {
                0 | 1 => Event::OrderedToGo { release },
                2 => Event::OrderedToReboot { release },
                3 => Event::OrderedToRevert { release },
                _ => Event::OrderWithdrawn { release },
            };
            self.feed(order);
        }
    }

    /// The deadman fires on a trial, and the agent sees that something changed.
    fn deadman(&mut self) {
        let trial = self.journal.iter().find(|(_, entry)| matches!(entry.stand, Stand::Trial));
        if let Some((id, _)) = trial.filter(|_| self.jobs.is_empty()) {
            let failure = Failure::ConfirmTimeout { within_secs: 300 };
            let _told_by_the_look = self.settle(&id.clone(), Verdict::Reverted { failure, left: vec![] });
            self.feed(Event::SystemChanged { world: self.world() });
        }
    }

    /// An event that was told before is told again.
    fn repeat(&mut self) {
        let back = usize::from(self.dice.throw(8)) + 1;
        let again = self.history.len().checked_sub(back).map(|at| self.history[at].clone());
        // A start is not told twice, what runs is looked at afresh, and a job that could not begin has no name.
        let unique = !matches!(
            again,
            Some(
                Event::AgentStarted { .. }
                    | Event::SystemChanged { .. }
                    | Event::LocalActivationFailed { outcome: None, .. }
            )
        );
        if let Some(again) = again.filter(|_| unique) {
            let state = self.host.state.clone();
            let before = (self.host.name(), state.seq, self.host.log.len());
            match self.host.try_feed(&again) {
                Ok(()) => self.took(&again, before),
                Err(_) => assert_eq!(self.host.state, state, "what is refused changes nothing"),
            }
        }
    }

    fn offer(&mut self) {
        self.offered += 1;
        let mut terms = terms(self.offered);
        let hook = Hook { argv: vec!["/bin/hook".into()], deadline_secs: Secs(60) };
        if self.dice.throw(4) == 3 {
            terms.system = self.current.clone();
        }
        match self.dice.throw(4) {
            0 => terms.probes.push(probe("db")),
            1 => terms.probes[0].mode = ProbeMode::Observe,
            2 => terms.probes.clear(),
            _ => {}
        }
        terms.on_failure = match self.dice.throw(4) {
            0 | 1 => OnFailure::Halt,
            2 => OnFailure::RevertAll,
            _ => OnFailure::Revert,
        };
        if self.dice.throw(4) == 3 {
            terms.commit = CommitPolicy::Immediately;
        }
        terms.reboot.mode =
            [RebootMode::Always, RebootMode::WhenNeeded, RebootMode::Never][usize::from(self.dice.throw(3))];
        match self.dice.throw(4) {
            1 => terms.reboot.before.push(hook),
            2 => terms.reboot.after.push(hook),
            3 => (terms.reboot.before, terms.reboot.after) = (vec![hook.clone()], vec![hook]),
            _ => {}
        }
        match self.dice.throw(6) {
            1 => terms.wave.soak_secs = Secs(0),
            2 => terms.wave.opens_at_ms = ms(crate::support::START_MS + 500_000),
            3 => terms.wave.approval = Approval::ByAPerson,
            4 => terms.windows.push(Window {
                days: vec![],
                from: "02:00".parse().unwrap(),
                until: "03:00".parse().unwrap(),
                zone: "Europe/Berlin".parse().unwrap(),
            }),
            _ => {}
        }
        let (release, system) = (terms.release.clone(), terms.system.clone());
        self.host.releases.push(terms);
        self.feed(Event::ReleaseVerified { release, system, resets: 0 });
    }

    /// A newer root, under which the source serves the newest release again, now or later or never.
    fn roots(&mut self) {
        if self.dice.throw(2) == 1 {
            self.root = root(self.root.version.get() + 1);
            self.vouched.clear();
            self.feed(Event::RootAccepted { root: self.root });
        } else {
            self.serves_again();
        }
    }

    fn serves_again(&mut self) {
        let newest = self.host.releases.last().map(|terms| (terms.release.clone(), terms.system.clone()));
        if let Some((release, system)) = newest {
            self.feed(Event::ReleaseVerified { release, system, resets: 0 });
        }
    }

    fn job(&mut self) {
        if let Some(job) = self.jobs.pop_front() {
            let event = match self.outcome_of(&job) {
                Some(outcome) => ended(outcome),
                None if self.has_begun(&job) => return self.starts(),
                None => {
                    let failure = Failure::Busy { with: BusyWith::Activation };
                    Event::LocalActivationFailed { failure, outcome: None, at_ms: 0 }
                }
            };
            self.feed(event);
        }
    }

    /// From here on all goes well; says whether the host comes to rest.
    pub(crate) fn comes_to_rest(&mut self) -> bool {
        self.dice.throws = Vec::new().into_iter();
        self.feed(Event::Unheld { by: "ada".into() });
        self.serves_again();
        for _ in 0..200 {
            self.orders();
            if self.reboot {
                self.restarts();
            }
            self.works();
            let probing = matches!(self.host.waiting(), WaitingOn::Proof { .. });
            let busy =
                !self.jobs.is_empty() || self.staging.is_some() || !self.hooks.is_empty() || self.reboot;
            if self.host.wake_at.is_none() && !busy && !probing {
                return true;
            }
            self.sleeps();
        }
        false
    }
}

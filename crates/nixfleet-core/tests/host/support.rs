//! A host for stories: its state, a clock, and what the machine asked for last. Each event goes through a follower as
//! well, and through the form on disk, so that every story also tests these.

use std::collections::BTreeMap;

use nixfleet_core::activation::events::CommitPolicy;
use nixfleet_core::activation::outcome::{ActivationOutcome, Failure, Verdict};
use nixfleet_core::host::event::Event;
use nixfleet_core::host::follow::Taken;
use nixfleet_core::host::phase::{Phase, StateName};
use nixfleet_core::host::probing::{ProbeReport, ProbeResult, WatchId};
use nixfleet_core::host::saved::SavedState;
use nixfleet_core::host::terms::WaveTerms;
use nixfleet_core::host::trusted::RootTerms;
use nixfleet_core::host::waiting::WaitingOn;
use nixfleet_core::host::world::{JournalSays, Reboots, Said, Setup, SourceKind, World};
use nixfleet_core::host::{
    Context, Effect, Follower, HostState, Now, Record, Refused, Terms, UpMs, advance, retry,
};
use nixfleet_core::ids::{ActivationId, BootId, StorePath};
use nixfleet_core::model::names::{HostName, ReleaseId, RootVersion, Seq, Sha256};
use nixfleet_core::model::policy::{Approval, OnFailure, WaveIndex};
use nixfleet_core::model::probe::{ProbeKind, ProbeMode, ProbeSpec, TcpProbe};
use nixfleet_core::model::release::Closure;
use nixfleet_core::model::schedule::RebootPolicy;
use nixfleet_core::model::time::{Secs, UnixMs};

/// 2026-03-02T12:00:00Z, a Monday: when the stories begin.
pub(crate) const START_MS: u64 = 1_772_452_800_000;
/// How long a release of the stories is good.
pub(crate) const GOOD_FOR: Secs = Secs(30 * 86_400);

pub(crate) fn ms(at: u64) -> UnixMs {
    UnixMs::new(at).unwrap()
}

/// The system `name`, a single letter for short.
pub(crate) fn system(name: &str) -> StorePath {
    format!("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-nixos-system-{name}").parse().unwrap()
}

pub(crate) fn release(seq: u64) -> ReleaseId {
    let mut digest = [0; 32];
    digest[24..].copy_from_slice(&seq.to_be_bytes());
    ReleaseId { channel: "stable".parse().unwrap(), seq: Seq::new(seq).unwrap(), digest: Sha256::new(digest) }
}

/// An enforced TCP probe that fails for good at the third failure in a row.
pub(crate) fn probe(name: &str) -> ProbeSpec {
    ProbeSpec {
        name: name.parse().unwrap(),
        kind: ProbeKind::Tcp(TcpProbe { address: "localhost:80".into() }),
        mode: ProbeMode::Enforce,
        interval_secs: Secs(10),
        timeout_secs: Secs(5),
        after_secs: Secs(0),
        failures: 3,
    }
}

/// What release `seq` says to the host: system `s<seq>`, at once, one probe `web`, ten minutes of soak.
pub(crate) fn terms(seq: u64) -> Terms {
    Terms {
        release: release(seq),
        resets: 0,
        system: system(&format!("s{seq}")),
        closure: Closure {
            digest: format!("sha256:{seq:064x}").parse().unwrap(),
            fetch_bytes: 1_000,
            unpacked_bytes: 3_000,
        },
        created_ms: ms(START_MS),
        expires_ms: ms(START_MS).plus(GOOD_FOR),
        wave: WaveTerms {
            index: WaveIndex(0),
            name: "canary".parse().unwrap(),
            opens_at_ms: ms(START_MS),
            soak_secs: Secs(600),
            approval: Approval::NotNeeded,
        },
        probes: vec![probe("web")],
        on_failure: OnFailure::Revert,
        commit: CommitPolicy::AfterConfirm,
        confirm_within_secs: Secs(300),
        windows: vec![],
        reboot: RebootPolicy::default(),
    }
}

/// Root `version`, good for a year.
pub(crate) fn root(version: u64) -> RootTerms {
    RootTerms {
        version: RootVersion::new(version).unwrap(),
        created_ms: ms(START_MS),
        expires_ms: ms(START_MS).plus(Secs(365 * 86_400)),
    }
}

pub(crate) fn setup(source: SourceKind) -> Setup {
    Setup {
        agent: "0.1.0".into(),
        host: "web-1".parse().unwrap(),
        channel: "stable".parse().unwrap(),
        source,
        reboots: Reboots::default(),
    }
}

pub(crate) fn world(boot: &str, runs: &str) -> World {
    World {
        boot: Some(BootId::new(boot)),
        booted: Some(system(runs)),
        current: Some(system(runs)),
        profile: Some(system(runs)),
        reboot_needed: vec![],
    }
}

pub(crate) fn outcome(
    id: &ActivationId,
    target: &str,
    previous: &str,
    verdict: Verdict,
) -> ActivationOutcome {
    ActivationOutcome {
        id: id.clone(),
        target: system(target),
        previous: Some(system(previous)),
        generation: None,
        verdict,
        warnings: vec![],
        reboot_needed: vec![],
        steps: vec![],
    }
}

/// The event that the activation worker makes of an outcome.
pub(crate) fn ended(outcome: ActivationOutcome) -> Event {
    let at_ms = 0;
    match &outcome.verdict {
        Verdict::Converged | Verdict::LiveWithFailedUnits { .. } | Verdict::OnTrial { .. } => {
            Event::LocalActivationCompleted { outcome, at_ms }
        }
        Verdict::DeferredPendingReboot { .. } => Event::LocalActivationDeferred { outcome, at_ms },
        Verdict::SignatureMismatch { failure }
        | Verdict::Failed { failure }
        | Verdict::Reverted { failure, .. }
        | Verdict::RevertFailed { failure, .. } => {
            Event::LocalActivationFailed { failure: failure.clone(), outcome: Some(outcome), at_ms }
        }
    }
}

pub(crate) fn outage() -> Failure {
    Failure::CacheUnreachable { asked: vec!["https://cache.example".into()], last_lines: vec![] }
}

/// A host in a story.
pub(crate) struct Host {
    pub(crate) state: HostState,
    pub(crate) now: Now,
    pub(crate) releases: Vec<Terms>,
    pub(crate) source: SourceKind,
    /// What was asked for by the last event.
    pub(crate) asked: Vec<Effect>,
    /// Everything that was reported.
    pub(crate) log: Vec<Record>,
    pub(crate) wake_at: Option<UnixMs>,
    /// The state after each report.
    pub(crate) states: BTreeMap<u64, HostState>,
    follower: Follower,
}

impl Host {
    /// A host that runs system `s0`, under `source`, before its agent's first start.
    pub(crate) fn new(source: SourceKind) -> Self {
        Self {
            state: HostState::fresh(),
            now: Now { at: ms(START_MS), up: UpMs(1_000_000) },
            releases: vec![],
            source,
            asked: vec![],
            log: vec![],
            wake_at: None,
            states: BTreeMap::new(),
            follower: Follower::default(),
        }
    }

    /// The same, started, and its source has answered.
    pub(crate) fn started(source: SourceKind) -> Self {
        let mut host = Self::new(source);
        host.start("boot-1", "s0");
        host.feed(Event::SourceAnswered { watch: None });
        host
    }

    /// What the machine makes of the event, or why it refuses it.
    pub(crate) fn try_feed(&mut self, event: &Event) -> Result<(), Refused> {
        let seed = retry::seed_of(&"web-1".parse::<HostName>().unwrap());
        let named = event.release_verified().and_then(|named| self.find(named).cloned());
        let context = Context { seed, terms: named.as_ref() };
        // Through the form on disk each time: saving and reloading changes nothing.
        let saved = SavedState::to_bytes(&self.state);
        assert_eq!(SavedState::from_bytes(&saved).unwrap(), self.state);
        let got = advance(&self.state, event, &context, self.now)?;
        for record in &got.records {
            let read = Record::from_json(record.to_json().as_bytes()).unwrap();
            assert_eq!(read, *record);
            let releases = &self.releases;
            let find = |named: &ReleaseId| releases.iter().find(|terms| terms.release == *named);
            assert_eq!(self.follower.take(read, seed, &find), Ok(Taken::Folded(1)));
            self.states.insert(record.seq, self.follower.state().clone());
        }
        assert_eq!(*self.follower.state(), got.next, "after {event:?}");
        (self.state, self.asked, self.wake_at) = (got.next, got.effects, got.wake_at);
        self.log.extend(got.records);
        Ok(())
    }

    #[allow(clippy::needless_pass_by_value, reason = "a story is easier to read with events made in place")]
    pub(crate) fn feed(&mut self, event: Event) {
        self.try_feed(&event).unwrap_or_else(|refused| panic!("{event:?}: {refused}"));
    }

    fn find(&self, release: &ReleaseId) -> Option<&Terms> {
        self.releases.iter().find(|terms| terms.release == *release)
    }

    /// A process of the agent starts in `boot` and finds `runs`; the journal knows of what is in flight as `said`.
    pub(crate) fn start_with(&mut self, world: World, said: Said) {
        let journal = self.state.activation_in_flight().map(|id| JournalSays { id: id.clone(), said });
        self.feed(Event::AgentStarted { setup: setup(self.source), world, journal, root: None });
    }

    pub(crate) fn start(&mut self, boot: &str, runs: &str) {
        self.start_with(world(boot, runs), Said::Nothing);
    }

    /// The source comes with a release.
    pub(crate) fn offer(&mut self, terms: Terms) {
        let (release, system, resets) = (terms.release.clone(), terms.system.clone(), terms.resets);
        self.releases.push(terms);
        self.feed(Event::ReleaseVerified { release, system, resets });
    }

    /// Time passes, and the timer wakes the machine.
    pub(crate) fn wait(&mut self, secs: u32) {
        self.now.at = self.now.at.plus(Secs(secs));
        self.now.up = self.now.up.plus(Secs(secs));
        self.feed(Event::Woke);
    }

    /// Sleeps until the machine wants to be woken.
    pub(crate) fn sleep(&mut self) {
        let wake_at = self.wake_at.expect("it wants to be woken");
        let ms = wake_at.ms_since(self.now.at);
        self.now = Now { at: wake_at, up: self.now.up.plus_ms(ms) };
        self.feed(Event::Woke);
    }

    pub(crate) fn staged(&mut self, seq: u64) {
        self.feed(Event::TargetStaged { release: release(seq) });
    }

    /// The activation in flight.
    pub(crate) fn id(&self) -> ActivationId {
        self.state.activation_in_flight().expect("one is in flight").clone()
    }

    /// The activation in flight ends.
    pub(crate) fn ends(&mut self, target: &str, previous: &str, verdict: Verdict) {
        let id = self.id();
        self.feed(ended(outcome(&id, target, previous, verdict)));
    }

    pub(crate) fn watch(&self) -> WatchId {
        match &self.state.phase {
            Phase::Confirming(confirming) => confirming.watch.id,
            Phase::Soaking(soaking) => soaking.watch.id,
            other => panic!("{} has no watch", other.name()),
        }
    }

    /// The probe `web` runs the `run`-th time in this watch.
    pub(crate) fn web(&mut self, run: u32, result: ProbeResult) {
        self.reported("web", run, result);
    }

    /// The probe of this name runs the `run`-th time in this watch.
    pub(crate) fn reported(&mut self, probe: &str, run: u32, result: ProbeResult) {
        let (watch, probe) = (self.watch(), probe.parse().unwrap());
        let evidence = format!("run {run}");
        self.feed(Event::ProbeReported(ProbeReport { watch, probe, run, result, evidence }));
    }

    /// The source answers over a fresh connection.
    pub(crate) fn source_proven(&mut self) {
        let watch = Some(self.watch());
        self.feed(Event::SourceAnswered { watch });
    }

    /// All the way to the trial of release `seq`, from the system `previous`.
    pub(crate) fn on_trial(&mut self, terms: Terms, previous: &str) {
        let seq = terms.release.seq.get();
        let runs = terms.system.name().trim_start_matches("nixos-system-").to_owned();
        self.offer(terms);
        self.staged(seq);
        assert_eq!(self.name(), StateName::Activating);
        self.ends(&runs, previous, Verdict::OnTrial { confirm_within_secs: 290 });
        assert_eq!(self.name(), StateName::Confirming);
    }

    /// All the way to the soak.
    pub(crate) fn soaking(&mut self, terms: Terms, previous: &str) {
        let runs = terms.system.name().trim_start_matches("nixos-system-").to_owned();
        self.on_trial(terms, previous);
        self.source_proven();
        self.web(1, ProbeResult::Passed);
        self.ends(&runs, previous, Verdict::Converged);
        assert_eq!(self.name(), StateName::Soaking);
    }

    /// All the way to the end.
    pub(crate) fn converged(&mut self, terms: Terms, previous: &str) {
        self.soaking(terms, previous);
        self.wait(600);
        assert_eq!(self.name(), StateName::Converged);
    }

    pub(crate) fn name(&self) -> StateName {
        self.state.phase.name()
    }

    pub(crate) fn waiting(&self) -> WaitingOn {
        self.state.describe(self.now).waiting
    }

    /// The names of the newest `n` reports.
    pub(crate) fn reports(&self, n: usize) -> Vec<&'static str> {
        self.log[self.log.len() - n..].iter().map(|record| record.fact.name()).collect()
    }
}

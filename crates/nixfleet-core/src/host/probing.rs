//! What the probes said since an activation: which have passed, which fail, and since when.
//!
//! A probe that did not run has not passed (lesson 9), so a [`Watch`] begins empty with every activation and every boot,
//! and carries a number by which results from before are told apart and dropped. A pass clears the failures before it.
//! What changes nothing is not kept: a probe that goes on passing costs no write and no report.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::terms::Terms;
use crate::activation::outcome::Failure;
use crate::model::names::ProbeName;
use crate::model::probe::{ProbeMode, ProbeSpec};
use crate::model::time::UnixMs;

/// So many failures in a row of a built-in probe make a sustained failure; it runs every ten seconds.
pub const BUILT_IN_FAILURES: u32 = 3;

/// Tells one watch of a host from another; rises for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WatchId(pub u32);

impl fmt::Display for WatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A probe that the agent has by itself, for hosts whose entry declares none that decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BuiltIn {
    /// No unit is worse off than before the switch.
    Units,
}

/// Names a probe of a host: `NAME` of its entry, or `built-in:NAME`, which no entry can declare.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ProbeRef {
    /// Declared by the entry.
    Declared(ProbeName),
    /// The agent's own.
    BuiltIn(BuiltIn),
}

const UNITS: &str = "built-in:units";

/// Why a text names no probe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no probe: it is a probe's name or {UNITS}")]
pub struct NotAProbeRef(String);

impl fmt::Display for ProbeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Declared(name) => name.fmt(f),
            Self::BuiltIn(BuiltIn::Units) => f.write_str(UNITS),
        }
    }
}

impl FromStr for ProbeRef {
    type Err = NotAProbeRef;
    fn from_str(text: &str) -> Result<Self, NotAProbeRef> {
        if text == UNITS {
            return Ok(Self::BuiltIn(BuiltIn::Units));
        }
        let refused = || NotAProbeRef(text.chars().filter(|c| !c.is_control()).take(100).collect());
        text.parse().map(Self::Declared).map_err(|_| refused())
    }
}

impl TryFrom<String> for ProbeRef {
    type Error = NotAProbeRef;
    fn try_from(text: String) -> Result<Self, NotAProbeRef> {
        text.parse()
    }
}

impl From<ProbeRef> for String {
    fn from(probe: ProbeRef) -> Self {
        probe.to_string()
    }
}

/// One run of one probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// The watch that it ran for.
    pub watch: WatchId,
    /// The probe.
    pub probe: ProbeRef,
    /// Its how manyth run in this watch, from 1.
    pub run: u32,
    /// What it found.
    pub result: ProbeResult,
    /// What it was found by: a status, the last lines of a program, a measured value. A short printable text.
    pub evidence: String,
}

/// What a run found. A run that could not be made is a failure: absence of data is not success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeResult {
    /// As it should be.
    Passed,
    /// Not so.
    Failed,
}

/// What is known of the probes since the watch began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    /// Its number.
    pub id: WatchId,
    /// Each probe that runs, in the entry's order, and then the built-in ones.
    pub probes: Vec<Tally>,
}

/// What is known of one probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tally {
    /// The probe.
    pub probe: ProbeRef,
    /// Whether it decides anything.
    pub decides: Decides,
    /// So many failures in a row are a sustained failure.
    pub failures_max: u32,
    /// The newest run that changed anything here.
    pub run: u32,
    /// When it first passed.
    pub passed_at_ms: Option<UnixMs>,
    /// The failures since it last passed.
    pub failing: Option<Failing>,
}

/// Whether a probe decides anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decides {
    /// It must pass, and its sustained failure is the system's.
    Yes,
    /// It is only reported.
    No,
}

/// A row of failures without a pass between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failing {
    /// When the first was.
    pub since_ms: UnixMs,
    /// How many, counted up to what makes a sustained failure.
    pub count: u32,
    /// What the newest of them found.
    pub evidence: String,
}

impl Watch {
    /// A watch of the probes that `terms` declare, and of the built-in ones if none of these decides: what only observes, or
    /// does not run, proves nothing.
    pub fn begin(id: WatchId, terms: &Terms) -> Self {
        let mut probes: Vec<Tally> = terms.probes.iter().filter_map(Tally::of).collect();
        if probes.iter().all(|tally| tally.decides == Decides::No) {
            probes.push(Tally::units());
        }
        Self { id, probes }
    }

    /// The same for a new process of the agent: what is known stays, and its runs are counted from 1 again. The number is
    /// new, so that they are not taken for runs that were heard of before.
    #[must_use]
    pub(super) fn taken_over(&self, id: WatchId) -> Self {
        let probes = self.probes.iter().map(|tally| Tally { run: 0, ..tally.clone() }).collect();
        Self { id, probes }
    }

    /// Takes a result in. Results of another watch, of an unknown probe, and of runs that are not newer are dropped.
    pub fn take(&mut self, report: &ProbeReport, at: UnixMs) {
        let ProbeReport { watch, probe, run, result, evidence } = report;
        if *watch != self.id {
            return;
        }
        let tally = self.probes.iter_mut().find(|tally| tally.probe == *probe && *run > tally.run);
        if let Some(tally) = tally {
            match result {
                ProbeResult::Passed => tally.pass(*run, at),
                ProbeResult::Failed => tally.fail(*run, at, evidence),
            }
        }
    }

    /// Whether every probe that decides has passed since the watch began, and none fails now.
    pub fn is_proven(&self) -> bool {
        self.unproven().next().is_none()
    }

    /// The probes that decide and have not passed yet, or fail now.
    pub fn unproven(&self) -> impl Iterator<Item = &Tally> {
        let decides = self.probes.iter().filter(|tally| tally.decides == Decides::Yes);
        decides.filter(|tally| tally.passed_at_ms.is_none() || tally.failing.is_some())
    }

    /// The first probe that decides and has failed so often in a row that it counts.
    pub fn sustained(&self) -> Option<Failure> {
        let lost = |tally: &&Tally| {
            let count = tally.failing.as_ref().map_or(0, |failing| failing.count);
            tally.decides == Decides::Yes && count >= tally.failures_max
        };
        self.probes.iter().find(lost).map(Tally::failure)
    }
}

impl Tally {
    fn of(spec: &ProbeSpec) -> Option<Self> {
        let decides = match spec.mode {
            ProbeMode::Enforce => Decides::Yes,
            ProbeMode::Observe => Decides::No,
            ProbeMode::Disabled => return None,
        };
        Some(Self::new(ProbeRef::Declared(spec.name.clone()), decides, spec.failures))
    }

    fn units() -> Self {
        Self::new(ProbeRef::BuiltIn(BuiltIn::Units), Decides::Yes, BUILT_IN_FAILURES)
    }

    fn new(probe: ProbeRef, decides: Decides, failures: u32) -> Self {
        // A policy with 0 is refused where it is read; here it must not count as failed before it ran.
        let failures_max = failures.max(1);
        Self { probe, decides, failures_max, run: 0, passed_at_ms: None, failing: None }
    }

    fn pass(&mut self, run: u32, at: UnixMs) {
        if self.passed_at_ms.is_none() || self.failing.is_some() {
            (self.run, self.failing) = (run, None);
            self.passed_at_ms.get_or_insert(at);
        }
    }

    fn fail(&mut self, run: u32, at: UnixMs, evidence: &str) {
        let failing = self.failing.take();
        let (since_ms, count) = failing.as_ref().map_or((at, 0), |failing| (failing.since_ms, failing.count));
        self.failing = match failing {
            Some(failing) if failing.count >= self.failures_max => Some(failing),
            Some(_) | None => {
                self.run = run;
                Some(Failing { since_ms, count: count + 1, evidence: evidence.to_owned() })
            }
        };
    }

    /// What it means if this probe is the reason.
    pub fn failure(&self) -> Failure {
        let (evidence, rounds) = match &self.failing {
            Some(failing) => (failing.evidence.clone(), failing.count),
            None => ("it has not passed since the activation".to_owned(), 0),
        };
        Failure::ProbeFailed { probe: self.probe.to_string(), evidence, rounds }
    }
}

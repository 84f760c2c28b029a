//! The lines of the activation journal, and what they fold to.
//!
//! A line is written and synced *before* the act that it announces. So after any crash the last line says what may
//! have been begun, and the world says how far it came; `resume` decides from both.

use serde::{Deserialize, Serialize};

use super::end::RunEnd;
use super::events::CommitPolicy;
use super::inhibit::{InhibitPolicy, Inhibitor};
use super::outcome::{ActivationOutcome, Failure, Step, Verdict};
use super::units::UnitsSeen;
use crate::ids::{ActivationId, BootId, ClosureDigest, Generation, StorePath};
use crate::model::is_default;
use crate::model::probe::Redirects;

/// The version of the journal's lines that this program writes; it reads this one and every older one.
pub const JOURNAL_VERSION: u32 = 1;

/// What a host is asked before a trial is committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Probe {
    /// A TCP connection to `address` opens.
    Tcp {
        /// `host:port`.
        address: String,
    },
    /// An HTTP request is answered with a status from 200 to 399, and not by sending us elsewhere.
    Http {
        /// `http://host:port/path`, or `https://…`.
        url: String,
        /// A file of certificate authorities, the only ones that an `https` server is believed by; without it those of
        /// the host. An agent from before this field asks by the host's, and takes fewer servers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ca_file: Option<String>,
        /// What becomes of an answer that names another address.
        #[serde(default, skip_serializing_if = "is_default")]
        redirects: Redirects,
    },
    /// A program exits with 0.
    Exec {
        /// The program's absolute path and its arguments.
        argv: Vec<String>,
    },
    /// A systemd unit is active.
    Unit {
        /// Its name.
        unit: String,
    },
}

impl std::fmt::Display for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { address } => write!(f, "tcp:{address}"),
            Self::Http { url, ca_file: _, redirects: _ } => f.write_str(url),
            Self::Exec { argv } => write!(f, "exec:{}", argv.join(" ")),
            Self::Unit { unit } => write!(f, "unit:{unit}"),
        }
    }
}

/// Who says that a trial is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfirmBy {
    /// The probes, those that are built in among them.
    #[default]
    Probes,
    /// A person, with `confirm` (`--trial`); the deadman waits for them.
    Person,
}

/// What happens when the switch leaves units worse off than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailedUnits {
    /// The previous system comes back.
    #[default]
    Revert,
    /// The target stays, and the outcome says so.
    Keep,
}

/// What happens to a path without a trusted signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unsigned {
    /// It is refused, also when it is in the store already.
    #[default]
    Refuse,
    /// It is accepted; for systems that were built on this very host.
    Accept,
}

/// Why there is an activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// To bring a target.
    #[default]
    Activate,
    /// To go back to a system that ran before, because a person asked.
    Rollback,
}

/// Everything an activation needs to be resumed by a process that knows nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Began {
    /// What is asked for.
    pub target: StorePath,
    /// The system that ran before: the way back, whatever generation numbers do.
    pub previous: StorePath,
    /// The generation that the profile pointed to before.
    pub previous_generation: Option<Generation>,
    /// When the target becomes the boot default.
    pub commit: CommitPolicy,
    /// Who confirms the trial.
    pub confirm_by: ConfirmBy,
    /// From the fire to the confirmation.
    pub confirm_within_secs: u64,
    /// How long the probes must keep passing.
    pub observe_secs: u64,
    /// What must pass.
    pub probes: Vec<Probe>,
    /// Which parts must not be replaced live.
    pub inhibit: InhibitPolicy,
    /// What happens when units are worse off.
    pub on_failed_units: OnFailedUnits,
    /// What happens to a path without a trusted signature.
    pub unsigned: Unsigned,
    /// What the release says of the closure.
    pub digest: Option<ClosureDigest>,
    /// The agent that ends runs and reverts: the previous system's own, rooted.
    pub rescue: String,
    /// Whether this goes forward or back.
    pub purpose: Purpose,
}

/// One line: what is about to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "kebab-case")]
pub enum Line {
    /// The activation exists.
    Began(Began),
    /// The closure is about to be rooted and fetched.
    Realising,
    /// The profile is about to be pointed at the target.
    SettingProfile,
    /// The deadman is about to be armed.
    ArmingDeadman {
        /// Monotonic milliseconds of this boot at which it reverts.
        deadline_ms: u64,
    },
    /// A detached run is about to be started.
    Firing {
        /// Its unit; every run of an activation has another one.
        unit: String,
        /// What it is for.
        run: Run,
        /// The units before the first run; later runs compare with the same.
        units_before: Option<UnitsSeen>,
        /// What answered before the switch, `host:port`.
        reachable: Vec<String>,
    },
    /// A detached run ended.
    Ended {
        /// Its unit.
        unit: String,
        /// How.
        end: RunEnd,
    },
    /// The probes are about to be asked, or a person is.
    Confirming,
    /// Confirmed: from here on the way is forward.
    Confirmed,
    /// The boot entries are written; the reboot is awaited.
    AwaitingReboot {
        /// Why.
        inhibitors: Vec<Inhibitor>,
    },
    /// The way back is about to be taken.
    Reverting {
        /// Why.
        failure: Failure,
    },
    /// It is over.
    Finished {
        /// How.
        outcome: Box<ActivationOutcome>,
    },
}

/// What a detached run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Run {
    /// The switch itself (`test` on trial, `switch` when committing at once).
    Switch,
    /// The switch once more, after it was killed half-way.
    Repair,
    /// The boot entries of the target, after confirmation.
    Commit,
    /// The boot entries of the target instead of a live switch.
    Defer,
    /// The previous system, live.
    Revert,
    /// The boot entries of the previous system.
    RevertBoot,
}

/// One line with its frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// [`JOURNAL_VERSION`] of the writer.
    pub v: u32,
    /// Rises by one with every line.
    pub seq: u64,
    /// Host time, milliseconds since 1970; for people.
    pub at_ms: u64,
    /// The boot in which it was written.
    pub boot: BootId,
    /// The activation.
    pub id: ActivationId,
    /// What is about to be done.
    #[serde(flatten)]
    pub line: Line,
}

/// A detached run that may have been started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fired {
    /// Its unit.
    pub unit: String,
    /// What it was for.
    pub run: Run,
    /// How it ended, once that was written down.
    pub end: Option<RunEnd>,
}

/// An activation as far as the journal knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activation {
    /// Its id.
    pub id: ActivationId,
    /// Host time of its first line.
    pub began_at_ms: u64,
    /// The boot of its newest line.
    pub last_boot: BootId,
    /// Host time of its newest line.
    pub last_at_ms: u64,
    /// What it needs.
    pub began: Began,
    /// How far it came.
    pub reached: Reached,
    /// Whether the probes or a person confirmed it.
    pub confirmed: bool,
    /// Why it is on the way back, if it is.
    pub reverting: Option<Failure>,
    /// What kept it from being done live.
    pub inhibitors: Vec<Inhibitor>,
    /// The deadline in monotonic milliseconds, and the boot in which that counts.
    pub deadline: Option<(BootId, u64)>,
    /// Every run that may have been started, oldest first.
    pub runs: Vec<Fired>,
    /// The units before the first run.
    pub units_before: Option<UnitsSeen>,
    /// What answered before the first run.
    pub reachable: Vec<String>,
    /// How it ended, if it did.
    pub outcome: Option<ActivationOutcome>,
}

/// How far the journal says that an activation may have come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reached {
    /// Nothing is changed.
    Began,
    /// A root and a download may be there.
    Realising,
    /// The profile may point at the target.
    SettingProfile,
    /// The deadman may be armed.
    ArmingDeadman,
    /// This run may be going on or over.
    Running {
        /// Its unit.
        unit: String,
        /// What it is for.
        run: Run,
    },
    /// The switch is over and was good; the probes decide.
    Confirming,
    /// Confirmed.
    Confirmed,
    /// The boot entries are written.
    AwaitingReboot,
    /// On the way back, between two runs.
    Reverting,
    /// Over.
    Finished,
}

impl Reached {
    /// The step that this belongs to, for people.
    pub fn step(&self) -> Step {
        match self {
            Self::Began => Step::Check,
            Self::Realising => Step::Realise,
            Self::SettingProfile => Step::SetProfile,
            Self::ArmingDeadman => Step::ArmDeadman,
            Self::Running { run: Run::Switch, .. } => Step::Fire,
            Self::Running { run: Run::Repair, .. } => Step::Repair,
            Self::Running { run: Run::Commit, .. } | Self::Confirmed => Step::Commit,
            Self::Running { run: Run::Defer, .. } => Step::Defer,
            Self::Running { run: Run::Revert | Run::RevertBoot, .. } | Self::Reverting => Step::Revert,
            Self::Confirming => Step::Confirm,
            Self::AwaitingReboot => Step::AwaitReboot,
            Self::Finished => Step::Disarm,
        }
    }
}

impl Activation {
    fn new(entry: &Entry, began: Began) -> Self {
        Self {
            id: entry.id.clone(),
            began_at_ms: entry.at_ms,
            last_boot: entry.boot.clone(),
            last_at_ms: entry.at_ms,
            began,
            reached: Reached::Began,
            confirmed: false,
            reverting: None,
            inhibitors: Vec::new(),
            deadline: None,
            runs: Vec::new(),
            units_before: None,
            reachable: Vec::new(),
            outcome: None,
        }
    }

    /// Takes one more line of this activation.
    pub fn fold(&mut self, entry: &Entry) {
        self.last_boot = entry.boot.clone();
        self.last_at_ms = entry.at_ms;
        match &entry.line {
            // A second beginning of the same id would be a second fire: the first one stands.
            Line::Began(_) => {}
            Line::Realising => self.reached = Reached::Realising,
            Line::SettingProfile => self.reached = Reached::SettingProfile,
            Line::ArmingDeadman { deadline_ms } => {
                self.deadline = Some((entry.boot.clone(), *deadline_ms));
                if self.runs.is_empty() {
                    self.reached = Reached::ArmingDeadman;
                }
            }
            Line::Firing { unit, run, units_before, reachable } => {
                self.fold_firing(unit, *run, units_before.as_ref(), reachable);
            }
            Line::Ended { unit, end } => {
                let run = self.runs.iter_mut().rfind(|run| run.unit == *unit);
                if let Some(run) = run {
                    run.end = Some(*end);
                }
            }
            Line::Confirming => self.reached = Reached::Confirming,
            Line::Confirmed => (self.reached, self.confirmed) = (Reached::Confirmed, true),
            Line::AwaitingReboot { inhibitors } => {
                self.reached = Reached::AwaitingReboot;
                self.inhibitors.clone_from(inhibitors);
            }
            Line::Reverting { failure } => {
                self.reached = Reached::Reverting;
                self.reverting.get_or_insert_with(|| failure.clone());
            }
            Line::Finished { outcome } => {
                self.reached = Reached::Finished;
                self.outcome = Some((**outcome).clone());
            }
        }
    }

    fn fold_firing(&mut self, unit: &str, run: Run, units_before: Option<&UnitsSeen>, reachable: &[String]) {
        self.reached = Reached::Running { unit: unit.to_owned(), run };
        self.runs.push(Fired { unit: unit.to_owned(), run, end: None });
        if self.units_before.is_none() {
            self.units_before = units_before.cloned();
        }
        if self.reachable.is_empty() {
            self.reachable = reachable.to_vec();
        }
    }

    /// Whether a run may have rewritten the boot entries for the target.
    pub fn boot_entries_touched(&self) -> bool {
        self.runs.iter().any(|fired| match fired.run {
            Run::Switch | Run::Repair => self.began.commit == CommitPolicy::Immediately,
            Run::Commit | Run::Defer => true,
            Run::Revert | Run::RevertBoot => false,
        })
    }

    /// Whether the profile may point at the target.
    pub fn profile_touched(&self) -> bool {
        !matches!(self.reached, Reached::Began | Reached::Realising)
    }

    /// Whether it is not over.
    pub fn is_pending(&self) -> bool {
        self.outcome.is_none()
    }
}

/// Folds a journal into its activations, oldest first. Lines of an activation whose beginning was rotated away are
/// left out.
pub fn fold(entries: &[Entry]) -> Vec<Activation> {
    let mut out: Vec<Activation> = Vec::new();
    for entry in entries {
        fold_next(&mut out, entry);
    }
    out
}

/// Takes the next line of a journal into what [`fold`] made of those before it.
pub fn fold_next(out: &mut Vec<Activation>, entry: &Entry) {
    match (out.iter_mut().rfind(|activation| activation.id == entry.id), &entry.line) {
        (Some(activation), _) => activation.fold(entry),
        (None, Line::Began(began)) => out.push(Activation::new(entry, began.clone())),
        (None, _) => {}
    }
}

/// Lets go of the units of activations that nothing is compared with any more: all that are over, but for the newest of those
/// that stayed. They are the largest part of an activation in memory.
pub fn forget_units(known: &mut [Activation]) {
    let mut newest_stayed = true;
    for activation in known.iter_mut().rev() {
        let Some(outcome) = &activation.outcome else { continue };
        let stayed = matches!(outcome.verdict, Verdict::Converged | Verdict::LiveWithFailedUnits { .. });
        if !(stayed && std::mem::take(&mut newest_stayed)) {
            activation.units_before = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_from_before_authorities_and_redirects_is_read_and_keeps_its_bytes() {
        let line = r#"{"kind":"http","url":"https://localhost/"}"#;
        let probe: Probe = serde_json::from_str(line).expect("it is understood");
        assert_eq!(serde_json::to_string(&probe).expect("it is written"), line);
    }
}

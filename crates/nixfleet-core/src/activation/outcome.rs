//! How an activation ended and why: types with the facts in them, for people, for `--json` and for the reducer.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::end::RunEnd;
use super::inhibit::Inhibitor;
use super::units::TroubledUnit;
use crate::ids::{ActivationId, ClosureDigest, Generation, StorePath};

/// The steps of an activation, in order; the last four only happen when something went wrong or was put off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Read what runs, check the target, look for somebody else's switch.
    Check,
    /// Fetch the closure and verify it.
    Realise,
    /// Point the system profile at the target, and arm the deadman beside it.
    SetProfile,
    /// Arm the unit that reverts at the deadline.
    ArmDeadman,
    /// Start the detached switch.
    Fire,
    /// Watch it until it ended, and judge the world.
    VerifyPoll,
    /// Repair a profile that the activation script re-pointed.
    SelfCorrect,
    /// Wait for the enforced probes.
    Confirm,
    /// Make the target the boot default.
    Commit,
    /// Stop the deadman and drop what was kept for it.
    Disarm,
    /// Write boot entries only; the reboot does the rest.
    Defer,
    /// Wait for the reboot.
    AwaitReboot,
    /// Run an interrupted switch once more.
    Repair,
    /// Go back to the system recorded before the switch.
    Revert,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Check => "check",
            Self::Realise => "realise",
            Self::SetProfile => "set-profile",
            Self::ArmDeadman => "arm-deadman",
            Self::Fire => "fire",
            Self::VerifyPoll => "verify-poll",
            Self::SelfCorrect => "self-correct",
            Self::Confirm => "confirm",
            Self::Commit => "commit",
            Self::Disarm => "disarm",
            Self::Defer => "defer",
            Self::AwaitReboot => "await-reboot",
            Self::Repair => "repair",
            Self::Revert => "revert",
        })
    }
}

/// What kind of failure it was: decides whether to retry, to quarantine, and whom to tell (`host.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureClass {
    /// Somebody served what nobody trusted signed.
    Trust,
    /// It could not be fetched.
    Fetch,
    /// There was no room for it.
    Space,
    /// The switch itself.
    Switch,
    /// Units that it left worse off.
    Units,
    /// An enforced probe did not pass.
    Probe,
    /// Nobody confirmed in time.
    ConfirmTimeout,
    /// It must not be done live, or somebody else is at it.
    Inhibited,
    /// The boot side: entries not written, or another system booted.
    Boot,
    /// Our own.
    Internal,
}

impl fmt::Display for FailureClass {
    /// As on the wire.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trust => "trust",
            Self::Fetch => "fetch",
            Self::Space => "space",
            Self::Switch => "switch",
            Self::Units => "units",
            Self::Probe => "probe",
            Self::ConfirmTimeout => "confirm-timeout",
            Self::Inhibited => "inhibited",
            Self::Boot => "boot",
            Self::Internal => "internal",
        })
    }
}

/// Who holds the switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "who", rename_all = "kebab-case")]
pub enum BusyWith {
    /// NixOS's own lock is held by this process.
    SwitchLock {
        /// The holder; 0 when it lives in another pid namespace.
        pid: i32,
    },
    /// The switch itself said that it could not get its lock.
    SwitchSaidSo,
    /// This unit is active, which `nixos-rebuild` starts for a person.
    Unit {
        /// Its name.
        unit: String,
    },
    /// Another activation by this program.
    Activation,
}

impl fmt::Display for BusyWith {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SwitchLock { pid } => write!(f, "process {pid} holds the lock of switch-to-configuration"),
            Self::SwitchSaidSo => f.write_str("somebody took the lock of switch-to-configuration first"),
            Self::Unit { unit } => write!(f, "{unit} is active: a person is switching"),
            Self::Activation => f.write_str("another nixfleet activation is running"),
        }
    }
}

/// Why an activation did not do what was asked. Every variant says what was found, not what to think of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the fields are named for what they hold; each variant says what happened")]
pub enum Failure {
    /// The path has none of the files that make a system.
    NotASystem { path: StorePath, lacks: String },
    /// The system was built for another kind of machine.
    WrongArchitecture { path: StorePath, got: String, want: String },
    /// No trusted key signed these paths.
    SignatureMismatch {
        paths: Vec<StorePath>,
        trusted_keys: Vec<String>,
        asked: Vec<String>,
        present_before: bool,
    },
    /// The closure is not the one that the release names.
    ClosureMismatch { want: ClosureDigest, got: ClosureDigest },
    /// No substituter has these paths.
    NotInCache { paths: Vec<StorePath>, asked: Vec<String> },
    /// No substituter answered.
    CacheUnreachable { asked: Vec<String>, last_lines: Vec<String> },
    /// The disk has less room than the closure or the boot files need.
    NoSpace { at: String, need_bytes: u64, free_bytes: u64 },
    /// What was downloaded is not what the signed description says.
    Corrupt { last_lines: Vec<String> },
    /// No byte came for that long.
    Stalled { after_secs: u64 },
    /// Fetching failed in a way that none of the above describes.
    FetchFailed { exit: Option<i32>, last_lines: Vec<String> },
    /// Somebody else is switching.
    Busy { with: BusyWith },
    /// The profile could not be set.
    ProfileNotSet { last_lines: Vec<String> },
    /// The deadman could not be armed, so nothing was fired.
    DeadmanNotArmed { last_lines: Vec<String> },
    /// The switch could not be started at all.
    NotFired { last_lines: Vec<String> },
    /// The switch ended badly.
    SwitchFailed { step: Step, end: RunEnd, flipped: bool, last_lines: Vec<String> },
    /// The host ended up on a system that nobody asked for.
    FlippedToUnexpected { expected: StorePath, actual: String },
    /// Units are worse off than before.
    UnitsFailed { units: Vec<TroubledUnit>, end: RunEnd, last_lines: Vec<String> },
    /// An enforced probe did not pass in time.
    ProbeFailed { probe: String, evidence: String, rounds: u32 },
    /// Nobody confirmed the trial in time.
    ConfirmTimeout { within_secs: u64 },
    /// The boot entries could not be written.
    BootNotWritten { end: RunEnd, last_lines: Vec<String> },
    /// The host came up on another system than the one it was to boot.
    BootedElsewhere { expected: StorePath, actual: String },
    /// The host restarted before the target was confirmed, or while it was being switched to.
    Rebooted { at: Step },
    /// The activation was cut off before it changed anything.
    Interrupted { at: Step },
    /// A person asked for the way back.
    Asked,
    /// Our own fault, or a host on which nothing works.
    Internal { what: String },
}

impl Failure {
    /// Its class.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::SignatureMismatch { .. } | Self::ClosureMismatch { .. } => FailureClass::Trust,
            Self::NotInCache { .. }
            | Self::CacheUnreachable { .. }
            | Self::Corrupt { .. }
            | Self::Stalled { .. }
            | Self::FetchFailed { .. } => FailureClass::Fetch,
            Self::NoSpace { .. } => FailureClass::Space,
            Self::NotASystem { .. }
            | Self::WrongArchitecture { .. }
            | Self::ProfileNotSet { .. }
            | Self::NotFired { .. }
            | Self::SwitchFailed { .. }
            | Self::FlippedToUnexpected { .. } => FailureClass::Switch,
            Self::UnitsFailed { .. } => FailureClass::Units,
            Self::ProbeFailed { .. } => FailureClass::Probe,
            Self::ConfirmTimeout { .. } => FailureClass::ConfirmTimeout,
            Self::Busy { .. } => FailureClass::Inhibited,
            Self::BootNotWritten { .. } | Self::BootedElsewhere { .. } | Self::Rebooted { .. } => {
                FailureClass::Boot
            }
            Self::DeadmanNotArmed { .. } | Self::Interrupted { .. } | Self::Asked | Self::Internal { .. } => {
                FailureClass::Internal
            }
        }
    }

    /// Whether trying the same again later may help without anybody changing anything (lesson 2). Asked of what has changed
    /// nothing: a full disk, a service manager that has no time, or a Nix that hangs says nothing about the target.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NotInCache { .. }
            | Self::CacheUnreachable { .. }
            | Self::Corrupt { .. }
            | Self::Stalled { .. }
            | Self::FetchFailed { .. }
            | Self::NoSpace { .. }
            | Self::Busy { .. }
            | Self::ProfileNotSet { .. }
            | Self::DeadmanNotArmed { .. }
            | Self::NotFired { .. }
            | Self::Interrupted { .. } => true,
            Self::NotASystem { .. }
            | Self::WrongArchitecture { .. }
            | Self::SignatureMismatch { .. }
            | Self::ClosureMismatch { .. }
            | Self::SwitchFailed { .. }
            | Self::FlippedToUnexpected { .. }
            | Self::UnitsFailed { .. }
            | Self::ProbeFailed { .. }
            | Self::ConfirmTimeout { .. }
            | Self::BootNotWritten { .. }
            | Self::BootedElsewhere { .. }
            | Self::Rebooted { .. }
            | Self::Asked
            | Self::Internal { .. } => false,
        }
    }

    /// The last lines of the program that failed, where one did.
    pub fn last_lines(&self) -> &[String] {
        match self {
            Self::CacheUnreachable { last_lines, .. }
            | Self::Corrupt { last_lines }
            | Self::FetchFailed { last_lines, .. }
            | Self::ProfileNotSet { last_lines }
            | Self::DeadmanNotArmed { last_lines }
            | Self::NotFired { last_lines }
            | Self::SwitchFailed { last_lines, .. }
            | Self::UnitsFailed { last_lines, .. }
            | Self::BootNotWritten { last_lines, .. } => last_lines,
            Self::NotASystem { .. }
            | Self::WrongArchitecture { .. }
            | Self::SignatureMismatch { .. }
            | Self::ClosureMismatch { .. }
            | Self::NotInCache { .. }
            | Self::NoSpace { .. }
            | Self::Stalled { .. }
            | Self::Busy { .. }
            | Self::FlippedToUnexpected { .. }
            | Self::ProbeFailed { .. }
            | Self::ConfirmTimeout { .. }
            | Self::BootedElsewhere { .. }
            | Self::Rebooted { .. }
            | Self::Interrupted { .. }
            | Self::Asked
            | Self::Internal { .. } => &[],
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotASystem { path, lacks } => write!(f, "{path} is not a system: it has no {lacks}"),
            Self::WrongArchitecture { path, got, want } => {
                write!(f, "{path} is for {got}, and this host is {want}")
            }
            Self::SignatureMismatch { paths, trusted_keys, present_before, .. } => {
                let place = if *present_before { "already in the store" } else { "offered" };
                write!(
                    f,
                    "{} {place}, but signed by none of the trusted keys ({})",
                    some(paths),
                    list(trusted_keys)
                )
            }
            Self::ClosureMismatch { want, got } => {
                write!(f, "the closure's digest is {got}, and the release says {want}")
            }
            Self::NotInCache { paths, asked } => {
                write!(f, "no substituter has {} (asked {})", some(paths), list(asked))
            }
            Self::CacheUnreachable { asked, .. } => {
                write!(f, "no substituter answered (asked {})", list(asked))
            }
            Self::NoSpace { at, need_bytes, free_bytes } => {
                write!(
                    f,
                    "not enough space in {at}: {} needed, {} free",
                    size(*need_bytes),
                    size(*free_bytes)
                )
            }
            Self::Corrupt { .. } => {
                f.write_str("what was downloaded is not what its signed description says")
            }
            Self::Stalled { after_secs } => write!(f, "the download stood still for {after_secs} s"),
            Self::FetchFailed { exit: Some(code), .. } => write!(f, "fetching failed with exit code {code}"),
            Self::FetchFailed { exit: None, .. } => f.write_str("fetching was cut off"),
            Self::Busy { with } => write!(f, "busy: {with}"),
            Self::ProfileNotSet { .. } => f.write_str("the system profile could not be set"),
            Self::DeadmanNotArmed { .. } => f.write_str("the deadman could not be armed"),
            Self::NotFired { .. } => f.write_str("the switch could not be started"),
            Self::SwitchFailed { step, end, flipped, .. } => {
                let place = if *flipped { "after" } else { "before" };
                write!(f, "{step}: the switch ended with {end}, {place} the system was flipped")
            }
            Self::FlippedToUnexpected { expected, actual } => {
                write!(f, "the host flipped to {actual} instead of {expected}")
            }
            Self::UnitsFailed { units, .. } => {
                let said: Vec<String> = units.iter().map(ToString::to_string).collect();
                write!(f, "{}", list(&said))
            }
            Self::ProbeFailed { probe, evidence, rounds } => {
                write!(f, "probe {probe} did not pass in {rounds} tries: {evidence}")
            }
            Self::ConfirmTimeout { within_secs } => write!(f, "not confirmed within {within_secs} s"),
            Self::BootNotWritten { end, .. } => write!(f, "the boot entries were not written ({end})"),
            Self::BootedElsewhere { expected, actual } => {
                write!(f, "the host booted {actual} instead of {expected}")
            }
            Self::Rebooted { at } => write!(f, "the host restarted during {at}"),
            Self::Interrupted { at } => write!(f, "cut off during {at}"),
            Self::Asked => f.write_str("asked for"),
            Self::Internal { what } => f.write_str(what),
        }
    }
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Verdict {
    /// The target runs and is the boot default.
    Converged,
    /// The target runs and is the boot default, and units are worse off than before.
    LiveWithFailedUnits {
        /// Those units.
        units: Vec<TroubledUnit>,
    },
    /// The target runs, the boot default is still the previous system, and somebody must confirm in time.
    OnTrial {
        /// Seconds that were left when this was written.
        confirm_within_secs: u64,
    },
    /// The target is the boot default and the previous system runs on: a reboot finishes it.
    DeferredPendingReboot {
        /// What must not be replaced live.
        inhibitors: Vec<Inhibitor>,
    },
    /// Nothing was changed, because nobody trusted signed it, or the digest differs.
    SignatureMismatch {
        /// [`Failure::SignatureMismatch`] or [`Failure::ClosureMismatch`].
        failure: Failure,
    },
    /// Nothing was changed, or all was put back before anything ran.
    Failed {
        /// Why.
        failure: Failure,
    },
    /// The previous system runs again and is the boot default.
    Reverted {
        /// Why.
        failure: Failure,
        /// Units that are still worse off than before the switch.
        left: Vec<TroubledUnit>,
    },
    /// The way back failed too; somebody must be told.
    RevertFailed {
        /// Why the way back was taken.
        failure: Failure,
        /// Why it failed.
        revert: Failure,
    },
}

impl Verdict {
    /// The exit code of the command line, as the README lists them.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Converged | Self::OnTrial { .. } => 0,
            Self::SignatureMismatch { .. } | Self::Failed { .. } => 1,
            Self::LiveWithFailedUnits { .. } => 4,
            Self::Reverted { .. } => 5,
            Self::DeferredPendingReboot { .. } => 6,
            Self::RevertFailed { .. } => 7,
        }
    }

    /// A refusal or failure that changed nothing; trust failures get their own verdict.
    pub fn unchanged(failure: Failure) -> Self {
        match failure.class() {
            FailureClass::Trust => Self::SignatureMismatch { failure },
            FailureClass::Fetch
            | FailureClass::Space
            | FailureClass::Switch
            | FailureClass::Units
            | FailureClass::Probe
            | FailureClass::ConfirmTimeout
            | FailureClass::Inhibited
            | FailureClass::Boot
            | FailureClass::Internal => Self::Failed { failure },
        }
    }

    /// Why, where something failed.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::SignatureMismatch { failure }
            | Self::Failed { failure }
            | Self::Reverted { failure, .. }
            | Self::RevertFailed { failure, .. } => Some(failure),
            Self::Converged
            | Self::LiveWithFailedUnits { .. }
            | Self::OnTrial { .. }
            | Self::DeferredPendingReboot { .. } => None,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Converged => f.write_str("converged"),
            Self::LiveWithFailedUnits { units } => {
                let said: Vec<String> = units.iter().map(ToString::to_string).collect();
                write!(f, "live, but {}", list(&said))
            }
            Self::OnTrial { confirm_within_secs } => {
                write!(f, "on trial: confirm within {confirm_within_secs} s or it is reverted")
            }
            Self::DeferredPendingReboot { inhibitors } => {
                let said: Vec<String> = inhibitors.iter().map(|i| i.key.clone()).collect();
                write!(f, "deferred to a reboot because of {}", list(&said))
            }
            Self::SignatureMismatch { failure } => write!(f, "refused, nothing changed: {failure}"),
            Self::Failed { failure } => write!(f, "failed, nothing changed: {failure}"),
            Self::Reverted { failure, left } if left.is_empty() => write!(f, "reverted: {failure}"),
            Self::Reverted { failure, left } => {
                let said: Vec<String> = left.iter().map(ToString::to_string).collect();
                write!(f, "reverted: {failure}; still worse off than before: {}", list(&said))
            }
            Self::RevertFailed { failure, revert } => {
                write!(f, "the revert failed ({revert}), after: {failure}")
            }
        }
    }
}

/// Something that was not as it should be and did not decide the outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Warning(pub String);

/// How long a step took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepTime {
    /// The step.
    pub step: Step,
    /// Milliseconds.
    pub ms: u64,
}

/// The whole outcome of one activation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[must_use = "an outcome that nobody reads is a failure that nobody sees"]
pub struct ActivationOutcome {
    /// Names this activation in the journal and in `logs`.
    pub id: ActivationId,
    /// What was asked for.
    pub target: StorePath,
    /// What ran before; `None` when even that could not be read.
    pub previous: Option<StorePath>,
    /// The generation of the target, where the profile was set.
    pub generation: Option<Generation>,
    /// How it ended.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// What else a person should know.
    pub warnings: Vec<Warning>,
    /// What of the running system only a reboot brings; empty when none is needed.
    pub reboot_needed: Vec<Inhibitor>,
    /// How long each step took, in the order they ran.
    pub steps: Vec<StepTime>,
}

/// The outcome of a rollback asked for by a person: the same facts, named for what was done.
pub type RollbackOutcome = ActivationOutcome;

fn list(words: &[String]) -> String {
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

fn some(paths: &[StorePath]) -> String {
    match paths {
        [] => "a path".to_owned(),
        [only] => only.to_string(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    }
}

/// Bytes for people, rounded up; small numbers in KiB, as a `/boot` is counted in those.
fn size(bytes: u64) -> String {
    if bytes < 10 << 20 {
        format!("{} KiB", bytes.div_ceil(1 << 10))
    } else {
        format!("{} MiB", bytes.div_ceil(1 << 20))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> StorePath {
        "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-nixos-system-a-1".parse().expect("well-formed")
    }

    #[test]
    fn a_trust_failure_is_a_verdict_of_its_own_and_is_never_retried() {
        let failure = Failure::SignatureMismatch {
            paths: vec![path()],
            trusted_keys: vec!["cache-1".into()],
            asked: vec![],
            present_before: false,
        };
        assert!(!failure.is_transient());
        assert!(matches!(Verdict::unchanged(failure), Verdict::SignatureMismatch { .. }));
        let other = Failure::CacheUnreachable { asked: vec![], last_lines: vec![] };
        assert!(other.is_transient());
        assert!(matches!(Verdict::unchanged(other), Verdict::Failed { .. }));
    }

    #[test]
    fn momentary_trouble_of_the_host_is_tried_again_and_what_the_target_did_is_not() {
        let last_lines = || vec!["no answer within 30 s".to_owned()];
        let momentary = [
            Failure::ProfileNotSet { last_lines: last_lines() },
            Failure::DeadmanNotArmed { last_lines: last_lines() },
            Failure::NotFired { last_lines: last_lines() },
        ];
        assert!(momentary.iter().all(Failure::is_transient));
        let of_the_target = Failure::BootNotWritten { end: RunEnd::Unknown, last_lines: last_lines() };
        assert!(!of_the_target.is_transient() && !Failure::ConfirmTimeout { within_secs: 60 }.is_transient());
    }

    #[test]
    fn an_outcome_reads_back_from_its_json() {
        let outcome = ActivationOutcome {
            id: ActivationId::new(1, 2),
            target: path(),
            previous: Some(path()),
            generation: Some(Generation { number: 7, system: path() }),
            verdict: Verdict::Reverted { failure: Failure::ConfirmTimeout { within_secs: 60 }, left: vec![] },
            warnings: vec![Warning("the profile was re-pointed".into())],
            reboot_needed: vec![],
            steps: vec![StepTime { step: Step::Fire, ms: 12 }],
        };
        let text = serde_json::to_string(&outcome).expect("plain data");
        assert!(
            text.contains(r#""verdict":"reverted","failure":{"kind":"confirm-timeout","within_secs":60}"#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<ActivationOutcome>(&text).expect("its own form"), outcome);
    }
}

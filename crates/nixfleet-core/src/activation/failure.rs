//! Why an activation did not bring its target: one failure each, with the facts in it, and of which kind it is.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::end::RunEnd;
use super::outcome::Step;
use super::units::TroubledUnit;
use crate::ids::{ClosureDigest, StorePath};

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
                write!(
                    f,
                    "the closure's digest is {got}, and the release says {want}: other contents are there under the \
                     released names (a cache's signing key was stolen, or the system was built twice with different results)"
                )
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

/// Words in a row.
pub(super) fn list(words: &[String]) -> String {
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
}

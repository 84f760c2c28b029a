//! Named channels: data for scripts on stdout, words for people on stderr.

use std::io::Write;
use std::process::ExitCode;

use nixfleet_agent::activation::boot_space;
use nixfleet_agent::activation::types::{ActivationOutcome, BusyWith, Failure, Verdict, Weight};
use nixfleet_sys::text::printable;

use super::REFUSED;
use super::priority;
use super::refusal::Problem;

/// One line of data.
pub(crate) fn data(line: &str) {
    // A reader that is gone is no reason to fail: what was asked for is done.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Words.
pub(crate) fn say(words: &str) {
    say_as(Weight::Note, words);
}

/// Words, with what they weigh where that is kept: systemd's journal has it for whoever looks for errors alone.
pub(crate) fn say_as(weight: Weight, words: &str) {
    let words = printable(words);
    let words = if priority::is_kept() { priority::with(weight, &words) } else { words };
    let _ = writeln!(std::io::stderr(), "{words}");
}

/// Data as JSON.
pub(crate) fn json(value: &impl serde::Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => data(&text),
        Err(error) => say_as(Weight::Error, &format!("error: cannot write JSON: {error}")),
    }
}

/// What was refused, why, and what to do.
pub(crate) fn refuse(code: u8, why: &str, hint: Option<&str>) -> ExitCode {
    say_as(Weight::Error, &format!("error: {why}"));
    if let Some(hint) = hint {
        say_as(Weight::Error, &format!("\nhint: {hint}"));
    }
    ExitCode::from(code)
}

/// The contract of `--json`.
#[derive(serde::Serialize)]
struct Versioned<'a> {
    version: u32,
    #[serde(flatten)]
    outcome: &'a ActivationOutcome,
    /// Why a trial was not confirmed; a verdict that says why has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'a Failure>,
    /// There if what was asked for was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Problem<'a>>,
}

/// The outcome, for a person or for a script, and its exit code.
pub(crate) fn outcome(outcome: &ActivationOutcome, as_json: bool) -> ExitCode {
    if as_json {
        let error = refused(&outcome.verdict);
        json(&Versioned { version: 1, outcome, failure: None, error });
    }
    let weight = Weight::of(&outcome.verdict);
    for line in outcome.verdict.failure().into_iter().flat_map(Failure::last_lines) {
        say_as(weight, &format!("  | {line}"));
    }
    for warning in &outcome.warnings {
        say_as(Weight::Warning, &format!("warning: {}", warning.0));
    }
    for part in &outcome.reboot_needed {
        say(&format!("a reboot is needed for {part}"));
    }
    let total: u64 = outcome.steps.iter().map(|step| step.ms).sum();
    let generation =
        outcome.generation.as_ref().map(|g| format!(" (generation {})", g.number)).unwrap_or_default();
    let summary = format!(
        "{}: {}{generation}, {}.{:03} s, id {}",
        outcome.verdict,
        outcome.target,
        total / 1000,
        total % 1000,
        outcome.id
    );
    say_as(weight, &summary);
    if let Some(hint) = hint(&outcome.verdict) {
        say_as(weight, &format!("\nhint: {hint}"));
    }
    ExitCode::from(outcome.verdict.exit_code())
}

/// Why an activation was refused; one that has changed something was not.
fn refused(verdict: &Verdict) -> Option<Problem<'_>> {
    match verdict {
        Verdict::SignatureMismatch { failure } | Verdict::Failed { failure } => {
            Some(Problem::of(failure, verdict.exit_code()))
        }
        Verdict::Converged
        | Verdict::LiveWithFailedUnits { .. }
        | Verdict::OnTrial { .. }
        | Verdict::DeferredPendingReboot { .. }
        | Verdict::Reverted { .. }
        | Verdict::RevertFailed { .. } => None,
    }
}

/// A trial that was not confirmed, and goes on.
pub(crate) fn not_confirmed(trial: &ActivationOutcome, failure: &Failure, as_json: bool) -> ExitCode {
    if as_json {
        let error = Some(Problem::of(failure, REFUSED));
        json(&Versioned { version: 1, outcome: trial, failure: Some(failure), error });
    }
    let why = format!("not confirmed: {failure}; {} is {}", trial.target, trial.verdict);
    refuse(
        REFUSED,
        &why,
        Some("put it right and confirm again, or go back at once with `nixfleet-agent rollback`"),
    )
}

/// What `confirm --json`, `rollback --json` and `recover --json` print where there is nothing of what was asked for.
#[derive(serde::Serialize)]
struct Nothing<'a> {
    version: u32,
    verdict: &'a str,
    last: Option<&'a ActivationOutcome>,
    /// There if that is no success.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Problem<'a>>,
}

/// That there is nothing to be done, and that is well.
pub(crate) fn well(verdict: &str, why: &str, last: Option<&ActivationOutcome>, as_json: bool) -> ExitCode {
    if as_json {
        json(&Nothing { version: 1, verdict, last, error: None });
    }
    say(why);
    ExitCode::SUCCESS
}

/// That there is nothing of what was asked for, and how the newest activation ended instead. It is no success: whoever
/// confirms after the deadline must not read that the system was kept.
pub(crate) fn nothing(verdict: &str, why: &str, last: Option<&ActivationOutcome>, as_json: bool) -> ExitCode {
    let hint = "`nixfleet-agent history` tells all of them";
    if as_json {
        let (kind, message) = (verdict.into(), why.into());
        let error = Some(Problem { kind, code: REFUSED, message, hint: Some(hint) });
        json(&Nothing { version: 1, verdict, last, error });
    }
    let last =
        last.map(|last| format!("; the last activation: {}: {}, id {}", last.verdict, last.target, last.id));
    refuse(REFUSED, &format!("{why}{}", last.unwrap_or_default()), Some(hint))
}

fn hint(verdict: &Verdict) -> Option<&'static str> {
    match verdict {
        Verdict::OnTrial { .. } => {
            Some("`nixfleet-agent confirm` keeps it; a reboot or the deadline brings the previous one back")
        }
        Verdict::DeferredPendingReboot { .. } => {
            Some("reboot when it suits; `nixfleet-agent run` finishes it by itself afterwards")
        }
        Verdict::SignatureMismatch { failure } | Verdict::Failed { failure } => failure_hint(failure),
        Verdict::RevertFailed { .. } => {
            Some("look at `nixfleet-agent logs ID`; `nixfleet-agent rollback` tries again")
        }
        Verdict::Reverted { .. } | Verdict::Converged | Verdict::LiveWithFailedUnits { .. } => None,
    }
}

/// What a person can do about a failure that has changed nothing.
pub(crate) fn failure_hint(failure: &Failure) -> Option<&'static str> {
    use nixfleet_agent::activation::types::Failure as F;
    Some(match failure {
        F::SignatureMismatch { present_before: true, .. } => {
            "a system that was built on this host has no signature: sign it, or pass --allow-unsigned"
        }
        F::SignatureMismatch { .. } | F::ClosureMismatch { .. } => {
            "sign the path with a key in `trusted-public-keys`, or find out who altered it"
        }
        F::Busy { with: BusyWith::Activation } => "wait until it is over, or see `nixfleet-agent status`",
        F::Busy { .. } => "wait until it is over, then try again",
        F::NoSpace { at, .. } if boot_space::PLACES.contains(&at.as_str()) => {
            "old kernels fill it: delete old generations with `nix-collect-garbage --delete-older-than 30d`, then let \
             the boot loader drop them with `/run/current-system/bin/switch-to-configuration boot`"
        }
        F::NoSpace { .. } => "`nix-collect-garbage --delete-older-than 30d` frees old generations",
        F::NotASystem { .. } => "give the store path of a whole system: /nix/store/…-nixos-system-…",
        F::NotFired { .. } | F::DeadmanNotArmed { .. } => {
            "nothing can be switched without the service manager: does `systemctl is-system-running` answer?"
        }
        F::NotInCache { .. } => "copy it there with `nix copy --to URL PATH`, or check `substituters`",
        F::WrongArchitecture { .. }
        | F::CacheUnreachable { .. }
        | F::Corrupt { .. }
        | F::Stalled { .. }
        | F::FetchFailed { .. }
        | F::ProfileNotSet { .. }
        | F::SwitchFailed { .. }
        | F::FlippedToUnexpected { .. }
        | F::UnitsFailed { .. }
        | F::ProbeFailed { .. }
        | F::ConfirmTimeout { .. }
        | F::BootNotWritten { .. }
        | F::BootedElsewhere { .. }
        | F::Rebooted { .. }
        | F::Interrupted { .. }
        | F::Asked
        | F::Internal { .. } => return None,
    })
}

//! Named channels: data for scripts on stdout, words for people on stderr.

use std::io::Write;
use std::process::ExitCode;

use nixfleet_agent::activation::boot_space;
use nixfleet_agent::activation::types::{ActivationOutcome, Failure, Verdict};

/// One line of data.
pub(crate) fn data(line: &str) {
    // A reader that is gone is no reason to fail: what was asked for is done.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// One line of words.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Data as JSON.
pub(crate) fn json(value: &impl serde::Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => data(&text),
        Err(error) => say(&format!("error: cannot write JSON: {error}")),
    }
}

/// What was refused, why, and what to do.
pub(crate) fn refuse(code: u8, why: &str, hint: Option<&str>) -> ExitCode {
    say(&format!("error: {why}"));
    if let Some(hint) = hint {
        say(&format!("\nhint: {hint}"));
    }
    ExitCode::from(code)
}

/// The outcome, for a person or for a script, and its exit code.
pub(crate) fn outcome(outcome: &ActivationOutcome, as_json: bool) -> ExitCode {
    if as_json {
        /// The contract of `--json`.
        #[derive(serde::Serialize)]
        struct Versioned<'a> {
            version: u32,
            #[serde(flatten)]
            outcome: &'a ActivationOutcome,
        }
        json(&Versioned { version: 1, outcome });
        return ExitCode::from(outcome.verdict.exit_code());
    }
    for line in outcome.verdict.failure().into_iter().flat_map(Failure::last_lines) {
        say(&format!("  | {line}"));
    }
    for warning in &outcome.warnings {
        say(&format!("warning: {}", warning.0));
    }
    for part in &outcome.reboot_needed {
        say(&format!("a reboot is needed for {part}"));
    }
    let total: u64 = outcome.steps.iter().map(|step| step.ms).sum();
    let generation =
        outcome.generation.as_ref().map(|g| format!(" (generation {})", g.number)).unwrap_or_default();
    say(&format!(
        "{}: {}{generation}, {}.{:03} s, id {}",
        outcome.verdict,
        outcome.target,
        total / 1000,
        total % 1000,
        outcome.id
    ));
    if let Some(hint) = hint(&outcome.verdict) {
        say(&format!("\nhint: {hint}"));
    }
    ExitCode::from(outcome.verdict.exit_code())
}

fn hint(verdict: &Verdict) -> Option<&'static str> {
    use nixfleet_agent::activation::types::Failure as F;
    Some(match verdict {
        Verdict::OnTrial { .. } => {
            "`nixfleet-agent confirm` keeps it; a reboot or the deadline brings the previous one back"
        }
        Verdict::DeferredPendingReboot { .. } => {
            "reboot when it suits; `nixfleet-agent run` finishes it by itself afterwards"
        }
        Verdict::SignatureMismatch { failure: F::SignatureMismatch { present_before: true, .. } } => {
            "a system that was built on this host has no signature: sign it, or pass --allow-unsigned"
        }
        Verdict::SignatureMismatch { .. } => {
            "sign the path with a key in `trusted-public-keys`, or find out who altered it"
        }
        Verdict::Failed { failure: F::Busy { .. } } => "wait until it is over, then try again",
        Verdict::Failed { failure: F::NoSpace { at, .. } } if boot_space::PLACES.contains(&at.as_str()) => {
            "old kernels fill it: delete old generations with `nix-collect-garbage --delete-older-than 30d`, then let \
             the boot loader drop them with `/run/current-system/bin/switch-to-configuration boot`"
        }
        Verdict::Failed { failure: F::NoSpace { .. } } => {
            "`nix-collect-garbage --delete-older-than 30d` frees old generations"
        }
        Verdict::Failed { failure: F::NotASystem { .. } } => {
            "give the store path of a whole system: /nix/store/…-nixos-system-…"
        }
        Verdict::Failed { failure: F::NotInCache { .. } } => {
            "copy it there with `nix copy --to URL PATH`, or check `substituters`"
        }
        Verdict::RevertFailed { .. } => {
            "look at `nixfleet-agent logs ID`; `nixfleet-agent rollback` tries again"
        }
        Verdict::Failed { .. }
        | Verdict::Reverted { .. }
        | Verdict::Converged
        | Verdict::LiveWithFailedUnits { .. } => return None,
    })
}

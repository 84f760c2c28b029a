//! Named channels: data for scripts on stdout, words for people on stderr, a bar only on a terminal.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use nixfleet_agent::activation::boot_space;
use nixfleet_agent::activation::types::{ActivationOutcome, Failure, Observer, Verdict};
use nixfleet_agent::tools::progress::Progress;
use nixfleet_core::activation::outcome::Step;

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

/// Between two plain lines about a download.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// Shows an activation while it happens: a bar with bytes and rate on a terminal, plain lines otherwise.
pub(crate) struct Watcher {
    started: Instant,
    bar: Option<ProgressBar>,
    plain_at: Mutex<Instant>,
}

impl Watcher {
    pub(crate) fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            bar.set_style(
                ProgressStyle::with_template(
                    "{elapsed:>4} {msg:14} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}",
                )
                .unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        let now = Instant::now();
        Self { started: now, bar, plain_at: Mutex::new(now) }
    }

    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn line(&self, text: &str) {
        let line = format!("{:>6.1}s  {text}", self.started.elapsed().as_secs_f64());
        match &self.bar {
            Some(bar) => bar.suspend(|| say(&line)),
            None => say(&line),
        }
    }
}

fn in_words(step: Step) -> &'static str {
    match step {
        Step::Check => "looking at this host",
        Step::Realise => "fetching and verifying",
        Step::SetProfile => "setting the profile, arming the deadman",
        Step::ArmDeadman => "arming the deadman",
        Step::Fire => "switching",
        Step::VerifyPoll => "watching the switch",
        Step::SelfCorrect => "checking the profile",
        Step::Confirm => "asking the probes",
        Step::Commit => "making it the boot default",
        Step::Disarm => "cleaning up",
        Step::Defer => "writing boot entries for the next boot",
        Step::AwaitReboot => "waiting for the reboot",
        Step::Repair => "running the switch once more",
        Step::Revert => "going back",
    }
}

impl Observer for Watcher {
    fn step(&self, step: Step) {
        if let Some(bar) = &self.bar {
            bar.set_message(step.to_string());
        }
        self.line(in_words(step));
    }

    fn fetched(&self, progress: Progress) {
        if let Some(bar) = &self.bar {
            bar.set_length(progress.bytes_expected);
            bar.set_position(progress.bytes_done);
            return;
        }
        let Ok(mut plain_at) = self.plain_at.lock() else { return };
        if plain_at.elapsed() >= PLAIN_EVERY {
            *plain_at = Instant::now();
            let (done, all) = (progress.bytes_done >> 10, progress.bytes_expected >> 10);
            self.line(&format!(
                "{done} of {all} KiB, {} of {} paths",
                progress.paths_done, progress.paths_expected
            ));
        }
    }

    fn remark(&self, text: &str) {
        self.line(text);
    }
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

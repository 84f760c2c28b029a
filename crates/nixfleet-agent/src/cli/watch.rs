//! An activation while it happens, for people: a bar on a terminal, plain lines otherwise.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use nixfleet_agent::activation::types::{Observer, Weight};
use nixfleet_agent::tools::progress::Progress;
use nixfleet_core::activation::outcome::Step;

use super::ui::say_as;

/// Between two plain lines about a download.
const PLAIN_EVERY: Duration = Duration::from_secs(5);
/// Between two pictures of the bar.
const TICK: Duration = Duration::from_millis(120);
/// While a step goes on of which nobody knows how far it is.
const BUSY: &str = "{elapsed:>7}  {spinner} {msg}";
/// While something is fetched.
const FETCHING: &str = "{elapsed:>7}  {bar:24} {msg}";
/// A full bar.
const FULL: u64 = 1_000;

/// Shows an activation while it happens.
pub(crate) struct Watcher {
    started: Instant,
    bar: Option<ProgressBar>,
    fetch: Mutex<Fetch>,
}

/// What was last seen of a download.
struct Fetch {
    /// When its first number came.
    since: Option<Instant>,
    plain_at: Instant,
}

impl Watcher {
    pub(crate) fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(FULL);
            bar.enable_steady_tick(TICK);
            bar
        });
        let now = Instant::now();
        Self { started: now, bar, fetch: Mutex::new(Fetch { since: None, plain_at: now }) }
    }

    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn line(&self, weight: Weight, text: &str) {
        let line = format!("{:>6.1}s  {text}", self.started.elapsed().as_secs_f64());
        match &self.bar {
            Some(bar) => bar.suspend(|| say_as(weight, &line)),
            None => say_as(weight, &line),
        }
    }
}

impl Observer for Watcher {
    fn step(&self, step: Step) {
        self.line(Weight::Note, in_words(step));
        if let Some(bar) = &self.bar {
            bar.set_style(style(BUSY));
            bar.set_message(in_words(step));
        }
    }

    fn fetched(&self, progress: Progress) {
        let mut fetch = self.fetch.lock().unwrap_or_else(PoisonError::into_inner);
        let first = fetch.since.is_none();
        let words = words(progress, fetch.since.get_or_insert_with(Instant::now).elapsed());
        if let Some(bar) = &self.bar {
            if first {
                bar.set_style(style(FETCHING));
            }
            bar.set_position(share(progress));
            bar.set_message(words);
        } else if fetch.plain_at.elapsed() >= PLAIN_EVERY {
            fetch.plain_at = Instant::now();
            self.line(Weight::Note, &words);
        }
    }

    fn remark(&self, weight: Weight, text: &str) {
        self.line(weight, text);
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// How much of the bar is filled, of [`FULL`].
///
/// Nix tells no bytes of small paths, and one large path may be most of a download: so half of the bar are paths, the other
/// half bytes.
fn share(progress: Progress) -> u64 {
    let half = |done: u64, all: u64| {
        let filled = u128::from(done.min(all)) * u128::from(FULL / 2);
        filled.checked_div(u128::from(all)).and_then(|filled| u64::try_from(filled).ok()).unwrap_or(0)
    };
    half(progress.paths_done, progress.paths_expected) + half(progress.bytes_done, progress.bytes_expected)
}

/// A download in words, after it has gone on for `since`.
fn words(progress: Progress, since: Duration) -> String {
    let Progress { bytes_done, bytes_expected, paths_done, paths_expected } = progress;
    let (done, all) = (HumanBytes(bytes_done), HumanBytes(bytes_expected));
    let mut out = format!("{paths_done} of {paths_expected} paths, {done} of {all}");
    // Before that a rate is noise.
    if let Some(rate) = bytes_done.checked_div(since.as_secs()) {
        let _ = write!(out, ", {}/s", HumanBytes(rate));
    }
    out
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

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(bytes_done: u64, paths_done: u64) -> Progress {
        Progress { bytes_done, bytes_expected: 4 << 20, paths_done, paths_expected: 1_000 }
    }

    #[test]
    fn a_bar_moves_with_paths_too_small_to_report_bytes_and_is_full_only_at_the_end() {
        assert_eq!(share(Progress::default()), 0);
        assert_eq!(share(at(0, 500)), 250);
        assert_eq!(share(at(2 << 20, 999)), 749);
        assert_eq!(share(at(4 << 20, 1_000)), FULL);
    }

    #[test]
    fn a_download_is_told_in_paths_and_bytes_and_its_rate_once_there_is_one() {
        assert_eq!(
            words(at(1 << 20, 7), Duration::from_millis(400)),
            "7 of 1000 paths, 1.00 MiB of 4.00 MiB"
        );
        let later = words(at(1 << 20, 7), Duration::from_secs(2));
        assert_eq!(later, "7 of 1000 paths, 1.00 MiB of 4.00 MiB, 512.00 KiB/s");
    }
}

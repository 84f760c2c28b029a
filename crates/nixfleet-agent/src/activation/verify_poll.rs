//! Watches a detached run until it ended, and looks at what it left behind.
//!
//! At first it is looked for every few milliseconds. A run that is not over by then is watched: two folders wake us, `/run` for
//! the flip, our own `ends` for the record that the run's unit writes. The slow poll is
//! only the net: an event may be lost, and a unit that is gone without a record must be noticed some day. A flip
//! alone is no verdict: on NixOS it comes *before* units are restarted, so the end of the run is waited for.

use std::path::Path;
use std::time::Duration;

use nixfleet_core::activation::end::RunEnd;
use nixfleet_core::activation::judge::{Aftermath, Link, end_behind, hides_another};
use nixfleet_core::activation::units::{UnitsSeen, changed, worse};
use nixfleet_core::ids::StorePath;
use nixfleet_core::{CONFIRM_SLACK, DEFAULT_CONFIRM_DEADLINE_SECS};
use nixfleet_sys::watch::FolderWatch;
use nixfleet_sys::{clock, fs};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout_at};

use super::backend::ActivationBackend;
use crate::tools::journal::TO_DECIDE;

/// How long a switch may take before its whole cgroup is ended.
///
/// Inside the control plane's confirm deadline less slack: otherwise the two sides disagree on what happened.
pub const POLL_BUDGET: Duration = Duration::from_mins(5);
const _: () = assert!(POLL_BUDGET.as_secs() + CONFIRM_SLACK.as_secs() <= DEFAULT_CONFIRM_DEADLINE_SECS);

/// How often the world is looked at when nothing wakes us.
pub const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// How long, and how often, a run is looked at without a watch: writing the boot entries takes less. A watch does not pay for
/// that, as the kernel takes 10 to 20 ms to close one.
const SHORT_RUN: Duration = Duration::from_secs(1);
const SHORT_POLL: Duration = Duration::from_millis(4);

/// From the limit of a run until we end it ourselves: systemd's own stop takes up to 15 s.
const PAST_LIMIT: Duration = Duration::from_secs(20);
/// A unit that is gone must be gone this often in a row, without a record, before its end counts as unknown.
const GONE_POLLS: u32 = 2;

/// Lines of a run's output in which a word on `activate` is looked for: it stands before those on units, of which a system has hundreds.
const OUTPUT_LINES: u32 = 2_000;

/// The record of how a run ended, as `nixfleet-agent record-end` writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndRecord {
    /// How.
    pub end: RunEnd,
    /// Monotonic milliseconds at which the record was made.
    pub recorded_at_ms: u64,
}

/// How a watch ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Polled {
    /// The run is over.
    Settled(RunEnd),
    /// It was not over at its limit, and was ended by us.
    Timeout,
}

impl Polled {
    /// The end, for the journal and the judgement.
    pub fn end(&self) -> RunEnd {
        match self {
            Self::Settled(end) => *end,
            Self::Timeout => RunEnd::TimedOut,
        }
    }
}

/// The record, once it is there. A file that cannot be read is no record: it is replaced atomically, so that is damage.
pub fn read_end(file: &Path) -> Option<EndRecord> {
    /// A record is one short line.
    const BYTES_MAX: u64 = 4096;
    let bytes = fs::read_bounded(file, BYTES_MAX).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Writes the record of an end, which is the only truth about it.
pub fn record_end(file: &Path, end: RunEnd) -> anyhow::Result<()> {
    let recorded_at_ms = u64::try_from(clock::monotonic().as_millis()).unwrap_or(u64::MAX);
    let record = EndRecord { end, recorded_at_ms };
    Ok(fs::write_atomic(file, &serde_json::to_vec(&record)?)?)
}

/// Waits until the run is over, for `limit` at most.
pub async fn verify_poll<B: ActivationBackend>(
    backend: &B,
    unit: &str,
    end_file: &Path,
    limit: Duration,
) -> Polled {
    let begun = Instant::now();
    let give_up = begun + limit + PAST_LIMIT;
    while begun.elapsed() < SHORT_RUN {
        if let Some(record) = read_end(end_file) {
            return Polled::Settled(record.end);
        }
        sleep(SHORT_POLL).await;
    }
    let run = backend.host().current_system.parent().unwrap_or(Path::new("/run")).to_owned();
    let mut watch = end_file.parent().and_then(|ends| FolderWatch::new(&[&run, ends]).ok());
    let mut gone = 0;
    loop {
        if let Some(record) = read_end(end_file) {
            return Polled::Settled(record.end);
        }
        if gone >= GONE_POLLS {
            return Polled::Settled(RunEnd::Unknown);
        }
        if Instant::now() >= give_up {
            backend.end_run(unit).await;
            return read_end(end_file).map_or(Polled::Timeout, |record| Polled::Settled(record.end));
        }
        if !wait(&mut watch, give_up).await {
            gone = if backend.is_running(unit).await { 0 } else { gone + 1 };
        }
    }
}

/// Waits for a change or for the slow poll; says whether it was a change.
async fn wait(watch: &mut Option<FolderWatch>, give_up: Instant) -> bool {
    let next_poll = give_up.min(Instant::now() + POLL_INTERVAL);
    let Some(folders) = watch else {
        sleep(next_poll - Instant::now()).await;
        return false;
    };
    match timeout_at(next_poll, folders.changed()).await {
        Ok(Ok(())) => true,
        Ok(Err(_)) => {
            // A broken watch would spin; the poll goes on alone.
            *watch = None;
            false
        }
        Err(_) => false,
    }
}

/// Where the link points, given what should run and what ran before.
pub fn link_of(current: Option<&StorePath>, expected: &StorePath, previous: &StorePath) -> Link {
    match current {
        Some(system) if system == expected => Link::Expected,
        Some(system) if system == previous => Link::Previous,
        Some(_) | None => Link::Third,
    }
}

/// Looks at the world after a run that was to bring `expected`; also returns the units as they were seen.
pub async fn aftermath<B: ActivationBackend>(
    backend: &B,
    (unit, end): (&str, RunEnd),
    (expected, previous): (&StorePath, &StorePath),
    before: &UnitsSeen,
    repaired: bool,
) -> (Aftermath, Option<UnitsSeen>) {
    let link = link_of(settled_link(backend).await.as_ref(), expected, previous);
    let now = backend.units().await;
    // What cannot be seen is not good news: it reads as changed, so that nothing is called untouched.
    let units_changed = now.as_ref().is_none_or(|now| changed(before, now));
    let suspects = now.as_ref().map(|now| worse(before, now)).unwrap_or_default();
    let troubled = if suspects.is_empty() { suspects } else { backend.clear_suspects(suspects).await };
    let (platform, was_running) = (backend.platform(), expected == previous);
    let end = if hides_another(platform, end) {
        end_behind(end, &backend.last_lines(unit, OUTPUT_LINES, TO_DECIDE).await)
    } else {
        end
    };
    let seen = Aftermath { platform, end, link, troubled, units_changed, was_running, repaired };
    (seen, now)
}

/// The running system, looked at again after a moment when there is none: some flips unlink before they link.
async fn settled_link<B: ActivationBackend>(backend: &B) -> Option<StorePath> {
    for _ in 0..20 {
        if let Some(system) = backend.host().current() {
            return Some(system);
        }
        sleep(Duration::from_millis(50)).await;
    }
    None
}

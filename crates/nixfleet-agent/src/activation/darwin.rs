//! nix-darwin: a detached session instead of systemd units, and a flip that is the last thing to happen.
//!
//! Plain Unix code, compiled and tested on Linux too; only the default choice of the backend is `cfg`. `activate`
//! has no actions: a live run is `<system>/activate`, and there are no boot entries to write. The detached process
//! is this agent itself (`darwin-run`, `deadman --wait-until-ms`), which calls `setsid` first: launchd signals the
//! whole group of a job that it reloads, and the agent is one (`facts/nixos.md` D8).

use std::path::Path;
use std::sync::OnceLock;

use nixfleet_core::activation::inhibit::Parts;
use nixfleet_core::activation::outcome::BusyWith;
use nixfleet_core::activation::units::{TroubledUnit, UnitsSeen};
use nixfleet_core::ids::{ActivationId, StorePath};
use nixfleet_sys::exec::Cmd;
use nixfleet_sys::{fs, text};

use super::backend::{Action, ActivationBackend, DeadmanOrder, FireOrder, NotStarted};
use super::host::HostPaths;
use crate::failpoint;
use crate::tools::{MissingTools, Tools};

/// Bytes of a run's output that are read for them.
const OUTPUT_BYTES_MAX: u64 = 4 << 20;

/// A macOS host with nix-darwin.
#[derive(Debug, Default)]
pub struct DarwinBackend {
    host: OnceLock<HostPaths>,
    tools: OnceLock<Result<Tools, MissingTools>>,
}

impl DarwinBackend {
    /// This host, with everything in its usual place.
    pub const fn new() -> Self {
        Self { host: OnceLock::new(), tools: OnceLock::new() }
    }

    /// Where the detached process writes its id and its output.
    fn beside(&self, unit: &str, what: &str) -> std::path::PathBuf {
        self.host().ends().join(format!("{unit}.{what}"))
    }
}

fn not_started(error: impl std::fmt::Display) -> NotStarted {
    NotStarted { last_lines: text::last_lines(&error.to_string(), 8) }
}

impl ActivationBackend for DarwinBackend {
    fn with_state(state: &Path) -> Self {
        Self { host: OnceLock::from(HostPaths::with_state(state)), tools: OnceLock::new() }
    }

    fn unusable(&self) -> Option<String> {
        None
    }

    fn host(&self) -> &HostPaths {
        self.host.get_or_init(HostPaths::default)
    }

    fn tools(&self) -> Result<&Tools, MissingTools> {
        self.tools.get_or_init(Tools::find_nix_here).as_ref().map_err(Clone::clone)
    }

    fn system_files(&self) -> &'static [&'static str] {
        &["activate", "darwin-version"]
    }

    fn architecture(&self) -> &'static str {
        match std::env::consts::ARCH {
            "aarch64" => "aarch64-darwin",
            _ => "x86_64-darwin",
        }
    }

    fn inhibiting_parts(&self, _system: &StorePath) -> Parts {
        Parts::new()
    }

    async fn busy(&self) -> Option<BusyWith> {
        // nix-darwin has no lock file; our own lock is all there is.
        None
    }

    async fn fire(&self, order: &FireOrder<'_>) -> Result<(), NotStarted> {
        let live = match order.action {
            Action::Switch | Action::Test => "live",
            Action::Boot => "boot",
        };
        Cmd::new(order.rescue)
            .arg("darwin-run")
            .args(["--action", live, "--limit-secs", &order.limit.as_secs().to_string()])
            .arg("--end-file")
            .arg(order.end_file)
            .arg("--pid-file")
            .arg(self.beside(order.unit, "pid"))
            .arg("--output")
            .arg(self.beside(order.unit, "log"))
            .arg("--")
            .arg(order.system.join("activate"))
            .spawn_detached()
            .map(drop)
            .map_err(not_started)
    }

    async fn is_running(&self, unit: &str) -> bool {
        let Ok(pid) = fs::read_bounded(&self.beside(unit, "pid"), 64) else { return false };
        let pid = std::str::from_utf8(&pid).ok().and_then(|text| text.trim().parse().ok());
        let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) else { return false };
        rustix::process::test_kill_process(pid).is_ok()
    }

    async fn end_run(&self, unit: &str) {
        let Ok(pid) = fs::read_bounded(&self.beside(unit, "pid"), 64) else { return };
        let pid = std::str::from_utf8(&pid).ok().and_then(|text| text.trim().parse().ok());
        if let Some(group) = pid.and_then(rustix::process::Pid::from_raw) {
            // The session's leader heads its group; `activate` is in it.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }

    async fn last_lines(&self, unit: &str, lines_max: u32) -> Vec<String> {
        let output = fs::read_bounded(&self.beside(unit, "log"), OUTPUT_BYTES_MAX).unwrap_or_default();
        let lines_max = usize::try_from(lines_max).unwrap_or(usize::MAX);
        text::last_lines(&text::printable(&String::from_utf8_lossy(&output)), lines_max)
    }

    async fn units(&self) -> Option<UnitsSeen> {
        Some(UnitsSeen::default())
    }

    async fn clear_suspects(&self, troubled: Vec<TroubledUnit>) -> Vec<TroubledUnit> {
        troubled
    }

    async fn start_units(&self, _units: &[String]) {}

    async fn unit_is_active(&self, _unit: &str) -> bool {
        false
    }

    async fn is_booting(&self) -> bool {
        false
    }

    async fn arm_deadman(&self, order: &DeadmanOrder<'_>) -> Result<(), NotStarted> {
        let at_ms = order.deadline.as_millis().to_string();
        Cmd::new(order.rescue)
            .env_from_ours(failpoint::HANDED_ON)
            .args(["deadman", "--wait-until-ms", &at_ms, "--state-dir"])
            .arg(order.state)
            .arg(order.id.as_str())
            .spawn_detached()
            .map(drop)
            .map_err(not_started)
    }

    async fn disarm_deadman(&self, _id: &ActivationId) {
        // The waiting process looks into the journal every second and leaves when the activation is over.
    }

    async fn armed_deadmen(&self) -> Vec<ActivationId> {
        Vec::new()
    }
}

/// The body of the detached process: its own session, then the run, then the record of its end.
pub async fn darwin_run(run: DarwinRun<'_>) -> anyhow::Result<()> {
    use nixfleet_core::activation::end::RunEnd;
    use nixfleet_sys::exec::{Ended, ExecError};
    // An error means that we lead a session already.
    let _ = rustix::process::setsid();
    fs::write_atomic(run.pid_file, std::process::id().to_string().as_bytes())?;
    let (end, output) = if run.live {
        let cmd = Cmd::new(run.program).env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").deadline(run.limit);
        match cmd.run().await {
            Ok(finished) => {
                let end = match finished.ended {
                    Ended::Exited(code) => RunEnd::Exited { code },
                    Ended::Signalled(signal) => RunEnd::Killed { signal },
                };
                let said = format!("{}\n{}", text::tail(&finished.stdout, 8 << 10), finished.stderr_tail);
                (end, said)
            }
            Err(ExecError::Deadline { last_words, .. }) => (RunEnd::TimedOut, last_words),
            Err(error) => (RunEnd::Unknown, error.to_string()),
        }
    } else {
        (RunEnd::Exited { code: 0 }, String::new())
    };
    fs::write_atomic(run.output, output.as_bytes())?;
    record_end(run.end_file, end)?;
    Ok(())
}

/// What [`darwin_run`] is told.
#[derive(Debug)]
pub struct DarwinRun<'a> {
    /// `<system>/activate`.
    pub program: &'a Path,
    /// Whether there is anything to run at all: boot entries have no counterpart.
    pub live: bool,
    /// When it is ended.
    pub limit: std::time::Duration,
    /// Where the end is recorded.
    pub end_file: &'a Path,
    /// Where its process id goes.
    pub pid_file: &'a Path,
    /// Where its output goes.
    pub output: &'a Path,
}

/// Writes the record of an end, which is the only truth about it.
pub fn record_end(file: &Path, end: nixfleet_core::activation::end::RunEnd) -> anyhow::Result<()> {
    let recorded_at_ms = u64::try_from(nixfleet_sys::clock::monotonic().as_millis()).unwrap_or(u64::MAX);
    let record = super::verify_poll::EndRecord { end, recorded_at_ms };
    Ok(fs::write_atomic(file, &serde_json::to_vec(&record)?)?)
}

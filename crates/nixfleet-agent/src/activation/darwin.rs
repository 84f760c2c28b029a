//! nix-darwin: a detached session instead of systemd units, and a flip that is the last thing to happen.
//!
//! Plain Unix code, compiled and tested on Linux too; only the default choice of the backend is `cfg`. `activate`
//! has no actions: a live run is `<system>/activate`, and there are no boot entries to write. The detached process
//! is this agent itself (`darwin-run`, `deadman --wait-until-ms`), which calls `setsid` first: launchd signals the
//! whole group of a job that it reloads, and the agent is one (`facts/nixos.md` D8).
//!
//! A run is known by a file that it keeps *locked*: the agent takes the lock and hands it to the detached process,
//! which hands it to `activate` and all that this starts. A process id can be used again, such a lock cannot. A run
//! is ended by ending every process of its session, until the lock is free; what called `setsid` itself escapes
//! that, and is waited for in vain for ten seconds.
//!
//! A reboot on trial: `/run` is empty after a boot, and nix-darwin activates what the *profile* names. So a trial
//! leaves the profile alone until it is confirmed, and a power cut comes back on the previous system as on NixOS;
//! the agent then says so. No deadman is needed for that, and none outlives the boot. With `--immediately` the profile
//! names the target before it is fired: a power cut half-way through `activate` comes back on the target.
//!
//! Not shown on macOS itself: the tests run on Linux, on systems of nix-darwin's shape.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use nixfleet_core::activation::inhibit::Parts;
use nixfleet_core::activation::outcome::BusyWith;
use nixfleet_core::activation::platform::Platform;
use nixfleet_core::activation::units::{TroubledUnit, UnitsSeen};
use nixfleet_core::ids::{ActivationId, BootId, StorePath};
use nixfleet_sys::exec::Cmd;
use nixfleet_sys::{clock, fs, session, text};
use rustix::process::{Pid, Signal};
use tokio::time::{Instant, sleep};

use super::backend::{
    Action, ActivationBackend, DeadmanOrder, DeadmanTime, FireOrder, NotStarted, deadman_unit,
};
use super::host::{BootUnknown, HostPaths, linux_boot_id};
use crate::failpoint;
use crate::tools::unit_now::UnitNow;
use crate::tools::{MissingTools, Tools, sysctl};

pub mod detached;
pub mod output;

/// How long [`ActivationBackend::end_run`] kills before it gives up on what escapes it.
const END_WITHIN: Duration = Duration::from_secs(10);
/// Between two of its attempts.
const END_EVERY: Duration = Duration::from_millis(50);

/// How long the deadman may take to come to wait: it is our own program, which is in memory.
const ARM_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks at it.
const ARM_LOOK_EVERY: Duration = Duration::from_millis(5);
/// What nix-darwin's `activate-system` daemon, which launchd starts at the same time as us, has for its links.
const BOOT_TAKES: Duration = Duration::from_secs(20);
/// When its links are no longer waited for.
const BOOT_WITHIN: Duration = Duration::from_mins(2);
/// Between two looks for them.
const BOOT_LOOK_EVERY: Duration = Duration::from_millis(250);

/// A macOS host with nix-darwin.
#[derive(Debug, Default)]
pub struct DarwinBackend {
    host: OnceLock<HostPaths>,
    tools: OnceLock<Tools>,
}

impl DarwinBackend {
    /// This host, with everything in its usual place.
    pub const fn new() -> Self {
        Self { host: OnceLock::new(), tools: OnceLock::new() }
    }

    /// The file that a run and everything of it keeps locked; the id of its leader is in it.
    fn pid_file(&self, unit: &str) -> PathBuf {
        self.host().ends().join(format!("{unit}.pid"))
    }

    /// The file that is there for as long as a deadman is armed.
    fn armed_file(&self, id: &ActivationId) -> PathBuf {
        self.host().ends().join(format!("{}.armed", deadman_unit(id)))
    }

    /// Where the output of runs is kept, beyond the end of their activation.
    fn logs(&self) -> PathBuf {
        self.host().state.join("logs")
    }
}

/// The leader of a run; `None` when it has not come to write its id.
fn read_pid(file: &Path) -> Option<Pid> {
    /// A process id in decimal.
    const BYTES_MAX: u64 = 16;
    let bytes = fs::read_bounded(file, BYTES_MAX).ok()?;
    session::pid_in(std::str::from_utf8(&bytes).ok()?)
}

/// Whether the deadman came to lead its session, where it writes its id: before that, whatever ends us ends it too.
async fn waits(armed: &Path) -> bool {
    let until = Instant::now() + ARM_WITHIN;
    while Instant::now() < until {
        // In this order: it may lead, and be over, between the two questions.
        let alive = fs::is_locked(armed);
        if read_pid(armed).is_some() || !alive {
            return alive;
        }
        sleep(ARM_LOOK_EVERY).await;
    }
    false
}

fn not_started(error: impl std::fmt::Display) -> NotStarted {
    NotStarted { last_lines: text::last_lines(&error.to_string(), 8) }
}

impl ActivationBackend for DarwinBackend {
    fn with_state(state: &Path) -> Self {
        Self { host: OnceLock::from(HostPaths::with_state(state)), tools: OnceLock::new() }
    }

    fn platform(&self) -> Platform {
        Platform::NixDarwin
    }

    fn unusable(&self) -> Option<String> {
        None
    }

    fn host(&self) -> &HostPaths {
        self.host.get_or_init(HostPaths::default)
    }

    async fn boot_id(&self) -> Result<BootId, BootUnknown> {
        // Both are compiled everywhere; which one there is to ask depends on the kernel and not on the backend.
        if cfg!(target_os = "macos") { sysctl::boot_session().await } else { linux_boot_id() }
    }

    fn tools(&self) -> Result<&Tools, MissingTools> {
        Tools::kept_in(&self.tools, Tools::find_nix_here)
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

    async fn can_fire(&self) -> Result<(), NotStarted> {
        // A run is a process of ours.
        Ok(())
    }

    async fn fire(&self, order: &FireOrder<'_>) -> Result<(), NotStarted> {
        let live = match order.action {
            Action::Switch | Action::Test => "live",
            Action::Boot => "boot",
        };
        let logs = self.logs();
        // Without a place for its output a run goes on all the same.
        let _ = fs::make_dir(&logs);
        output::prune(&logs);
        // Locked by us and handed on: there is no instant in which the run is under way and not locked.
        let lock = fs::Lock::try_take(&self.pid_file(order.unit)).map_err(not_started)?;
        let lock = lock.ok_or_else(|| not_started("a run of this name goes on already"))?;
        Cmd::new(order.rescue)
            .arg("darwin-run")
            .args(["--action", live, "--limit-secs", &order.limit.as_secs().to_string()])
            .arg("--end-file")
            .arg(order.end_file)
            .arg("--output")
            .arg(output::path(&logs, order.unit))
            .arg("--")
            .arg(order.system.join("activate"))
            .spawn_detached(Some(lock.into_file()))
            .map(drop)
            .map_err(not_started)
    }

    fn lock_holders(&self) -> Vec<i32> {
        // There is no `/proc/locks`: the holder has written its id into the file, as long as it is locked.
        fs::named_holder(&self.host().lock).into_iter().collect()
    }

    async fn is_running(&self, unit: &str) -> bool {
        fs::is_locked(&self.pid_file(unit))
    }

    fn has_begun(&self, unit: &str) -> bool {
        read_pid(&self.pid_file(unit)).is_some()
    }

    async fn end_run(&self, unit: &str) {
        let file = self.pid_file(unit);
        let until = Instant::now() + END_WITHIN;
        // While the lock is held the run is not over, and its leader's id is not free to be used again.
        while fs::is_locked(&file) && Instant::now() < until {
            if let Some(leader) = read_pid(&file) {
                session::signal(leader, Signal::KILL).await;
            }
            sleep(END_EVERY).await;
        }
    }

    fn can_read_output(&self) -> Result<(), MissingTools> {
        // It is in files of ours.
        Ok(())
    }

    async fn last_lines(&self, unit: &str, lines_max: u32, _within: Duration) -> Vec<String> {
        // It is in files of ours, to which it was written at once.
        output::last_lines(&output::path(&self.logs(), unit), lines_max)
    }

    fn forget_run(&self, unit: &str) {
        let _ = fs::remove(&self.pid_file(unit));
    }

    async fn units(&self) -> Option<UnitsSeen> {
        Some(UnitsSeen::default())
    }

    async fn clear_suspects(&self, troubled: Vec<TroubledUnit>) -> Vec<TroubledUnit> {
        troubled
    }

    async fn start_units(&self, _units: &[String]) {}

    async fn unit_now(&self, _unit: &str) -> Result<UnitNow, String> {
        Err("this platform has no systemd units".to_owned())
    }

    async fn await_boot(&self) {
        let until = Instant::now() + BOOT_WITHIN;
        let booting = || self.host().current().is_none() || clock::monotonic() < BOOT_TAKES;
        while booting() && Instant::now() < until {
            sleep(BOOT_LOOK_EVERY).await;
        }
    }

    async fn is_booting(&self) -> bool {
        false
    }

    async fn arm_deadman(&self, order: &DeadmanOrder<'_>) -> Result<(), NotStarted> {
        let DeadmanTime::ThisBoot(deadline) = order.when else {
            // Nothing is deferred to a reboot here, and a reboot on trial comes back on the previous system.
            return Ok(());
        };
        let at_ms = deadline.as_millis().to_string();
        let armed = self.armed_file(order.id);
        let lock = fs::Lock::try_take(&armed).map_err(not_started)?;
        let lock = lock.ok_or_else(|| not_started("a deadman of this activation waits already"))?;
        Cmd::new(order.rescue)
            .env_from_ours(failpoint::HANDED_ON)
            .args(["deadman", "--wait-until-ms", &at_ms, "--armed-file"])
            .arg(&armed)
            .arg("--state-dir")
            .arg(order.state)
            .arg(order.id.as_str())
            .spawn_detached(Some(lock.into_file()))
            .map_err(not_started)?;
        if waits(&armed).await {
            return Ok(());
        }
        // One that comes to it after all finds that it is disarmed.
        let _ = fs::remove(&armed);
        Err(not_started("the detached process did not come to wait"))
    }

    async fn disarm_deadman(&self, id: &ActivationId) {
        // The waiting process sees that its file is gone and leaves; one that is past its wait, perhaps ourselves,
        // finds an activation that is over.
        let _ = fs::remove(&self.armed_file(id));
    }

    async fn armed_deadmen(&self) -> Vec<ActivationId> {
        let files = std::fs::read_dir(self.host().ends()).into_iter().flatten().flatten();
        let ids = files.filter_map(|file| {
            let name = file.file_name().into_string().ok()?;
            name.strip_prefix("nixfleet-deadman-")?.strip_suffix(".armed")?.parse().ok()
        });
        ids.collect()
    }
}

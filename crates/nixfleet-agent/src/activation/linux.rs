//! NixOS: detached runs are transient systemd units, the deadman is a systemd timer.

pub mod next_boot;
pub mod recorded;

use std::borrow::Cow;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use nixfleet_core::activation::inhibit::Parts;
use nixfleet_core::activation::outcome::BusyWith;
use nixfleet_core::activation::platform::Platform;
use nixfleet_core::activation::units::{TroubledUnit, UnitHealth, UnitTrouble, UnitsSeen};
use nixfleet_core::ids::{ActivationId, BootId, StorePath};
use nixfleet_sys::{fs, text};

use self::next_boot::NextBoot;
use super::backend::{ActivationBackend, DeadmanOrder, DeadmanTime, FireOrder, NotStarted, deadman_unit};
use super::host::{BootUnknown, HostPaths, linux_boot_id, parts};
use crate::tools::systemd::{CommandLine, StartError, TransientUnit, WhenFailed};
use crate::tools::unit_now::UnitNow;
use crate::tools::units::{ActiveState, NotAUnitName, SystemState, UnitName, UnitShown, UnitState};
use crate::tools::{MissingTools, ToolError, Tools};

/// NixOS's own lock, held exclusively while its switch program runs (`facts/switch.md` 4). Read, never taken.
const SWITCH_LOCK: &str = "/run/nixos/switch-to-configuration.lock";
/// How the name of the unit begins that `nixos-rebuild` starts for a person; some builds of it append something random
/// (`facts/nixos.md` D4).
const REBUILD_UNIT: &str = "nixos-rebuild-switch-to-configuration";
/// Where the service manager keeps the file of every transient unit that is loaded: no file, no unit.
const TRANSIENT_UNITS: &str = "/run/systemd/transient";
/// From SIGTERM to SIGKILL for a run that reached its limit.
const STOP_WITHIN: Duration = Duration::from_secs(15);

/// How often a timer whose file is gone is let go of, and the pause between two tries: a boot that starts it is over by then.
const UNLOAD_TRIES: u32 = 20;
const UNLOAD_AGAIN: Duration = Duration::from_millis(500);

/// The parts whose swap is not done live, each by the first of its files that a system has.
const INHIBITING: [(&str, &[&str]); 3] = [
    ("kernel", &["kernel"]),
    ("systemd", &["systemd", "sw/lib/systemd/systemd"]),
    ("dbus", &["sw/bin/dbus-daemon", "sw/bin/dbus-broker-launch"]),
];

/// A NixOS host.
#[derive(Debug, Default)]
pub struct LinuxBackend {
    host: OnceLock<HostPaths>,
    tools: OnceLock<Tools>,
}

impl LinuxBackend {
    /// This host, with everything in its usual place.
    pub const fn new() -> Self {
        Self { host: OnceLock::new(), tools: OnceLock::new() }
    }

    fn command(rescue: &Path, verb: &str, args: &[&str]) -> Result<CommandLine, NotStarted> {
        let command = CommandLine::new(rescue).and_then(|line| line.arg(verb));
        args.iter()
            .try_fold(command, |line, arg| Ok(line.and_then(|line| line.arg(arg))))
            .and_then(|line| line.map_err(not_started))
    }
}

fn not_started(error: impl std::fmt::Display) -> NotStarted {
    NotStarted { last_lines: text::last_lines(&error.to_string(), 8) }
}

fn unit_name(unit: &str) -> Result<UnitName, NotStarted> {
    unit.parse().map_err(not_started)
}

impl ActivationBackend for LinuxBackend {
    fn with_state(state: &Path) -> Self {
        let host = OnceLock::from(HostPaths::with_state(state));
        Self { host, ..Self::new() }
    }

    fn platform(&self) -> Platform {
        Platform::NixOs
    }

    fn unusable(&self) -> Option<String> {
        let runs = Path::new("/run/systemd/system").is_dir();
        (!runs).then(|| "systemd is not the service manager here: there is no /run/systemd/system".to_owned())
    }

    fn host(&self) -> &HostPaths {
        self.host.get_or_init(HostPaths::default)
    }

    async fn boot_id(&self) -> Result<BootId, BootUnknown> {
        linux_boot_id()
    }

    fn tools(&self) -> Result<&Tools, MissingTools> {
        Tools::kept_in(&self.tools, Tools::find_here)
    }

    fn system_files(&self) -> &'static [&'static str] {
        &["bin/switch-to-configuration", "nixos-version"]
    }

    fn architecture(&self) -> &'static str {
        match std::env::consts::ARCH {
            "x86_64" => "x86_64-linux",
            "aarch64" => "aarch64-linux",
            "x86" => "i686-linux",
            "riscv64" => "riscv64-linux",
            "arm" => "armv7l-linux",
            "loongarch64" => "loongarch64-linux",
            "powerpc64" if cfg!(target_endian = "little") => "powerpc64le-linux",
            other => other,
        }
    }

    fn inhibiting_parts(&self, system: &StorePath) -> Parts {
        parts(system, &INHIBITING)
    }

    async fn busy(&self) -> Option<BusyWith> {
        if let Ok(meta) = std::fs::metadata(SWITCH_LOCK)
            && let Some(pid) = fs::flock_holders(&fs::proc_locks(), &meta).first()
        {
            return Some(BusyWith::SwitchLock { pid: *pid });
        }
        for unit in rebuild_units(Path::new(TRANSIENT_UNITS)) {
            // Also one that is on its way up or down: a switch that was stopped may flip the system as its last act.
            if self.is_running(&unit).await {
                return Some(BusyWith::Unit { unit });
            }
        }
        None
    }

    async fn can_fire(&self) -> Result<(), NotStarted> {
        let answers = self.tools().map_err(not_started)?.answers().await;
        answers.map_err(|error| not_started(format!("the service manager does not answer: {error}")))
    }

    async fn fire(&self, order: &FireOrder<'_>) -> Result<(), NotStarted> {
        let tools = self.tools().map_err(not_started)?;
        let program = order.system.join("bin/switch-to-configuration");
        let (program, action) = (program.to_string_lossy(), order.action.to_string());
        let end_file = order.end_file.to_string_lossy();
        let marks = self.host().marks_of(order.unit);
        let marks = marks.path().to_string_lossy();
        let mut env = vec![("NIXOS_INSTALL_BOOTLOADER".to_owned(), "0".parse().map_err(not_started)?)];
        if let Some(locale) = std::env::var("LOCALE_ARCHIVE").ok().and_then(|path| path.parse().ok()) {
            env.push(("LOCALE_ARCHIVE".to_owned(), locale));
        }
        let unit = TransientUnit {
            name: unit_name(order.unit)?,
            run: Self::command(order.rescue, "run-recorded", &[&marks, &end_file, &program, &action])?,
            on_end: Some(Self::command(order.rescue, "record-end", &[&marks, &end_file])?),
            env,
            run_at_most: Some(order.limit),
            stop_within: Some(STOP_WITHIN),
            when_failed: WhenFailed::Forget,
        };
        match tools.run_unit(&unit).await {
            // Whoever waits for its end finds its record, or that there is none.
            Ok(()) | Err(StartError::Unsure { .. }) => Ok(()),
            Err(error @ (StartError::Program(_) | StartError::Job { .. })) => Err(not_started(error)),
        }
    }

    fn lock_holders(&self) -> Vec<i32> {
        let Ok(meta) = std::fs::metadata(&self.host().lock) else { return Vec::new() };
        fs::flock_holders(&fs::proc_locks(), &meta)
    }

    async fn is_running(&self, unit: &str) -> bool {
        let (Ok(tools), Ok(name)) = (self.tools(), unit_name(unit)) else { return true };
        match tools.show_unit(&name).await {
            Ok(UnitShown::NotLoaded) => false,
            Ok(UnitShown::Loaded(status)) => match status.active {
                ActiveState::Inactive | ActiveState::Failed => false,
                ActiveState::Active
                | ActiveState::Reloading
                | ActiveState::Activating
                | ActiveState::Deactivating
                | ActiveState::Other(_) => true,
            },
            Err(_) => true,
        }
    }

    fn has_begun(&self, unit: &str) -> bool {
        // `ExecStopPost` records the end of whatever began, however it was cut off, but for a full disk and a kill of its own.
        self.host().marks_of(unit).begun().exists()
    }

    async fn end_run(&self, unit: &str) {
        let (Ok(tools), Ok(name)) = (self.tools(), unit_name(unit)) else { return };
        // A unit that is not loaded is an error here, and exactly what we want.
        if tools.stop_unit(&name).await.is_err() && self.is_running(unit).await {
            let _ = tools.kill_unit(&name).await;
        }
    }

    fn can_read_output(&self) -> Result<(), MissingTools> {
        self.journal().map(drop)
    }

    async fn last_lines(&self, unit: &str, lines_max: u32, within: Duration) -> Vec<String> {
        let (Ok(tools), Ok(name)) = (self.journal(), unit_name(unit)) else { return Vec::new() };
        tools.last_lines(&name, lines_max, within).await.unwrap_or_default()
    }

    fn forget_run(&self, unit: &str) {
        // systemd forgets it by itself, and the output is in the journal.
        let _ = fs::remove(&self.host().marks_of(unit).begun());
    }

    async fn units(&self) -> Option<UnitsSeen> {
        let listed = self.tools().ok()?.list_units().await.ok()?;
        Some(UnitsSeen(
            listed.into_iter().map(|unit| (unit.name.as_str().to_owned(), health(&unit))).collect(),
        ))
    }

    async fn clear_suspects(&self, troubled: Vec<TroubledUnit>) -> Vec<TroubledUnit> {
        let mut out = Vec::new();
        for unit in troubled {
            let counts = match unit.trouble {
                UnitTrouble::DidNotComeBack => self.should_be_up(&unit.unit).await,
                UnitTrouble::Failed | UnitTrouble::Restarting | UnitTrouble::NotUpYet => {
                    !self.is_transient(&unit.unit).await
                }
            };
            if counts {
                out.push(unit);
            }
        }
        out
    }

    async fn start_units(&self, units: &[String]) {
        let Ok(tools) = self.tools() else { return };
        for name in units.iter().filter_map(|unit| unit_name(unit).ok()) {
            // What does not start is named in the outcome, from the world and not from this answer.
            let _ = tools.start_unit(&name).await;
        }
    }

    async fn unit_now(&self, unit: &str) -> Result<UnitNow, String> {
        let name: UnitName = unit.parse().map_err(|error: NotAUnitName| error.to_string())?;
        let tools = self.tools().map_err(|missing| missing.to_string())?;
        tools.unit_now(&name).await.map_err(|error| error.to_string())
    }

    async fn await_boot(&self) {
        // Stage 2 makes them before there is a service manager.
    }

    async fn is_booting(&self) -> bool {
        let Ok(tools) = self.tools() else { return false };
        matches!(tools.system_state().await, Ok(SystemState::Initializing | SystemState::Starting))
    }

    async fn arm_deadman(&self, order: &DeadmanOrder<'_>) -> Result<(), NotStarted> {
        match order.when {
            DeadmanTime::ThisBoot(deadline) => self.arm_this_boot(order, deadline).await,
            DeadmanTime::NextBoot(after) => {
                let run = deadman_command(order, &["--next-boot"])?;
                NextBoot::default().arm(order.id, &run, after).map_err(not_started)
            }
        }
    }

    async fn disarm_deadman(&self, id: &ActivationId) {
        let Ok(tools) = self.tools() else {
            NextBoot::default().disarm(id);
            return;
        };
        let next_boot = disarm_next_boot(tools, id).await;
        if let Ok(timer) = unit_name(&format!("{}.timer", deadman_unit(id))) {
            let _ = tools.stop_unit_soon(&timer).await;
        }
        if let Some(timer) = next_boot {
            unload(tools, &timer).await;
        }
    }

    async fn armed_deadmen(&self) -> Vec<ActivationId> {
        let files = std::fs::read_dir(TRANSIENT_UNITS).into_iter().flatten().flatten();
        let ids = files.filter_map(|file| {
            let name = file.file_name().into_string().ok()?;
            name.strip_prefix("nixfleet-deadman-")?.strip_suffix(".timer")?.parse().ok()
        });
        ids.chain(NextBoot::default().armed()).collect()
    }
}

/// Stops the timer of the next boot, then removes it. While its files go, a timer that is still up has nothing to start, and
/// fails. Returns its name if there was one.
async fn disarm_next_boot(tools: &Tools, id: &ActivationId) -> Option<UnitName> {
    let files = NextBoot::default();
    let timer = files.timer(id).and_then(|timer| unit_name(&timer).ok());
    if let Some(timer) = &timer {
        // Before that boot it is not loaded, and this is refused.
        let _ = tools.stop_unit_soon(timer).await;
    }
    files.disarm(id);
    timer
}

/// Lets go of a timer whose file is gone. What was wanted by a target stays loaded until a daemon-reload, longer if that
/// one fell together with the boot that was starting it, and one that failed until its failure is forgotten.
async fn unload(tools: &Tools, timer: &UnitName) {
    for _ in 0..UNLOAD_TRIES {
        let _ = tools.stop_unit_soon(timer).await;
        let _ = tools.daemon_reload().await;
        let _ = tools.reset_failed(timer).await;
        if matches!(tools.show_unit(timer).await, Ok(UnitShown::NotLoaded)) {
            return;
        }
        tokio::time::sleep(UNLOAD_AGAIN).await;
    }
}

/// The units in which a person's `nixos-rebuild` switches, or did, as far as they are loaded.
fn rebuild_units(transient: &Path) -> Vec<String> {
    let files = std::fs::read_dir(transient).into_iter().flatten().flatten();
    let names = files.filter_map(|file| file.file_name().into_string().ok());
    names.filter(|name| name.starts_with(REBUILD_UNIT) && name.ends_with(".service")).collect()
}

fn deadman_command(order: &DeadmanOrder<'_>, more: &[&str]) -> Result<CommandLine, NotStarted> {
    let state = order.state.to_string_lossy();
    let args = [&["--state-dir", &state], more, &[order.id.as_str()]].concat();
    LinuxBackend::command(order.rescue, "deadman", &args)
}

impl LinuxBackend {
    /// What reads the journal.
    fn journal(&self) -> Result<Cow<'_, Tools>, MissingTools> {
        match self.tools() {
            Ok(tools) => Ok(Cow::Borrowed(tools)),
            Err(_) => Tools::find_journal_here().map(Cow::Owned),
        }
    }

    async fn arm_this_boot(&self, order: &DeadmanOrder<'_>, deadline: Duration) -> Result<(), NotStarted> {
        let tools = self.tools().map_err(not_started)?;
        let unit = TransientUnit {
            name: unit_name(&format!("{}.service", deadman_unit(order.id)))?,
            run: deadman_command(order, &[])?,
            on_end: None,
            env: Vec::new(),
            run_at_most: None,
            stop_within: None,
            when_failed: WhenFailed::Forget,
        };
        // Counted from the start of the service manager: `--on-active` would start anew at each daemon-reload.
        let started = tools.userspace_start().await.map_err(not_started)?;
        tools.run_unit_at(&unit, deadline.saturating_sub(started)).await.map_err(not_started)
    }

    /// Whether somebody started the unit by hand (`systemd-run`): no switch touches those (`facts/switch.md` 1), so
    /// their failures are not the new system's.
    async fn is_transient(&self, unit: &str) -> bool {
        let (Ok(tools), Ok(name)) = (self.tools(), unit_name(unit)) else { return false };
        let reasons = tools.unit_reasons(&name).await;
        matches!(reasons, Ok(Some(reasons)) if reasons.fragment.starts_with("/run/systemd/transient/"))
    }

    /// Whether a unit that was up and is down now has no good reason to be down.
    ///
    /// Good reasons: the new system does not have it, it is not a unit of the system at all (transient, or made by
    /// a generator), or a timer, a path or a socket starts it when there is work and it ended well.
    async fn should_be_up(&self, unit: &str) -> bool {
        let (Ok(tools), Ok(name)) = (self.tools(), unit_name(unit)) else { return true };
        match tools.unit_reasons(&name).await {
            Ok(Some(reasons)) => {
                reasons.fragment.starts_with("/etc/systemd/system/")
                    && !(reasons.triggered && reasons.ended_well)
            }
            Ok(None) => false,
            Err(ToolError::Exec(_) | ToolError::NotUnderstood { .. }) => true,
        }
    }
}

fn health(unit: &UnitState) -> UnitHealth {
    match &unit.active {
        ActiveState::Active | ActiveState::Reloading => UnitHealth::Up,
        ActiveState::Failed => UnitHealth::Failed,
        ActiveState::Inactive => UnitHealth::Down,
        // 254 and newer add `auto-restart-queued`.
        ActiveState::Activating if unit.sub.starts_with("auto-restart") => UnitHealth::Restarting,
        ActiveState::Activating | ActiveState::Deactivating | ActiveState::Other(_) => UnitHealth::Changing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_persons_switch_is_known_by_the_name_of_its_unit_whatever_is_appended_to_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let (plain, random) = (format!("{REBUILD_UNIT}.service"), format!("{REBUILD_UNIT}-x7k2.service"));
        for name in [plain.as_str(), &random, "nixfleet-switch-1.service", "run-u5.service"] {
            fs::write_atomic(&folder.path().join(name), b"").expect("written");
        }
        // What somebody has added to a unit is a folder beside it.
        fs::make_dir(&folder.path().join(format!("{plain}.d"))).expect("made");
        let mut found = rebuild_units(folder.path());
        found.sort();
        assert_eq!(found, [random, plain]);
        assert!(rebuild_units(&folder.path().join("none")).is_empty());
    }
}

//! Units as data: their names, what `systemctl` says of them, and strict readers of its output.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use nixfleet_core::nix::NotUnderstood;

/// The longest unit name that systemd takes.
const UNIT_NAME_MAX: usize = 255;
/// Suffixes of the unit types.
const UNIT_TYPES: [&str; 11] = [
    "service",
    "socket",
    "target",
    "device",
    "mount",
    "automount",
    "swap",
    "timer",
    "path",
    "slice",
    "scope",
];

/// The whole name of a unit, its type included; never an option, never a pattern.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UnitName(String);

/// Why a text is not a unit name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the whole name of a unit, such as `sshd.service`")]
pub struct NotAUnitName(String);

impl UnitName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl UnitName {
    /// The timer of that name.
    #[must_use]
    pub fn timer(&self) -> Self {
        let stem = self.0.rsplit_once('.').map_or(self.as_str(), |(stem, _)| stem);
        Self(format!("{stem}.timer"))
    }
}

impl FromStr for UnitName {
    type Err = NotAUnitName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shown = || NotAUnitName(text.chars().filter(|c| !c.is_control()).take(300).collect());
        let (stem, kind) = text.rsplit_once('.').ok_or_else(shown)?;
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b));
        // `-.mount` and `-.slice` are real; every other leading dash would read as an option.
        let option_like = text.starts_with('-') && stem != "-";
        let fits = plain && !option_like && !stem.is_empty() && text.len() <= UNIT_NAME_MAX;
        if fits && UNIT_TYPES.contains(&kind) { Ok(Self(text.to_owned())) } else { Err(shown()) }
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for UnitName {
    type Error = NotAUnitName;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<UnitName> for String {
    fn from(name: UnitName) -> Self {
        name.0
    }
}

/// Whether a unit runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActiveState {
    /// It runs, or did what it had to do.
    Active,
    /// It runs and reads its configuration anew.
    Reloading,
    /// It does not run.
    Inactive,
    /// It does not run, because it ended badly.
    Failed,
    /// It is on its way up.
    Activating,
    /// It is on its way down.
    Deactivating,
    /// A word that this agent does not know.
    Other(String),
}

impl ActiveState {
    pub(super) fn read(word: &str) -> Self {
        match word {
            "active" => Self::Active,
            "reloading" => Self::Reloading,
            "inactive" => Self::Inactive,
            "failed" => Self::Failed,
            "activating" => Self::Activating,
            "deactivating" => Self::Deactivating,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// How the main process of a service ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MainEnd {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

/// What systemd says of one unit. A unit that is not loaded says nothing: its defaults read like a success.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "`NotLoaded` is neither success nor failure"]
pub enum UnitShown {
    /// It was never there, or it has ended and was unloaded.
    NotLoaded,
    /// It is there.
    Loaded(UnitStatus),
}

/// What systemd says of a unit that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitStatus {
    /// `loaded`, `masked`, `error` and the like; never `not-found`.
    pub load: String,
    /// Whether it runs.
    pub active: ActiveState,
    /// The state in the words of its type, such as `exited`.
    pub sub: String,
    /// `success`, `exit-code`, `signal`, `timeout` and the like; empty for types that have none.
    pub result: String,
    /// How the main process ended; none while it runs, or if it never did.
    pub main_end: Option<MainEnd>,
    /// The main process while it runs.
    pub main_pid: Option<u32>,
    /// Names this one run of the unit.
    pub invocation: Option<String>,
    /// How often systemd has restarted it by itself.
    pub restarts: u32,
    /// Whether its file has changed since it was loaded.
    pub needs_daemon_reload: bool,
}

/// The properties that [`parse_show`] wants.
pub const SHOWN: &str = "LoadState,ActiveState,SubState,Result,ExecMainCode,ExecMainStatus,MainPID,InvocationID,\
                         NRestarts,NeedDaemonReload";

/// `KEY=VALUE` lines, the first of each key.
pub(super) struct Properties<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Properties<'a> {
    pub(super) fn read(text: &'a str) -> Result<Self, NotUnderstood> {
        let split = |line: &'a str| {
            line.split_once('=').ok_or_else(|| NotUnderstood::new("a line is not KEY=VALUE", line))
        };
        text.lines().filter(|line| !line.is_empty()).map(split).collect::<Result<_, _>>().map(Self)
    }

    /// What is set, if it is shown at all.
    pub(super) fn get(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find(|(known, _)| *known == key).map(|(_, value)| *value)
    }

    pub(super) fn must(&self, key: &'static str) -> Result<&'a str, NotUnderstood> {
        self.get(key)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| NotUnderstood::new("a property is missing", key))
    }

    /// A number; a property that this type of unit does not have is none.
    pub(super) fn number<T: FromStr>(&self, key: &'static str) -> Result<Option<T>, NotUnderstood> {
        match self.get(key) {
            None | Some("" | "[not set]") => Ok(None),
            Some(value) => {
                value.parse().map(Some).map_err(|_| NotUnderstood::new("a property is not a number", value))
            }
        }
    }
}

/// The unit in what `systemctl show -p` [`SHOWN`] printed.
pub fn parse_show(stdout: &str) -> Result<UnitShown, NotUnderstood> {
    let shown = Properties::read(stdout)?;
    let load = shown.must("LoadState")?;
    let active = ActiveState::read(shown.must("ActiveState")?);
    // A unit whose file is gone while it runs is `not-found` and `active`: that one is there.
    if load == "not-found" && active == ActiveState::Inactive {
        return Ok(UnitShown::NotLoaded);
    }
    Ok(UnitShown::Loaded(UnitStatus {
        load: load.to_owned(),
        active,
        sub: shown.must("SubState")?.to_owned(),
        result: shown.get("Result").unwrap_or_default().to_owned(),
        main_end: main_end(&shown)?,
        main_pid: shown.number("MainPID")?.filter(|pid| *pid != 0),
        invocation: shown.get("InvocationID").filter(|id| !id.is_empty()).map(str::to_owned),
        restarts: shown.number("NRestarts")?.unwrap_or(0),
        needs_daemon_reload: shown.get("NeedDaemonReload") == Some("yes"),
    }))
}

/// The code is what `waitid` calls `si_code`: 1 exited, 2 killed, 3 dumped, 0 not yet.
pub(super) fn main_end(shown: &Properties<'_>) -> Result<Option<MainEnd>, NotUnderstood> {
    let code: Option<u32> = shown.number("ExecMainCode")?;
    let status: Option<i32> = shown.number("ExecMainStatus")?;
    match (code, status) {
        (None | Some(0), _) | (_, None) => Ok(None),
        (Some(1), Some(status)) => Ok(Some(MainEnd::Exited(status))),
        (Some(2 | 3), Some(status)) => Ok(Some(MainEnd::Killed(status))),
        (Some(other), Some(_)) => Err(NotUnderstood::new("ExecMainCode is not known", &other.to_string())),
    }
}

/// A unit in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitState {
    /// Its name.
    pub name: UnitName,
    /// `loaded`, `not-found`, `masked` and the like.
    pub load: String,
    /// Whether it runs.
    pub active: ActiveState,
    /// The state in the words of its type.
    pub sub: String,
}

#[derive(Deserialize)]
struct Row {
    unit: UnitName,
    load: String,
    active: String,
    sub: String,
}

/// The units in what `systemctl list-units --output=json` printed.
pub fn parse_list_units(stdout: &[u8]) -> Result<Vec<UnitState>, NotUnderstood> {
    let rows: Vec<Row> = serde_json::from_slice(stdout)
        .map_err(|error| NotUnderstood::new("it is not a list of units in JSON", &error.to_string()))?;
    let state = |row: Row| UnitState {
        name: row.unit,
        load: row.load,
        active: ActiveState::read(&row.active),
        sub: row.sub,
    };
    Ok(rows.into_iter().map(state).collect())
}

/// How the whole system is, in systemd's eyes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemState {
    /// Before anything runs.
    Initializing,
    /// Still starting, or jobs are queued.
    Starting,
    /// Up.
    Running,
    /// Up, with failed units.
    Degraded,
    /// In rescue or emergency mode.
    Maintenance,
    /// Going down.
    Stopping,
    /// systemd is not the first process here.
    Offline,
    /// It cannot be found out.
    Unknown,
}

/// The word that `systemctl is-system-running` printed; its exit code only repeats it.
pub fn parse_system_state(stdout: &str) -> Result<SystemState, NotUnderstood> {
    match stdout.trim_end() {
        "initializing" => Ok(SystemState::Initializing),
        "starting" => Ok(SystemState::Starting),
        "running" => Ok(SystemState::Running),
        "degraded" => Ok(SystemState::Degraded),
        "maintenance" => Ok(SystemState::Maintenance),
        "stopping" => Ok(SystemState::Stopping),
        "offline" => Ok(SystemState::Offline),
        "unknown" => Ok(SystemState::Unknown),
        other => Err(NotUnderstood::new("the state of the system is not a word we know", other)),
    }
}

/// When the service manager started, in microseconds of the monotonic clock: what `OnStartupSec=` counts from.
pub fn parse_userspace_start(stdout: &str) -> Result<u64, NotUnderstood> {
    let shown = Properties::read(stdout)?;
    shown
        .number("UserspaceTimestampMonotonic")?
        .ok_or_else(|| NotUnderstood::new("a property is missing", "UserspaceTimestampMonotonic"))
}

#[cfg(test)]
mod tests;

//! `systemd-run` and `systemctl`: units that live without us, and what becomes of units.
//!
//! A switch runs as a service of `Type=exec` with `RuntimeMaxSec=` (which a oneshot does not obey) and the default
//! `KillMode`, so that its whole cgroup ends; the record of its end is written by `ExecStopPost=`, because a unit that
//! has ended cannot be asked (`facts/switch.md` 6). With this type `$SERVICE_RESULT` is `success` also for a program
//! that died of SIGTERM, SIGHUP, SIGINT or SIGPIPE: the record must ask for `$EXIT_CODE` = `exited` as well. Neither `--pipe` nor `--scope` nor `--wait`: they tie it to us.
//! Timers count from the start of the service manager, because `--on-active` starts anew at each daemon-reload.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use nixfleet_core::ids::StorePath;
use nixfleet_sys::exec::{Cmd, Finished};
use tokio::time::{Instant, sleep};

use super::bus::{self, BusError};
use super::journal::FOR_PEOPLE;
use super::nix_store::understood;
use super::units::{
    ActiveState, SHOWN, SystemState, UnitName, UnitShown, UnitState, parse_list_units, parse_show,
    parse_system_state, parse_userspace_start,
};
use super::{ToolError, Tools};

/// systemd answers a question within milliseconds; a daemon-reload of a big host takes some seconds.
const ASK_DEADLINE: Duration = Duration::from_secs(30);
/// A unit may take its own `TimeoutStopSec=`, 90 s by default, and a little more.
const STOP_DEADLINE: Duration = Duration::from_mins(2);

/// Between two questions for a unit of which the manager does not tell.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How long a manager is asked again that refuses to be asked: one that executes itself anew does so for an instant.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);
/// Lines of a unit's journal that say why it was not started.
const LAST_LINES: u32 = 7;

/// One word of a command line inside a unit: only characters that systemd takes as they are.
///
/// systemd would unquote, expand `%` and `$`, and split at spaces and `;`, each differently by version. None of these
/// characters can be in here; `+=?:,@` can, since store paths and environment values have them, and they mean
/// nothing except at the very front of a program, where an absolute path has a slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word(String);

/// Why a text is not such a word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` cannot stand in a unit: only A-Z a-z 0-9 and / . _ - + = ? : , @ can")]
pub struct NotAWord(String);

impl Word {
    /// The word as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Word {
    type Err = NotAWord;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+=?:,@".contains(&b));
        if plain && !text.is_empty() && text.len() <= 4096 {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotAWord(text.chars().filter(|c| !c.is_control()).take(300).collect()))
        }
    }
}

impl From<&StorePath> for Word {
    fn from(path: &StorePath) -> Self {
        Self(path.as_str().to_owned())
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A program with arguments, as it can stand in a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    program: Word,
    args: Vec<Word>,
}

impl CommandLine {
    /// A program by its absolute path, without arguments.
    pub fn new(program: &Path) -> Result<Self, NotAWord> {
        let text = program.to_string_lossy();
        let program: Word = text.parse()?;
        if program.0.starts_with('/') {
            Ok(Self { program, args: Vec::new() })
        } else {
            Err(NotAWord(program.0))
        }
    }

    /// The program.
    pub fn program(&self) -> &Word {
        &self.program
    }

    /// Its arguments, without itself.
    pub fn args(&self) -> &[Word] {
        &self.args
    }

    /// The same with one more argument.
    pub fn arg(mut self, arg: &str) -> Result<Self, NotAWord> {
        self.args.push(arg.parse()?);
        Ok(self)
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.program.0)?;
        self.args.iter().try_for_each(|arg| write!(f, " {arg}"))
    }
}

/// A service that lives without us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransientUnit {
    /// Its name; it must not be loaded.
    pub name: UnitName,
    /// What it runs.
    pub run: CommandLine,
    /// Runs after its end, however it ends, with `$SERVICE_RESULT`, `$EXIT_CODE` and `$EXIT_STATUS`.
    pub on_end: Option<CommandLine>,
    /// The environment, beside systemd's own.
    pub env: Vec<(String, Word)>,
    /// `RuntimeMaxSec=`: the whole cgroup is ended after so long.
    pub run_at_most: Option<Duration>,
    /// `TimeoutStopSec=`: from SIGTERM to SIGKILL.
    pub stop_within: Option<Duration>,
    /// What becomes of the unit when it has failed.
    pub when_failed: WhenFailed,
}

/// What becomes of a transient unit when it has failed; one that ended well is always unloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFailed {
    /// It stays as failed until somebody resets it; its name is taken until then.
    Keep,
    /// It is unloaded, and its name is free at once (`--collect`).
    Forget,
}

/// `systemd-run` of a service at once; returns when the program has been executed.
pub fn run_unit(tools: &Tools, unit: &TransientUnit) -> Cmd {
    with_command(systemd_run(tools, unit), unit)
}

/// `systemd-run` of a timer that starts the service so long after the start of the service manager.
///
/// A time that has passed starts it at once. The timer is called as the service, with `.timer`.
pub fn run_unit_at(tools: &Tools, unit: &TransientUnit, since_startup: Duration) -> Cmd {
    let cmd = systemd_run(tools, unit)
        .arg(format!("--timer-property=OnStartupSec={}", seconds(since_startup)))
        .arg("--timer-property=AccuracySec=100ms");
    with_command(cmd, unit)
}

fn systemd_run(tools: &Tools, unit: &TransientUnit) -> Cmd {
    let TransientUnit { name, run: _, on_end, env, run_at_most, stop_within, when_failed } = unit;
    let mut args = vec![
        "--no-ask-password".to_owned(),
        "--quiet".to_owned(),
        "--service-type=exec".to_owned(),
        format!("--unit={name}"),
    ];
    match when_failed {
        WhenFailed::Keep => {}
        WhenFailed::Forget => args.push("--collect".to_owned()),
    }
    args.extend(on_end.iter().map(|line| format!("--property=ExecStopPost={line}")));
    args.extend(run_at_most.iter().map(|limit| format!("--property=RuntimeMaxSec={}", seconds(*limit))));
    args.extend(stop_within.iter().map(|limit| format!("--property=TimeoutStopSec={}", seconds(*limit))));
    args.extend(env.iter().map(|(key, value)| format!("--setenv={key}={value}")));
    tools.command(&tools.systemd_run).args(args).deadline(ASK_DEADLINE)
}

fn with_command(cmd: Cmd, unit: &TransientUnit) -> Cmd {
    cmd.arg("--").arg(unit.run.program().as_str()).args(unit.run.args().iter().map(Word::as_str))
}

/// Whole milliseconds; 0 would mean "no limit", so it is one.
pub(super) fn at_least_a_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// Seconds with milliseconds, as systemd reads them.
fn seconds(time: Duration) -> String {
    let ms = at_least_a_ms(time);
    format!("{}.{:03}s", ms / 1000, ms % 1000)
}

pub(super) fn systemctl(tools: &Tools, args: &[&str]) -> Cmd {
    tools
        .command(&tools.systemctl)
        .args(["--no-pager", "--no-ask-password"])
        .args(args)
        .deadline(ASK_DEADLINE)
}

/// `systemctl show` of one unit.
pub fn show(tools: &Tools, unit: &UnitName) -> Cmd {
    systemctl(tools, &["show", "--property", SHOWN, "--", unit.as_str()])
}

/// `systemctl list-units` of all that are loaded.
pub fn list_units(tools: &Tools) -> Cmd {
    systemctl(tools, &["list-units", "--all", "--full", "--output=json"])
}

/// `systemctl stop`: waits for the end.
pub fn stop(tools: &Tools, unit: &UnitName) -> Cmd {
    systemctl(tools, &["stop", "--", unit.as_str()]).deadline(STOP_DEADLINE)
}

/// `systemctl stop --no-block`: returns when the service manager has taken the job.
pub fn stop_soon(tools: &Tools, unit: &UnitName) -> Cmd {
    systemctl(tools, &["stop", "--no-block", "--", unit.as_str()])
}

/// `systemctl kill` with SIGKILL, of the main process; systemd then ends the rest of the cgroup itself.
///
/// Killing all at once loses the record of the end: systemd 257 then does not run `ExecStopPost=` (10 of 10 times).
pub fn kill(tools: &Tools, unit: &UnitName) -> Cmd {
    systemctl(tools, &["kill", "--kill-whom=main", "--signal=SIGKILL", "--", unit.as_str()])
}

/// `systemctl is-system-running`.
pub fn is_system_running(tools: &Tools) -> Cmd {
    systemctl(tools, &["is-system-running"])
}

/// `systemctl show` of when the service manager started.
pub fn userspace_start(tools: &Tools) -> Cmd {
    systemctl(tools, &["show", "--property", "UserspaceTimestampMonotonic"])
}

/// `systemctl daemon-reload`: units whose files are gone are forgotten.
pub fn daemon_reload(tools: &Tools) -> Cmd {
    systemctl(tools, &["daemon-reload"]).deadline(STOP_DEADLINE)
}

/// `systemctl reset-failed`: a unit that failed and whose file is gone is forgotten.
pub fn reset_failed(tools: &Tools, unit: &UnitName) -> Cmd {
    systemctl(tools, &["reset-failed", "--", unit.as_str()])
}

/// `systemctl reboot`: returns when the shutdown has begun.
pub fn reboot(tools: &Tools) -> Cmd {
    systemctl(tools, &["--no-wall", "reboot"])
}

/// Why a transient unit was not started, as far as that is known.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The program says why; nothing of the unit runs.
    #[error(transparent)]
    Program(ToolError),
    /// Its job ended otherwise than well, as when the program cannot be executed; nothing of the unit runs.
    #[error("the job to start `{unit}` ended with `{result}`; its last words:\n{last_lines}")]
    Job {
        /// The unit.
        unit: String,
        /// The job's result in systemd's words.
        result: String,
        /// The end of its journal.
        last_lines: String,
    },
    /// The service manager was asked and gave no answer, and the unit is not there: it never began, or has ended. A
    /// service that records its end tells which.
    #[error("no answer came to the request to start `{unit}`, and it is not there: {why}")]
    Unsure {
        /// The unit.
        unit: String,
        /// What became of the answer.
        why: String,
    },
}

impl Tools {
    /// Starts a service that lives without us; it has been executed when this returns.
    pub async fn run_unit(&self, unit: &TransientUnit) -> Result<(), StartError> {
        let asked = Box::pin(bus::start(&self.manager, unit)).await;
        self.started(asked, &unit.name, run_unit(self, unit)).await
    }

    /// Arms a timer for it, so long after the start of the service manager.
    pub async fn run_unit_at(&self, unit: &TransientUnit, since_startup: Duration) -> Result<(), StartError> {
        let asked = Box::pin(bus::start_at(&self.manager, unit, since_startup)).await;
        self.started(asked, &unit.name.timer(), run_unit_at(self, unit, since_startup)).await
    }

    /// What became of a start. The program gets its turn only where the request had no effect: a unit that may have
    /// been started is looked for by its name, and never started again.
    async fn started(
        &self,
        asked: Result<(), BusError>,
        unit: &UnitName,
        instead: Cmd,
    ) -> Result<(), StartError> {
        match asked {
            Ok(()) => Ok(()),
            Err(BusError::NotAsked(_) | BusError::Refused(_)) => {
                done(instead).await.map_err(StartError::Program)
            }
            Err(BusError::JobFailed(result)) => {
                let last_lines =
                    self.last_lines(unit, LAST_LINES, FOR_PEOPLE).await.unwrap_or_default().join("\n");
                Err(StartError::Job { unit: unit.to_string(), result, last_lines })
            }
            Err(BusError::Unanswered(why)) => match self.await_answer(unit).await {
                Ok(UnitShown::Loaded(status)) if status.active != ActiveState::Failed => Ok(()),
                Ok(UnitShown::Loaded(status)) => {
                    let last_lines =
                        self.last_lines(unit, LAST_LINES, FOR_PEOPLE).await.unwrap_or_default().join("\n");
                    Err(StartError::Job { unit: unit.to_string(), result: status.result, last_lines })
                }
                Ok(UnitShown::NotLoaded) => Err(StartError::Unsure { unit: unit.to_string(), why }),
                Err(error) => {
                    Err(StartError::Unsure { unit: unit.to_string(), why: format!("{why}; {error}") })
                }
            },
        }
    }

    /// Asks for the unit until the manager answers, which it does not while it executes itself anew.
    async fn await_answer(&self, unit: &UnitName) -> Result<UnitShown, ToolError> {
        let give_up = Instant::now() + ASK_DEADLINE;
        loop {
            let shown = self.show_unit(unit).await;
            if shown.is_ok() || Instant::now() >= give_up {
                return shown;
            }
            sleep(ASK_AGAIN_AFTER).await;
        }
    }

    /// What systemd says of the unit.
    pub async fn show_unit(&self, unit: &UnitName) -> Result<UnitShown, ToolError> {
        understood(show(self, unit), parse_show).await
    }

    /// All units that are loaded.
    pub async fn list_units(&self) -> Result<Vec<UnitState>, ToolError> {
        if let Ok(units) = Box::pin(bus::list_units(&self.manager)).await {
            return Ok(units);
        }
        understood(list_units(self), |text| parse_list_units(text.as_bytes())).await
    }

    /// Stops the unit and waits for its end; a unit that is not loaded is an error.
    pub async fn stop_unit(&self, unit: &UnitName) -> Result<(), ToolError> {
        done(stop(self, unit)).await
    }

    /// Has the unit stopped without waiting for its end; a unit that is not loaded is an error.
    pub async fn stop_unit_soon(&self, unit: &UnitName) -> Result<(), ToolError> {
        // To stop what has stopped changes nothing, so the program may repeat it whatever went wrong.
        if Box::pin(bus::stop_soon(&self.manager, unit)).await.is_ok() {
            return Ok(());
        }
        done(stop_soon(self, unit)).await
    }

    /// Kills the main process of the unit, whereupon systemd ends the others and the record is written.
    pub async fn kill_unit(&self, unit: &UnitName) -> Result<(), ToolError> {
        done(kill(self, unit)).await
    }

    /// How the whole system is.
    pub async fn system_state(&self) -> Result<SystemState, ToolError> {
        let cmd = is_system_running(self);
        let line = cmd.line();
        // The exit code is 1 for anything but `running`.
        let finished = cmd.run().await.map_err(ToolError::Exec)?;
        parse_system_state(&finished.stdout_text())
            .map_err(|source| ToolError::NotUnderstood { line, source })
    }

    /// When the service manager started, on the monotonic clock: what the times of [`run_unit_at`] count from.
    pub async fn userspace_start(&self) -> Result<Duration, ToolError> {
        if let Ok(start) = Box::pin(bus::userspace_start(&self.manager)).await {
            return Ok(Duration::from_micros(start));
        }
        understood(userspace_start(self), parse_userspace_start).await.map(Duration::from_micros)
    }

    /// Whether the service manager answers.
    pub async fn answers(&self) -> Result<(), ToolError> {
        let give_up = Instant::now() + ANSWERS_WITHIN;
        loop {
            match self.userspace_start().await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= give_up => return Err(error),
                Err(_) => sleep(ASK_AGAIN_AFTER).await,
            }
        }
    }

    /// Has the unit files read again.
    pub async fn daemon_reload(&self) -> Result<(), ToolError> {
        done(daemon_reload(self)).await
    }

    /// Has a failure of the unit forgotten; a unit that is not loaded is an error.
    pub async fn reset_failed(&self, unit: &UnitName) -> Result<(), ToolError> {
        done(reset_failed(self, unit)).await
    }

    /// Asks for a reboot; it happens soon after this returns.
    pub async fn reboot(&self) -> Result<(), ToolError> {
        done(reboot(self)).await
    }
}

/// Runs it to a good end.
pub(super) async fn done(cmd: Cmd) -> Result<(), ToolError> {
    cmd.run().await.and_then(Finished::success).map_err(ToolError::Exec)?;
    Ok(())
}

#[cfg(test)]
mod tests;

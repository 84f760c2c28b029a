//! The verbs that units and detached processes run. They are the rescue: they return errors and never panic.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use nixfleet_agent::activation::ActivationBackend;
use nixfleet_agent::activation::darwin::detached::{self, DarwinRun};
use nixfleet_agent::activation::deadman::{self, Deadline};
use nixfleet_agent::activation::host::Marks;
use nixfleet_agent::activation::linux::recorded;
use nixfleet_agent::activation::types::{Observer, Silent, Weight};
use nixfleet_core::activation::end::RunEnd;
use nixfleet_core::ids::ActivationId;
use nixfleet_sys::exec::{Cmd, ExecError};
use nixfleet_sys::leash;

use super::{DarwinRunArgs, USAGE, ui};

/// What shells exit with for a program that cannot be run.
const NOT_STARTED: u8 = 126;

/// `ExecStart` of every run.
pub(crate) fn run_recorded((marks, file): (PathBuf, &Path), program: &Path, action: String) -> ExitCode {
    match recorded::run((&Marks::at(marks), file), program, action) {
        Ok(code) => ExitCode::from(code),
        Err(error) => ui::refuse(recorded::NOT_STARTED, &format!("{error:#}"), None),
    }
}

/// `ExecStopPost` of every run: what systemd says of its end.
pub(crate) fn record_end(marks: PathBuf, file: &Path) -> ExitCode {
    let variable = |name| std::env::var(name).unwrap_or_default();
    let end =
        RunEnd::from_systemd(&variable("SERVICE_RESULT"), &variable("EXIT_CODE"), &variable("EXIT_STATUS"));
    match recorded::after_the_end((&Marks::at(marks), file), end) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ui::refuse(1, &format!("{error:#}"), None),
    }
}

pub(crate) async fn deadman<B: ActivationBackend>(
    state: &Path,
    (id, deadline): (&str, Deadline),
    wait: Option<(u64, PathBuf)>,
) -> ExitCode {
    let id: ActivationId = match id.parse() {
        Ok(id) => id,
        Err(error) => return ui::refuse(USAGE, &format!("{error}"), None),
    };
    let backend = B::with_state(state);
    let observer: Arc<dyn Observer> = Arc::new(Silent);
    if let Some((at_ms, armed)) = wait {
        match detached::wait_armed(Duration::from_millis(at_ms), &armed).await {
            Ok(true) => {}
            Ok(false) => return ExitCode::SUCCESS,
            Err(error) => return ui::refuse(1, &format!("{error:#}"), None),
        }
    }
    match deadman::deadman(&backend, (&id, deadline), &observer).await {
        Ok(Some(outcome)) => {
            ui::say_as(Weight::of(&outcome.verdict), &format!("{}: {}", outcome.verdict, outcome.target));
            ExitCode::SUCCESS
        }
        Ok(None) => ExitCode::SUCCESS,
        Err(failure) => ui::refuse(1, &failure.to_string(), None),
    }
}

/// Stands between the agent and a program of somebody else; see [`nixfleet_sys::leash`].
pub(crate) async fn leash(argv: Vec<OsString>) -> ExitCode {
    let mut argv = argv.into_iter();
    let Some(program) = argv.next() else { return ui::refuse(USAGE, "no program is named", None) };
    // What the agent gave us in place of its own environment.
    let cmd = std::env::vars_os().fold(Cmd::new(program).args(argv), |cmd, (key, value)| cmd.env(key, value));
    match leash::hold(&cmd).await {
        // A code that does not fit must not become 0.
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
        Err(ExecError::Start { source, .. }) => {
            ui::refuse(NOT_STARTED, &format!("it cannot be run: {source}"), None)
        }
        Err(error) => ui::refuse(NOT_STARTED, &error.to_string(), None),
    }
}

pub(crate) async fn darwin_run(args: DarwinRunArgs) -> ExitCode {
    let DarwinRunArgs { action, limit_secs, end_file, output, program } = args;
    let run = DarwinRun {
        program: &program,
        live: action == "live",
        limit: Duration::from_secs(limit_secs),
        end_file: &end_file,
        output: &output,
    };
    match detached::darwin_run(run).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ui::refuse(1, &format!("{error:#}"), None),
    }
}

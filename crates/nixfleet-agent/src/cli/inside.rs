//! The verbs that units and detached processes run. They are the rescue: they return errors and never panic.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use nixfleet_agent::activation::darwin::detached::{self, DarwinRun};
use nixfleet_agent::activation::linux::recorded;
use nixfleet_agent::activation::recovery::Deadline;
use nixfleet_agent::activation::types::{Observer, Silent};
use nixfleet_agent::activation::{ActivationBackend, recovery};
use nixfleet_core::activation::end::RunEnd;
use nixfleet_core::ids::ActivationId;

use super::{DarwinRunArgs, USAGE, ui};

/// `ExecStart` of every run.
pub(crate) fn run_recorded(file: &Path, program: &Path, action: String) -> ExitCode {
    match recorded::run(file, program, action) {
        Ok(code) => ExitCode::from(code),
        Err(error) => ui::refuse(recorded::NOT_STARTED, &format!("{error:#}"), None),
    }
}

/// `ExecStopPost` of every run: what systemd says of its end.
pub(crate) fn record_end(file: &Path) -> ExitCode {
    let variable = |name| std::env::var(name).unwrap_or_default();
    let end =
        RunEnd::from_systemd(&variable("SERVICE_RESULT"), &variable("EXIT_CODE"), &variable("EXIT_STATUS"));
    match recorded::after_the_end(file, end) {
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
    match recovery::deadman(&backend, (&id, deadline), &observer).await {
        Ok(Some(outcome)) => {
            ui::say(&format!("{}: {}", outcome.verdict, outcome.target));
            ExitCode::SUCCESS
        }
        Ok(None) => ExitCode::SUCCESS,
        Err(failure) => ui::refuse(1, &failure.to_string(), None),
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

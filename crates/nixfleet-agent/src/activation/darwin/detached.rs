//! The two detached processes of Darwin: one around `activate`, one that waits for a deadline. Both lead a session.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use nixfleet_core::activation::end::RunEnd;
use nixfleet_sys::exec::{Cmd, Ended, ExecError};
use nixfleet_sys::{clock, session};
use tokio::time::sleep;

use super::output::Output;
use crate::activation::verify_poll::record_end;

/// How often the deadman looks whether it was disarmed.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What [`darwin_run`] is told.
#[derive(Debug)]
pub struct DarwinRun<'a> {
    /// `<system>/activate`.
    pub program: &'a Path,
    /// Whether there is anything to run at all: boot entries have no counterpart.
    pub live: bool,
    /// When it is ended.
    pub limit: Duration,
    /// Where the end is recorded.
    pub end_file: &'a Path,
    /// Where its output goes.
    pub output: &'a Path,
}

/// The body of the process around `activate`: its own session, then the run, then the record of its end.
///
/// Standard input is the locked file of the run: our process id goes into it, and everything that we start has it
/// open, so that the lock says whether any of us is left.
pub async fn darwin_run(run: DarwinRun<'_>) -> anyhow::Result<()> {
    session::lead().context("this is started by the agent and not by hand")?;
    // A copy without close-on-exec: `activate` gets another standard input, and inherits this.
    let mut lock = File::from(rustix::io::dup(std::io::stdin()).context("keep the lock")?);
    lock.write_all(std::process::id().to_string().as_bytes()).context("write our process id")?;
    let end = if run.live { activate(&run).await } else { RunEnd::Exited { code: 0 } };
    record_end(run.end_file, end)
}

async fn activate(run: &DarwinRun<'_>) -> RunEnd {
    let mut output = Output::begin(run.output);
    let cmd = Cmd::new(run.program).env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").deadline(run.limit);
    match cmd.run_leading(|bytes| output.take(bytes)).await {
        Ok(Ended::Exited(code)) => RunEnd::Exited { code },
        Ok(Ended::Signalled(signal)) => RunEnd::Killed { signal },
        Err(error @ ExecError::Deadline { .. }) => {
            output.take(format!("{error}\n").as_bytes());
            RunEnd::TimedOut
        }
        Err(error) => {
            output.take(format!("{error}\n").as_bytes());
            RunEnd::Unknown
        }
    }
}

/// The wait of the deadman, in its own session. `false` when it was disarmed: the file that says so is gone.
///
/// Standard input is that file, locked: with our process id in it whoever armed us knows that we outlive them.
pub async fn wait_armed(until: Duration, armed: &Path) -> anyhow::Result<bool> {
    session::lead().context("this is started by the agent and not by hand")?;
    let id = std::process::id().to_string();
    rustix::io::write(std::io::stdin(), id.as_bytes()).context("write our process id")?;
    while clock::monotonic() < until {
        if !armed.exists() {
            return Ok(false);
        }
        sleep(LOOK_EVERY.min(until.saturating_sub(clock::monotonic()))).await;
    }
    Ok(armed.exists())
}

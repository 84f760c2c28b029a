//! Runs a program for a session's leader: its output handed on as it comes, and at the limit the whole session ended.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Signal, getpid};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::process::Child;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::running::{PIPE_GRACE, TERM_GRACE, ended};
use super::{Cmd, Ended, ExecError};
use crate::session;

/// Taken from the pipe at once: as much as a Linux pipe holds.
const CHUNK_BYTES: usize = 64 << 10;
/// How long SIGKILL is repeated for processes that fork faster than they are listed; three lists that are given up take as long.
const KILL_WITHIN: Duration = Duration::from_secs(30);
/// Between two of those.
const KILL_EVERY: Duration = Duration::from_millis(50);

impl Cmd {
    /// Runs it to its end and hands every piece of its output, both streams in one, to `take`.
    ///
    /// At the deadline every other process of *our session* is ended: only for a program whose session is its own
    /// ([`session::lead`]). What the program leaves running after its own end is not waited for.
    pub async fn run_leading(self, mut take: impl FnMut(&[u8])) -> Result<Ended, ExecError> {
        let (mut child, mut pipe) = self.spawn_piped()?;
        let deadline = Instant::now() + self.deadline;
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut open = true;
        let status = loop {
            tokio::select! {
                // A cancelled read has taken nothing.
                got = pipe.read(&mut chunk), if open => match got {
                    Ok(0) | Err(_) => open = false,
                    Ok(got) => take(&chunk[..got]),
                },
                // Waiting is cancel-safe by its documentation.
                status = child.wait() => break status,
                () = sleep_until(deadline) => {
                    end_rest(&mut child).await;
                    drain(&mut pipe, &mut chunk, &mut take).await;
                    let (line, limit) = (self.line(), self.deadline);
                    return Err(ExecError::Deadline { line, limit, last_words: String::new() });
                }
            }
        };
        drain(&mut pipe, &mut chunk, &mut take).await;
        status.map(ended).map_err(|source| ExecError::Lost { line: self.line(), source })
    }

    fn spawn_piped(&self) -> Result<(Child, Receiver), ExecError> {
        let spawn = || {
            let (reader, writer) = std::io::pipe()?;
            let mut command = self.command();
            command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
            let child = command.spawn()?;
            Ok((child, Receiver::from_owned_fd(reader.into())?))
        };
        spawn().map_err(|source| ExecError::Start { line: self.line(), source })
    }
}

/// What is still in the pipe; whoever holds it open after the end does not hold us up.
async fn drain(pipe: &mut Receiver, chunk: &mut [u8], take: &mut impl FnMut(&[u8])) {
    let until = Instant::now() + PIPE_GRACE;
    while let Ok(Ok(got @ 1..)) = timeout_at(until, pipe.read(chunk)).await {
        take(&chunk[..got]);
    }
}

/// Ends every process of our session but ourselves: SIGTERM, then SIGKILL until there is none.
async fn end_rest(child: &mut Child) {
    let ours = getpid();
    session::signal(ours, Signal::TERM).await;
    let _ = timeout(TERM_GRACE, child.wait()).await;
    let until = Instant::now() + KILL_WITHIN;
    while session::signal(ours, Signal::KILL).await && Instant::now() < until {
        let _ = timeout(KILL_EVERY, child.wait()).await;
        sleep(KILL_EVERY).await;
    }
}

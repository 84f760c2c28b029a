//! A program while it runs: both streams read side by side, the limits watched, the whole group ended at one.

use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin};
use tokio::time::{sleep_until, timeout};

use super::{Cmd, Ended, ExecError, Heard, Listener, Over, STDERR_TAIL_BYTES};
use crate::{leash, text};

/// From SIGTERM to SIGKILL for a program that reached a limit.
pub(super) const TERM_GRACE: Duration = Duration::from_secs(2);
/// From letting a leash go to doing the holder's work, which takes it a second where the program ignores SIGTERM.
const LET_GO_GRACE: Duration = Duration::from_secs(3);
/// How long a pipe may stay open after the program ended, in the hands of a grandchild.
pub(super) const PIPE_GRACE: Duration = Duration::from_millis(500);

/// Read at most before a program is said to stand still: more than its pipes can hold, and not what a talker says for ever.
const LAST_CHUNKS: u32 = 64;
/// Taken from a pipe at once: a quarter of what a Linux pipe holds.
const CHUNK_BYTES: usize = 16 << 10;

/// The limit that ended a run.
pub(super) enum Limit {
    Deadline,
    Stall(Duration),
    Enough,
    Output,
    Lost(std::io::Error),
}

impl Limit {
    pub(super) fn into_error(self, line: String, cmd: &Cmd, last_words: String) -> ExecError {
        match self {
            Self::Deadline => ExecError::Deadline { line, limit: cmd.deadline, last_words },
            Self::Stall(limit) => ExecError::Stalled { line, limit, last_words },
            Self::Enough => ExecError::Stopped { line, last_words },
            Self::Output => ExecError::TooMuchOutput { line, bytes_max: cmd.stdout_bytes_max },
            Self::Lost(source) => ExecError::Lost { line, source },
        }
    }
}

pub(super) struct Running<O, E> {
    stdout: Option<O>,
    stderr: Option<E>,
    out: Vec<u8>,
    words: Words,
    /// Where reads land: on the heap, so that the futures of callers stay small.
    chunks: (Vec<u8>, Vec<u8>),
}

impl<O: AsyncRead + Unpin, E: AsyncRead + Unpin> Running<O, E> {
    pub(super) fn new(stdout: Option<O>, stderr: Option<E>) -> Self {
        Self {
            stdout,
            stderr,
            out: Vec::new(),
            words: Words::default(),
            chunks: (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]),
        }
    }

    /// Standard output so far, and the tail of standard error as printable text.
    pub(super) fn into_output(mut self) -> (Vec<u8>, String) {
        let words = self.words.tail();
        (self.out, words)
    }

    pub(super) async fn until_end(
        &mut self,
        child: &mut Child,
        cmd: &Cmd,
        listener: &mut impl Listener,
    ) -> Result<ExitStatus, Limit> {
        let deadline = tokio::time::Instant::now() + cmd.deadline;
        let mut moved = tokio::time::Instant::now();
        loop {
            let stalls_at = cmd.stall.map_or(deadline, |stall| moved + stall);
            tokio::select! {
                // A read may be cancelled: what it had read is kept in `self` or still in the pipe.
                chunk = self.read(listener) => {
                    if is_progress(chunk?)? {
                        moved = tokio::time::Instant::now();
                    }
                    self.keep_to_limit(cmd)?;
                }
                // Waiting is cancel-safe by its documentation.
                status = child.wait() => return status.map_err(Limit::Lost),
                () = sleep_until(deadline) => return Err(Limit::Deadline),
                () = sleep_until(stalls_at), if cmd.stall.is_some() => {
                    if let Ok(Some(status)) = child.try_wait() {
                        return Ok(status);
                    }
                    if !self.has_moved(cmd, listener).await? {
                        return Err(Limit::Stall(cmd.stall.unwrap_or_default()));
                    }
                    moved = tokio::time::Instant::now();
                }
            }
        }
    }

    /// Whether there is progress among what can be read at once: it may be us who stood still, and not the program.
    async fn has_moved(&mut self, cmd: &Cmd, listener: &mut impl Listener) -> Result<bool, Limit> {
        for _ in 0..LAST_CHUNKS {
            let Ok(chunk) = timeout(Duration::ZERO, self.read(listener)).await else { break };
            let moved = is_progress(chunk?)?;
            self.keep_to_limit(cmd)?;
            if moved {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// One chunk of whichever stream has one; waits for ever when both are at their end.
    async fn read(&mut self, listener: &mut impl Listener) -> Result<Heard, Limit> {
        let Self { stdout, stderr, out, words, chunks: (from_out, from_err) } = self;
        tokio::select! {
            // Both reads are cancel-safe: a cancelled read has taken nothing.
            got = read_some(stdout, from_out) => {
                out.extend_from_slice(&from_out[..got.map_err(Limit::Lost)?]);
                Ok(Heard::Words)
            }
            got = read_some(stderr, from_err) => {
                Ok(words.take(&from_err[..got.map_err(Limit::Lost)?], listener))
            }
        }
    }

    pub(super) async fn drain(&mut self, cmd: &Cmd, listener: &mut impl Listener) -> Result<(), Limit> {
        while self.stdout.is_some() || self.stderr.is_some() {
            self.read(listener).await?;
            self.keep_to_limit(cmd)?;
        }
        Ok(())
    }

    fn keep_to_limit(&mut self, cmd: &Cmd) -> Result<(), Limit> {
        let over = self.out.len().saturating_sub(cmd.stdout_bytes_max);
        match cmd.stdout_over {
            Over::Ends if over > 0 => Err(Limit::Output),
            Over::Ends => Ok(()),
            Over::LosesTheBeginning => {
                self.out.drain(..over);
                Ok(())
            }
        }
    }
}

fn is_progress(heard: Heard) -> Result<bool, Limit> {
    match heard {
        Heard::Progress => Ok(true),
        Heard::Words => Ok(false),
        Heard::Enough => Err(Limit::Enough),
    }
}

/// Reads once; at the end of the stream it is dropped, and later calls wait for ever.
async fn read_some<R: AsyncRead + Unpin>(stream: &mut Option<R>, into: &mut [u8]) -> std::io::Result<usize> {
    let Some(reader) = stream else {
        return std::future::pending().await;
    };
    let got = reader.read(into).await?;
    if got == 0 {
        *stream = None;
    }
    Ok(got)
}

/// The end of standard error and the line that is not complete yet.
#[derive(Default)]
struct Words {
    kept: Vec<u8>,
    partial: Vec<u8>,
}

impl Words {
    /// A line longer than this is handed on in pieces.
    const LINE_BYTES_MAX: usize = 64 << 10;

    fn take(&mut self, chunk: &[u8], listener: &mut impl Listener) -> Heard {
        let mut heard = Heard::Words;
        for byte in chunk {
            if *byte != b'\n' {
                self.partial.push(*byte);
            }
            if *byte == b'\n' || self.partial.len() >= Self::LINE_BYTES_MAX {
                let line = std::mem::take(&mut self.partial);
                heard = match (heard, listener.line(&line)) {
                    (Heard::Enough, _) | (_, Heard::Enough) => Heard::Enough,
                    (Heard::Progress, _) | (_, Heard::Progress) => Heard::Progress,
                    (Heard::Words, Heard::Words) => Heard::Words,
                };
                if listener.is_word(&line) {
                    self.keep(&line);
                }
            }
        }
        heard
    }

    fn keep(&mut self, line: &[u8]) {
        self.kept.extend_from_slice(line);
        self.kept.push(b'\n');
        if self.kept.len() > 2 * STDERR_TAIL_BYTES {
            self.kept.drain(..self.kept.len() - STDERR_TAIL_BYTES);
        }
    }

    fn tail(&mut self) -> String {
        let partial = std::mem::take(&mut self.partial);
        self.kept.extend_from_slice(&partial);
        text::tail(&self.kept, STDERR_TAIL_BYTES).trim_end().to_owned()
    }
}

/// Writes standard input on the side: a child that does not read must not block us.
pub(super) fn feed(child: &mut Child, bytes: Vec<u8>) {
    if let Some(mut stdin) = child.stdin.take() {
        tokio::spawn(async move {
            // A child that closes its input early has its own reasons; its end tells.
            let _ = stdin.write_all(&bytes).await;
        });
    }
}

/// The process id of a child whose end nobody has been told yet, so that it is no other's.
pub(crate) fn pid_of(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
}

/// Lets a holder go, which ends its program, and then itself.
///
/// One that stands still is not killed: that would end nobody of its program. We end it in its place, and leave the holder
/// to itself if it does not come to its end even then. That takes six seconds, and sixteen with a program that nobody can end.
pub(super) async fn let_go(leash: ChildStdin, holder: &mut Child) {
    drop(leash);
    if timeout(LET_GO_GRACE, holder.wait()).await.is_err() {
        // Rare, so on the heap; and it may run a program itself.
        Box::pin(leash::end_in_place_of(holder)).await;
        let _ = timeout(TERM_GRACE, holder.wait()).await;
    }
}

pub(super) async fn end_group(child: &mut Child) {
    let Some(group) = pid_of(child) else { return };
    // An error means that the group is gone already.
    let _ = kill_process_group(group, Signal::TERM);
    let _ = timeout(TERM_GRACE, child.wait()).await;
    let _ = kill_process_group(group, Signal::KILL);
    let _ = timeout(TERM_GRACE, child.wait()).await;
}

pub(crate) fn ended(status: ExitStatus) -> Ended {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Exited(code),
        (None, Some(signal)) => Ended::Signalled(signal),
        // A status without either cannot be had from `wait`; it must not read as success.
        (None, None) => Ended::Signalled(0),
    }
}

//! The one module that starts programs, both bounded ones and those that live as long as a host.
#![allow(
    clippy::disallowed_methods,
    reason = "long-lived children with pipes, which nixfleet_sys::exec does not do"
)]

use std::ffi::OsStr;
use std::fmt;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

/// Bytes kept of each stream; what comes after is read and dropped, so that a flood never blocks the program.
const STREAM_BYTES_MAX: usize = 16 << 20;
/// How long a stream may stay open after its program has ended (a background child may hold it).
const STREAM_GRACE: Duration = Duration::from_millis(500);
/// How long what lies in it may take to be read, by a thread that waits for a processor.
const STREAM_READ_MAX: Duration = Duration::from_secs(30);

/// How a program ended and what it said.
#[derive(Debug, Clone)]
pub struct Output {
    /// The exit code; 128 + n when signal n ended it.
    pub code: i32,
    /// Standard output (at most 16 MiB), bytes that are not UTF-8 replaced.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
    /// Wall time.
    pub elapsed: Duration,
    /// Whether it was ended because its time was over.
    pub timed_out: bool,
    line: String,
}

impl Output {
    /// How a program ended that ran in a virtual machine.
    pub(crate) fn of_machine(
        argv: &[&str],
        code: i32,
        (stdout, stderr): (&[u8], &[u8]),
        elapsed: Duration,
        timed_out: bool,
    ) -> Self {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Self { code, stdout: text(stdout), stderr: text(stderr), elapsed, timed_out, line: argv.join(" ") }
    }

    /// Whether it ended by itself with 0.
    pub fn ok(&self) -> bool {
        self.code == 0 && !self.timed_out
    }

    /// Itself if it ended with 0, else an error that shows everything.
    pub fn success(self) -> Result<Self> {
        if !self.ok() {
            bail!("{self}");
        }
        Ok(self)
    }

    /// Standard output without white space at its ends.
    pub fn text(&self) -> &str {
        self.stdout.trim()
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let late = if self.timed_out { " (its time was over)" } else { "" };
        writeln!(f, "`{}` ended with {}{late} after {:.2?}", self.line, self.code, self.elapsed)?;
        write!(f, "--- stdout\n{}\n--- stderr\n{}", tail(&self.stdout), tail(&self.stderr))
    }
}

/// The last 4,000 bytes of a text, cut between characters.
fn tail(text: &str) -> &str {
    let mut from = text.len().saturating_sub(4_000);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}

/// A program running in the background. Dropping it ends it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    line: String,
    begun: Instant,
    stdout: Stream,
    stderr: Stream,
}

impl Running {
    /// The process id, as the machine outside sees it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// What it has printed on standard output so far.
    pub fn stdout_so_far(&self) -> String {
        self.stdout.text()
    }

    /// What it has printed on standard error so far.
    pub fn stderr_so_far(&self) -> String {
        self.stderr.text()
    }

    /// Sends SIGKILL to it and its process group.
    pub fn kill(&self) {
        end_group(&self.child);
    }

    /// Its end, at the latest after `limit` (then it is killed and `timed_out` is set).
    pub fn wait(mut self, limit: Duration) -> Result<Output> {
        let (status, timed_out) = wait_child(&mut self.child, self.begun, limit)?;
        self.stdout.close();
        self.stderr.close();
        Ok(Output {
            code: exit_code(status),
            stdout: self.stdout.text(),
            stderr: self.stderr.text(),
            elapsed: self.begun.elapsed(),
            timed_out,
            line: self.line.clone(),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended() {
            end_group(&self.child);
            let _ = self.child.wait();
        }
    }
}

/// Starts a program in the background, in its own process group, without standard input.
pub(crate) fn start(argv: &[&OsStr]) -> Result<Running> {
    let line = argv.iter().map(|a| a.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let (program, rest) = argv.split_first().context("no program")?;
    let mut child = Command::new(program)
        .args(rest)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("start `{line}`"))?;
    let stdout = Stream::read(child.stdout.take());
    let stderr = Stream::read(child.stderr.take());
    Ok(Running { child, line, begun: Instant::now(), stdout, stderr })
}

/// Runs a program to its end, at most for `limit`.
pub(crate) fn run(argv: &[&str], limit: Duration) -> Result<Output> {
    start(&argv.iter().map(OsStr::new).collect::<Vec<_>>())?.wait(limit)
}

/// Runs a program with its standard input; for short texts only.
pub(crate) fn run_with_input(argv: &[&str], input: &[u8]) -> Result<String> {
    use std::io::Write;
    let mut child = Command::new(argv[0])
        .args(&argv[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {}", argv[0]))?;
    child.stdin.take().context("no input pipe")?.write_all(input)?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{} ended with {}", argv[0], output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program with the terminal of this process; its exit code.
pub(crate) fn run_interactive(argv: &[&OsStr]) -> Result<i32> {
    Ok(exit_code(Command::new(argv[0]).args(&argv[1..]).status()?))
}

/// Starts a keeper: a long-lived child with both pipes, in its own process group (so Ctrl-C does not reach it).
pub(crate) fn start_keeper(argv: &[&OsStr]) -> Result<Child> {
    Command::new(argv[0])
        .args(&argv[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {}", argv[0].display()))
}

/// Waits for a child until `limit` after `begun`, then kills its process group.
pub(crate) fn wait_child(child: &mut Child, begun: Instant, limit: Duration) -> Result<(ExitStatus, bool)> {
    if let Some(status) = child.try_wait()? {
        return Ok((status, false));
    }
    let pid = Pid::from_child(child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).context("watch a child")?;
    loop {
        let left = limit.saturating_sub(begun.elapsed());
        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 3600, tv_nsec: 0 });
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => {
                end_group(child);
                return Ok((child.wait()?, true));
            }
            Ok(_) => return Ok((child.wait()?, false)),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("wait for a child"),
        }
    }
}

fn end_group(child: &Child) {
    // An error means that it is gone already.
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// One output stream, read by a thread of its own so that the program never blocks on it.
#[derive(Debug)]
struct Stream {
    kept: Arc<Mutex<Vec<u8>>>,
    reader: Option<Reader>,
}

/// The thread that reads, and the pipe that it reads from.
#[derive(Debug)]
struct Reader {
    thread: JoinHandle<()>,
    pipe: OwnedFd,
}

impl Reader {
    /// Whether something is in the pipe, or its end has come, which the thread has yet to see.
    fn has_more(&self) -> bool {
        let mut fds = [PollFd::new(&self.pipe, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&Timespec::default())), Ok(1..))
    }
}

impl Stream {
    fn read(pipe: Option<impl Read + AsFd + Send + 'static>) -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&kept);
        let reader = pipe.and_then(|pipe| {
            let same = pipe.as_fd().try_clone_to_owned().ok()?;
            Some(Reader { thread: std::thread::spawn(move || drain(pipe, &into)), pipe: same })
        });
        Self { kept, reader }
    }

    /// Waits for the end of the stream, but not for ever: a background grandchild may hold it open.
    fn close(&mut self) {
        let begun = Instant::now();
        let Some(reader) = self.reader.take() else { return };
        let goes_on = || {
            let waited = begun.elapsed();
            waited < STREAM_GRACE || waited < STREAM_READ_MAX && reader.has_more()
        };
        while !reader.thread.is_finished() && goes_on() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

fn drain(mut pipe: impl Read, into: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 16 << 10];
    while let Ok(n) = pipe.read(&mut buffer) {
        if n == 0 {
            return;
        }
        let mut kept = into.lock().unwrap_or_else(PoisonError::into_inner);
        let room = STREAM_BYTES_MAX.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..n.min(room)]);
    }
}

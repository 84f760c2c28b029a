//! The one way to run a program: an argument vector, a deadline, bounded output, and an error that says it all.
//!
//! There is no shell and no search path: the program is an absolute path that the caller has resolved. The child gets
//! an empty environment with `LC_ALL=C` and what the caller adds, its own process group, and no standard input. When
//! a limit is reached the whole group is ended (SIGTERM, then SIGKILL), so no grandchild goes on unseen. A program on a leash
//! is ended by whoever holds it, and by us where that one does not get to it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::Child;
use tokio::time::timeout;

pub use inheriting::run_inheriting;
use running::{Limit, PIPE_GRACE, Running, end_group, feed, let_go};
pub(crate) use running::{ended, pid_of};

mod inheriting;
mod leading;
mod running;
mod talking;
#[cfg(test)]
mod tests;

/// How long a program may run unless the caller says otherwise: generous for a local query, short for a person.
pub const DEADLINE_DEFAULT: Duration = Duration::from_mins(1);
/// Standard output kept unless the caller says otherwise: a closure of 100,000 paths lists in about 8 MB.
pub const STDOUT_BYTES_MAX: usize = 32 << 20;
/// Standard error kept: its end, where a program says what went wrong.
pub const STDERR_TAIL_BYTES: usize = 16 << 10;

/// A program to run, as data: it can be compared, printed and tested without running it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cmd {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    deadline: Duration,
    stall: Option<Duration>,
    stdout_bytes_max: usize,
    stdout_over: Over,
    stdin: Vec<u8>,
    folder: Option<PathBuf>,
    held: Held,
}

/// What becomes of standard output that is more than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    /// The program is ended and is an error.
    Ends,
    /// Only the end of it is kept.
    LosesTheBeginning,
}

/// What becomes of a program when nobody waits for it any more, as when the caller's future is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    /// It is killed.
    Itself,
    /// Its standard input closes, by which it learns that it has to end: see [`Cmd::on_leash`].
    OnLeash,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
}

impl Ended {
    /// The exit code, if there was one: a killed program has none, and none is never taken for 0.
    pub fn code(self) -> Option<i32> {
        match self {
            Self::Exited(code) => Some(code),
            Self::Signalled(_) => None,
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit status {code}"),
            Self::Signalled(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// What a program that ran to its end left behind.
#[derive(Debug, Clone)]
pub struct Finished {
    /// How it ended.
    pub ended: Ended,
    /// Its standard output, whole, or its end if that is all that was asked for ([`Cmd::stdout_tail`]).
    pub stdout: Vec<u8>,
    /// The end of its standard error, printable, at most [`STDERR_TAIL_BYTES`].
    pub stderr_tail: String,
    /// Wall time from start to end.
    pub elapsed: Duration,
    line: String,
}

impl Finished {
    /// Standard output as text; bytes that are not UTF-8 become `U+FFFD`, which no strict parser accepts.
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Itself if the program exited with 0, else an error with the whole line and its last words.
    pub fn success(self) -> Result<Self, ExecError> {
        match self.ended {
            Ended::Exited(0) => Ok(self),
            Ended::Exited(_) | Ended::Signalled(_) => Err(ExecError::Failed {
                line: self.line,
                ended: self.ended,
                elapsed: self.elapsed,
                last_words: self.stderr_tail,
            }),
        }
    }
}

/// Why a program gave no usable result.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// It could not be started at all.
    #[error("cannot start `{line}`")]
    Start {
        /// The whole line.
        line: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// It ended, but not with 0.
    #[error("`{line}` ended with {ended} after {elapsed:.1?}; its last words:\n{last_words}")]
    Failed {
        /// The whole line.
        line: String,
        /// How it ended.
        ended: Ended,
        /// After how long.
        elapsed: Duration,
        /// The end of its standard error.
        last_words: String,
    },
    /// It ran longer than allowed and was ended.
    #[error("`{line}` was ended after {limit:?}, its deadline; its last words:\n{last_words}")]
    Deadline {
        /// The whole line.
        line: String,
        /// The limit.
        limit: Duration,
        /// The end of its standard error.
        last_words: String,
    },
    /// It made no progress for longer than allowed and was ended.
    #[error("`{line}` was ended after {limit:?} without progress; its last words:\n{last_words}")]
    Stalled {
        /// The whole line.
        line: String,
        /// The limit.
        limit: Duration,
        /// The end of its standard error.
        last_words: String,
    },
    /// Its listener had heard enough, and it was ended.
    #[error("`{line}` was ended for what it did; its last words:\n{last_words}")]
    Stopped {
        /// The whole line.
        line: String,
        /// The end of its standard error.
        last_words: String,
    },
    /// It printed more than allowed and was ended.
    #[error("`{line}` printed more than {bytes_max} bytes")]
    TooMuchOutput {
        /// The whole line.
        line: String,
        /// The limit.
        bytes_max: usize,
    },
    /// Its pipes or its end could not be read.
    #[error("lost contact with `{line}`")]
    Lost {
        /// The whole line.
        line: String,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// What a listener makes of a chunk of standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The program moves: the stall limit starts anew.
    Progress,
    /// Words, but no progress.
    Words,
    /// The program does what it must not go on with: it is ended at once.
    Enough,
}

/// Hears standard error line by line while the program runs.
pub trait Listener {
    /// Takes one line without its end; very long lines arrive in pieces.
    fn line(&mut self, line: &[u8]) -> Heard;
    /// Whether the line goes into the tail of last words; machine-readable progress does not.
    fn is_word(&self, line: &[u8]) -> bool;
}

/// Takes every line for words and none for progress.
#[derive(Debug, Clone, Copy, Default)]
pub struct Deaf;

impl Listener for Deaf {
    fn line(&mut self, _line: &[u8]) -> Heard {
        Heard::Words
    }
    fn is_word(&self, _line: &[u8]) -> bool {
        true
    }
}

impl Cmd {
    /// A program by its absolute path, with no arguments, an empty environment and the default limits.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            deadline: DEADLINE_DEFAULT,
            stall: None,
            stdout_bytes_max: STDOUT_BYTES_MAX,
            stdout_over: Over::Ends,
            stdin: Vec::new(),
            held: Held::Itself,
            folder: None,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments in order.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Adds a variable to the otherwise empty environment (`LC_ALL=C` is always there).
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Hands these variables of our own environment on, where they are set.
    #[must_use]
    pub fn env_from_ours(mut self, keys: &[&str]) -> Self {
        self.env.extend(keys.iter().filter_map(|key| Some((OsString::from(key), std::env::var_os(key)?))));
        self
    }

    /// Limits the whole run.
    #[must_use]
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.deadline = limit;
        self
    }

    /// Limits the time without progress, as the [`Listener`] tells it.
    #[must_use]
    pub fn stall(mut self, limit: Duration) -> Self {
        self.stall = Some(limit);
        self
    }

    /// Limits standard output; a program that prints more is ended and is an error.
    #[must_use]
    pub fn stdout_bytes_max(mut self, bytes_max: usize) -> Self {
        self.stdout_bytes_max = bytes_max;
        self.stdout_over = Over::Ends;
        self
    }

    /// Keeps the last `bytes` of standard output only: for a program whose last words matter and nothing else.
    #[must_use]
    pub fn stdout_tail(mut self, bytes: usize) -> Self {
        self.stdout_bytes_max = bytes;
        self.stdout_over = Over::LosesTheBeginning;
        self
    }

    /// Gives the program these bytes as its standard input, then its end.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// The same program, with `holder` and its arguments before it: a process of ours that calls
    /// [`leash::hold`](crate::leash::hold) and ends everything of the program when we want it to, or die ourselves; or a
    /// program that runs such a process elsewhere, hands it its standard input, and waits for it.
    ///
    /// The program has no standard input then, and the environment is the holder's too.
    #[must_use]
    pub fn on_leash(self, holder: &Path, holder_args: &[&str]) -> Self {
        let mut args: Vec<OsString> = holder_args.iter().map(OsString::from).collect();
        args.push(self.program.into_os_string());
        args.extend(self.args);
        Self { program: holder.to_owned(), args, held: Held::OnLeash, stdin: Vec::new(), ..self }
    }

    /// Runs it in this folder instead of our own.
    #[must_use]
    pub fn in_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// The program's path.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The arguments as text, for tests and messages.
    pub fn arguments(&self) -> Vec<String> {
        self.args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect()
    }

    /// The whole line as a person would type it; never handed to a shell.
    pub fn line(&self) -> String {
        let mut line = self.program.to_string_lossy().into_owned();
        for arg in &self.args {
            let arg = arg.to_string_lossy();
            let plain = !arg.is_empty()
                && arg.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_=./:,+@%".contains(&b));
            line.push(' ');
            if plain {
                line.push_str(&arg);
            } else {
                line.push('\'');
                line.push_str(&arg.replace('\'', "'\\''"));
                line.push('\'');
            }
        }
        line
    }

    /// Runs it to its end.
    pub async fn run(self) -> Result<Finished, ExecError> {
        self.run_heard(&mut Deaf).await
    }

    /// Runs it to its end on a runtime of its own; for callers that are not async.
    pub fn run_blocking(self) -> Result<Finished, ExecError> {
        let line = self.line();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| ExecError::Start { line, source })?;
        runtime.block_on(self.run())
    }

    /// Runs it to its end while `listener` hears its standard error.
    pub async fn run_heard(mut self, listener: &mut impl Listener) -> Result<Finished, ExecError> {
        let line = self.line();
        let started = Instant::now();
        let mut child = self.spawn(&line)?;
        let mut run = Running::new(child.stdout.take(), child.stderr.take());
        // As long as this lives, a program on a leash does.
        let leash = match self.held {
            Held::OnLeash => child.stdin.take(),
            Held::Itself => None,
        };
        feed(&mut child, std::mem::take(&mut self.stdin));
        let why = run.until_end(&mut child, &self, listener).await;
        let stopped = match why {
            Ok(status) => {
                let drained = timeout(PIPE_GRACE, run.drain(&self, listener)).await;
                if matches!(drained, Ok(Err(Limit::Output))) { Err(Limit::Output) } else { Ok(status) }
            }
            Err(limit) => {
                match leash {
                    Some(leash) => let_go(leash, &mut child).await,
                    None => end_group(&mut child).await,
                }
                Err(limit)
            }
        };
        let (out, last_words) = run.into_output();
        match stopped {
            Ok(status) => Ok(Finished {
                ended: ended(status),
                stdout: out,
                stderr_tail: last_words,
                elapsed: started.elapsed(),
                line,
            }),
            Err(limit) => Err(limit.into_error(line, &self, last_words)),
        }
    }

    fn command(&self) -> tokio::process::Command {
        let mut command = self.bare_command();
        command.process_group(0);
        command
    }

    #[allow(clippy::disallowed_methods, reason = "this is the place that the ban sends everybody to")]
    fn bare_command(&self) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.program);
        command.args(&self.args).env_clear().env("LC_ALL", "C").envs(self.env.iter().map(|(k, v)| (k, v)));
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        command
    }

    fn spawn(&self, line: &str) -> Result<Child, ExecError> {
        let on_leash = self.held == Held::OnLeash;
        let stdin = if self.stdin.is_empty() && !on_leash { Stdio::null() } else { Stdio::piped() };
        self.command()
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A holder that is killed can end nobody.
            .kill_on_drop(!on_leash)
            .spawn()
            .map_err(|source| ExecError::Start { line: line.to_owned(), source })
    }

    /// Starts it with our own output and no input, in a process group of its own.
    pub(crate) fn spawn_inheriting(&self) -> Result<Child, ExecError> {
        let mut command = self.command();
        command.stdin(Stdio::null()).kill_on_drop(true);
        command.spawn().map_err(|source| ExecError::Start { line: self.line(), source })
    }

    /// Starts it with no connection to us but `stdin`, and does not wait: its life is its own.
    ///
    /// The program must call [`session::lead`](crate::session::lead) first, and therefore starts in our process
    /// group: the head of a group of its own may not. A signal to our group that comes before that ends it. A file
    /// with a lock on it stays locked for as long as the program has it, from before its first instruction.
    pub fn spawn_detached(&self, stdin: Option<std::fs::File>) -> Result<u32, ExecError> {
        let line = self.line();
        let mut command = self.bare_command();
        let child = command
            .current_dir("/")
            .stdin(stdin.map_or_else(Stdio::null, Stdio::from))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| ExecError::Start { line, source })?;
        Ok(child.id().unwrap_or(0))
    }
}

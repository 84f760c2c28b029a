//! The keeper process of a host (`assets/keeper.sh`), seen from the test process: commands in, events out.
//!
//! A reboot from inside (nspawn ends with 133) is answered here, at once and by itself, so that a test need not be
//! looking. Everything else waits for a call.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::run_dir::RunDir;
use crate::spawn;

/// What nspawn ends with when the host asked for a reboot.
const EXIT_REBOOT: i32 = 133;
/// Mounting, links and the web server take about 50 ms; a loaded machine may take half a minute, and the keeper
/// itself waits for up to ten seconds until what ran before is gone.
const READY_LIMIT: Duration = Duration::from_mins(2);
/// Killing and removing everything takes about 50 ms; a loaded machine is as slow at this.
const GONE_LIMIT: Duration = Duration::from_mins(2);

/// What is known of the host's processes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) ready: bool,
    /// Starts so far; the number of the current or last boot.
    pub(crate) boots: u64,
    /// The process id of nspawn (or qemu) while it runs.
    pub(crate) nspawn: Option<i32>,
    /// How the last nspawn (or qemu) ended.
    pub(crate) last_exit: Option<i32>,
    /// A start was asked for and has not shown up.
    pub(crate) starting: bool,
    /// Commands answered.
    done: u64,
    failed: Option<String>,
    gone: bool,
}

#[derive(Debug, Default)]
struct Shared {
    seen: Mutex<Seen>,
    changed: Condvar,
    stdin: Mutex<Option<ChildStdin>>,
}

/// The keeper. Dropping it ends the host and removes everything.
#[derive(Debug)]
pub(crate) struct Keeper {
    child: Child,
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
    run: PathBuf,
    cgroup: String,
}

impl Keeper {
    /// Starts a keeper for the folder `run`, which holds its `env`, and waits until all is mounted.
    pub(crate) fn start(script: &Path, mode: &str, run: &RunDir) -> Result<Self> {
        let fixed = ["unshare", "--mount", "--net", "--propagation", "private", "bash"];
        let mut argv: Vec<&OsStr> = fixed.iter().map(OsStr::new).collect();
        argv.extend([script.as_os_str(), OsStr::new(mode), run.path.as_os_str()]);
        let mut child = spawn::start_keeper(&argv)?;
        let stdout = child.stdout.take().context("no pipe from the keeper")?;
        let shared = Arc::new(Shared { stdin: Mutex::new(child.stdin.take()), ..Shared::default() });
        let for_reader = Arc::clone(&shared);
        let reader = Some(std::thread::spawn(move || read_events(stdout, &for_reader)));
        // What a sweep ends when this process is gone and the keeper is not.
        crate::files::put(&run.path.join("keeper.pid"), child.id().to_string().as_bytes(), 0o644)?;
        let keeper = Self { child, shared, reader, run: run.path.clone(), cgroup: run.cgroup() };
        keeper.wait("the keeper to be ready", READY_LIMIT, |seen| seen.ready.then_some(()))?;
        Ok(keeper)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn seen(&self) -> Seen {
        self.shared.lock().clone()
    }

    /// Boots the host; returns when nspawn or qemu has been started. Only a virtual machine takes an argument.
    pub(crate) fn boot(&self, argument: &str) -> Result<()> {
        let boots = {
            let mut seen = self.shared.lock();
            if seen.nspawn.is_some() || seen.starting {
                bail!("the host is running already");
            }
            seen.starting = true;
            seen.boots
        };
        self.shared.send(&format!("start {argument}"))?;
        self.wait("the host to be started", READY_LIMIT, |seen| (seen.boots > boots).then_some(()))
    }

    /// A command that is answered with `done`.
    pub(crate) fn command(&self, line: &str) -> Result<()> {
        let done = self.seen().done;
        self.shared.send(line)?;
        self.wait(line, READY_LIMIT, |seen| (seen.done > done).then_some(()))
    }

    /// Ends every process of the host at this instant.
    pub(crate) fn kill_host(&self) -> Result<()> {
        let path = self.outside(&Path::new("/sys/fs/cgroup").join(&self.cgroup).join("host/cgroup.kill"));
        crate::files::put(&path, b"1", 0o200)?;
        self.wait("the killed host to be gone", READY_LIMIT, |seen| seen.nspawn.is_none().then_some(()))
    }

    /// Where a path of the keeper's mounts is reached from here.
    pub(crate) fn outside(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.pid()));
        root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Waits until `answer` gives a value for what is seen; a dead keeper ends the wait.
    pub(crate) fn wait<T>(
        &self,
        what: &str,
        limit: Duration,
        mut answer: impl FnMut(&Seen) -> Option<T>,
    ) -> Result<T> {
        let until = Instant::now() + limit;
        let mut seen = self.shared.lock();
        loop {
            if let Some(value) = answer(&seen) {
                return Ok(value);
            }
            if let Some(failed) = &seen.failed {
                bail!("the keeper failed while waiting for {what}: {failed}");
            }
            if seen.gone {
                bail!("the keeper ended while waiting for {what}");
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("waited {limit:?} for {what}");
            }
            seen = self.shared.changed.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The end of what the host's console said.
    pub(crate) fn console(&self) -> String {
        let bytes = std::fs::read(self.run.join("console.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(4_000)..]).into_owned()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Closing its input is the order to clean up and end.
        *self.shared.stdin.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let _ = spawn::wait_child(&mut self.child, Instant::now(), GONE_LIMIT);
        if let Some(reader) = self.reader.take() {
            // It ends with the keeper's output; a boot helper may hold that a moment longer.
            drop(reader);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, line: &str) -> Result<()> {
        let mut stdin = self.stdin.lock().unwrap_or_else(PoisonError::into_inner);
        let stdin = stdin.as_mut().context("the keeper is being ended")?;
        writeln!(stdin, "{line}").context("the keeper is gone")
    }
}

fn read_events(stdout: ChildStdout, shared: &Shared) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        let (event, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let reboot = note(&mut shared.lock(), event, rest);
        shared.changed.notify_all();
        if reboot && shared.send("start").is_err() {
            break;
        }
    }
    shared.lock().gone = true;
    shared.changed.notify_all();
}

/// Takes an event down; true if the host wants to be started again.
fn note(seen: &mut Seen, event: &str, rest: &str) -> bool {
    match event {
        "ready" => seen.ready = true,
        "started" => {
            seen.boots += 1;
            seen.starting = false;
            seen.nspawn = rest.parse().ok();
            seen.last_exit = None;
        }
        "exited" => {
            seen.nspawn = None;
            seen.last_exit = rest.parse().ok();
            seen.starting = seen.last_exit == Some(EXIT_REBOOT);
            return seen.starting;
        }
        "done" => seen.done += 1,
        _ => seen.failed = Some(format!("{event} {rest}")),
    }
    false
}

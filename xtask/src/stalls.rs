//! `cargo xtask test --stalls`: while the tests run, processes below this one stand still for a while, by chance.
//!
//! A machine that others use does this to tests now and then, and the one in a thousand that it fails is found when it
//! is least wanted. Here it happens all the time. What fails has a schedule that fails it: the test's fault or ours.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Between two draws.
const DRAW_EVERY: Duration = Duration::from_millis(250);
/// How many stand still at once, and of how many processes each of them is one: with more, a single host would not come up.
const AT_ONCE_MAX: usize = 6;
const ONE_IN: usize = 25;
/// How long one stands still. A stall of five seconds is rare on a real machine, and the rule for tests names it.
const LENGTHS_MS: [u64; 5] = [300, 700, 1_500, 3_000, 5_000];
/// They build and count, and hold nothing that a test waits for.
const SPARED: [&str; 4] = ["cargo", "cargo-nextest", "rustc", "cc"];

/// Stalls, until it is dropped; then everybody goes on.
pub(crate) struct Stalls {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Stalls {
    /// Begins with them.
    pub(crate) fn begin() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&over);
        Self { over, thread: Some(thread::spawn(move || stall_until(&until))) }
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Its panic has been printed.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A process; its id alone may be another's later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Process {
    pid: i32,
    started: u64,
}

/// What `/proc` says of one.
struct Seen {
    process: Process,
    parent: i32,
    /// Standing still already, by whomever, or dead.
    is_out: bool,
    name: String,
}

fn stall_until(over: &AtomicBool) {
    let mut still: BTreeMap<Process, Instant> = BTreeMap::new();
    while !over.load(Ordering::Relaxed) {
        let now = Instant::now();
        let due: Vec<Process> =
            still.iter().filter(|(_, until)| **until <= now).map(|(process, _)| *process).collect();
        for process in due {
            still.remove(&process);
            go_on(process);
        }
        let all = below(std::process::id());
        if still.len() < (all.len() / ONE_IN).clamp(1, AT_ONCE_MAX)
            && let Some(process) = one_of(&all)
            && signal(process, Signal::STOP)
        {
            still.insert(process, now + Duration::from_millis(one_of(&LENGTHS_MS).unwrap_or_default()));
        }
        thread::sleep(DRAW_EVERY);
    }
    still.into_keys().for_each(go_on);
}

fn go_on(process: Process) {
    if seen(process.pid).is_some_and(|seen| seen.process == process) {
        signal(process, Signal::CONT);
    }
}

/// Says whether there was somebody to signal.
fn signal(process: Process, signal: Signal) -> bool {
    Pid::from_raw(process.pid).is_some_and(|pid| kill_process(pid, signal).is_ok())
}

/// The processes below this one that may be stopped.
fn below(root: u32) -> Vec<Process> {
    let folders = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = folders.filter_map(|folder| folder.file_name().to_str()?.parse().ok());
    let all: Vec<Seen> = pids.filter_map(seen).collect();
    let mut inside: BTreeSet<i32> = i32::try_from(root).into_iter().collect();
    // A child may be listed before its parent.
    while all.iter().any(|one| inside.contains(&one.parent) && inside.insert(one.process.pid)) {}
    let may_stop =
        |one: &&Seen| inside.contains(&one.parent) && !one.is_out && !SPARED.contains(&one.name.as_str());
    all.iter().filter(may_stop).map(|one| one.process).collect()
}

fn seen(pid: i32) -> Option<Seen> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, brackets too.
    let (before, after) = line.rsplit_once(") ")?;
    let name = before.split_once(" (")?.1.to_owned();
    let words: Vec<&str> = after.split(' ').collect();
    // `proc_pid_stat(5)`: the state is the third word of the line, the parent the fourth, the start the 22nd.
    let [state, parent, ..] = words.as_slice() else { return None };
    let started = words.get(19)?.parse().ok()?;
    let is_out = matches!(*state, "T" | "t" | "Z" | "X");
    Some(Seen { process: Process { pid, started }, parent: parent.parse().ok()?, is_out, name })
}

fn one_of<T: Copy>(all: &[T]) -> Option<T> {
    // A hasher's keys are by chance, which is all that is wanted.
    let chance = RandomState::new().build_hasher().finish();
    let index = chance.checked_rem(all.len() as u64)?;
    all.get(usize::try_from(index).ok()?).copied()
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// Ends with the test, however that ends.
    struct Sleeper(Child);

    impl Sleeper {
        #[allow(clippy::disallowed_methods, reason = "a program of the test's own, which it ends itself")]
        fn start() -> Self {
            let mut sleep = Command::new("sleep");
            Self(sleep.arg("600").stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts"))
        }

        fn seen(&self) -> Seen {
            seen(i32::try_from(self.0.id()).expect("small")).expect("it lives")
        }

        fn await_still(&self) {
            let begun = Instant::now();
            while !self.seen().is_out {
                assert!(begun.elapsed() < Duration::from_mins(1), "nobody stops it");
                thread::sleep(Duration::from_millis(10));
            }
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn whoever_is_below_stands_still_for_a_while_and_goes_on_in_the_end() {
        let child = Sleeper::start();
        let stalls = Stalls::begin();
        child.await_still();
        drop(stalls);
        assert!(!child.seen().is_out, "it goes on");
        let process = child.seen().process;
        assert!(below(std::process::id()).contains(&process));
        assert!(!below(child.0.id()).contains(&process), "it is not below itself");
        assert!(signal(process, Signal::STOP));
        child.await_still();
        assert!(!below(std::process::id()).contains(&process), "somebody else has stopped it");
    }
}

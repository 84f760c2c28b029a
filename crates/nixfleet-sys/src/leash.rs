//! A program on a leash: whoever started it dies, or wants it ended, and nothing of it stays.
//!
//! A process group ends what stays in it, and only if somebody is there to signal it. Programs that other people wrote
//! (probes, hooks) need more: an agent that dies by SIGKILL must not leave one behind, and neither must a program that
//! puts a child of its own into another session. So between the agent and the program stands a process of ours, the
//! *holder*. It watches its standard input, whose other end the agent has ([`Cmd::on_leash`]); the kernel closes that
//! when the agent dies, however it does. It adopts the descendants whose parents have gone, and ends all of them when
//! the program has ended, when the input closes, and at SIGTERM.
//!
//! A holder is never killed, since that would end nobody. Where it stands still (a machine that is too busy, somebody's
//! SIGSTOP), the agent ends in its place whom it holds; it ends the rest, and itself, when it may run again.
//!
//! A cgroup alone is not enough: whoever started the program must be alive to have it ended, and Darwin has none. But the
//! holder may well live in a transient unit; all that it needs is its standard input.

use std::os::fd::AsFd;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, getpid, kill_process};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

use crate::exec::{Cmd, Ended, ExecError, pid_of};

/// From SIGTERM to SIGKILL for what the program leaves; less than what [`Cmd`] leaves the holder itself.
const TERM_GRACE: Duration = Duration::from_secs(1);
/// How long SIGKILL is repeated for processes that fork faster than they are listed.
const KILL_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks at who is left.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The exit code of a program that a signal ended, less the signal's number; the shells' convention.
const SIGNALLED: i32 = 128;
/// What the holder itself exits with when it could not do its work, or was told to end it.
const NOT_HELD: i32 = 125;

/// Runs the program in this process's place until it ends or the leash is let go, and returns the exit code for this
/// process: the program's own, or 128 and the signal that ended it, or 125.
///
/// For a process of its own, started by [`Cmd::on_leash`]: it adopts and ends *every* descendant of this process.
pub async fn hold(program: &Cmd) -> Result<i32, ExecError> {
    adopt();
    // Before there is a program: SIGTERM would end us alone.
    let told = signal(SignalKind::terminate());
    let mut child = program.spawn_inheriting()?;
    let code = match told {
        Ok(mut term) => tokio::select! {
            // Waiting is cancel-safe by its documentation; the child is ended below in any case.
            status = child.wait() => status.map_or(NOT_HELD, code),
            // Nothing that is read is of any use, only the end.
            () = let_go() => NOT_HELD,
            _ = term.recv() => NOT_HELD,
        },
        Err(_) => NOT_HELD,
    };
    end_below(|| {
        // Collects the program itself, which is a zombie otherwise.
        let _ = child.try_wait();
        Some(getpid())
    })
    .await;
    Ok(code)
}

/// Ends whom a holder holds that does not get to it, and has it told to end.
///
/// SIGTERM ends one that has not begun yet, and is a closed input to one that has. Whoever loses his parent is below the holder
/// for as long as there is one, so we find him there.
pub(crate) async fn end_in_place_of(holder: &mut Child) {
    let Some(pid) = pid_of(holder) else { return };
    // It may have ended, which is what is wanted.
    let _ = kill_process(pid, Signal::TERM);
    end_below(|| matches!(holder.try_wait(), Ok(None)).then_some(pid)).await;
}

fn code(status: ExitStatus) -> i32 {
    match crate::exec::ended(status) {
        Ended::Exited(code) => code,
        Ended::Signalled(signal) => SIGNALLED.saturating_add(signal),
    }
}

/// Returns when the other end of standard input is closed; at once if that is no pipe, so that nobody holds it.
async fn let_go() {
    let pipe = std::io::stdin().as_fd().try_clone_to_owned().and_then(Receiver::from_owned_fd);
    let Ok(mut pipe) = pipe else { return };
    let mut chunk = [0; 64];
    while let Ok(1..) = pipe.read(&mut chunk).await {}
}

/// Makes us the parent of every descendant whose own parent ends.
#[cfg(target_os = "linux")]
fn adopt() {
    // Linux has had it since 3.4; without it, those whose parents are gone are not found.
    let _ = rustix::process::set_child_subreaper(Some(getpid()));
}

#[cfg(not(target_os = "linux"))]
fn adopt() {}

/// Ends everybody below a process, as long as `top` says that it is there: SIGTERM, then SIGKILL until there is nobody.
async fn end_below(mut top: impl FnMut() -> Option<Pid>) {
    let (began, mut told) = (Instant::now(), Told::Nothing);
    while began.elapsed() < TERM_GRACE + KILL_WITHIN {
        let Some(top) = top() else { return };
        let left = descendants(top).await;
        let kill = began.elapsed() >= TERM_GRACE;
        match left {
            Some(left) if left.is_empty() => return,
            Some(left) if kill || told == Told::Nothing => {
                let with = if kill { Signal::KILL } else { Signal::TERM };
                // One may be gone already, which is what is wanted.
                for pid in left {
                    let _ = kill_process(pid, with);
                }
                told = Told::ToEnd;
            }
            // They were told a moment ago, or who they are cannot be seen now.
            Some(_) | None => {}
        }
        sleep(LOOK_EVERY).await;
    }
}

#[derive(PartialEq, Eq)]
enum Told {
    Nothing,
    ToEnd,
}

/// Every process below this one that has not ended; `None` when nobody could look.
async fn descendants(top: Pid) -> Option<Vec<Pid>> {
    let all = processes().await?;
    let mut found = vec![top];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        let children = all.iter().filter(|process| process.parent == parent.as_raw_nonzero().get());
        found.extend(
            children.map(|process| process.pid).filter(|pid| !found.contains(pid)).collect::<Vec<_>>(),
        );
        at += 1;
    }
    Some(found.split_off(1))
}

#[derive(Debug, PartialEq, Eq)]
struct Process {
    pid: Pid,
    parent: i32,
}

/// The processes of the host that have not ended; `None` when they could not be listed.
#[cfg(target_os = "linux")]
#[allow(clippy::unused_async, reason = "other platforms ask a program")]
async fn processes() -> Option<Vec<Process>> {
    /// One line of some 50 numbers.
    const BYTES_MAX: u64 = 4096;
    let entries = std::fs::read_dir("/proc").ok()?.flatten();
    let read = |entry: std::fs::DirEntry| {
        let pid = crate::session::pid_in(entry.file_name().to_str()?)?;
        let stat = crate::fs::read_bounded(&entry.path().join("stat"), BYTES_MAX).ok()?;
        process_in(pid, &String::from_utf8_lossy(&stat))
    };
    Some(entries.filter_map(read).collect())
}

/// The process in a line of `/proc/PID/stat`; `None` when it has ended and only waits for its parent.
#[cfg(any(target_os = "linux", test))]
fn process_in(pid: Pid, stat: &str) -> Option<Process> {
    // The name in brackets may hold anything, brackets and spaces included.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut words = after_name.split_whitespace();
    let state = words.next()?;
    let parent = words.next()?.parse().ok()?;
    (!matches!(state, "Z" | "X" | "x")).then_some(Process { pid, parent })
}

/// The processes of the host that have not ended; `None` when they could not be listed.
#[cfg(not(target_os = "linux"))]
async fn processes() -> Option<Vec<Process>> {
    /// Where every Unix has it.
    const PS: &str = "/bin/ps";
    /// It reads one table of the kernel.
    const PS_LIMIT: Duration = Duration::from_secs(10);
    let ps = Cmd::new(PS).args(["-A", "-o", "pid=,ppid=,stat="]).deadline(PS_LIMIT);
    let listed = ps.run().await.ok()?.success().ok()?;
    let read = |line: &str| {
        let mut words = line.split_whitespace();
        let pid = crate::session::pid_in(words.next()?)?;
        let parent = words.next()?.parse().ok()?;
        // `ps` itself is a child of ours too, and is gone by now.
        (!words.next()?.starts_with('Z')).then_some(Process { pid, parent })
    };
    Some(listed.stdout_text().lines().filter_map(read).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_text_stops_us_and_a_name_may_hold_anything(text in ".*", name in ".{0,8}", parent: i32) {
            let pid = getpid();
            let _ = process_in(pid, &text);
            let found = process_in(pid, &format!("1 ({name}) S {parent} 1 2 0"));
            prop_assert_eq!(found, Some(Process { pid, parent }));
        }
    }

    #[test]
    fn whoever_has_ended_is_not_among_the_processes() {
        let pid = getpid();
        assert_eq!(process_in(pid, "7 (sh) Z 1 7 7 0"), None);
        assert_eq!(process_in(pid, "7 (sh) R 3 7 7 0"), Some(Process { pid, parent: 3 }));
        assert_eq!(process_in(pid, "torn"), None);
    }

    #[tokio::test]
    async fn a_child_of_a_child_is_a_descendant_and_its_siblings_are_not() {
        // Another test's children are ours too, so only these are looked at.
        let mut child = Cmd::new("/bin/sh")
            .args(["-c", "sleep 4322 & wait"])
            .env("PATH", "/usr/bin:/bin")
            .spawn_inheriting()
            .expect("it starts");
        let shell =
            Pid::from_raw(i32::try_from(child.id().expect("it runs")).expect("a pid")).expect("positive");
        for _ in 0..3000 {
            let all = processes().await.expect("listed");
            let below = all.iter().find(|process| process.parent == shell.as_raw_nonzero().get());
            if let Some(below) = below {
                let found = descendants(getpid()).await.expect("listed");
                assert!(found.contains(&shell) && found.contains(&below.pid) && !found.contains(&getpid()));
                let _ = kill_process(below.pid, Signal::KILL);
                child.wait().await.expect("it ends");
                return;
            }
            sleep(LOOK_EVERY).await;
        }
        panic!("the shell has no child");
    }

    #[cfg(target_os = "linux")]
    mod standing_still {
        use std::path::Path;

        use super::*;
        use crate::exec::{Heard, Listener};

        /// Hears the process ids of a holder and of whom it holds, and has enough.
        #[derive(Default)]
        struct Pids(Vec<Pid>);

        impl Listener for Pids {
            fn line(&mut self, line: &[u8]) -> Heard {
                let line = String::from_utf8_lossy(line);
                self.0.extend(line.split_whitespace().filter_map(crate::session::pid_in));
                Heard::Enough
            }
            fn is_word(&self, _line: &[u8]) -> bool {
                true
            }
        }

        #[tokio::test]
        async fn a_holder_that_stands_still_is_not_killed_and_whom_it_holds_is_ended() {
            // Both ignore SIGTERM, and the program has a session of its own.
            let script = "trap '' TERM; /usr/bin/setsid \"$0\" \"$@\" & echo $$ $! >&2; kill -STOP $$";
            let held = Cmd::new("/bin/sleep").arg("600").on_leash(Path::new("/bin/sh"), &["-c", script]);
            let mut heard = Pids::default();
            let got = held.run_heard(&mut heard).await;
            assert!(matches!(got, Err(ExecError::Stopped { .. })), "{got:?}");
            let [holder, program] = heard.0[..] else { panic!("{:?}", heard.0) };
            let left = processes().await.expect("listed");
            let runs = |pid| left.iter().any(|process| process.pid == pid);
            assert!(runs(holder), "it would have ended whom we had not seen");
            assert!(!runs(program));
            let _ = kill_process(holder, Signal::KILL);
        }
    }
}

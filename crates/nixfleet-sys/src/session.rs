//! A session of our own, and the end of every process in one.
//!
//! What the Darwin backend has in place of a cgroup: whoever signals the group of the agent (launchd does, when it
//! reloads a job) does not reach a session of its own, and a process that wants to leave it must call `setsid` itself.
//! Who is in a session is asked of `ps` and of the kernel, which is all that Linux and macOS have in common.

use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, getpid, kill_process, setsid};

use crate::exec::{Cmd, ExecError};

/// Where both platforms have it.
const PS: &str = "/bin/ps";
/// It reads one table of the kernel.
const PS_LIMIT: Duration = Duration::from_secs(10);

/// Makes this process the leader of a new session and returns its id.
///
/// # Errors
/// This process heads a process group already; one that [`Cmd::spawn_detached`] started never does.
pub fn lead() -> Result<Pid, Errno> {
    setsid()
}

/// The processes of a session, those that have ended and that nobody has waited for included; ourselves left out.
pub async fn others(session: Pid) -> Result<Vec<Pid>, ExecError> {
    let listed = Cmd::new(PS).args(["-A", "-o", "pid="]).deadline(PS_LIMIT).run().await?.success()?;
    let pids = listed.stdout_text();
    let pids = pids.split_whitespace().filter_map(pid_in);
    // One that is gone by now has no session any more.
    Ok(pids.filter(|pid| *pid != getpid() && session_of(*pid) == Some(session)).collect())
}

/// Sends the signal to every process of the session but ourselves; says whether there was any, or may be one.
///
/// Where `ps` fails, at least the leader gets it, if it still is one.
pub async fn signal(session: Pid, signal: Signal) -> bool {
    let (found, more) = found_of(session, others(session).await);
    for pid in &found {
        // It may be gone already, which is what is wanted.
        let _ = kill_process(*pid, signal);
    }
    more == More::MayBe || !found.is_empty()
}

/// Whether there may be others in a session than those that were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum More {
    No,
    MayBe,
}

/// Who is known to be in the session, after `ps` was asked.
fn found_of(session: Pid, listed: Result<Vec<Pid>, ExecError>) -> (Vec<Pid>, More) {
    match listed {
        Ok(found) => (found, More::No),
        Err(_) if session != getpid() && session_of(session) == Some(session) => (vec![session], More::MayBe),
        Err(_) => (Vec::new(), More::MayBe),
    }
}

/// The process id in a text; `None` for what is none. `Pid::from_raw` alone asserts that it is not negative.
pub fn pid_in(text: &str) -> Option<Pid> {
    Pid::from_raw(text.trim().parse().ok().filter(|raw| *raw > 0)?)
}

/// The session of a process; `None` when there is no such process, or the session began outside our pid namespace.
///
/// Linux answers 0 for such a session and for kernel threads, which `rustix::process::getsid` takes for impossible
/// (it asserts), so there the number is read from `/proc`.
#[cfg(target_os = "linux")]
fn session_of(pid: Pid) -> Option<Pid> {
    /// One line of some 50 numbers.
    const BYTES_MAX: u64 = 4096;
    let file = format!("/proc/{}/stat", pid.as_raw_nonzero());
    let stat = crate::fs::read_bounded(std::path::Path::new(&file), BYTES_MAX).ok()?;
    session_in(&String::from_utf8_lossy(&stat))
}

/// The session of a process; `None` when there is no such process.
#[cfg(not(target_os = "linux"))]
fn session_of(pid: Pid) -> Option<Pid> {
    rustix::process::getsid(Some(pid)).ok()
}

/// The session in a line of `/proc/PID/stat`: the fourth word after the name, which may hold anything.
#[cfg(target_os = "linux")]
fn session_in(stat: &str) -> Option<Pid> {
    let (_, after_name) = stat.rsplit_once(')')?;
    pid_in(after_name.split_whitespace().nth(3)?)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_text_stops_us_and_every_session_found_is_positive(text in ".*", number: i32, name in ".{0,8}") {
            let _ = session_in(&text);
            let found = session_in(&format!("1 ({name}) S 1 1 {number} 0")).map(|pid| pid.as_raw_nonzero().get());
            prop_assert_eq!(found, Some(number).filter(|number| *number > 0));
            prop_assert_eq!(pid_in(&number.to_string()).is_some(), number > 0);
        }
    }

    #[test]
    fn the_session_stands_behind_a_name_that_may_hold_anything() {
        let pid = |raw| Pid::from_raw(raw);
        assert_eq!(session_in("12 (sh) S 1 11 7 0 -1 4194304"), pid(7));
        assert_eq!(session_in("12 (a ) S 1 2 3) S 1 11 7 0"), pid(7));
        assert_eq!(session_in("2 (kthreadd) S 0 0 0 0 -1"), None);
        assert_eq!(session_in("12 (sh) S 1 11 -7 0"), None);
        assert_eq!(session_in("torn"), None);
    }

    #[test]
    fn a_look_that_failed_does_not_say_that_nobody_is_left() {
        let us = getpid();
        let failed = || ExecError::TooMuchOutput { line: "ps".to_owned(), bytes_max: 0 };
        assert_eq!(found_of(us, Err(failed())), (Vec::new(), More::MayBe));
        assert_eq!(found_of(us, Ok(Vec::new())), (Vec::new(), More::No));
        assert_eq!(found_of(us, Ok(vec![us])), (vec![us], More::No));
    }

    #[tokio::test]
    async fn every_process_of_a_session_is_ended_and_nobody_else() {
        // `setsid` leads the session; one child has a process group of its own, one has lost its parent.
        let dir = tempfile::tempdir().expect("a folder");
        let mark = dir.path().join("leader");
        let script = format!(
            "set -m; sleep 4321 & (sleep 4321 &); set +m; sleep 4321 & echo $$ > {0}.new; mv {0}.new {0}; wait",
            mark.display()
        );
        Cmd::new("/usr/bin/setsid")
            .args(["/bin/bash", "-c", &script])
            .env("PATH", "/usr/bin:/bin")
            .spawn_detached(None)
            .expect("started");
        let leader = loop {
            if let Ok(text) = std::fs::read_to_string(&mark) {
                break Pid::from_raw(text.trim().parse().expect("a number")).expect("positive");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        // The `mv` that made the mark may be there for a moment longer.
        let mut found = Vec::new();
        for _ in 0..3000 {
            // A look that takes too long is none.
            found = others(leader).await.unwrap_or_default();
            if found.len() == 4 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(found.len(), 4, "the shell and three sleepers: {found:?}");
        assert!(!found.contains(&getpid()));
        assert!(signal(leader, Signal::KILL).await);
        for _ in 0..3000 {
            if !signal(leader, Signal::KILL).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("still there: {:?}", others(leader).await);
    }
}

//! A session of our own, and the end of every process in one.
//!
//! What the Darwin backend has in place of a cgroup: whoever signals the group of the agent (launchd does, when it
//! reloads a job) does not reach a session of its own, and a process that wants to leave it must call `setsid` itself.
//! Who is in a session is asked of `ps` and of the kernel, which is all that Linux and macOS have in common.

use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, getpid, getsid, kill_process, setsid};

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
    let pids = pids.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?));
    // One that is gone by now has no session any more.
    Ok(pids.filter(|pid| *pid != getpid() && getsid(Some(*pid)) == Ok(session)).collect())
}

/// Sends the signal to every process of the session but ourselves; says whether there was any.
///
/// Without `ps` at least the leader gets it, if it still is one.
pub async fn signal(session: Pid, signal: Signal) -> bool {
    let found = match others(session).await {
        Ok(found) => found,
        Err(_) if session != getpid() && getsid(Some(session)) == Ok(session) => vec![session],
        Err(_) => Vec::new(),
    };
    for pid in &found {
        // It may be gone already, which is what is wanted.
        let _ = kill_process(*pid, signal);
    }
    !found.is_empty()
}

//! Removing what processes that died left behind.
//!
//! A keeper cleans up when its owner ends, so there is something to sweep only if the keeper itself was killed (or
//! the machine went down).

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use anyhow::Result;
use rustix::fs::{FlockOperation, flock};

use crate::run_dir::{CGROUP_PREFIX, lock, run_root};
use crate::spawn;
use crate::wait::wait_until;

/// A keeper whose owner has just died is given this long to clean up by itself, which takes it a second on a quiet machine.
const KEEPER_GRACE: Duration = Duration::from_secs(30);
/// Ending a cgroup takes some milliseconds, and much longer where many others end at once.
const CGROUP_LIMIT: Duration = Duration::from_mins(2);

/// Kills and removes the cgroup in a mount namespace of its own, where the second layout of cgroups is mounted.
const END_CGROUP: &str = r#"
umount -R /sys/fs/cgroup 2>/dev/null
mount -t cgroup2 none /sys/fs/cgroup || exit 1
cd "/sys/fs/cgroup/$1" 2>/dev/null || exit 0
echo 1 > cgroup.kill
for _ in $(seq 500); do grep -q '^populated 1' cgroup.events || break; sleep 0.01; done
cd /; find "/sys/fs/cgroup/$1" -depth -type d -exec rmdir {} + 2>/dev/null; true
"#;

/// What a sweep found and removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// The folders of hosts whose owner was dead.
    pub removed: Vec<String>,
    /// The folders of hosts whose owner lives.
    pub kept: Vec<String>,
}

/// Ends and removes the hosts of processes that are dead; those of living ones are left alone.
pub fn sweep() -> Result<Swept> {
    let mut swept = Swept::default();
    let Ok(entries) = fs::read_dir(run_root()) else { return Ok(swept) };
    // While this is held, no folder is without its owner's lock because it is just being made.
    let _making = lock(&run_root().join(".making"), FlockOperation::LockExclusive)?;
    let mut trouble = Ok(());
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Not made if it is not there: the folder's keeper is just removing it, or nothing ever came into it.
        let Ok(owner) = OpenOptions::new().write(true).open(path.join("owner")) else {
            let _ = fs::remove_dir(&path);
            continue;
        };
        if flock(&owner, FlockOperation::NonBlockingLockExclusive).is_err() {
            swept.kept.push(name);
            continue;
        }
        match remove(&path, &name) {
            Ok(()) => swept.removed.push(name),
            // One that cannot be removed does not keep the others.
            Err(error) => trouble = trouble.and(Err(error)),
        }
    }
    trouble.map(|()| swept)
}

/// Sweeps once per process, before its first host; trouble is left to the explicit `sweep`.
pub(crate) fn sweep_once() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = sweep();
    });
}

fn remove(path: &Path, id: &str) -> Result<()> {
    let keeper = fs::read_to_string(path.join("keeper.pid")).ok().and_then(|pid| pid.trim().parse().ok());
    if let Some(keeper) = keeper.filter(|pid| is_keeper_of(*pid, path)) {
        let left = wait_until("a keeper to clean up", KEEPER_GRACE, || (!path.exists()).then_some(()));
        if left.is_ok() {
            return Ok(());
        }
        // Asked again: its number may be another's by now.
        if is_keeper_of(keeper, path)
            && let Some(pid) = rustix::process::Pid::from_raw(keeper)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    let cgroup = format!("{CGROUP_PREFIX}{id}");
    let argv = ["unshare", "--mount", "--propagation", "private", "bash", "-c", END_CGROUP, "bash", &cgroup];
    spawn::run(&argv, CGROUP_LIMIT)?.success()?;
    // The kernel lets go of a killed process's mounts a moment after the process.
    wait_until("the folder of a dead host to go", KEEPER_GRACE, || {
        let _ = fs::remove_dir_all(path);
        (!path.exists()).then_some(())
    })
}

/// Whether this process id is (still) the keeper of this folder.
fn is_keeper_of(pid: i32, path: &Path) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let path = path.as_os_str().as_encoded_bytes();
    line.split(|byte| *byte == 0).any(|word| word == path)
}

//! Named crash points, compiled in for tests only: without the feature `failpoints` every call is nothing at all.
//!
//! With it, the variable `NIXFLEET_FAILPOINT` names one point. The first process that reaches it writes
//! `/run/nixfleet-failpoint` and stands still for ever, so that a test can kill it, stop its unit, restart the host
//! or cut its power right there. The mark makes later processes pass. With `each:` before the name, each process
//! kills itself there, the n-th at its n-th time. `NIXFLEET_BACKEND=darwin` chooses the Darwin
//! backend on Linux, where test hosts are.

/// Every point, in the order of a good activation, then of a deferral, then of a way back, then
/// of the reducer, which passes its points with every input, then of the outbox at each of its syncs.
pub const ALL: [&str; 53] = [
    "before-began",
    "after-began",
    "before-root",
    "after-root",
    "before-realise",
    "after-realise",
    "before-set-profile",
    "after-set-profile",
    "before-arm-deadman",
    "after-arm-deadman",
    "before-fire",
    "after-fire",
    "before-verify-poll",
    "after-verify-poll",
    "before-self-correct",
    "after-self-correct",
    "before-confirm",
    "after-confirm",
    "before-confirmed",
    "after-confirmed",
    "before-commit-fire",
    "after-commit-fire",
    "after-commit",
    "before-disarm",
    "after-disarm",
    "before-finish",
    "after-finish",
    "after-cleanup",
    "before-defer-fire",
    "after-defer-fire",
    "before-await-reboot",
    "after-await-reboot",
    "before-reverting",
    "after-reverting",
    "before-revert-profile",
    "after-revert-profile",
    "before-revert-fire",
    "after-revert-fire",
    "after-revert",
    "before-revert-boot",
    "after-revert-boot",
    "after-put-back",
    "before-log",
    "after-log",
    "before-save",
    "after-save",
    "after-effects",
    "before-outbox-append",
    "after-outbox-append",
    "before-outbox-cut",
    "after-outbox-cut",
    "before-outbox-replace",
    "after-outbox-replace",
];

/// Variables that a detached process of ours is given from our own environment: none in a shipped binary.
#[cfg(not(feature = "failpoints"))]
pub const HANDED_ON: &[&str] = &[];
/// Variables that a detached process of ours is given from our own environment: which backend a test chose.
#[cfg(feature = "failpoints")]
pub const HANDED_ON: &[&str] = &[BACKEND];

/// Names the backend that a test wants instead of the platform's own: `darwin`.
#[cfg(feature = "failpoints")]
const BACKEND: &str = "NIXFLEET_BACKEND";

/// Whether a test wants the Darwin backend on this platform.
#[cfg(feature = "failpoints")]
pub fn wants_darwin() -> bool {
    std::env::var(BACKEND).is_ok_and(|name| name == "darwin")
}

/// Stands still here if a test asked for it.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn hit(_name: &str) {}

/// Stands still here, or dies, if a test asked for it.
#[cfg(feature = "failpoints")]
pub fn hit(name: &str) {
    /// Written by the process that stands still; there, every later process passes.
    const MARK: &str = "/run/nixfleet-failpoint";
    debug_assert!(ALL.contains(&name), "failpoint {name} is not in the list");
    let Ok(asked) = std::env::var("NIXFLEET_FAILPOINT") else { return };
    if asked.strip_prefix("each:") == Some(name) {
        return die_later_each_time();
    }
    if asked != name || std::path::Path::new(MARK).exists() {
        return;
    }
    if nixfleet_sys::fs::write_atomic(std::path::Path::new(MARK), name.as_bytes()).is_ok() {
        loop {
            std::thread::sleep(std::time::Duration::from_mins(1));
        }
    }
}

/// The first process that comes here dies at once, the next at its second time, and so on: whatever a process has to get
/// done, one of them dies at every time on the way there.
#[cfg(feature = "failpoints")]
fn die_later_each_time() {
    use std::sync::atomic::{AtomicU32, Ordering};
    /// How many have died.
    const DEATHS: &str = "/run/nixfleet-deaths";
    static TIMES: AtomicU32 = AtomicU32::new(0);
    let times = TIMES.fetch_add(1, Ordering::SeqCst) + 1;
    let file = std::path::Path::new(DEATHS);
    let deaths: u32 =
        std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    if times > deaths && nixfleet_sys::fs::write_atomic(file, (deaths + 1).to_string().as_bytes()).is_ok() {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

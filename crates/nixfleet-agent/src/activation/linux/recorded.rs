//! What a run's unit executes: the switch program inside a process of ours, which records its end at once.
//!
//! The record that counts is the one of `ExecStopPost`, since nothing keeps it from being written. But it comes some
//! 40 ms after the program's end, when the service manager has collected the unit and started one more process. So
//! the process around the program writes it earlier, in the one case that leaves nothing open: the program exited by
//! itself, and no process of the run is left. Everything else (a signal, a time limit, a child in the background) is
//! left to the service manager; to that end the process dies as the program did.

use std::path::Path;

use nixfleet_core::activation::end::RunEnd;
use nixfleet_sys::exec::{Ended, run_inheriting};
use nixfleet_sys::fs;
use rustix::process::{Signal, getpid, kill_process};

use crate::activation::verify_poll::{read_end, record_end};

/// The exit code for a program that cannot be executed, as the service manager has it (`EXIT_EXEC`).
pub const NOT_STARTED: u8 = 203;

/// A cgroup's members, or our own place in the hierarchy: some lines.
const BYTES_MAX: u64 = 64 << 10;

/// Runs the switch program with `action`, records its end if that is certain, and returns its exit code.
///
/// # Errors
/// It could not be started.
pub fn run(file: &Path, program: &Path, action: String) -> anyhow::Result<u8> {
    match run_inheriting(program, &[action])? {
        Ended::Exited(code) => {
            if is_last() {
                // Not written, it is written by `ExecStopPost`.
                let _ = record_end(file, RunEnd::Exited { code });
            }
            Ok(u8::try_from(code).unwrap_or(u8::MAX))
        }
        Ended::Signalled(signal) => Ok(die_of(signal)),
    }
}

/// Writes what the service manager says of the end, unless the same is recorded already.
///
/// A time limit counts in any case: what ended because of it may have found the time to exit by itself.
pub fn after_the_end(file: &Path, end: RunEnd) -> anyhow::Result<()> {
    match end {
        RunEnd::Exited { .. } | RunEnd::Killed { .. } | RunEnd::Unknown if read_end(file).is_some() => Ok(()),
        RunEnd::Exited { .. } | RunEnd::Killed { .. } | RunEnd::Unknown | RunEnd::TimedOut => {
            record_end(file, end)
        }
    }
}

/// Ends this process by a signal; returns a code only for one that does not end it.
fn die_of(signal: i32) -> u8 {
    if let Some(signal) = Signal::from_named_raw(signal) {
        let _ = kill_process(getpid(), signal);
    }
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}

/// Whether this process is the only one in its cgroup; `false` when that cannot be found out.
fn is_last() -> bool {
    let read =
        |path: &Path| fs::read_bounded(path, BYTES_MAX).ok().and_then(|text| String::from_utf8(text).ok());
    let members = read(Path::new("/proc/self/cgroup"))
        .and_then(|own| unified(&own).map(|cgroup| format!("/sys/fs/cgroup{cgroup}/cgroup.procs")))
        .and_then(|procs| read(Path::new(&procs)));
    members.is_some_and(|members| members.lines().eq([getpid().as_raw_nonzero().to_string()]))
}

/// The place in the unified hierarchy, in the text of `/proc/self/cgroup`.
fn unified(own: &str) -> Option<&str> {
    own.lines().find_map(|line| line.strip_prefix("0::")).filter(|place| place.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXITED: RunEnd = RunEnd::Exited { code: 4 };

    #[test]
    fn an_end_that_was_recorded_early_stays_but_for_a_time_limit() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("end");
        after_the_end(&file, RunEnd::Killed { signal: 9 }).expect("written");
        assert_eq!(read_end(&file).map(|record| record.end), Some(RunEnd::Killed { signal: 9 }));
        record_end(&file, EXITED).expect("written");
        after_the_end(&file, RunEnd::Exited { code: 0 }).expect("kept");
        assert_eq!(read_end(&file).map(|record| record.end), Some(EXITED));
        after_the_end(&file, RunEnd::TimedOut).expect("written");
        assert_eq!(read_end(&file).map(|record| record.end), Some(RunEnd::TimedOut));
    }

    #[test]
    fn a_run_with_company_in_its_cgroup_records_nothing_early() {
        // The tests of a machine always have some.
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("end");
        assert_eq!(run(&file, Path::new("/bin/false"), String::new()).expect("it runs"), 1);
        assert_eq!(read_end(&file), None);
    }

    #[test]
    fn only_the_unified_hierarchy_is_read() {
        assert_eq!(unified("12:pids:/a\n0::/system.slice/x.service\n"), Some("/system.slice/x.service"));
        assert_eq!(unified("12:pids:/a\n"), None);
        assert_eq!(unified("0::relative\n"), None);
    }
}

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

use crate::activation::host::Marks;
use crate::activation::verify_poll::{read_end, record_end};

/// The exit code for a program that cannot be executed, as the service manager has it (`EXIT_EXEC`).
pub const NOT_STARTED: u8 = 203;

/// A cgroup's members, or our own place in the hierarchy: some lines.
const BYTES_MAX: u64 = 64 << 10;

/// Runs the switch program with `action`, marks its beginning, records its end if that is certain, and returns its exit code.
///
/// # Errors
/// It could not be started.
pub fn run((marks, file): (&Marks, &Path), program: &Path, action: String) -> anyhow::Result<u8> {
    // Not marked, a run whose end is not recorded either is taken for one that never began: no reason not to run, since it may be
    // the way back.
    let _ = fs::write_atomic(&marks.begun(), b"");
    match run_inheriting(program, &[action])? {
        Ended::Exited(code) => {
            if is_last() {
                record_early((marks, file), RunEnd::Exited { code });
            }
            Ok(u8::try_from(code).unwrap_or(u8::MAX))
        }
        Ended::Signalled(signal) => Ok(die_of(signal)),
    }
}

/// Records the end, and that it is recorded, which comes first: whoever waits for the record may be done with the activation, and have
/// taken the record away, before the service manager comes to it.
fn record_early((marks, file): (&Marks, &Path), end: RunEnd) {
    let _ = fs::write_atomic(&marks.recorded(), b"");
    if record_end(file, end).is_err() {
        // Then it is written by `ExecStopPost`.
        let _ = fs::remove(&marks.recorded());
    }
}

/// Writes what the service manager says of the end, unless the same was recorded already.
///
/// A time limit counts in any case: what ended because of it may have found the time to exit by itself.
pub fn after_the_end((marks, file): (&Marks, &Path), end: RunEnd) -> anyhow::Result<()> {
    let is_recorded = marks.recorded().exists() || read_end(file).is_some();
    let _ = fs::remove(&marks.recorded());
    match end {
        RunEnd::Exited { .. } | RunEnd::Killed { .. } | RunEnd::Unknown if is_recorded => Ok(()),
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
        let (marks, file) = (Marks::at(dir.path().join("run")), dir.path().join("end"));
        let after = |end| after_the_end((&marks, &file), end).expect("written, or kept");
        after(RunEnd::Killed { signal: 9 });
        assert_eq!(read_end(&file).map(|record| record.end), Some(RunEnd::Killed { signal: 9 }));
        record_early((&marks, &file), EXITED);
        after(RunEnd::Exited { code: 0 });
        assert_eq!(read_end(&file).map(|record| record.end), Some(EXITED));
        after(RunEnd::TimedOut);
        assert_eq!(read_end(&file).map(|record| record.end), Some(RunEnd::TimedOut));
    }

    #[test]
    fn a_record_that_somebody_has_taken_away_already_is_not_made_again() {
        let dir = tempfile::tempdir().expect("a folder");
        let (marks, file) = (Marks::at(dir.path().join("run")), dir.path().join("end"));
        record_early((&marks, &file), EXITED);
        fs::remove(&file).expect("the activation is over");
        after_the_end((&marks, &file), EXITED).expect("nothing to do");
        assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 0, "nothing stays");
    }

    #[test]
    fn an_end_that_could_not_be_recorded_early_is_recorded_late() {
        let dir = tempfile::tempdir().expect("a folder");
        let (marks, file) = (Marks::at(dir.path().join("run")), dir.path().join("ends/end"));
        record_early((&marks, &file), EXITED);
        std::fs::create_dir(dir.path().join("ends")).expect("made");
        after_the_end((&marks, &file), EXITED).expect("written");
        assert_eq!(read_end(&file).map(|record| record.end), Some(EXITED));
    }

    #[test]
    fn a_run_with_company_in_its_cgroup_records_nothing_early() {
        // The tests of a machine always have some.
        let dir = tempfile::tempdir().expect("a folder");
        let (marks, file) = (Marks::at(dir.path().join("run")), dir.path().join("end"));
        assert_eq!(run((&marks, &file), Path::new("/bin/false"), String::new()).expect("it runs"), 1);
        assert_eq!(read_end(&file), None);
        assert!(marks.begun().exists() && !marks.recorded().exists(), "it has begun all the same");
    }

    #[test]
    fn only_the_unified_hierarchy_is_read() {
        assert_eq!(unified("12:pids:/a\n0::/system.slice/x.service\n"), Some("/system.slice/x.service"));
        assert_eq!(unified("12:pids:/a\n"), None);
        assert_eq!(unified("0::relative\n"), None);
    }
}

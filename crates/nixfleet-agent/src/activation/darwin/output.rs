//! What a run prints, in two files of bounded size: readable while the run goes on, and kept after it.
//!
//! The newer file is appended to; when it is full it takes the place of the older one. So the end of the output is
//! always there, and a flood costs no more than twice [`FILE_BYTES_MAX`] (lesson 13).

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use nixfleet_sys::{fs, text};

/// The size of each of the two files; `activate` of a large system prints some 20 KB.
const FILE_BYTES_MAX: u64 = 512 << 10;
/// Runs whose output is kept: five activations that were each repaired, reverted and committed.
const RUNS_KEPT: usize = 20;
/// The ending of the newer file's name.
const NEWER: &str = "log";
/// The ending of the older file's name.
const OLDER: &str = "log.older";

/// The output of one run, being written.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    file: Option<File>,
    written: u64,
}

impl Output {
    /// Begins the output at this path. Nothing that goes wrong with it may stop the run that it is about.
    pub fn begin(path: &Path) -> Self {
        Self { path: path.to_owned(), file: fs::open_append(path).ok(), written: 0 }
    }

    /// Takes some more.
    pub fn take(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(usize::try_from(FILE_BYTES_MAX / 4).unwrap_or(usize::MAX)) {
            if self.written + part.len() as u64 > FILE_BYTES_MAX {
                self.turn_over();
            }
            let Some(file) = &mut self.file else { return };
            if file.write_all(part).is_err() {
                // A full disk: what comes later may find room again.
                continue;
            }
            self.written += part.len() as u64;
        }
    }

    fn turn_over(&mut self) {
        // An error leaves the old file in place, which must not grow: then nothing more is written.
        let moved = std::fs::rename(&self.path, older(&self.path));
        self.file = moved.ok().and_then(|()| fs::open_append(&self.path).ok());
        self.written = 0;
    }
}

/// Where the output of a unit goes.
pub fn path(folder: &Path, unit: &str) -> PathBuf {
    folder.join(format!("{unit}.{NEWER}"))
}

fn older(newer: &Path) -> PathBuf {
    newer.with_extension(OLDER)
}

/// The last lines of what is there.
pub fn last_lines(newer: &Path, lines_max: u32) -> Vec<String> {
    let mut bytes = fs::read_bounded(&older(newer), FILE_BYTES_MAX).unwrap_or_default();
    bytes.extend(fs::read_bounded(newer, FILE_BYTES_MAX).unwrap_or_default());
    let all = text::tail(&bytes, bytes.len());
    text::last_lines(&all, usize::try_from(lines_max).unwrap_or(usize::MAX))
}

/// Removes the output of all but the newest runs. What cannot be removed now is found again by the next run.
pub fn prune(folder: &Path) {
    let mut newer: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|ending| ending == NEWER))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    newer.sort_unstable();
    let surplus = newer.len().saturating_sub(RUNS_KEPT);
    for (_, path) in &newer[..surplus] {
        let _ = fs::remove(&older(path)).and_then(|()| fs::remove(path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_flood_is_bounded_and_its_end_is_there() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = path(dir.path(), "flood.service");
        let mut output = Output::begin(&at);
        for _ in 0..3000 {
            output.take(&[b'x'; 4096]);
            output.take(b"\n");
        }
        output.take(b"the end\n");
        let sizes = std::fs::read_dir(dir.path()).expect("a folder").flatten();
        let total: u64 = sizes.map(|entry| entry.metadata().expect("there").len()).sum();
        assert!(total <= 2 * FILE_BYTES_MAX, "{total}");
        assert_eq!(last_lines(&at, 1), ["the end"]);
        assert!(last_lines(&at, 1000).len() > 100, "the older half is read too");
    }

    #[test]
    fn output_is_readable_before_the_run_is_over() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = path(dir.path(), "a.service");
        let mut output = Output::begin(&at);
        output.take(b"one\ntwo\xff\n");
        assert_eq!(last_lines(&at, 9), ["one", "two\u{fffd}"]);
        assert!(last_lines(&path(dir.path(), "other.service"), 9).is_empty());
    }

    #[test]
    fn only_the_newest_outputs_are_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        for number in 0..30 {
            let at = path(dir.path(), &format!("unit-{number:02}.service"));
            Output::begin(&at).take(b"said\n");
            let when = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000 + number);
            File::open(&at).and_then(|file| file.set_modified(when)).expect("aged");
        }
        prune(dir.path());
        assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), RUNS_KEPT);
        assert!(path(dir.path(), "unit-29.service").exists() && path(dir.path(), "unit-10.service").exists());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn whatever_is_printed_its_last_bytes_are_kept(pieces in prop::collection::vec(1usize..400_000, 0..12)) {
            let dir = tempfile::tempdir().expect("a folder");
            let at = path(dir.path(), "a.service");
            let mut output = Output::begin(&at);
            let mut all = Vec::new();
            for (number, size) in pieces.into_iter().enumerate() {
                let piece = vec![b'a' + u8::try_from(number).expect("few"); size];
                output.take(&piece);
                all.extend(piece);
            }
            let mut kept = std::fs::read(older(&at)).unwrap_or_default();
            kept.extend(std::fs::read(&at).expect("there"));
            prop_assert!(all.ends_with(&kept));
            prop_assert!(kept.len() >= all.len().min(256 << 10));
            prop_assert!(kept.len() <= 1 << 20);
        }
    }
}

//! `records.jsonl`: what happened on this host, a synced line for each event that changed its state, before the state is
//! saved.
//!
//! A line is a CRC-32 of the record's bytes, a space, and the record as JSON: readable in a rescue shell, and a torn write
//! is seen. What a crash leaves behind the saved state is cut off at the next start, since nothing was done because of it
//! and its numbers will be given again. The log is told to people and to a control plane and decides nothing here, so a
//! damaged one is set aside and said, and stops nobody.
//!
//! It is bounded: from a size on, the older half goes.

use std::fs::File;
use std::path::{Path, PathBuf};

use nixfleet_core::host::Record;
use nixfleet_sys::fs::{self, FsError};

/// From this size on, the older half is dropped at the next start or write. A record takes 200 to 2,000 bytes, so some
/// thousands are kept: months of a quiet host.
const ROTATE_AT_BYTES: u64 = 4 << 20;
/// What a rotation leaves.
const ROTATE_TO_BYTES: usize = 2 << 20;
/// Far above what a rotation allows: anything larger is not ours.
const BYTES_MAX: u64 = 64 << 20;

/// The log, open for appending.
#[derive(Debug)]
pub struct Records {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// The number of the newest record.
    newest: u64,
}

/// What was found at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A log that fits to the state, perhaps after its end was cut.
    Sound,
    /// One that does not; it lies there now, and a new one begins.
    SetAside(PathBuf),
}

impl Records {
    /// Opens the log of a state folder, for a state that `seq` events have changed.
    pub fn open(state: &Path, seq: u64) -> Result<(Self, Found), FsError> {
        let path = state.join("records.jsonl");
        let mut found = Found::Sound;
        let mut kept = match fs::read_bounded(&path, BYTES_MAX) {
            Ok(bytes) => sound_part(&bytes, seq).map(<[u8]>::to_vec),
            Err(error) if error.is_not_found() => Some(Vec::new()),
            Err(error) => return Err(error),
        };
        if kept.is_none() {
            let aside = state.join("records.damaged");
            std::fs::rename(&path, &aside).map_err(|source| FsError {
                action: "set aside",
                path: path.clone(),
                source,
            })?;
            found = Found::SetAside(aside);
            kept = Some(Vec::new());
        }
        let kept = newest_half(kept.unwrap_or_default());
        fs::write_atomic(&path, &kept)?;
        let (file, bytes) = (fs::open_append(&path)?, kept.len() as u64);
        Ok((Self { path, file, bytes, newest: seq }, found))
    }

    /// Appends those that are not there yet, and returns when they are on the disk.
    pub fn append(&mut self, records: &[Record]) -> Result<(), FsError> {
        let new = records.iter().filter(|record| record.seq > self.newest);
        let lines: Vec<u8> = new.flat_map(render).collect();
        if let Err(error) = fs::append_synced(&mut self.file, &self.path, &lines) {
            // Half a line may be there; before another try it goes.
            let cut = self.file.set_len(self.bytes).and_then(|()| self.file.sync_all());
            return match cut {
                Ok(()) => Err(error),
                Err(source) => Err(FsError { action: "cut", path: self.path.clone(), source }),
            };
        }
        self.bytes += lines.len() as u64;
        self.newest = records.last().map_or(self.newest, |last| self.newest.max(last.seq));
        if self.bytes > ROTATE_AT_BYTES {
            self.rotate()?;
        }
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), FsError> {
        let kept = newest_half(fs::read_bounded(&self.path, BYTES_MAX)?);
        fs::write_atomic(&self.path, &kept)?;
        (self.file, self.bytes) = (fs::open_append(&self.path)?, kept.len() as u64);
        Ok(())
    }
}

fn render(record: &Record) -> Vec<u8> {
    let json = record.to_json();
    format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())).into_bytes()
}

/// The record of one line; `None` when it is torn or altered, or a newer program's.
fn parse(line: &[u8]) -> Option<Record> {
    let (crc, json) = line.strip_suffix(b"\n")?.split_at_checked(8)?;
    let json = json.strip_prefix(b" ")?;
    // As text, so that one sum has one spelling.
    let sound = format!("{:08x}", crc32fast::hash(json)).as_bytes() == crc;
    sound.then(|| Record::from_json(json).ok()).flatten()
}

/// The part of a log up to record `seq`. `None` when it is damaged, or does not fit to a state that `seq` events have
/// changed: a line before the last is unsound, a number is missing, or it ends too early.
fn sound_part(bytes: &[u8], seq: u64) -> Option<&[u8]> {
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let (mut sound, mut last) = (0, None);
    for (at, line) in lines.iter().enumerate() {
        let Some(record) = parse(line) else {
            // Only the last may be torn, and only behind what was saved.
            let torn_tail = at + 1 == lines.len() && last.unwrap_or(0) >= seq;
            return torn_tail.then_some(&bytes[..sound]);
        };
        if last.is_some_and(|last| record.seq != last + 1) {
            return None;
        }
        if record.seq > seq {
            return (last.unwrap_or(0) == seq).then_some(&bytes[..sound]);
        }
        last = Some(record.seq);
        sound += line.len();
    }
    (last.unwrap_or(0) == seq).then_some(bytes)
}

/// The newest whole lines that fit.
fn newest_half(bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() as u64 <= ROTATE_AT_BYTES {
        return bytes;
    }
    let from = bytes.len() - ROTATE_TO_BYTES;
    let line = bytes[from..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| from + at + 1);
    bytes[line..].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nixfleet_core::host::follow::RECORD_FORMAT;
    use nixfleet_core::host::{Event, UpMs};
    use nixfleet_core::model::time::UnixMs;
    use proptest::prelude::*;

    fn record(seq: u64) -> Record {
        let at_ms = UnixMs::new(seq).expect("in range");
        let fact = Event::SourceFailed { why: format!("reason {seq}") };
        Record { v: RECORD_FORMAT, seq, at_ms, up_ms: UpMs(seq), fact }
    }

    fn records(range: impl IntoIterator<Item = u64>) -> Vec<Record> {
        range.into_iter().map(record).collect()
    }

    fn read(dir: &Path) -> Vec<u64> {
        let bytes = std::fs::read(dir.join("records.jsonl")).expect("there");
        bytes.split_inclusive(|b| *b == b'\n').map(|line| parse(line).expect("sound").seq).collect()
    }

    #[test]
    fn what_was_appended_is_there_once_and_what_is_behind_the_state_is_cut_off() {
        let dir = tempfile::tempdir().expect("a folder");
        let (mut log, found) = Records::open(dir.path(), 0).expect("opened");
        assert_eq!(found, Found::Sound);
        log.append(&records(1..=3)).expect("appended");
        log.append(&records(2..=4)).expect("appended");
        assert_eq!(read(dir.path()), [1, 2, 3, 4]);
        let (mut log, found) = Records::open(dir.path(), 2).expect("opened");
        assert_eq!(found, Found::Sound);
        log.append(&records([3])).expect("appended");
        assert_eq!(read(dir.path()), [1, 2, 3]);
    }

    #[test]
    fn a_log_that_does_not_fit_to_the_state_is_set_aside_and_stops_nobody() {
        let whole: Vec<u8> = records(1..=5).iter().flat_map(render).collect();
        let gap: Vec<u8> = records([1, 2, 4, 5]).iter().flat_map(render).collect();
        let mut damaged = whole.clone();
        damaged[20] ^= 1;
        for (bytes, seq) in [(&whole, 6), (&gap, 5), (&damaged, 5), (&b"rubbish\nmore\n".to_vec(), 0)] {
            let dir = tempfile::tempdir().expect("a folder");
            fs::write_atomic(&dir.path().join("records.jsonl"), bytes).expect("written");
            let (mut log, found) = Records::open(dir.path(), seq).expect("opened");
            assert_eq!(found, Found::SetAside(dir.path().join("records.damaged")));
            log.append(&records([seq + 1])).expect("appended");
            assert_eq!(read(dir.path()), [seq + 1]);
        }
    }

    #[test]
    fn it_does_not_grow_for_ever_and_keeps_the_newest() {
        let dir = tempfile::tempdir().expect("a folder");
        let (mut log, _) = Records::open(dir.path(), 0).expect("opened");
        let many = 60_000;
        for from in (1..=many).step_by(10_000) {
            log.append(&records(from..from + 10_000)).expect("appended");
        }
        let left = read(dir.path());
        assert!(left.len() < 60_000 && left.last() == Some(&many), "{} left", left.len());
        let (_, found) = Records::open(dir.path(), many).expect("opened");
        assert_eq!(found, Found::Sound);
    }

    proptest! {
        #[test]
        fn a_log_cut_at_any_byte_keeps_all_that_the_state_knows_of(cut in any::<prop::sample::Index>(), saved in 0u64..8) {
            let whole: Vec<u8> = records(1..=8).iter().flat_map(render).collect();
            let known: usize = records(1..=saved).iter().map(|record| render(record).len()).sum();
            // A power cut tears only what was not synced, and the state was saved after that.
            let cut = known + cut.index(whole.len() - known + 1);
            prop_assert_eq!(sound_part(&whole[..cut], saved), Some(&whole[..known]));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in any::<Vec<u8>>(), seq in 0u64..5) {
            let _ = sound_part(&bytes, seq);
        }
    }
}

//! The activation journal: `journal.jsonl`, a line before each act, on disk before the act.
//!
//! Its lines are those of [`crate::framed`]. A torn *tail* is what a power cut leaves and is cut off. A broken line
//! before the end is damage: it stops activations, and is never read as "no state" (lesson 17). One process writes,
//! the holder of the activation lock; anybody may read.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nixfleet_core::activation::record::{Activation, Entry, JOURNAL_VERSION, Line, fold_next, forget_units};
use nixfleet_core::ids::{ActivationId, BootId};
use nixfleet_sys::fs::{self, FsError};
use serde::Deserialize;

use crate::framed;

/// From this size on, finished activations are dropped from the front when the next one begins.
///
/// One activation takes 6 to 20 KB, so about a hundred are kept for `history`.
const ROTATE_AT_BYTES: usize = 1 << 20;
/// What a rotation leaves.
const ROTATE_TO_BYTES: usize = ROTATE_AT_BYTES / 2;
/// A journal larger than this is not ours: rotation keeps it far below.
const BYTES_MAX: u64 = 64 << 20;
/// Kept on disk so that a rescue can write its lines when the disk is full (invariant 10).
const RESERVE_BYTES: usize = 64 << 10;

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FsError),
    /// A newer program wrote it.
    #[error(
        "the activation journal `{path}` has version {version}, newer than this agent's {JOURNAL_VERSION}"
    )]
    Newer {
        /// The journal.
        path: PathBuf,
        /// The version found.
        version: u32,
    },
    /// It is damaged before its end.
    #[error("the activation journal `{path}` is damaged at line {line}")]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
}

impl JournalError {
    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::File(error) if error.is_not_permitted() => "run it with sudo",
            Self::File(_) => "look at the file and its folder; nothing is switched until it can be read",
            Self::Newer { .. } => "an older agent cannot read it; run the agent that wrote it",
            Self::Damaged { .. } => {
                "nothing is switched until a person has looked; once what runs is what shall run, move the file away, and \
                 with it the history"
            }
        }
    }
}

/// What a journal's bytes say, entry for entry.
#[derive(Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The sound entries.
    pub entries: Vec<Entry>,
    /// How many bytes of the file they are; what follows is a torn tail.
    pub sound_bytes: usize,
}

/// Why bytes are not a journal.
#[derive(Debug, PartialEq, Eq)]
pub enum ParseError {
    /// A newer version.
    Newer(u32),
    /// Damage at this line, counted from 1.
    Damaged(usize),
}

/// Reads a journal as a whole: for what is given as bytes, as tests and fuzzing have it. The agent reads its own line by line.
///
/// # Errors
/// See [`ParseError`].
pub fn parse(bytes: &[u8]) -> Result<Parsed, ParseError> {
    let (mut entries, mut reading) = (Vec::new(), Reading::default());
    for line in framed::lines(bytes) {
        entries.extend(reading.line(line)?);
    }
    Ok(Parsed { entries, sound_bytes: reading.sound_bytes })
}

/// How far a journal has been read. Only its last line may be unsound; an unsound line before a sound one is damage.
#[derive(Debug, Default)]
struct Reading {
    lines: usize,
    bytes: usize,
    /// Up to the end of the last sound line.
    sound_bytes: usize,
    /// The first unsound line.
    torn_at: Option<usize>,
}

impl Reading {
    /// The entry of the next line, `None` if it is unsound, as the last one may be.
    fn line(&mut self, line: &[u8]) -> Result<Option<Entry>, ParseError> {
        self.lines += 1;
        self.bytes += line.len();
        match (parse_line(line)?, self.torn_at) {
            (Some(_), Some(torn)) => Err(ParseError::Damaged(torn)),
            (Some(entry), None) => {
                self.sound_bytes = self.bytes;
                Ok(Some(entry))
            }
            (None, _) => {
                self.torn_at = self.torn_at.or(Some(self.lines));
                Ok(None)
            }
        }
    }
}

/// Read first and alone: the rest of a newer line may have any shape.
#[derive(Deserialize)]
struct Version {
    v: u32,
}

/// The entry of one line, `None` when the line is torn or altered.
fn parse_line(line: &[u8]) -> Result<Option<Entry>, ParseError> {
    let Some(json) = framed::unframe(line) else { return Ok(None) };
    let Ok(Version { v }) = serde_json::from_slice(json) else { return Ok(None) };
    if v > JOURNAL_VERSION {
        return Err(ParseError::Newer(v));
    }
    Ok(serde_json::from_slice(json).ok())
}

/// The line for an entry.
pub fn render(entry: &Entry) -> Vec<u8> {
    framed::frame(&serde_json::to_vec(entry).unwrap_or_default())
}

/// The activations in the journal of a state folder, oldest first, for whoever only looks. No file is no history.
///
/// Of those that are over only the newest that stayed still has its units ([`forget_units`]).
pub fn history(path: &Path) -> Result<Vec<Activation>, JournalError> {
    Ok(folded(path)?.known)
}

/// What a journal says, without its lines: a journal of a year would take ten times its size in memory, and the allocator
/// keeps for good what it has once given.
#[derive(Debug, Default)]
struct Folded {
    known: Vec<Activation>,
    /// Where the line of each one's beginning begins, in bytes.
    begin_at: Vec<usize>,
    /// The number of the last sound entry.
    last_seq: Option<u64>,
    sound_bytes: usize,
}

/// Folds a journal line by line.
fn folded(path: &Path) -> Result<Folded, JournalError> {
    let mut lines = match open_bounded(path) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.is_not_found() => return Ok(Folded::default()),
        Err(error) => return Err(error.into()),
    };
    let (mut folded, mut reading, mut line) = (Folded::default(), Reading::default(), Vec::new());
    loop {
        line.clear();
        let read = lines.read_until(b'\n', &mut line);
        if read.map_err(|source| FsError { action: "read", path: path.to_owned(), source })? == 0 {
            break;
        }
        let line_at = reading.bytes;
        let Some(entry) = reading.line(&line).map_err(|why| unreadable(path, &why))? else { continue };
        fold_next(&mut folded.known, &entry);
        folded.begin_at.resize(folded.known.len(), line_at);
        folded.last_seq = Some(entry.seq);
        if matches!(entry.line, Line::Finished { .. }) {
            forget_units(&mut folded.known);
        }
    }
    folded.sound_bytes = reading.sound_bytes;
    Ok(folded)
}

/// Opens it, if it may be ours by its size.
fn open_bounded(path: &Path) -> Result<File, FsError> {
    let opened = File::open(path).and_then(|file| {
        let bytes = file.metadata()?.len();
        let too_large = || format!("it has {bytes} bytes, and {BYTES_MAX} are the most that is read");
        if bytes > BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, too_large()));
        }
        Ok(file)
    });
    opened.map_err(|source| FsError { action: "read", path: path.to_owned(), source })
}

fn unreadable(path: &Path, why: &ParseError) -> JournalError {
    match *why {
        ParseError::Newer(version) => JournalError::Newer { path: path.to_owned(), version },
        ParseError::Damaged(line) => JournalError::Damaged { path: path.to_owned(), line },
    }
}

/// The journal in the hands of the one process that holds the activation lock.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    boot: BootId,
    next_seq: u64,
    reserve: PathBuf,
}

impl Journal {
    /// Opens it, cuts a torn tail, drops old activations where it is large, and returns what it says.
    pub fn open(path: &Path, boot: BootId) -> Result<(Self, Vec<Activation>), JournalError> {
        let state = path.parent().unwrap_or(Path::new("/"));
        fs::make_dir(state)?;
        let mut folded = folded(path)?;
        let file = fs::open_append(path)?;
        cut(&file, path, folded.sound_bytes)?;
        let mut journal = Self {
            path: path.to_owned(),
            file,
            boot,
            next_seq: folded.last_seq.map_or(1, |seq| seq + 1),
            reserve: state.join("reserve"),
        };
        if folded.sound_bytes > ROTATE_AT_BYTES {
            journal.rotate(&folded)?;
            folded = self::folded(path)?;
        }
        journal.keep_reserve();
        Ok((journal, folded.known))
    }

    /// This boot, as every line says it.
    pub fn boot(&self) -> &BootId {
        &self.boot
    }

    /// Writes the line and returns when it is on disk.
    pub fn append(&mut self, id: &ActivationId, at_ms: u64, line: Line) -> Result<Entry, JournalError> {
        let entry = Entry {
            v: JOURNAL_VERSION,
            seq: self.next_seq,
            at_ms,
            boot: self.boot.clone(),
            id: id.clone(),
            line,
        };
        self.write(&render(&entry))?;
        self.next_seq += 1;
        Ok(entry)
    }

    fn write(&mut self, line: &[u8]) -> Result<(), JournalError> {
        let before = self.len()?;
        let mut done = fs::append_synced(&mut self.file, &self.path, line);
        if done.as_ref().is_err_and(FsError::is_no_space) {
            // Half a line may be there; it goes, and so does what was kept for this moment.
            cut(&self.file, &self.path, before)?;
            fs::remove(&self.reserve)?;
            done = fs::append_synced(&mut self.file, &self.path, line);
        }
        if done.is_err() {
            cut(&self.file, &self.path, before)?;
        }
        Ok(done?)
    }

    fn len(&self) -> Result<usize, JournalError> {
        let len = self.file.metadata().map_err(|source| self.failed("stat", source))?.len();
        Ok(usize::try_from(len).unwrap_or(usize::MAX))
    }

    fn failed(&self, action: &'static str, source: std::io::Error) -> FsError {
        FsError { action, path: self.path.clone(), source }
    }

    /// Leaves the lines from the first activation on that is to be kept, as they are: to read them as entries would take ten
    /// times their size in memory.
    fn rotate(&mut self, folded: &Folded) -> Result<(), JournalError> {
        let from = keep_from(folded);
        let mut kept = vec![0; folded.sound_bytes.saturating_sub(from)];
        let read = self.file.read_exact_at(&mut kept, from as u64);
        read.map_err(|source| self.failed("read", source))?;
        fs::write_atomic(&self.path, &kept)?;
        self.file = fs::open_append(&self.path)?;
        Ok(())
    }

    /// Best effort: without it a full disk costs the lines of a rescue, never the rescue.
    fn keep_reserve(&self) {
        if !self.reserve.exists() {
            let _ = fs::write_atomic(&self.reserve, &vec![b'.'; RESERVE_BYTES]);
        }
    }
}

/// Where the first line begins that a rotation keeps: an activation's beginning, and never behind a pending one's.
fn keep_from(folded: &Folded) -> usize {
    let begun = folded.known.iter().zip(&folded.begin_at);
    let kept = begun.filter(|(activation, begin_at)| {
        activation.is_pending() || folded.sound_bytes - **begin_at <= ROTATE_TO_BYTES
    });
    kept.map(|(_, begin_at)| *begin_at).min().unwrap_or(folded.sound_bytes)
}

fn cut(file: &File, path: &Path, bytes: usize) -> Result<(), FsError> {
    framed::cut(file, path, bytes as u64)
}

#[cfg(test)]
#[path = "journal_tests.rs"]
pub(crate) mod tests;

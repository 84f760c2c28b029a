//! `outbox.jsonl`: what happened on this host, in order, each line on the disk before [`Outbox::append`] returns, until a
//! receiver has acknowledged it and for a while after that.
//!
//! One task owns it: it appends, *then saves the state*, and only then sends what [`Outbox::unsent`] gives. So what a
//! crash leaves behind the saved state was neither acted upon nor sent; it is dropped at the next start, and its numbers
//! are given again. Delivery is at least once: the receiver knows a repeat by its number (lesson 24).
//!
//! It is bounded. When it is full, what was acknowledged goes first, oldest first, then unsent progress; an unsent verdict
//! never goes, nor the newest word of where the host stands: then the file is larger than its limit, and
//! [`Room::Stretched`] says so. Where nobody acknowledges ([`Receiver::Nobody`]) it is a history, of which the oldest goes.
//!
//! What is gone before anybody had it is said: what is sent has a record in its place, and the owner has the host's state
//! told after it ([`Outbox::owes_state`]), so that whoever follows can go on.
//!
//! A tail without its newline was torn, and is cut. A whole line that was altered on the disk is left out and counted,
//! unlike in the activation journal: nothing is decided by this file, so damage costs the report and nothing else.

mod disk;
mod line;
mod tidy;

use std::path::{Path, PathBuf};

use nixfleet_core::host::Record;
use nixfleet_sys::fs::FsError;

pub use disk::{Disk, RealDisk};
use line::{Kept, Line, Log, Sent};

/// How much is kept, and for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From this size of the file on it is tidied, in bytes. Half of it is for records; the other half is the room that
    /// is appended to until it is tidied again.
    pub file_bytes_max: u64,
    /// Who acknowledges.
    pub receiver: Receiver,
}

/// Who acknowledges what is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receiver {
    /// A control plane.
    Acknowledges,
    /// Nobody: the source is a folder or a web server.
    Nobody,
}

impl Limits {
    /// For `receiver`. A host that fetches, switches and proves one release a day makes about 30 records a day, which take 5 KB.
    ///
    /// A control plane may be away for long: 8 MiB hold 2,000 to 20,000 records. Where nobody asks for them, 1 MiB is a
    /// history of a hundred days at least, and as much memory, in which the lines are kept.
    pub fn of(receiver: Receiver) -> Self {
        let file_bytes_max = match receiver {
            Receiver::Acknowledges => 8 << 20,
            Receiver::Nobody => 1 << 20,
        };
        Self { file_bytes_max, receiver }
    }

    /// What the records may take.
    fn live_bytes_max(self) -> u64 {
        self.file_bytes_max / 2
    }
}

/// Why the outbox cannot be used. Nothing that was in it is lost by that.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FsError),
    /// A line is sound, and this program cannot read it: a newer one wrote it.
    #[error("line {line} of the outbox `{path}` was written by a newer agent")]
    Newer {
        /// The outbox.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// Records are not in the order of their numbers.
    #[error("record {got} cannot follow record {after}")]
    OutOfOrder {
        /// Its number.
        got: u64,
        /// The one before it.
        after: u64,
    },
}

impl OutboxError {
    /// Whether the cause was a full disk or quota.
    pub fn is_no_space(&self) -> bool {
        match self {
            Self::File(error) => error.is_no_space(),
            Self::Newer { .. } | Self::OutOfOrder { .. } => false,
        }
    }
}

/// What was found when it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Found {
    /// Lines that were altered on the disk and are left out.
    pub damaged_lines: usize,
    /// Records of events after the saved state, which were never acted upon: dropped.
    pub unsaved: usize,
    /// How many of the newest records before the saved state are not there.
    pub missing: u64,
}

/// What became of what was in it when something was written.
#[derive(Debug)]
#[must_use = "a report that was dropped, or an outbox that outgrows its limit, is for people to know"]
pub struct Written {
    /// Progress reports that were dropped before anybody had them.
    pub dropped: usize,
    /// How it stands with the room.
    pub room: Room,
}

/// How it stands with the room.
#[derive(Debug)]
pub enum Room {
    /// There is enough.
    Enough,
    /// What may not be dropped takes more than it should.
    Stretched {
        /// That much, in bytes.
        bytes: u64,
        /// What it should take at most.
        bytes_max: u64,
    },
    /// It is too large and could not be tidied; what was written is written.
    NotTidied(FsError),
}

/// The outbox in the hands of the one task that owns it.
#[derive(Debug)]
pub struct Outbox<D: Disk = RealDisk> {
    disk: D,
    path: PathBuf,
    limits: Limits,
    log: Log,
    /// The newest number that was ever appended.
    newest: u64,
    /// The length of the file; `None` after an error that leaves it unknown.
    file_bytes: Option<u64>,
    tidy_at_bytes: u64,
}

impl Outbox {
    /// Opens the outbox of a host whose saved state has the number `saved`, making it where there is none.
    pub fn open(path: &Path, saved: u64, limits: Limits) -> Result<(Self, Found), OutboxError> {
        Self::open_on(RealDisk, path, saved, limits)
    }

    /// The records in an outbox, oldest first, for whoever only looks; where some are missing between two, one that says
    /// so. May be called while another process owns it.
    pub fn history(path: &Path) -> Result<Vec<Record>, OutboxError> {
        Self::read(&RealDisk.read(path)?).map_err(|line| newer(path, line))
    }

    /// The same from its bytes. The error is the number, from 1, of a line that a newer program wrote.
    pub fn read(bytes: &[u8]) -> Result<Vec<Record>, usize> {
        let read = Log::read(bytes)?;
        let (first, newest) = (read.log.records.first().map_or(0, |first| first.seq), read.log.newest());
        Ok(read.log.from(first.saturating_sub(1), newest).map(|sent| sent.record()).collect())
    }
}

/// Where the file ends without these records; `None` if they are not its last lines.
fn end_without(bytes: &[u8], sound_bytes: u64, unsaved: &[Kept]) -> Option<u64> {
    let tail: Vec<u8> = unsaved.iter().flat_map(|record| record.line.iter().copied()).collect();
    let sound = bytes.get(..usize::try_from(sound_bytes).ok()?)?;
    sound.ends_with(&tail).then(|| sound_bytes - tail.len() as u64)
}

fn newer(path: &Path, line: usize) -> OutboxError {
    OutboxError::Newer { path: path.to_owned(), line }
}

impl<D: Disk> Outbox<D> {
    /// Like [`Outbox::open`], on `disk`.
    pub fn open_on(disk: D, path: &Path, saved: u64, limits: Limits) -> Result<(Self, Found), OutboxError> {
        let mut outbox = Self {
            disk,
            path: path.to_owned(),
            limits,
            log: Log::default(),
            newest: saved,
            file_bytes: None,
            tidy_at_bytes: limits.file_bytes_max,
        };
        let found = outbox.load()?;
        Ok((outbox, found))
    }

    /// Reads the file, and leaves in it what is sound and belongs to the saved state.
    fn load(&mut self) -> Result<Found, OutboxError> {
        let bytes = self.disk.read(&self.path)?;
        let read = Log::read(&bytes).map_err(|line| newer(&self.path, line))?;
        self.log = read.log;
        // An acknowledgement of numbers that will be given again must not stay either.
        let is_ahead = self.log.acknowledged > self.newest;
        let unsaved = self.log.drop_after(self.newest);
        let is_whole = !is_ahead && read.damaged_lines == 0;
        let end = end_without(&bytes, read.sound_bytes, &unsaved).filter(|_| is_whole);
        let sound_bytes = if let Some(end) = end {
            // Needs no room, which a full disk would not give.
            self.disk.cut(&self.path, end)?;
            end
        } else {
            let bytes = self.log.to_bytes();
            self.disk.replace(&self.path, &bytes)?;
            bytes.len() as u64
        };
        self.file_bytes = Some(sound_bytes);
        let missing = self.newest.saturating_sub(self.log.newest().max(self.log.acknowledged));
        Ok(Found { damaged_lines: read.damaged_lines, unsaved: unsaved.len(), missing })
    }

    /// The length of the file, which is read again after an error that left it unknown.
    fn sure(&mut self) -> Result<u64, OutboxError> {
        if self.file_bytes.is_none() {
            self.load()?;
        }
        Ok(self.file_bytes.unwrap_or_default())
    }

    /// Appends those that are not there yet, and returns when they are on the disk. After an error none of them is there;
    /// the same call may be made again.
    pub fn append(&mut self, records: &[Record]) -> Result<Written, OutboxError> {
        let new = records.iter().filter(|record| record.seq > self.newest);
        let kept: Vec<Kept> = new.map(Kept::new).collect();
        let mut after = self.newest;
        for record in &kept {
            if record.seq <= after {
                return Err(OutboxError::OutOfOrder { got: record.seq, after });
            }
            after = record.seq;
        }
        let bytes: Vec<u8> = kept.iter().flat_map(|record| record.line.iter().copied()).collect();
        self.write(&bytes)?;
        self.newest = after;
        self.log.records.extend(kept);
        Ok(self.tidy_if_large())
    }

    /// The oldest records that nobody has acknowledged, in order: at most `count_max` of them, and no more than take
    /// `bytes_max` of JSON, but always one if there is one. In the place of those that are gone is one that says so, so
    /// that every number after [`Outbox::acknowledged`] is accounted for.
    pub fn unsent(&self, count_max: usize, bytes_max: usize) -> Vec<Record> {
        let mut bytes = 0usize;
        let fits = |sent: &Sent<'_>| {
            let is_first = bytes == 0;
            bytes = bytes.saturating_add(sent.bytes());
            is_first || bytes <= bytes_max
        };
        let sent = self.log.from(self.acknowledged(), self.newest).take(count_max).take_while(fits);
        sent.map(|sent| sent.record()).collect()
    }

    /// Whether the receiver cannot know where the host stands from what is here: reports are gone that it does not have,
    /// and no later one tells the state. Then one that does ([`Event::StateTold`]) is to be appended before anything is
    /// sent.
    ///
    /// [`Event::StateTold`]: nixfleet_core::host::Event::StateTold
    pub fn owes_state(&self) -> bool {
        match self.limits.receiver {
            Receiver::Acknowledges => self.log.owes_state(self.newest),
            Receiver::Nobody => false,
        }
    }

    /// Notes that the receiver has everything up to `seq`, and returns when that is on the disk. A number that was
    /// acknowledged before, or that nothing has yet, is as good as the nearest that can be.
    pub fn acknowledge(&mut self, seq: u64) -> Result<Written, OutboxError> {
        let seq = seq.min(self.newest);
        if seq > self.log.acknowledged {
            self.note_acknowledged(seq)?;
        }
        Ok(self.tidy_if_large())
    }

    /// Forgets acknowledgements from `seq` on: a receiver that lost what it had is sent what is still kept.
    pub fn send_again_from(&mut self, seq: u64) -> Result<Written, OutboxError> {
        let before = seq.saturating_sub(1);
        if before < self.log.acknowledged {
            self.note_acknowledged(before)?;
        }
        Ok(self.tidy_if_large())
    }

    fn note_acknowledged(&mut self, seq: u64) -> Result<(), OutboxError> {
        self.write(&Line::Acknowledged { seq }.render())?;
        self.log.acknowledged = seq;
        Ok(())
    }

    /// The oldest number from which on every record is kept, up to the newest; one more than the newest if none is.
    pub fn whole_from(&self) -> u64 {
        let mut from = self.newest + 1;
        for record in self.log.records.iter().rev() {
            if record.seq + 1 != from {
                break;
            }
            from = record.seq;
        }
        from
    }

    /// Up to which number the receiver has everything.
    pub fn acknowledged(&self) -> u64 {
        self.log.acknowledged
    }

    /// The newest number that was ever appended, or that of the state that it was opened for.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), OutboxError> {
        let before = self.sure()?;
        if bytes.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.disk.append(&self.path, bytes) {
            // A part of it may be there.
            self.file_bytes = self.disk.cut(&self.path, before).is_ok().then_some(before);
            return Err(error.into());
        }
        self.file_bytes = Some(before + bytes.len() as u64);
        Ok(())
    }

    fn tidy_if_large(&mut self) -> Written {
        if self.file_bytes.is_some_and(|bytes| bytes <= self.tidy_at_bytes) {
            return Written { dropped: 0, room: Room::Enough };
        }
        let (log, dropped) = tidy::tidied(&self.log, self.limits);
        let bytes = log.to_bytes();
        if let Err(error) = self.disk.replace(&self.path, &bytes) {
            // The old file or the new one: either has all that may not be lost.
            self.file_bytes = None;
            return Written { dropped: 0, room: Room::NotTidied(error) };
        }
        let (now_bytes, bytes_max) = (bytes.len() as u64, self.limits.live_bytes_max());
        (self.log, self.file_bytes) = (log, Some(now_bytes));
        self.tidy_at_bytes = self.limits.file_bytes_max.max(now_bytes + bytes_max);
        let is_stretched = now_bytes > self.limits.file_bytes_max;
        let stretched = Room::Stretched { bytes: now_bytes, bytes_max: self.limits.file_bytes_max };
        Written { dropped, room: if is_stretched { stretched } else { Room::Enough } }
    }
}

#[cfg(test)]
#[path = "outbox/tests.rs"]
mod tests;

#[cfg(test)]
#[path = "outbox/followed.rs"]
mod followed;

#[cfg(test)]
#[path = "outbox/model.rs"]
mod model;

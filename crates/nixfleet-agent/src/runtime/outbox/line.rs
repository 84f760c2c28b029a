//! The lines of an outbox, and what they say together.
//!
//! A record that is gone leaves no line: its number is missing, and that is said to the receiver ([`Log::from`]).

use nixfleet_core::host::event::Weight;
use nixfleet_core::host::follow::RECORD_FORMAT;
use nixfleet_core::host::{Event, Record, UpMs};
use nixfleet_core::model::time::UnixMs;
use serde::{Deserialize, Serialize};

use crate::framed;

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Line {
    /// Something happened.
    Record(Box<Record>),
    /// The receiver has everything up to this number; the newest such line counts.
    Acknowledged { seq: u64 },
}

impl Line {
    pub(super) fn render(&self) -> Vec<u8> {
        framed::frame(&serde_json::to_vec(self).expect("texts and numbers are always JSON"))
    }

    /// The line of this JSON; `None` if this program cannot read it. A record's format is looked at first.
    fn parse(json: &[u8]) -> Option<Self> {
        // As it was rendered: the checksum says that it was not altered since.
        match json.strip_prefix(RECORD).and_then(|rest| rest.strip_suffix(b"}")) {
            Some(record) => Record::from_json(record).ok().map(|record| Self::Record(Box::new(record))),
            None => serde_json::from_slice(json).ok(),
        }
    }
}

/// What the JSON of a record's line begins with.
const RECORD: &[u8] = br#"{"record":"#;

/// A record as its line: a tenth of the memory that the record would take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) seq: u64,
    pub(super) weight: Weight,
    /// Whether it says where the host stands, which mends what was lost before it.
    pub(super) tells_state: bool,
    pub(super) line: Box<[u8]>,
}

impl Kept {
    pub(super) fn new(record: &Record) -> Self {
        let line = Line::Record(Box::new(record.clone())).render().into_boxed_slice();
        let tells_state = matches!(record.fact, Event::StateTold { .. });
        Self { seq: record.seq, weight: record.fact.weight(), tells_state, line }
    }

    pub(super) fn record(&self) -> Record {
        match framed::unframe(&self.line).and_then(Line::parse) {
            Some(Line::Record(record)) => *record,
            Some(Line::Acknowledged { .. }) | None => {
                unreachable!("it was made from a record, or read as one")
            }
        }
    }
}

/// What the lines say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Log {
    /// In the order of their numbers, which rise.
    pub(super) records: Vec<Kept>,
    pub(super) acknowledged: u64,
}

/// A log that was read.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) log: Log,
    /// Where the last whole line ends; what follows is a torn tail.
    pub(super) sound_bytes: u64,
    /// Whole lines that were altered, and records out of order.
    pub(super) damaged_lines: usize,
}

impl Log {
    /// Reads the bytes of a file. The error is the number, from 1, of a sound line that this program cannot read.
    pub(super) fn read(bytes: &[u8]) -> Result<Read, usize> {
        let mut read = Read { log: Self::default(), sound_bytes: 0, damaged_lines: 0 };
        for (number, line) in framed::lines(bytes).enumerate() {
            // Only the last can lack its newline, and only an append that was cut off leaves it so.
            if !line.ends_with(b"\n") {
                break;
            }
            read.sound_bytes += line.len() as u64;
            let Some(json) = framed::unframe(line) else {
                read.damaged_lines += 1;
                continue;
            };
            let in_order = match Line::parse(json).ok_or(number + 1)? {
                Line::Record(record) if record.seq > read.log.newest() => {
                    read.log.records.push(Kept::new(&record));
                    true
                }
                Line::Record(_) => false,
                Line::Acknowledged { seq } => {
                    read.log.acknowledged = seq;
                    true
                }
            };
            read.damaged_lines += usize::from(!in_order);
        }
        Ok(read)
    }

    pub(super) fn newest(&self) -> u64 {
        self.records.last().map_or(0, |record| record.seq)
    }

    /// Takes the records after `seq` out.
    pub(super) fn drop_after(&mut self, seq: u64) -> Vec<Kept> {
        // Nothing is acknowledged that was not sent, and nothing is sent before it is saved.
        self.acknowledged = self.acknowledged.min(seq);
        self.records.split_off(self.records.partition_point(|record| record.seq <= seq))
    }

    /// The records after `seq`, up to `newest`; where some are missing, a record that says so.
    pub(super) fn from(&self, seq: u64, newest: u64) -> impl Iterator<Item = Sent<'_>> {
        let kept = &self.records[self.records.partition_point(|record| record.seq <= seq)..];
        let mut before = seq;
        let rows = kept.iter().flat_map(move |record| {
            let gap = Gap::between(before, record.seq);
            before = record.seq;
            [gap.map(|gap| Sent::Lost(gap, record)), Some(Sent::Kept(record))]
        });
        let last = kept.last().or(self.records.last());
        let end = Gap::between(last.map_or(seq, |record| record.seq.max(seq)), newest.saturating_add(1));
        rows.flatten().chain(end.map(|gap| last.map_or(Sent::AllLost(gap), |near| Sent::Lost(gap, near))))
    }

    /// Whether records after `acknowledged` are missing, and no record after them says where the host stands.
    pub(super) fn owes_state(&self, newest: u64) -> bool {
        let told = self.records.iter().rfind(|record| record.tells_state).map_or(0, |record| record.seq);
        let from = self.acknowledged.max(told);
        let there = self.records.len() - self.records.partition_point(|record| record.seq <= from);
        (there as u64) < newest.saturating_sub(from)
    }

    /// How many bytes its records take.
    pub(super) fn bytes(&self) -> u64 {
        self.records.iter().map(|record| record.line.len() as u64).sum()
    }

    /// A file that says the same.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = match self.acknowledged {
            0 => Vec::new(),
            seq => Line::Acknowledged { seq }.render(),
        };
        // In one piece: a log is large, and what an allocator gave for a part of it stays taken.
        bytes.reserve_exact(self.records.iter().map(|record| record.line.len()).sum());
        self.records.iter().for_each(|record| bytes.extend_from_slice(&record.line));
        bytes
    }
}

/// Numbers that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    from: u64,
    to: u64,
}

impl Gap {
    /// The numbers between two.
    fn between(before: u64, after: u64) -> Option<Self> {
        (after > before.saturating_add(1)).then(|| Self { from: before + 1, to: after - 1 })
    }
}

/// What is sent.
pub(super) enum Sent<'a> {
    /// A record.
    Kept(&'a Kept),
    /// That some are missing, near this one.
    Lost(Gap, &'a Kept),
    /// That all are.
    AllLost(Gap),
}

impl Sent<'_> {
    /// What it takes, in bytes of JSON, with some room to spare.
    pub(super) fn bytes(&self) -> usize {
        /// A record with three numbers.
        const LOST_BYTES: usize = 160;
        match self {
            Self::Kept(kept) => kept.line.len(),
            Self::Lost(..) | Self::AllLost(_) => LOST_BYTES,
        }
    }

    /// As a record. One that tells a loss has the times of the record that is near it.
    pub(super) fn record(&self) -> Record {
        match self {
            Self::Kept(kept) => kept.record(),
            Self::Lost(gap, near) => {
                let Record { at_ms, up_ms, .. } = near.record();
                gap.record(at_ms, up_ms)
            }
            Self::AllLost(gap) => gap.record(UnixMs::default(), UpMs::default()),
        }
    }
}

impl Gap {
    fn record(self, at_ms: UnixMs, up_ms: UpMs) -> Record {
        let Self { from, to } = self;
        Record { v: RECORD_FORMAT, seq: to, at_ms, up_ms, fact: Event::ReportsLost { from } }
    }
}

//! The lines of an outbox, and what they say together.

use nixfleet_core::host::Record;
use nixfleet_core::host::event::Weight;
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
}

/// A record as its line: a tenth of the memory that the record would take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) seq: u64,
    pub(super) weight: Weight,
    pub(super) line: Box<[u8]>,
}

impl Kept {
    pub(super) fn new(record: &Record) -> Self {
        let line = Line::Record(Box::new(record.clone())).render().into_boxed_slice();
        Self { seq: record.seq, weight: record.fact.weight(), line }
    }

    pub(super) fn record(&self) -> Record {
        let line = framed::unframe(&self.line).and_then(|json| serde_json::from_slice(json).ok());
        match line {
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
    /// Where the last sound line ends; what follows is a torn tail.
    pub(super) sound_bytes: u64,
    /// Unsound lines before that, and records out of order.
    pub(super) damaged_lines: usize,
}

impl Log {
    /// Reads the bytes of a file. The error is the number, from 1, of a sound line that this program cannot read.
    pub(super) fn read(bytes: &[u8]) -> Result<Read, usize> {
        let mut read = Read { log: Self::default(), sound_bytes: 0, damaged_lines: 0 };
        let (mut at, mut unsound) = (0, 0);
        for (number, line) in framed::lines(bytes).enumerate() {
            at += line.len() as u64;
            let Some(json) = framed::unframe(line) else {
                unsound += 1;
                continue;
            };
            let in_order = match serde_json::from_slice(json).map_err(|_| number + 1)? {
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
            read.damaged_lines += unsound + usize::from(!in_order);
            (read.sound_bytes, unsound) = (at, 0);
        }
        Ok(read)
    }

    fn newest(&self) -> u64 {
        self.records.last().map_or(0, |record| record.seq)
    }

    /// Takes the records after `seq` out.
    pub(super) fn drop_after(&mut self, seq: u64) -> Vec<Kept> {
        // Nothing is acknowledged that was not sent, and nothing is sent before it is saved.
        self.acknowledged = self.acknowledged.min(seq);
        self.records.split_off(self.records.partition_point(|record| record.seq <= seq))
    }

    /// How many bytes its records take.
    pub(super) fn bytes(&self) -> u64 {
        self.records.iter().map(|record| record.line.len() as u64).sum()
    }

    /// A file that says the same.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let acknowledged = match self.acknowledged {
            0 => Vec::new(),
            seq => Line::Acknowledged { seq }.render(),
        };
        let records = self.records.iter().flat_map(|record| record.line.iter().copied());
        acknowledged.into_iter().chain(records).collect()
    }
}

//! The outbox on a disk that loses power, or is full, within any write: what must still be there afterwards is kept in a
//! model that knows no file.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use nixfleet_core::host::Event;
use nixfleet_core::host::event::Weight;
use proptest::prelude::*;

use super::tests::{kept, numbers, record};
use super::*;
use crate::framed;

/// What happens to one write.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// The power goes. Of what is being written a part is there, or all of it.
    Power { percent: u8, rest: Rest },
    /// The disk is full; a part was written.
    Full { percent: u8 },
}

/// What a file system leaves where data did not arrive.
#[derive(Debug, Clone, Copy)]
enum Rest {
    Missing,
    Zeros,
}

#[derive(Debug, Default)]
struct Platter {
    bytes: Vec<u8>,
    /// So many writes go well before the fault.
    fault: Option<(u8, Fault)>,
    is_off: bool,
    replaced: u32,
}

/// A disk that outlives the power.
#[derive(Debug, Clone, Default)]
struct Fake(Rc<RefCell<Platter>>);

fn failed(kind: io::ErrorKind) -> FsError {
    FsError { action: "write", path: "outbox".into(), source: kind.into() }
}

impl Fake {
    /// The fault of this write, if it is its turn.
    fn next_fault(&self) -> Result<Option<Fault>, FsError> {
        let mut platter = self.0.borrow_mut();
        if platter.is_off {
            return Err(failed(io::ErrorKind::BrokenPipe));
        }
        match platter.fault {
            Some((0, fault)) => {
                platter.fault = None;
                platter.is_off = matches!(fault, Fault::Power { .. });
                Ok(Some(fault))
            }
            Some((left, fault)) => {
                platter.fault = Some((left - 1, fault));
                Ok(None)
            }
            None => Ok(None),
        }
    }

    fn write(&self, bytes: &[u8]) {
        self.0.borrow_mut().bytes.extend_from_slice(bytes);
    }
}

fn part(bytes: &[u8], percent: u8) -> &[u8] {
    &bytes[..bytes.len() * usize::from(percent) / 100]
}

impl Disk for Fake {
    fn read(&self, _path: &Path) -> Result<Vec<u8>, FsError> {
        if self.0.borrow().is_off {
            return Err(failed(io::ErrorKind::BrokenPipe));
        }
        Ok(self.0.borrow().bytes.clone())
    }

    fn append(&mut self, _path: &Path, bytes: &[u8]) -> Result<(), FsError> {
        match self.next_fault()? {
            None => {
                self.write(bytes);
                Ok(())
            }
            Some(Fault::Power { percent, rest }) => {
                let arrived = part(bytes, percent);
                self.write(arrived);
                match rest {
                    Rest::Missing => {}
                    Rest::Zeros => self.write(&vec![0; bytes.len() - arrived.len()]),
                }
                Err(failed(io::ErrorKind::BrokenPipe))
            }
            Some(Fault::Full { percent }) => {
                self.write(part(bytes, percent));
                Err(failed(io::ErrorKind::StorageFull))
            }
        }
    }

    fn cut(&mut self, _path: &Path, bytes: u64) -> Result<(), FsError> {
        let cut = || self.0.borrow_mut().bytes.truncate(usize::try_from(bytes).expect("small"));
        match self.next_fault()? {
            None => {
                cut();
                Ok(())
            }
            Some(Fault::Power { percent, .. }) => {
                if percent >= 50 {
                    cut();
                }
                Err(failed(io::ErrorKind::BrokenPipe))
            }
            Some(Fault::Full { .. }) => Err(failed(io::ErrorKind::StorageFull)),
        }
    }

    fn replace(&mut self, _path: &Path, bytes: &[u8]) -> Result<(), FsError> {
        let fault = self.next_fault()?;
        let mut platter = self.0.borrow_mut();
        match fault {
            None => {
                platter.bytes = bytes.to_vec();
                platter.replaced += 1;
                Ok(())
            }
            // The rename is lost with the folder that was not synced, or not: the old file or the new, whole. An error
            // of the folder's sync, too, leaves either.
            Some(Fault::Power { percent, .. } | Fault::Full { percent }) => {
                if percent >= 50 {
                    platter.bytes = bytes.to_vec();
                    platter.replaced += 1;
                }
                let full = matches!(fault, Some(Fault::Full { .. }));
                Err(failed(if full { io::ErrorKind::StorageFull } else { io::ErrorKind::BrokenPipe }))
            }
        }
    }
}

/// What is done to the outbox.
#[derive(Debug, Clone)]
enum Act {
    /// So many records, and then the state is saved, if the power stays.
    Append { count: u8, is_saved: bool },
    /// The receiver acknowledges so many of what it was sent.
    Send { count: u8 },
    /// The receiver lost the newest so many.
    Again { count: u8 },
    /// The next write but so many fails.
    Fail { after: u8, fault: Fault },
    /// The agent is killed.
    Restart,
}

fn any_fault() -> impl Strategy<Value = Fault> {
    let rest = prop_oneof![Just(Rest::Missing), Just(Rest::Zeros)];
    prop_oneof![
        (0u8..=100, rest).prop_map(|(percent, rest)| Fault::Power { percent, rest }),
        (0u8..100).prop_map(|percent| Fault::Full { percent }),
    ]
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (1u8..5, prop::bool::weighted(0.8)).prop_map(|(count, is_saved)| Act::Append { count, is_saved }),
        3 => (0u8..8).prop_map(|count| Act::Send { count }),
        1 => (0u8..4).prop_map(|count| Act::Again { count }),
        3 => (0u8..4, any_fault()).prop_map(|(after, fault)| Act::Fail { after, fault }),
        1 => Just(Act::Restart),
    ]
}

/// What the outbox promised.
struct Model {
    disk: Fake,
    outbox: Outbox<Fake>,
    /// What was appended and saved, by its number.
    promised: BTreeMap<u64, Record>,
    saved: u64,
    /// Acknowledged for sure up to here; and up to there perhaps, or once.
    acknowledged: u64,
    perhaps: u64,
    /// Tells contents with the same number apart.
    version: u32,
}

const LIMITS: Limits = Limits { file_bytes_max: 3_000, receiver: Receiver::Acknowledges };

impl Model {
    fn new() -> Self {
        let disk = Fake::default();
        let (outbox, _) = open(&disk, 0);
        let promised = BTreeMap::new();
        Self { disk, outbox, promised, saved: 0, acknowledged: 0, perhaps: 0, version: 0 }
    }

    fn does(&mut self, act: &Act) {
        match act {
            Act::Append { count, is_saved } => self.appends(*count, *is_saved),
            Act::Send { count } => self.sends(*count),
            Act::Again { count } => self.sends_again(*count),
            Act::Fail { after, fault } => self.disk.0.borrow_mut().fault = Some((*after, *fault)),
            Act::Restart => self.restarts(),
        }
        if self.disk.0.borrow().is_off {
            self.restarts();
        }
        self.check();
    }

    fn fresh(&mut self, seq: u64) -> Record {
        self.version += 1;
        let fact = match record(seq).fact {
            Event::SourceFailed { why } => Event::SourceFailed { why: format!("{why}, {}", self.version) },
            Event::RetryAsked { by } => Event::RetryAsked { by: format!("{by}, {}", self.version) },
            other => other,
        };
        Record { fact, ..record(seq) }
    }

    fn appends(&mut self, count: u8, is_saved: bool) {
        let new: Vec<Record> = (1..=u64::from(count)).map(|n| self.fresh(self.saved + n)).collect();
        let mut written = self.outbox.append(&new);
        if written.is_err() && !self.disk.0.borrow().is_off {
            assert!(written.as_ref().is_err_and(OutboxError::is_no_space), "{written:?}");
            self.check();
            // There is room again, and the same is written once more.
            self.disk.0.borrow_mut().fault = None;
            written = self.outbox.append(&new);
            assert!(written.is_ok(), "{written:?}");
        }
        if written.is_err() {
            return;
        }
        if is_saved {
            self.saved += u64::from(count);
            self.promised.extend(new.into_iter().map(|record| (record.seq, record)));
        } else {
            self.restarts();
        }
    }

    fn sends(&mut self, count: u8) {
        let sent = self.outbox.unsent(usize::from(count), usize::MAX);
        let Some(last) = sent.last().map(|record| record.seq) else { return };
        self.perhaps = self.perhaps.max(last);
        if self.outbox.acknowledge(last).is_ok() {
            self.acknowledged = last;
        }
    }

    fn sends_again(&mut self, count: u8) {
        let from = self.outbox.acknowledged().saturating_sub(u64::from(count)) + 1;
        self.acknowledged = self.acknowledged.min(from - 1);
        self.perhaps = self.perhaps.max(self.outbox.acknowledged());
        // What was told once may be gone by now.
        let _ = self.outbox.send_again_from(from);
    }

    fn restarts(&mut self) {
        let mut platter = self.disk.0.borrow_mut();
        (platter.is_off, platter.fault) = (false, None);
        drop(platter);
        self.outbox = open(&self.disk, self.saved).0;
    }

    /// What was promised is there, in order, once, as it was; and what was acknowledged for sure is not sent again.
    fn check(&self) {
        let unsent = self.outbox.unsent(usize::MAX, usize::MAX);
        assert!(numbers(&unsent).is_sorted_by(|a, b| a < b), "{:?}", numbers(&unsent));
        let mut next = self.outbox.acknowledged() + 1;
        for record in &unsent {
            assert!(record.seq > self.acknowledged, "{} was acknowledged", record.seq);
            assert_eq!(record.first_seq(), next, "every number is accounted for, once");
            next = record.seq + 1;
            match record.fact {
                Event::ReportsLost { .. } => {}
                _ => assert_eq!(Some(record), self.promised.get(&record.seq), "what is sent was promised"),
            }
        }
        assert_eq!(next, self.saved + 1, "up to the newest");
        let is_lost = |record: &&Record| matches!(record.fact, Event::ReportsLost { .. });
        assert_eq!(self.outbox.owes_state(), unsent.iter().any(|record| is_lost(&record)));
        let may_lack_progress = self.disk.0.borrow().replaced > 0;
        for (seq, record) in self.promised.range(self.perhaps.max(self.acknowledged) + 1..) {
            let is_progress = record.fact.weight() == Weight::Progress;
            let there = unsent.iter().filter(|sent| !is_lost(sent)).any(|sent| sent.seq == *seq);
            assert!(there || (is_progress && may_lack_progress), "{seq} is lost");
        }
    }
}

fn open(disk: &Fake, saved: u64) -> (Outbox<Fake>, Found) {
    let opened = Outbox::open_on(disk.clone(), Path::new("outbox"), saved, LIMITS).expect("it opens");
    assert_eq!(opened.1.damaged_lines, 0, "a power cut tears the tail only");
    opened
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn whatever_write_the_power_goes_in_nothing_that_was_promised_is_lost(
        acts in prop::collection::vec(any_act(), 1..80),
    ) {
        let mut model = Model::new();
        for act in &acts {
            model.does(act);
        }
    }
}

#[test]
fn a_log_cut_at_any_byte_has_every_whole_line_before_it() {
    let whole: Vec<u8> = (1..=4).flat_map(|seq| Kept::new(&record(seq)).line.into_vec()).collect();
    for cut in 0..=whole.len() {
        let disk = Fake::default();
        disk.write(&whole[..cut]);
        let (mut outbox, found) = open(&disk, 4);
        let lines = framed::lines(&whole[..cut]).filter(|line| line.ends_with(b"\n")).count() as u64;
        assert_eq!(found, Found { missing: 4 - lines, ..Found::default() });
        assert_eq!(kept(&outbox), (1..=lines).collect::<Vec<_>>(), "cut at {cut}");
        assert!(outbox.append(&[record(5)]).is_ok());
        let (outbox, _) = open(&disk, 5);
        assert_eq!(kept(&outbox).last(), Some(&5), "what follows a cut is sound");
    }
}

/// Each write of a fixed story in turn, with each kind of end.
#[test]
fn the_power_may_go_in_every_write_of_a_story() {
    let story = |model: &mut Model| {
        for round in 0..12 {
            model.does(&Act::Append { count: 4, is_saved: true });
            model.does(&Act::Send { count: if round % 3 == 0 { 5 } else { 0 } });
        }
    };
    let mut cuts = 0;
    for after in 0..40 {
        for (percent, rest) in
            [0, 50, 99, 100].into_iter().flat_map(|p| [(p, Rest::Missing), (p, Rest::Zeros)])
        {
            let mut model = Model::new();
            model.does(&Act::Fail { after, fault: Fault::Power { percent, rest } });
            story(&mut model);
            cuts += u32::from(model.disk.0.borrow().fault.is_none());
        }
    }
    assert!(cuts > 100, "the power went in {cuts} stories");
}

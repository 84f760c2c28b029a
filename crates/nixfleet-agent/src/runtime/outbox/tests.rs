//! The outbox on a real disk: order, numbers, limits, torn tails and damage.

use nixfleet_core::host::follow::RECORD_FORMAT;
use nixfleet_core::host::{Event, HostState, UpMs};
use nixfleet_core::model::time::UnixMs;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::framed;
use crate::tools::tests::replay;

/// A verdict or, with an even number, progress.
pub(super) fn record(seq: u64) -> Record {
    let fact = match seq % 2 {
        0 => Event::SourceFailed { why: format!("reason {seq}") },
        _ => Event::RetryAsked { by: format!("person {seq}") },
    };
    Record { v: RECORD_FORMAT, seq, at_ms: UnixMs::new(seq).expect("in range"), up_ms: UpMs(seq), fact }
}

pub(super) fn records(range: impl IntoIterator<Item = u64>) -> Vec<Record> {
    range.into_iter().map(record).collect()
}

pub(super) fn numbers<'a>(records: impl IntoIterator<Item = &'a Record>) -> Vec<u64> {
    records.into_iter().map(|record| record.seq).collect()
}

fn limits(receiver: Receiver, file_bytes_max: u64) -> Limits {
    Limits { file_bytes_max, receiver }
}

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("outbox.jsonl")
    }

    fn open(&self, saved: u64) -> (Outbox, Found) {
        let limits = Limits::of(Receiver::Acknowledges);
        Outbox::open(&self.path(), saved, limits).expect("it opens")
    }
}

fn all<D: Disk>(outbox: &Outbox<D>) -> Vec<u64> {
    numbers(&outbox.unsent(usize::MAX, usize::MAX))
}

/// The same without those that say what is gone.
pub(super) fn kept<D: Disk>(outbox: &Outbox<D>) -> Vec<u64> {
    numbers(outbox.unsent(usize::MAX, usize::MAX).iter().filter(|record| !tells_loss(record)))
}

fn tells_loss(record: &Record) -> bool {
    matches!(record.fact, Event::ReportsLost { .. })
}

/// The first and the last number of each row of records that is gone.
fn losses<D: Disk>(outbox: &Outbox<D>) -> Vec<(u64, u64)> {
    let unsent = outbox.unsent(usize::MAX, usize::MAX);
    unsent.iter().filter(|record| tells_loss(record)).map(|record| (record.first_seq(), record.seq)).collect()
}

fn state_told(seq: u64) -> Record {
    let state = HostState { seq: seq - 1, ..HostState::default() };
    Record { fact: Event::StateTold { state: Box::new(state) }, ..record(seq) }
}

fn has_room(written: &Written) -> bool {
    written.dropped == 0 && matches!(written.room, Room::Enough)
}

#[test]
fn what_is_appended_is_sent_in_order_until_it_is_acknowledged_also_after_a_restart() {
    let place = Place::new();
    let (mut outbox, found) = place.open(0);
    assert_eq!((found, all(&outbox)), (Found::default(), vec![]));
    assert!(has_room(&outbox.append(&records(1..=5)).expect("room")));
    assert_eq!(outbox.unsent(usize::MAX, usize::MAX), records(1..=5));
    assert!(has_room(&outbox.acknowledge(2).expect("room")));
    assert_eq!(all(&outbox), [3, 4, 5]);
    let (mut outbox, found) = place.open(5);
    assert_eq!((found, all(&outbox), outbox.acknowledged()), (Found::default(), vec![3, 4, 5], 2));
    assert!(has_room(&outbox.acknowledge(1).expect("room")), "an older one comes late");
    assert!(has_room(&outbox.acknowledge(99).expect("room")), "a number that nothing has yet");
    assert_eq!((all(&outbox), outbox.acknowledged()), (vec![], 5));
    assert_eq!(Outbox::history(&place.path()).expect("readable"), records(1..=5), "history stays");
}

#[test]
fn a_batch_is_bounded_by_count_and_by_bytes_and_never_empty_while_there_is_something() {
    let place = Place::new();
    let (mut outbox, _) = place.open(0);
    assert!(has_room(&outbox.append(&records(1..=9)).expect("room")));
    assert_eq!(numbers(&outbox.unsent(2, usize::MAX)), [1, 2]);
    assert_eq!(numbers(&outbox.unsent(usize::MAX, 1)), [1]);
    let line = Kept::new(&record(1)).line.len();
    assert_eq!(outbox.unsent(usize::MAX, 3 * line + line / 2).len(), 3);
    assert_eq!(outbox.unsent(0, usize::MAX), []);
}

#[test]
fn what_was_appended_after_the_saved_state_is_dropped_and_its_numbers_are_given_again() {
    let place = Place::new();
    let (mut outbox, _) = place.open(0);
    assert!(has_room(&outbox.append(&records(1..=4)).expect("room")));
    let (mut outbox, found) = place.open(2);
    assert_eq!((found, all(&outbox)), (Found { unsaved: 2, ..Found::default() }, vec![1, 2]));
    let other = Record { fact: Event::Unheld { by: "ada".into() }, ..record(3) };
    assert!(has_room(&outbox.append(std::slice::from_ref(&other)).expect("room")));
    assert_eq!(place.open(3).0.unsent(9, usize::MAX)[2], other);
}

/// A disk that is full: nothing can be written, and only cutting needs no room.
#[derive(Clone, Copy)]
struct Full;

impl Disk for Full {
    fn read(&self, path: &Path) -> Result<Vec<u8>, FsError> {
        RealDisk.read(path)
    }

    fn append(&mut self, path: &Path, _: &[u8]) -> Result<(), FsError> {
        Err(no_space(path))
    }

    fn cut(&mut self, path: &Path, bytes: u64) -> Result<(), FsError> {
        RealDisk.cut(path, bytes)
    }

    fn replace(&mut self, path: &Path, _: &[u8]) -> Result<(), FsError> {
        Err(no_space(path))
    }
}

fn no_space(path: &Path) -> FsError {
    let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
    FsError { action: "write", path: path.to_owned(), source }
}

#[test]
fn an_agent_that_could_not_save_for_want_of_room_starts_again_although_there_is_none() {
    let place = Place::new();
    let (mut outbox, _) = place.open(0);
    assert!(has_room(&outbox.append(&records(1..=4)).expect("room")));
    let limits = Limits::of(Receiver::Nobody);
    let (outbox, found) = Outbox::open_on(Full, &place.path(), 2, limits).expect("it opens");
    assert_eq!((found, all(&outbox)), (Found { unsaved: 2, ..Found::default() }, vec![1, 2]));
    assert_eq!(Outbox::history(&place.path()).expect("readable"), records(1..=2));
}

#[test]
fn the_same_append_twice_appends_once_and_numbers_that_fall_are_refused() {
    let place = Place::new();
    let (mut outbox, _) = place.open(0);
    assert!(has_room(&outbox.append(&records(1..=3)).expect("room")));
    assert!(has_room(&outbox.append(&records(2..=4)).expect("room")));
    assert_eq!(all(&outbox), [1, 2, 3, 4]);
    let fallen = outbox.append(&records([6, 5]));
    assert!(matches!(fallen, Err(OutboxError::OutOfOrder { got: 5, after: 6 })), "{fallen:?}");
    assert_eq!(all(&place.open(4).0), [1, 2, 3, 4]);
}

#[test]
fn an_acknowledgement_of_numbers_that_a_restored_state_gives_again_does_not_hide_them() {
    let place = Place::new();
    let (mut outbox, _) = place.open(0);
    assert!(has_room(&outbox.append(&records(1..=9)).expect("room")));
    assert!(has_room(&outbox.acknowledge(9).expect("room")));
    let (mut outbox, _) = place.open(5);
    assert!(has_room(&outbox.append(&records(6..=7)).expect("room")));
    assert_eq!(all(&place.open(7).0), [6, 7]);
}

#[test]
fn a_receiver_that_lost_what_it_had_is_sent_it_again() {
    let place = Place::new();
    let (mut outbox, _) = place.open(0);
    assert!(has_room(&outbox.append(&records(1..=4)).expect("room")));
    assert!(has_room(&outbox.acknowledge(4).expect("room")));
    assert!(has_room(&outbox.send_again_from(3).expect("room")));
    assert_eq!(all(&outbox), [3, 4]);
    assert_eq!(all(&place.open(4).0), [3, 4]);
}

#[test]
fn when_it_is_full_what_was_told_goes_first_then_progress_and_never_a_verdict() {
    let place = Place::new();
    let line = Kept::new(&record(100)).line.len() as u64;
    let limits = limits(Receiver::Acknowledges, 40 * line);
    let (mut outbox, _) = Outbox::open(&place.path(), 100, limits).expect("it opens");
    assert!(has_room(&outbox.append(&records(101..=130)).expect("room")));
    assert!(has_room(&outbox.acknowledge(124).expect("room")));
    // The file is full: what was told suffices.
    assert!(has_room(&outbox.append(&records(131..=142)).expect("room")));
    assert_eq!(all(&outbox).first(), Some(&125), "nothing that nobody has went");
    let (mut dropped, mut is_stretched) = (0, false);
    for from in (143..=290).step_by(2) {
        let written = outbox.append(&records([from, from + 1])).expect("room");
        dropped += written.dropped;
        is_stretched |= matches!(written.room, Room::Stretched { .. });
    }
    let left = kept(&outbox);
    let verdicts: Vec<u64> = left.iter().copied().filter(|seq| seq % 2 == 1).collect();
    assert_eq!(verdicts, (125..=290).filter(|seq| seq % 2 == 1).collect::<Vec<_>>(), "every verdict");
    let progress = left.len() - verdicts.len();
    assert_eq!(progress + dropped, 83, "progress that is gone was counted");
    assert!(dropped > 0 && is_stretched, "{dropped} dropped");
}

#[test]
fn where_nobody_acknowledges_it_is_a_history_of_the_newest_that_does_not_grow() {
    let place = Place::new();
    let limits = limits(Receiver::Nobody, 20_000);
    let (mut outbox, _) = Outbox::open(&place.path(), 0, limits).expect("it opens");
    for seq in (1..=1_000).step_by(10) {
        assert!(has_room(&outbox.append(&records(seq..seq + 10)).expect("room")));
        assert!(place.path().metadata().expect("there").len() <= 20_000);
    }
    let history = Outbox::history(&place.path()).expect("readable");
    assert!(history.len() > 50, "{} are left", history.len());
    assert_eq!(history, records(1_001 - history.len() as u64..=1_000), "the newest, without a gap");
}

#[test]
fn a_line_that_was_altered_costs_itself_and_is_counted() {
    let place = Place::new();
    let (mut outbox, _) = place.open(0);
    assert!(has_room(&outbox.append(&records(1..=4)).expect("room")));
    let mut bytes = std::fs::read(place.path()).expect("there");
    let second = Kept::new(&record(1)).line.len() + 30;
    bytes[second] ^= 1;
    fs_write(&place.path(), &bytes);
    let (outbox, found) = place.open(4);
    assert_eq!((found.damaged_lines, kept(&outbox)), (1, vec![1, 3, 4]));
    assert_eq!((losses(&outbox), outbox.owes_state()), (vec![(2, 2)], true), "it is said to the receiver");
    assert_eq!(place.open(4).1, Found::default(), "it is said once here");
}

#[test]
fn a_whole_last_line_that_was_altered_is_damage_and_not_a_torn_tail() {
    let place = Place::new();
    let (mut outbox, _) = place.open(0);
    assert!(has_room(&outbox.append(&records(1..=4)).expect("room")));
    let mut bytes = std::fs::read(place.path()).expect("there");
    let near_the_end = bytes.len() - 10;
    bytes[near_the_end] ^= 1;
    fs_write(&place.path(), &bytes);
    let (outbox, found) = place.open(4);
    assert_eq!(found, Found { damaged_lines: 1, missing: 1, unsaved: 0 });
    assert_eq!((kept(&outbox), losses(&outbox)), (vec![1, 2, 3], vec![(4, 4)]));
    bytes.truncate(near_the_end);
    fs_write(&place.path(), &bytes);
    let (_, found) = place.open(3);
    assert_eq!(found, Found::default(), "without its newline it was torn, and nothing of it was saved");
}

#[test]
fn an_outbox_that_is_gone_is_said_to_the_receiver_and_the_state_is_owed() {
    let place = Place::new();
    let (mut outbox, found) = place.open(7);
    assert_eq!(found.missing, 7);
    assert_eq!((losses(&outbox), outbox.owes_state()), (vec![(1, 7)], true));
    assert!(has_room(&outbox.append(&[state_told(8)]).expect("room")));
    assert_eq!((losses(&outbox), kept(&outbox), outbox.owes_state()), (vec![(1, 7)], vec![8], false));
    let (mut outbox, _) = place.open(8);
    assert!(!outbox.owes_state(), "it is there");
    assert!(has_room(&outbox.acknowledge(8).expect("room")));
    assert!(!outbox.owes_state() && all(&outbox).is_empty());
    assert!(!place.open(8).0.owes_state());
    assert_eq!(
        Outbox::open(&place.path(), 20, Limits::of(Receiver::Nobody)).expect("it opens").1.missing,
        12
    );
}

#[test]
fn a_receiver_that_asks_for_what_is_gone_by_now_is_told_so_and_has_the_state_told() {
    let place = Place::new();
    let line = Kept::new(&record(100)).line.len() as u64;
    let (mut outbox, _) =
        Outbox::open(&place.path(), 0, limits(Receiver::Acknowledges, 20 * line)).expect("it opens");
    for seq in (1..=40).step_by(2) {
        assert!(has_room(&outbox.append(&records(seq..=seq + 1)).expect("room")));
        assert!(has_room(&outbox.acknowledge(seq + 1).expect("room")));
    }
    assert!(!outbox.owes_state(), "what went was told");
    assert!(has_room(&outbox.send_again_from(1).expect("room")));
    let gone = losses(&outbox);
    assert!(gone.len() == 1 && gone[0].0 == 1 && gone[0].1 > 10, "{gone:?}");
    assert!(outbox.owes_state());
}

#[test]
fn a_record_of_a_newer_format_is_not_read_as_one_of_ours() {
    let place = Place::new();
    let newer = br#"{"record":{"v":2,"seq":1,"at_ms":1,"up_ms":1,"fact":{"event":"woke"}}}"#;
    fs_write(&place.path(), &framed::frame(newer));
    let refused = Outbox::open(&place.path(), 1, Limits::of(Receiver::Nobody)).expect_err("a newer record");
    assert!(matches!(refused, OutboxError::Newer { line: 1, .. }), "{refused}");
}

#[test]
fn the_corpus_is_read_without_a_panic() {
    replay("outbox", |bytes| drop(Outbox::read(bytes)));
}

#[test]
fn a_sound_line_of_a_newer_agent_is_named_and_left_alone() {
    let place = Place::new();
    let newer = framed::frame(br#"{"poem":{"of":"tomorrow"}}"#);
    fs_write(&place.path(), &newer);
    let limits = Limits::of(Receiver::Acknowledges);
    let refused = Outbox::open(&place.path(), 0, limits).expect_err("a newer line");
    assert!(matches!(refused, OutboxError::Newer { line: 1, .. }), "{refused}");
    assert_eq!(std::fs::read(place.path()).expect("there"), newer);
}

fn fs_write(path: &Path, bytes: &[u8]) {
    nixfleet_sys::fs::write_atomic(path, bytes).expect("written");
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic_and_what_is_read_is_written_the_same(
        bytes in any::<Vec<u8>>(),
        lines in prop::collection::vec((0u64..50, any::<bool>()), 0..20),
    ) {
        let _ = Log::read(&bytes);
        let line = |(seq, is_record): &(u64, bool)| match is_record {
            true => Kept::new(&record(*seq)).line.into_vec(),
            false => Line::Acknowledged { seq: *seq }.render(),
        };
        let mut file: Vec<u8> = lines.iter().flat_map(line).collect();
        file.extend(bytes.iter().filter(|byte| **byte != b'\n'));
        let read = Log::read(&file).expect("no newer lines");
        let again = Log::read(&read.log.to_bytes()).expect("no newer lines");
        prop_assert_eq!(again.log, read.log);
        prop_assert_eq!(again.damaged_lines, 0);
    }
}

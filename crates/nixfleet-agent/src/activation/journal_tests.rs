//! The journal: what survives a torn tail, damage, another version, rotation and a full disk.

use nixfleet_core::activation::events::CommitPolicy;
use nixfleet_core::activation::inhibit::InhibitPolicy;
use nixfleet_core::activation::outcome::{ActivationOutcome, Verdict};
use nixfleet_core::activation::record::{Began, ConfirmBy, OnFailedUnits, Purpose, Unsigned, fold};
use nixfleet_core::ids::StorePath;
use proptest::prelude::*;

use super::*;

fn system(name: &str) -> StorePath {
    format!("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-nixos-system-{name}").parse().expect("well-formed")
}

fn began() -> Line {
    Line::Began(beginning())
}

/// A system that is confirmed by its probes.
pub(crate) fn beginning() -> Began {
    Began {
        target: system("new"),
        previous: system("old"),
        previous_generation: None,
        commit: CommitPolicy::AfterConfirm,
        confirm_by: ConfirmBy::Probes,
        confirm_within_secs: 300,
        observe_secs: 0,
        probes: vec![],
        inhibit: InhibitPolicy::BuiltIn,
        on_failed_units: OnFailedUnits::Revert,
        unsigned: Unsigned::Refuse,
        digest: None,
        rescue: "/nix/store/agent".into(),
        purpose: Purpose::Activate,
    }
}

fn entries(count: u64) -> Vec<Entry> {
    let line = |seq| if seq == 1 { began() } else { Line::Realising };
    let id = ActivationId::new(1, 1);
    let boot = BootId::new("boot");
    (1..=count)
        .map(|seq| Entry { v: 1, seq, at_ms: seq, boot: boot.clone(), id: id.clone(), line: line(seq) })
        .collect()
}

fn finished(id: &ActivationId) -> Line {
    ended(id, Verdict::Converged)
}

/// The last line of [`beginning`].
pub(crate) fn ended(id: &ActivationId, verdict: Verdict) -> Line {
    let outcome = ActivationOutcome {
        id: id.clone(),
        target: system("new"),
        previous: Some(system("old")),
        generation: None,
        verdict,
        warnings: Vec::new(),
        reboot_needed: Vec::new(),
        steps: Vec::new(),
    };
    Line::Finished { outcome: Box::new(outcome) }
}

fn bytes(entries: &[Entry]) -> Vec<u8> {
    entries.iter().flat_map(render).collect()
}

#[test]
fn a_tail_torn_at_any_byte_costs_the_last_line_and_nothing_else() {
    let all = entries(4);
    let (whole, three) = (bytes(&all), bytes(&all[..3]));
    let mut tried = 0;
    for len in three.len()..whole.len() {
        let parsed = parse(&whole[..len]).expect("a torn tail is no damage");
        assert_eq!(
            (parsed.entries.as_slice(), parsed.sound_bytes),
            (&all[..3], three.len()),
            "torn at {len}"
        );
        tried += 1;
    }
    assert!(tried > 100);
    assert_eq!(parse(&whole).expect("whole").entries, all);
}

#[test]
fn damage_before_the_end_is_an_error_and_never_no_state() {
    let mut altered = bytes(&entries(3));
    let at = altered.iter().position(|b| *b == b'\n').expect("lines") + 40;
    altered[at] ^= 1;
    assert_eq!(parse(&altered), Err(ParseError::Damaged(2)));
}

#[test]
fn a_newer_journal_is_refused_by_its_version_whatever_else_it_says() {
    let json = br#"{"v":2,"something":"else"}"#;
    let line = format!(
        "{{\"crc\":\"{:08x}\",\"entry\":{}}}\n",
        crc32fast::hash(json),
        String::from_utf8_lossy(json)
    );
    assert_eq!(parse(line.as_bytes()), Err(ParseError::Newer(2)));
}

#[test]
fn what_was_appended_is_read_back_after_a_torn_write() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("state/journal.jsonl");
    let id = ActivationId::new(5, 5);
    let (mut journal, known) = Journal::open(&path, BootId::new("b")).expect("made");
    assert!(known.is_empty());
    journal.append(&id, 1, began()).expect("written");
    drop(journal);
    let torn = [std::fs::read(&path).expect("there"), b"{\"crc\":\"00".to_vec()].concat();
    fs::write_atomic(&path, &torn).expect("torn");
    let (mut journal, known) = Journal::open(&path, BootId::new("b")).expect("cut");
    assert_eq!(known.len(), 1);
    journal.append(&id, 2, Line::Realising).expect("written");
    let read = parse(&std::fs::read(&path).expect("there")).expect("sound");
    assert_eq!(read.entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [1, 2]);
}

/// Writes a journal of activations of these lines, one after the other, that is due to be rotated; their ids.
///
/// It is written at once: each line that is appended waits for the disk.
fn large(path: &Path, lines: impl Fn(&ActivationId) -> Vec<Line>) -> Vec<ActivationId> {
    let (mut bytes, mut ids, mut seq) = (Vec::<u8>::new(), Vec::new(), 0);
    while bytes.len() <= ROTATE_AT_BYTES {
        let id = ActivationId::new(ids.len() as u64, 1);
        for line in lines(&id) {
            seq += 1;
            let entry =
                Entry { v: JOURNAL_VERSION, seq, at_ms: 1, boot: BootId::new("b"), id: id.clone(), line };
            bytes.extend(render(&entry));
        }
        ids.push(id);
    }
    fs::write_atomic(path, &bytes).expect("written");
    ids
}

#[test]
fn a_large_journal_drops_old_activations_whole_and_keeps_the_pending_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("journal.jsonl");
    let ids = large(&path, |_| [vec![began()], vec![Line::Realising; 50]].concat());
    let (journal, known) = Journal::open(&path, BootId::new("b")).expect("rotated");
    assert!(journal.len().expect("stat") <= ROTATE_AT_BYTES || known.len() == ids.len());
    assert_eq!(known.last().map(|activation| &activation.id), ids.last());
    // None of these is finished, so none may be dropped.
    assert_eq!(known.len(), ids.len());
}

#[test]
fn a_rotation_leaves_the_newest_activations_line_for_line() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("journal.jsonl");
    let ids = large(&path, |id| [vec![began()], vec![Line::Realising; 20], vec![finished(id)]].concat());
    let count = ids.len() as u64;
    let before = std::fs::read(&path).expect("there");
    let (mut journal, known) = Journal::open(&path, BootId::new("b")).expect("rotated");
    let after = std::fs::read(&path).expect("there");
    assert!(before.ends_with(&after) && after.len() <= ROTATE_TO_BYTES);
    assert!(after.len() > ROTATE_TO_BYTES * 9 / 10, "no more goes than has to: {}", after.len());
    assert_eq!(known, history(&path).expect("sound"));
    let newest = known.last().expect("some are kept");
    assert_eq!((newest.id.clone(), newest.is_pending()), (ActivationId::new(count - 1, 1), false));
    let next = journal.append(&ActivationId::new(count, 1), 2, began()).expect("written");
    let last = parse(&before).expect("sound").entries.last().map(|entry| entry.seq);
    assert_eq!(Some(next.seq - 1), last, "numbers go on");
}

#[test]
fn the_first_version_of_the_journal_is_still_read() {
    let bytes = include_bytes!("../../tests/fixtures/journal-v1.jsonl");
    let parsed = parse(bytes).expect("every version ever written is read");
    assert_eq!(parsed.sound_bytes, bytes.len());
    let activations = fold(&parsed.entries);
    assert_eq!(activations.len(), 2);
    assert!(activations.iter().all(|activation| !activation.is_pending()));
}

#[test]
fn a_journal_that_is_folded_line_by_line_says_the_same_as_one_that_is_read_whole() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("journal.jsonl");
    let fixture = include_bytes!("../../tests/fixtures/journal-v1.jsonl");
    let mut tried = 0;
    for len in (0..fixture.len()).step_by(97).chain([fixture.len()]) {
        fs::write_atomic(&path, &fixture[..len]).expect("written");
        let (folded, parsed) = (folded(&path), parse(&fixture[..len]));
        let (folded, parsed) = (folded.expect("a torn tail is no damage"), parsed.expect("nor here"));
        let mut whole = fold(&parsed.entries);
        forget_units(&mut whole);
        assert_eq!(folded.known, whole, "torn at {len}");
        assert_eq!(folded.sound_bytes, parsed.sound_bytes);
        assert_eq!(folded.last_seq, parsed.entries.last().map(|entry| entry.seq));
        tried += 1;
    }
    assert!(tried > 10);
    let has_units: Vec<bool> =
        history(&path).expect("whole").iter().map(|activation| activation.units_before.is_some()).collect();
    assert_eq!(has_units, [true, false], "what stayed is compared with, what was reverted is not");
    let mut altered = bytes(&entries(3));
    altered[40] ^= 1;
    fs::write_atomic(&path, &altered).expect("written");
    assert!(matches!(history(&path), Err(JournalError::Damaged { line: 1, .. })), "damage is damage");
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
        let _ = parse(&bytes);
    }

    #[test]
    fn a_flipped_bit_never_yields_another_entry(at in 0usize..600, bit in 0u8..8) {
        let all = entries(3);
        let mut altered = bytes(&all);
        let at = at % altered.len();
        altered[at] ^= 1 << bit;
        if let Ok(parsed) = parse(&altered) {
            prop_assert!(parsed.entries.len() < 3);
            prop_assert_eq!(parsed.entries.as_slice(), &all[..parsed.entries.len()]);
        }
    }
}

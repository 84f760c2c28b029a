//! What was written once stays readable: states and records of every format that was ever released, as fixtures that
//! are never edited, only added to.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use nixfleet_core::host::Record;
use nixfleet_core::host::follow::{RECORD_FORMAT, RecordUnreadable};
use nixfleet_core::host::saved::{STATE_FORMAT, SavedState, StateUnreadable};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Each saved state of format 1 with its file's name.
fn states() -> Vec<(String, Vec<u8>)> {
    let files = std::fs::read_dir(fixtures().join("host-state-1")).unwrap();
    let mut states: Vec<_> = files
        .map(|file| file.unwrap())
        .map(|file| (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap()))
        .collect();
    states.sort();
    states
}

#[test]
fn a_saved_state_of_every_phase_is_read_and_written_the_same() {
    assert_eq!(STATE_FORMAT, 1, "states of the format before stay here, and are read by a test of their own");
    let mut phases = BTreeSet::new();
    for (name, bytes) in states() {
        let state = SavedState::from_bytes(&bytes).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let phase = state.phase.name().to_string();
        assert!(name.starts_with(&phase), "{name} is {phase}");
        assert_eq!(String::from_utf8(SavedState::to_bytes(&state)), String::from_utf8(bytes), "{name}");
        phases.insert(phase);
    }
    assert_eq!(phases.len(), 10, "{phases:?}");
}

#[test]
fn a_saved_state_torn_at_any_byte_is_an_error_and_never_no_state() {
    let mut torn = 0;
    for (name, bytes) in states() {
        // All of it but the newline is all of it.
        for end in 0..bytes.len() - 1 {
            assert!(SavedState::from_bytes(&bytes[..end]).is_err(), "{name} torn at {end}");
            torn += 1;
        }
        assert!(SavedState::from_bytes(&bytes[..bytes.len() - 1]).is_ok());
    }
    assert!(torn > 10_000, "{torn}");
}

#[test]
fn a_saved_state_of_a_newer_format_is_told_from_a_torn_one_whatever_its_shape() {
    let newer = SavedState::from_bytes(br#"{"format": 2, "poem": "of tomorrow"}"#);
    assert!(matches!(newer, Err(StateUnreadable::Newer(2))), "{newer:?}");
    for not_a_state in
        ["", "null", "{}", r#"{"format": 1}"#, r#"{"format": 1, "state": {}}"#, r#"{"format": "1"}"#]
    {
        let refused = SavedState::from_bytes(not_a_state.as_bytes());
        assert!(matches!(refused, Err(StateUnreadable::Json(_))), "{not_a_state}: {refused:?}");
    }
}

/// Every event that changes a state, by its name on the wire.
const EVENTS: [&str; 36] = [
    "agent-started",
    "held",
    "hook-failed",
    "hooks-ran",
    "local-activation-advanced",
    "local-activation-completed",
    "local-activation-deferred",
    "local-activation-failed",
    "local-activation-started",
    "order-withdrawn",
    "ordered-to-go",
    "ordered-to-reboot",
    "probe-reported",
    "probes-passed",
    "reboot-began",
    "reboot-overdue",
    "reboot-refused",
    "release-refused",
    "release-verified",
    "reports-lost",
    "retry-asked",
    "revert-began",
    "root-accepted",
    "soak-failed",
    "soak-passed",
    "source-answered",
    "source-failed",
    "stage-failed",
    "staging-began",
    "state-told",
    "system-changed",
    "target-adopted",
    "target-staged",
    "target-withdrawn",
    "unheld",
    "went-ahead",
];

#[test]
fn a_record_of_every_event_is_read_and_written_the_same() {
    assert_eq!(
        RECORD_FORMAT, 1,
        "records of the format before stay here, and are read by a test of their own"
    );
    let lines = std::fs::read_to_string(fixtures().join("host-records-1.jsonl")).unwrap();
    let mut names = BTreeSet::new();
    for line in lines.lines() {
        let record = Record::from_json(line.as_bytes()).unwrap_or_else(|error| panic!("{line}: {error:?}"));
        assert_eq!(record.to_json(), line);
        names.insert(record.fact.name());
        for end in 0..line.len() {
            assert!(Record::from_json(&line.as_bytes()[..end]).is_err(), "{line} torn at {end}");
        }
    }
    assert_eq!(names, BTreeSet::from(EVENTS));
}

#[test]
fn a_record_of_a_newer_format_or_of_an_unknown_event_is_refused() {
    let newer = Record::from_json(br#"{"v": 2, "poem": "of tomorrow"}"#);
    assert!(matches!(newer, Err(RecordUnreadable::Newer(2))), "{newer:?}");
    let unknown =
        Record::from_json(br#"{"v":1,"seq":1,"at_ms":1,"up_ms":1,"fact":{"event":"sang","of":"tomorrow"}}"#);
    assert!(matches!(unknown, Err(RecordUnreadable::Json(_))), "{unknown:?}");
}

//! What must hold for any bytes that this agent reads from a disk, a program or a control plane. Called by the replay of
//! the corpora and by the fuzz targets.

use std::fmt::Debug;

use nixfleet_agent::activation::journal;
use nixfleet_agent::runtime::state_file::StateFile;
use nixfleet_agent::tools::nix::parse_settings;
use nixfleet_agent::tools::nix_store::{parse_hashes, parse_paths, parse_sizes};
use nixfleet_agent::tools::{sysctl, unit_reasons, units};
use nixfleet_core::activation::record::Entry;
use nixfleet_core::wire::{EventBatch, EventsTaken, Hello, Orders};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes as a journal: what is sound at its beginning is a journal of the same entries. Bytes as one entry, since noise
/// never has the right sum: it comes back as it was written.
pub(crate) fn journal(bytes: &[u8]) {
    if let Ok(read) = journal::parse(bytes) {
        let again = journal::parse(&bytes[..read.sound_bytes]);
        assert_eq!(again.expect("it was sound").entries, read.entries);
    }
    if let Ok(entry) = serde_json::from_slice::<Entry>(bytes) {
        let line = journal::render(&entry);
        match journal::parse(&line) {
            Ok(read) => assert_eq!((read.entries, read.sound_bytes), (vec![entry], line.len())),
            Err(error) => assert!(matches!(error, journal::ParseError::Newer(_)), "{error:?}"),
        }
    }
}

/// Bytes as the state file; whatever it is, it is never taken for no state.
pub(crate) fn state_file(bytes: &[u8]) {
    drop(StateFile::in_folder("/nowhere".as_ref()).parse(bytes));
}

/// Bytes as what an agent and a control plane say to each other: what is understood comes back as it was written.
pub(crate) fn wire(bytes: &[u8]) {
    comes_back::<EventBatch>(bytes);
    comes_back::<EventsTaken>(bytes);
    comes_back::<Hello>(bytes);
    comes_back::<Orders>(bytes);
}

fn comes_back<T: DeserializeOwned + Serialize + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(read) = serde_json::from_slice::<T>(bytes) {
        let written = serde_json::to_vec(&read).expect("texts and numbers are always JSON");
        assert_eq!(serde_json::from_slice::<T>(&written).expect("it was written by us"), read);
    }
}

/// Bytes as the short answers of Nix and systemd.
pub(crate) fn nix_answers(bytes: &[u8]) {
    drop(parse_settings(bytes));
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().count();
    drop((parse_hashes(&text, lines), parse_sizes(&text, lines), parse_paths(&text)));
    drop((units::parse_system_state(&text), units::parse_userspace_start(&text)));
    drop((unit_reasons::parse(&text), sysctl::parse_boot_session(&text)));
}

/// Bytes as what `journalctl` prints: no line is longer than the bound, and none carries a terminal's controls.
pub(crate) fn journal_entries(bytes: &[u8]) {
    use nixfleet_agent::tools::journal::{parse_entries, parse_last_lines};
    let text = String::from_utf8_lossy(bytes);
    let controls = |text: &str| text.chars().any(|c| c.is_control() && c != '\n' && c != '\t');
    for entry in parse_entries(&text).unwrap_or_default() {
        assert!(!controls(&entry.message), "{:?}", entry.message);
    }
    let last = parse_last_lines(&text, 20);
    assert!(last.len() <= 20 && !last.iter().any(|line| controls(line)), "{last:?}");
}

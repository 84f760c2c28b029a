//! Replays the corpora of the fuzz targets whose inputs are described in `inputs`.

use std::path::Path;

mod inputs;

/// Gives every file of a corpus to `input`.
fn replay(name: &str, input: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz-corpus").join(name);
    let mut replayed = 0;
    for entry in folder.read_dir().expect("the corpus is part of the repository") {
        input(&std::fs::read(entry.expect("readable").path()).expect("readable"));
        replayed += 1;
    }
    assert!(replayed >= 5, "the corpus `{name}` has {replayed} files");
}

#[test]
fn what_was_found_in_noise_once_is_found_again() {
    replay("journal", inputs::journal);
    replay("state-file", inputs::state_file);
    replay("wire", inputs::wire);
    replay("nix-answers", inputs::nix_answers);
    replay("journal-entries", inputs::journal_entries);
}

//! Replays what the fuzzer is fed with.

use std::path::Path;

mod inputs;

#[test]
fn the_corpus_of_fleet_descriptions_is_replayed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz-corpus/fleet-json");
    let mut replayed = 0;
    for entry in folder.read_dir().expect("the corpus is part of the repository") {
        inputs::fleet_json(&std::fs::read(entry.expect("readable").path()).expect("readable"));
        replayed += 1;
    }
    assert!(replayed >= 8, "the corpus has {replayed} files");
}

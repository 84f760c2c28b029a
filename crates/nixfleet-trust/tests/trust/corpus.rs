//! Replays what the fuzzers are fed with.

use std::path::Path;

use crate::inputs;

#[test]
fn the_corpus_of_every_parser_is_replayed() {
    for (name, input) in inputs::ALL {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz-corpus").join(name);
        let mut replayed = 0;
        for entry in folder.read_dir().unwrap_or_else(|error| panic!("{name}: {error}")) {
            input(&std::fs::read(entry.expect("readable").path()).expect("readable"));
            replayed += 1;
        }
        assert!(replayed >= 8, "the corpus `{name}` has {replayed} files");
    }
}

#[test]
fn every_parser_has_a_fuzz_target_and_every_target_a_parser() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).expect("the fuzz crate");
    let named = manifest.lines().filter(|line| line.starts_with("name = \"trust-")).count();
    assert_eq!(named, inputs::ALL.len());
    for (name, _) in inputs::ALL {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        let target = folder.join("fuzz_targets").join(format!("{}.rs", name.replace('-', "_")));
        assert!(target.exists(), "{}", target.display());
    }
}

//! Replays what the fuzzer is fed with.

use std::path::Path;

mod inputs;

#[test]
fn what_was_found_in_noise_once_is_found_again() {
    for (name, input) in inputs::ALL {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz-corpus").join(name);
        let mut replayed = 0;
        for entry in folder.read_dir().expect("the corpus is part of the repository") {
            input(&std::fs::read(entry.expect("readable").path()).expect("readable"));
            replayed += 1;
        }
        assert!(replayed >= 5, "the corpus `{name}` has {replayed} files");
    }
}

#[test]
fn every_parser_has_a_fuzz_target() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).expect("the fuzz crate");
    for (name, _) in inputs::ALL {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        let target = folder.join("fuzz_targets").join(format!("{}.rs", name.replace('-', "_")));
        assert!(target.exists(), "{}", target.display());
    }
}

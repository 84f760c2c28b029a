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

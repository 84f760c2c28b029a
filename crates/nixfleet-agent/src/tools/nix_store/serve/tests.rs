use nixfleet_core::nix::path_info::{PathInfos, parse_path_info};
use proptest::prelude::*;

use super::*;
use crate::tools::tests::{NIX, recorded, replay, tools};

fn bytes(version: &str, stream: &str) -> Vec<u8> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tools");
    std::fs::read(folder.join(format!("nix-{version}-serve.{stream}"))).expect("it was recorded")
}

/// What `nix path-info` said of the same closure, without what only that says.
fn told(version: &str) -> PathInfos {
    let json = recorded(&format!("nix-{version}-serve-path-info"), "stdout");
    let mut infos = parse_path_info(json.as_bytes()).expect("it was recorded");
    infos.known.sort_by(|a, b| a.path.cmp(&b.path));
    for info in &mut infos.known {
        (info.ultimate, info.download_size) = (false, None);
        info.references.sort();
    }
    infos
}

fn system(version: &str) -> StorePath {
    let of = told(version).known.into_iter().find(|info| info.path.name().starts_with("nixos-system"));
    of.expect("a system").path
}

/// What is made of these answers, and what was asked.
fn asked(heard: &[u8], system: &StorePath) -> (Result<PathInfos>, Vec<u8>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (mut said, mut known) = (Vec::new(), Vec::new());
    let ended = runtime.block_on(closure(heard, &mut said, system, &mut |info| known.push(info)));
    (ended.map(|()| PathInfos { known, missing: Vec::new() }), said)
}

#[test]
fn what_a_real_nix_serves_is_what_its_path_info_says() {
    for version in NIX {
        let (found, said) = asked(&bytes(version, "heard"), &system(version));
        let mut found = found.expect("it was recorded");
        found.known.iter_mut().for_each(|info| info.references.sort());
        assert!(found.known.len() > 30, "the closure of a system");
        assert_eq!(found, told(version), "{version}");
        assert_eq!(said, bytes(version, "said"), "{version}");
    }
}

#[test]
fn the_store_is_not_opened_for_writing() {
    assert_eq!(serve(&tools()).line(), "/tools/nix-store --serve");
}

#[test]
fn answers_that_end_anywhere_are_no_answer() {
    let heard = bytes(NIX[0], "heard");
    for end in (0..heard.len()).step_by(5) {
        assert!(asked(&heard[..end], &system(NIX[0])).0.is_err(), "{end}");
    }
}

#[test]
fn a_closure_of_another_system_and_one_with_a_hole_are_no_answer() {
    let heard = bytes(NIX[0], "heard");
    let other = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-a".parse().expect("a path");
    assert!(asked(&heard, &other).0.is_err());
    // The last path is not valid any more when it is asked for.
    let last = told(NIX[0]).known.pop().expect("a path").path;
    let at = heard.windows(last.as_str().len()).rposition(|bytes| bytes == last.as_str().as_bytes());
    let at = at.expect("it is told last") - 8;
    let (told, _) = heard.split_at(at);
    assert!(asked(&[told, &[0; 8]].concat(), &system(NIX[0])).0.is_err());
}

#[test]
fn what_greets_otherwise_is_not_listened_to() {
    let heard = bytes(NIX[1], "heard");
    for (at, byte) in [(0, 0), (8, 3), (9, 1), (9, 3)] {
        let mut heard = heard.clone();
        heard[at] = byte;
        assert!(asked(&heard, &system(NIX[1])).0.is_err(), "{at} {byte}");
    }
    let mut later = heard;
    later[8] = 9;
    assert!(asked(&later, &system(NIX[1])).0.is_ok(), "a later one that still speaks ours");
}

#[test]
fn lengths_that_nothing_has_take_no_memory() {
    let heard = bytes(NIX[0], "heard");
    let first = told(NIX[0]).known.remove(0);
    // Behind the list of the closure: the path, its deriver, and how many it refers to.
    let text = |text: &str| 8 + text.len().next_multiple_of(8);
    let list: usize = told(NIX[0]).known.iter().map(|info| text(info.path.as_str())).sum();
    let info = 24 + list;
    let deriver = info + text(first.path.as_str());
    for at in [16, 24, info, deriver] {
        let mut heard = heard.clone();
        heard[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        let (found, _) = asked(&heard, &system(NIX[0]));
        assert_eq!(found.expect_err("too long").kind(), ErrorKind::InvalidData, "{at}");
    }
}

#[test]
fn the_corpus_is_read_to_its_end() {
    replay("nix-serve", read_as_any);
}

proptest! {
    #[test]
    fn no_change_of_the_answers_is_too_strange(at in any::<prop::sample::Index>(), byte: u8) {
        let mut heard = bytes(NIX[1], "heard");
        let at = at.index(heard.len());
        heard[at] = byte;
        let _ = asked(&heard, &system(NIX[1]));
    }
}

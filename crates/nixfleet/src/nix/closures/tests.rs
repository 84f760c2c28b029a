use std::collections::BTreeSet;

use nixfleet_core::nix::closure::closure_digest;
use nixfleet_core::nix::nar_hash::NarHash;
use proptest::prelude::*;

use super::*;

fn path(number: u8) -> StorePath {
    format!("/nix/store/{number:032}-x").parse().expect("well-formed")
}

/// A path whose contents tell it apart from all others.
fn info(number: u8, references: &BTreeSet<u8>) -> PathInfo {
    PathInfo {
        path: path(number),
        nar_hash: NarHash::from_sha256([number; 32]),
        nar_size: 1 << number,
        download_size: number.is_multiple_of(2).then_some(1),
        references: references.iter().copied().map(path).collect(),
        signatures: Vec::new(),
        content_address: None,
        ultimate: false,
    }
}

/// What `nix-store -q --requisites` would say: everything that is reached, step by step.
fn reached(top: u8, references: &[BTreeSet<u8>]) -> BTreeSet<u8> {
    let mut found = BTreeSet::from([top]);
    loop {
        let next: BTreeSet<u8> = found
            .iter()
            .flat_map(|number| &references[usize::from(*number)])
            .chain(&found)
            .copied()
            .collect();
        if next == found {
            return found;
        }
        found = next;
    }
}

#[test]
fn a_path_that_nothing_is_known_of_is_an_error_and_no_smaller_closure() {
    let lacking = Closures::new(vec![info(0, &BTreeSet::from([1]))]);
    assert_eq!(lacking.expect_err("1 is not known"), NotInClosures(path(1)));
    let whole = Closures::new(vec![info(0, &BTreeSet::new())]).expect("closed");
    assert_eq!(whole.of(&path(1)).expect_err("never heard of"), NotInClosures(path(1)));
}

proptest! {
    #[test]
    fn every_closure_is_what_is_reached_with_the_digest_that_an_agent_computes(
        references in prop::collection::vec(prop::collection::btree_set(0u8..12, 0..4), 12),
        twice in prop::collection::vec(0u8..12, 0..4),
    ) {
        let numbers = (0u8..12).chain(twice);
        let infos = numbers.map(|number| info(number, &references[usize::from(number)])).collect();
        let closures = Closures::new(infos).expect("closed");
        for top in 0u8..12 {
            let members = reached(top, &references);
            let contents = members.iter().map(|number| Contents {
                path: path(*number),
                nar_hash: NarHash::from_sha256([*number; 32]),
                nar_size: 1 << number,
            });
            let found = closures.of(&path(top)).expect("known");
            prop_assert_eq!(found.digest, closure_digest(contents.collect()));
            prop_assert_eq!(found.unpacked_bytes, members.iter().map(|number| 1_u64 << number).sum::<u64>());
            let fetched = members.iter().map(|number| if number.is_multiple_of(2) { 1 } else { 1_u64 << number });
            prop_assert_eq!(found.fetch_bytes, fetched.sum::<u64>());
            let paths: Vec<StorePath> = members.iter().copied().map(path).collect();
            prop_assert_eq!(closures.paths_of(&path(top)).expect("known"), paths.iter().collect::<Vec<_>>());
        }
    }
}

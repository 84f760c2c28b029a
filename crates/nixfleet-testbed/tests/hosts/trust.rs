//! The trust table: what a cache may serve, on both Nix versions, with the path absent and already present unsigned.

use nixfleet_testbed::{Damage, Flavour, System};

use crate::common::{activate, assert_rests_on, host, hosts_run};

/// What is done to the cache.
#[derive(Clone, Copy)]
enum Row {
    Good,
    Damaged(Damage),
    Down,
}

fn check(flavour: Flavour, row: Row, present_unsigned: bool, want: (i32, &str, &[&str])) {
    if !hosts_run() {
        return;
    }
    let host = host(flavour);
    let target = host.system(System::Good).to_owned();
    if present_unsigned {
        host.import_unsigned(&target).expect("imported");
    }
    let cache = host.cache().expect("it has one");
    match row {
        Row::Good => {}
        Row::Damaged(damage) => cache.damage(&target, damage).expect("damaged"),
        Row::Down => cache.down().expect("down"),
    }
    let said = activate(&host, &target, &[]);
    let (code, verdict, failures) = want;
    said.assert(code, verdict);
    assert!(failures.contains(&said.failure()), "{} is not in {failures:?}: {}", said.failure(), said.json);
    if code == 0 { assert_rests_on(&host, System::Good) } else { assert_rests_on(&host, System::Base) }
}

const GOOD: (i32, &str, &[&str]) = (0, "converged", &["none"]);
const TRUST: (i32, &str, &[&str]) = (1, "signature-mismatch", &["signature-mismatch"]);
const CORRUPT: (i32, &str, &[&str]) = (1, "failed", &["corrupt"]);
const ABSENT: (i32, &str, &[&str]) = (1, "failed", &["not-in-cache"]);
const SILENT: (i32, &str, &[&str]) = (1, "failed", &["cache-unreachable"]);

macro_rules! row {
    ($name:ident, $row:expr, absent $absent:expr, present $present:expr) => {
        mod $name {
            use super::*;
            #[test]
            fn absent_on_trixie() {
                check(Flavour::Trixie, $row, false, $absent);
            }
            #[test]
            fn absent_on_bookworm() {
                check(Flavour::Bookworm, $row, false, $absent);
            }
            #[test]
            fn present_unsigned_on_trixie() {
                check(Flavour::Trixie, $row, true, $present);
            }
            #[test]
            fn present_unsigned_on_bookworm() {
                check(Flavour::Bookworm, $row, true, $present);
            }
        }
    };
}

// A path that is here without its signature gets it from a cache that has one for these very contents.
row!(a_good_cache, Row::Good, absent GOOD, present GOOD);
row!(an_unsigned_path, Row::Damaged(Damage::Unsigned), absent TRUST, present TRUST);
row!(another_key, Row::Damaged(Damage::OtherKey), absent TRUST, present TRUST);
row!(an_impostor_under_the_keys_name, Row::Damaged(Damage::Impostor), absent TRUST, present TRUST);
row!(an_altered_hash, Row::Damaged(Damage::AlteredNarHash), absent TRUST, present TRUST);
row!(an_altered_archive, Row::Damaged(Damage::AlteredArchive), absent CORRUPT, present GOOD);
row!(a_truncated_archive, Row::Damaged(Damage::TruncatedArchive), absent CORRUPT, present GOOD);
row!(a_missing_archive, Row::Damaged(Damage::MissingArchive), absent CORRUPT, present GOOD);
row!(an_absent_path, Row::Damaged(Damage::Absent), absent ABSENT, present TRUST);
row!(a_cache_that_is_down, Row::Down, absent SILENT, present TRUST);

#[test]
fn an_unsigned_path_is_accepted_only_if_asked() {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Trixie);
    let target = host.system(System::Good).to_owned();
    host.import_unsigned(&target).expect("imported");
    host.cache().expect("it has one").down().expect("down");
    activate(&host, &target, &["--allow-unsigned"]).assert(0, "converged");
    assert_rests_on(&host, System::Good);
}

fn is_repaired(flavour: Flavour, damage: Damage, failure: &str) {
    if !hosts_run() {
        return;
    }
    let host = host(flavour);
    let target = host.system(System::Good).to_owned();
    let cache = host.cache().expect("it has one");
    cache.damage(&target, damage).expect("damaged");
    assert_eq!(activate(&host, &target, &[]).failure(), failure);
    cache.repair(&target).expect("repaired");
    activate(&host, &target, &[]).assert(0, "converged");
}

#[test]
fn a_path_that_was_signed_after_a_refusal_is_taken_although_nix_remembers_the_old_answer() {
    is_repaired(Flavour::Trixie, Damage::Unsigned, "signature-mismatch");
    is_repaired(Flavour::Bookworm, Damage::Unsigned, "signature-mismatch");
}

#[test]
fn a_path_that_was_uploaded_after_a_refusal_is_taken_although_nix_remembers_the_old_answer() {
    is_repaired(Flavour::Trixie, Damage::Absent, "not-in-cache");
    is_repaired(Flavour::Bookworm, Damage::Absent, "not-in-cache");
}

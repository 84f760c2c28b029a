//! The simulation finds what others got wrong: each mistake is put back, and a seed that goes well without it breaks a promise.
//!
//! A change of what is simulated gives every seed another story; `cargo xtask test --sim --hosts 12 --mistake NAME` finds new ones.

use nixfleet_sim::{Faults, Found, Mistake, Promise, Settings, run};

/// Which seed finds which mistake, and the promise that is seen to be broken.
const FOUND: [(Mistake, u64, Promise); 23] = [
    (Mistake::ProbesFromBefore, 1, Promise::Proven),
    (Mistake::UnrunCountsAsPassed, 3, Promise::Proven),
    (Mistake::AcknowledgedFirst, 2, Promise::AcknowledgedIsKept),
    (Mistake::RepeatsFolded, 2, Promise::FollowedIsTrue),
    (Mistake::OrderForgotten, 1, Promise::OrderStays),
    (Mistake::StateLost, 1, Promise::NumbersCount),
    (Mistake::GenerationBelow, 2, Promise::RevertedToRecorded),
    (Mistake::DeferredCountsAsDone, 2, Promise::WithinBudget),
    (Mistake::SilentNotCounted, 1, Promise::NoObjection),
    (Mistake::HaltForgotten, 28, Promise::NoObjection),
    (Mistake::NobodyCalledBack, 2, Promise::NoObjection),
    (Mistake::CallBackIgnored, 32, Promise::NotBeforeItsTurn),
    (Mistake::EffectsBeforeSave, 2, Promise::OneSwitch),
    (Mistake::ClockRemembered, 3, Promise::GoodReleaseArrives),
    (Mistake::UnsignedTaken, 4, Promise::ComesToRest),
    (Mistake::WaveTimeIgnored, 7, Promise::NotBeforeItsTurn),
    (Mistake::ExpiredTaken, 122, Promise::NotBeforeItsTurn),
    (Mistake::BackByWordAlone, 4, Promise::BackOnlyIfSigned),
    (Mistake::NobodyGoesBack, 8, Promise::ComesToRest),
    (Mistake::LateLeaderWrites, 209, Promise::ConvergedIsTrue),
    (Mistake::NumbersOfEachReplica, 2, Promise::ComesToRest),
    (Mistake::FetchedStillCounts, 1, Promise::ComesToRest),
    (Mistake::SilenceExcusesTheWatched, 14, Promise::NoObjection),
];

/// How many lines of a failed run are shown.
const LINES: usize = 60;

fn settings(mistake: Option<Mistake>) -> Settings {
    Settings { hosts: 12, faults: Faults::All, mistake }
}

#[test]
fn every_mistake_has_a_seed_that_finds_it() {
    assert_eq!(FOUND.map(|(mistake, _, _)| mistake), Mistake::ALL);
    for (mistake, seed, promise) in FOUND {
        let found = run(seed, settings(Some(mistake)), LINES).expect_err("it is found");
        let Found::Promise(broken) = &found.what else { panic!("{mistake:?}: {found}") };
        assert_eq!(broken.promise, promise, "{mistake:?}: {found}");
    }
}

#[test]
fn without_their_mistakes_the_same_seeds_go_well() {
    let mut seeds = FOUND.map(|(_, seed, _)| seed).to_vec();
    seeds.sort_unstable();
    seeds.dedup();
    for seed in seeds {
        run(seed, settings(None), LINES).unwrap_or_else(|found| panic!("{found}"));
    }
}

#[test]
fn the_table_in_the_head_of_the_crate_says_the_same() {
    let head = include_str!("../src/lib.rs");
    for (mistake, seed, promise) in FOUND {
        let row = head.lines().find(|line| line.contains(&format!("| `{mistake:?}` |")));
        let row = row.unwrap_or_else(|| panic!("{mistake:?} has no row"));
        assert!(row.ends_with(&format!("| {seed} | `{promise:?}` |")), "{row}");
    }
}

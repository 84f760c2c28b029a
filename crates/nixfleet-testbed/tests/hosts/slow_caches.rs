//! Caches that are silent, endless or slow: the first two are ended and change nothing, the last is waited for.

use std::time::{Duration, Instant};

use nixfleet_testbed::{Fault, Flavour, Host, System};

use crate::common::{Said, activate, assert_rests_on, fires, host, hosts_run};

/// The stall limit of these tests.
const STALL: Duration = Duration::from_secs(4);
/// What looking, asking for the plan and cleaning up may take besides, on a busy machine.
const BESIDES: Duration = Duration::from_mins(2);

/// A stall limit that a busy machine does not come near where bytes come.
const PATIENCE: Duration = Duration::from_secs(20);

fn activate_within_stall(host: &Host, stall: Duration) -> (Said, Duration) {
    let started = Instant::now();
    let said = activate(host, host.system(System::Good), &["--stall", &format!("{}s", stall.as_secs())]);
    (said, started.elapsed())
}

fn assert_unchanged(host: &Host) {
    assert_rests_on(host, System::Base);
    assert_eq!(fires(host, host.system(System::Good)), 0, "nothing was fired");
    assert_eq!(host.generations().expect("listed").len(), 1, "the profile was not touched");
}

fn stalls(flavour: Flavour, fault: Fault) {
    if !hosts_run() {
        return;
    }
    let host = host(flavour);
    host.break_cache(fault).expect("broken");
    let (said, took) = activate_within_stall(&host, STALL);
    said.assert(1, "failed");
    assert_eq!(said.failure(), "stalled", "{}", said.json);
    assert_eq!(said.json["failure"]["after_secs"], STALL.as_secs(), "{}", said.json);
    // A cache that says nothing at all is asked for its plan first, for as long.
    assert!(took >= STALL && took < 2 * STALL + BESIDES, "it took {took:?}");
    assert_unchanged(&host);
    host.cache().expect("it has one").up().expect("well again");
    activate_within_stall(&host, BESIDES).0.assert(0, "converged");
}

fn is_endless(flavour: Flavour) {
    if !hosts_run() {
        return;
    }
    let host = host(flavour);
    let used = |host: &Host| -> u64 {
        let kib = host.sh("du -sk /nix/store | cut -f 1").expect("it runs");
        kib.text().parse().expect("a number")
    };
    let before = used(&host);
    host.break_cache(Fault::Endless).expect("broken");
    let (said, took) = activate_within_stall(&host, PATIENCE);
    said.assert(1, "failed");
    assert_eq!(said.failure(), "corrupt", "{}", said.json);
    assert!(said.json.to_string().contains("were announced"), "{}", said.json);
    assert!(took < BESIDES, "it took {took:?}");
    assert_unchanged(&host);
    let left = used(&host).saturating_sub(before);
    assert!(left < 512 << 10, "{left} KiB are left in the store");
    host.cache().expect("it has one").up().expect("well again");
    activate_within_stall(&host, BESIDES).0.assert(0, "converged");
}

fn is_slow(flavour: Flavour) {
    if !hosts_run() {
        return;
    }
    let host = host(flavour);
    host.break_cache(Fault::Slow { bytes_per_second: 60 }).expect("broken");
    let (said, took) = activate_within_stall(&host, PATIENCE);
    said.assert(0, "converged");
    // Were the limit one on the whole download, it would have been ended.
    assert!(took > 2 * PATIENCE, "it took only {took:?}");
    assert_rests_on(&host, System::Good);
}

#[test]
fn a_cache_that_stops_in_the_middle_is_a_stall_on_trixie() {
    stalls(Flavour::Trixie, Fault::Stall);
}

#[test]
fn a_cache_that_stops_in_the_middle_is_a_stall_on_bookworm() {
    stalls(Flavour::Bookworm, Fault::Stall);
}

#[test]
fn a_cache_that_never_says_a_word_is_a_stall_on_trixie() {
    stalls(Flavour::Trixie, Fault::Silent);
}

#[test]
fn a_cache_that_never_says_a_word_is_a_stall_on_bookworm() {
    stalls(Flavour::Bookworm, Fault::Silent);
}

#[test]
fn a_cache_that_never_ends_is_ended_before_the_disk_is_full_on_trixie() {
    is_endless(Flavour::Trixie);
}

#[test]
fn a_cache_that_never_ends_is_ended_before_the_disk_is_full_on_bookworm() {
    is_endless(Flavour::Bookworm);
}

#[test]
fn a_slow_cache_is_waited_for_on_trixie() {
    is_slow(Flavour::Trixie);
}

#[test]
fn a_slow_cache_is_waited_for_on_bookworm() {
    is_slow(Flavour::Bookworm);
}

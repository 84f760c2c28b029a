//! What a host remembers: the clock, and what was saved.

use nixfleet_trust::attack::Attack;
use nixfleet_trust::check::release::ReleaseRefused;
use nixfleet_trust::trust::Trust;
use serde_json::{Value, json};

use crate::support::*;

// The clock

#[test]
fn a_clock_in_2030_for_one_boot_leaves_nothing_behind() {
    let fleet = fleet();
    let configured = fleet.sign_root(&fleet.root());
    let bytes = fleet.sign(&fleet.release(1));
    let (_, trust) = accepted(&fleet.trust(), &bytes);
    let in_2030 = at(NOW + 1400 * DAY);

    // In 2030 everything has expired, and the host starts nothing and saves nothing.
    let boot = Trust::open(&configured, Some(&trust.to_saved().to_bytes())).expect("saved");
    let refused =
        boot.accept_release(&stable(), &fleet.sign(&fleet.release(2)), in_2030).expect_err("expired");
    assert_eq!(refused.attack(), Some(Attack::Freeze));
    assert!(boot.held_release(&stable(), &bytes, in_2030).expect("held").stale.is_some());
    assert_eq!(boot.to_saved(), trust.to_saved());

    // Right again: no lock-out.
    let boot = Trust::open(&configured, Some(&boot.to_saved().to_bytes())).expect("saved");
    assert!(boot.held_release(&stable(), &bytes, at(NOW)).expect("held").stale.is_none());
    let (_, _) = accepted(&boot, &fleet.sign(&fleet.release(2)));
}

#[test]
fn a_clock_in_1970_uses_the_signed_time() {
    let fleet = fleet();
    let bytes = fleet.sign(&fleet.release(1));
    let (_, trust) = accepted(&fleet.trust(), &bytes);
    let (in_1970, configured) = (at(0), fleet.sign_root(&fleet.root()));
    let boot = Trust::open(&configured, Some(&trust.to_saved().to_bytes())).expect("saved");

    // What is followed is still good, and something that expired before it was signed is not good again.
    assert!(boot.held_release(&stable(), &bytes, in_1970).expect("held").stale.is_none());
    let old = with(&with(&fleet.release(2), "created_ms", NOW - 20 * DAY), "expires_ms", NOW - DAY);
    let refused = boot.accept_release(&stable(), &fleet.sign(&old), in_1970).expect_err("expired");
    assert_eq!(refused.attack(), Some(Attack::Freeze), "{refused}");
    // A newer one waits until the clock is set, and that is nobody's attack.
    let newer = fleet.sign(&with(&fleet.release(2), "created_ms", NOW + DAY));
    let refused = boot.accept_release(&stable(), &newer, in_1970).expect_err("from the future");
    assert_eq!(refused.attack(), None, "{refused}");
    let _ = boot.accept_release(&stable(), &newer, at(NOW + DAY)).expect("the clock is set");
    // At the very first boot, the configured root's date is the signed time.
    let first = fleet.trust().accept_release(&stable(), &fleet.sign(&old), in_1970);
    let old_refused = first.expect_err("made after the root, and the clock says 1970");
    assert!(matches!(old_refused, ReleaseRefused::FromTheFuture(_)), "{old_refused}");
}

// Altered and torn state

#[test]
fn a_torn_or_altered_state_is_an_error_and_never_no_state() {
    let fleet = fleet();
    let configured = fleet.sign_root(&fleet.root());
    let second = fleet.sign_root(&with(&fleet.root(), "version", 2));
    let trust = fleet.trust().accept_root(&second, at(NOW)).expect("the next one");
    let (_, trust) = accepted(&trust, &fleet.sign(&fleet.release(7)));
    let saved = trust.to_saved().to_bytes();
    assert_eq!(Trust::open(&configured, Some(&saved)).expect("whole"), trust);

    let mut torn = 0;
    for length in 0..saved.len() - 1 {
        let refused = Trust::open(&configured, Some(&saved[..length])).expect_err("torn");
        assert_eq!(refused.attack(), Some(Attack::AlteredState), "{length} bytes: {refused}");
        torn += 1;
    }
    assert!(torn > 1000);
    for at in 0..saved.len() - 1 {
        let mut altered = saved.clone();
        altered[at] ^= 1;
        assert!(Trust::open(&configured, Some(&altered)).is_err(), "byte {at}");
    }
    for zeros in [1, saved.len()] {
        assert!(Trust::open(&configured, Some(&vec![0; zeros])).is_err());
    }
}

#[test]
fn whoever_writes_the_state_file_cannot_bring_a_key_in() {
    let fleet = fleet();
    let configured = fleet.sign_root(&fleet.root());
    // A fleet of the attacker's with the same name, whose second root trusts the attacker's keys.
    let mallory = [Key::ed25519(70), Key::ed25519(71)];
    let root = json!({
        "fleet": "acme", "version": 1, "created_ms": NOW - 30 * DAY, "expires_ms": NOW + 300 * DAY,
        "keys": mallory.iter().map(|key| (key.id(), Value::from(key.line()))).collect::<serde_json::Map<_, _>>(),
        "root": { "keys": [mallory[0].id()], "threshold": 1 },
        "channels": { "stable": { "release": { "keys": [mallory[1].id()], "threshold": 1 }, "seq_floor": 0 } },
    });
    let theirs = Trust::begin(&signed(ROOT, &root, &[&mallory[0]]))
        .expect("sound by itself")
        .accept_root(&signed(ROOT, &with(&root, "version", 2), &[&mallory[0]]), at(NOW))
        .expect("sound by itself");
    let refused = Trust::open(&configured, Some(&theirs.to_saved().to_bytes())).expect_err("not our chain");
    assert_eq!(refused.attack(), Some(Attack::AlteredState), "{refused}");
}

#[test]
fn a_state_of_a_newer_agent_is_told_from_a_torn_one() {
    let fleet = fleet();
    let configured = fleet.sign_root(&fleet.root());
    let saved = String::from_utf8(fleet.trust().to_saved().to_bytes()).expect("text");
    let newer = saved.replace(r#""format":1"#, r#""format":2,"something":"new""#);
    let refused = Trust::open(&configured, Some(newer.as_bytes())).expect_err("newer");
    assert_eq!(refused.attack(), None, "{refused}");
    let said = std::error::Error::source(&refused).expect("a cause").to_string();
    assert!(said.contains("format 2"), "{said}");
}

#[test]
fn a_configuration_that_goes_back_waits_for_the_roots_in_between() {
    let fleet = fleet();
    let roots: Vec<Vec<u8>> =
        (1..=4).map(|version| fleet.sign_root(&with(&fleet.root(), "version", version))).collect();
    // A release brought a configuration with root 3; the host went on to 4. Then it goes back to the older system.
    let newer = Trust::begin(&roots[2]).expect("sound").accept_root(&roots[3], at(NOW)).expect("the next");
    let (_, newer) = accepted(&newer, &fleet.sign(&fleet.release(7)));
    let saved = newer.to_saved().to_bytes();
    let mut back = Trust::open(&roots[0], Some(&saved)).expect("readable");
    assert_eq!((back.root().version.get(), back.newest_root().get()), (1, 4));
    for root in &roots[1..] {
        let refused = refused(&back, &fleet.sign(&fleet.release(8)));
        assert!(matches!(refused, ReleaseRefused::RootBehind { .. }), "{refused}");
        let again = Trust::open(&roots[0], Some(&back.to_saved().to_bytes())).expect("readable");
        assert_eq!(again, back, "also after a restart");
        back = back.accept_root(root, at(NOW)).expect("the next");
    }
    let (_, back) = accepted(&back, &fleet.sign(&fleet.release(8)));
    assert_eq!(back.floor(&stable()).expect("a channel").seq, seq(8));
    // And forward again.
    let forward = Trust::open(&roots[3], Some(&back.to_saved().to_bytes())).expect("readable");
    assert_eq!(forward.floor(&stable()).expect("a channel").seq, seq(8));
}

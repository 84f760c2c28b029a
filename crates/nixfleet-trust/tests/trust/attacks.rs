//! Every attack of the design that can be performed on bytes, performed. Each is refused, with its name.

use nixfleet_trust::attack::Attack;
use nixfleet_trust::check::entry::own_entry;
use nixfleet_trust::check::release::{Document, ReleaseRefused, Succession};
use nixfleet_trust::check::root::RootRefused;
use nixfleet_trust::envelope::{ENVELOPE_SIZE_MAX, EnvelopeFault, SIGNATURES_MAX};
use nixfleet_trust::root::RootFault;
use nixfleet_trust::trust::{Trust, TrustUnreadable};
use serde_json::json;

use crate::support::*;

// Arbitrary software

#[test]
fn nobody_elses_signatures_count() {
    let fleet = fleet();
    let (trust, release) = (fleet.trust(), fleet.release(1));
    let strangers = [Key::ed25519(200), Key::ed25519(201), Key::p256()];
    for (who, keys) in [
        ("nobody", vec![]),
        ("strangers", strangers.iter().collect::<Vec<_>>()),
        ("the root keys", fleet.root_keys.iter().collect()),
        ("the other channel's key", vec![&fleet.edge_key]),
        ("one key of a threshold of two, stolen", vec![&fleet.stable_keys[0]]),
        (
            "one key of a threshold of two, and helpers",
            vec![&fleet.stable_keys[0], &fleet.edge_key, &strangers[0]],
        ),
    ] {
        let refused = refused(&trust, &signed(RELEASE, &release, &keys));
        assert_eq!(refused.attack(), Some(Attack::ArbitrarySoftware), "{who}: {refused}");
    }
}

#[test]
fn one_stolen_key_does_not_count_twice_whatever_it_is_called() {
    let fleet = fleet();
    let (trust, key) = (fleet.trust(), &fleet.stable_keys[0]);
    let payload = fleet.release(1).to_string().into_bytes();
    let signature = key.sign(&pae(RELEASE, &payload));

    // The same name twice: not an envelope.
    let twice = vec![(key.id(), signature.clone()), (key.id(), signature.clone())];
    let said = refused(&trust, &envelope(RELEASE, &payload, twice));
    assert!(matches!(said, ReleaseRefused::Envelope(EnvelopeFault::KeyTwice(_))), "{said:?}");

    // Under the names of others: their keys did not make it.
    let others = fleet.stable_keys.iter().map(|other| (other.id(), signature.clone())).collect();
    let said = refused(&trust, &envelope(RELEASE, &payload, others));
    assert_eq!(said.attack(), Some(Attack::Tampering), "{said}");

    // Under an invented name: nobody in the role is called that.
    let invented = vec![(key.id(), signature.clone()), (fingerprint(b"invented"), signature)];
    let said = refused(&trust, &envelope(RELEASE, &payload, invented));
    assert_eq!(said.attack(), Some(Attack::ArbitrarySoftware), "{said}");
}

#[test]
fn a_root_cannot_make_one_key_count_twice() {
    let fleet = fleet();
    let own = Key::ed25519(50);
    let Key::Ed25519(_) = own else { unreachable!("it was made as one") };
    // The same point as a key in a token has another blob, and so another fingerprint.
    let point = &own.blob()[own.blob().len() - 32..];
    let token_blob = [string(b"sk-ssh-ed25519@openssh.com"), string(point), string(b"ssh:")].concat();
    let token = format!("sk-ssh-ed25519@openssh.com {}", data_encoding::BASE64.encode(&token_blob));

    let mut root = fleet.root();
    root["keys"][own.id()] = own.line().into();
    root["keys"][fingerprint(&token_blob)] = token.into();
    root["channels"]["stable"]["release"] =
        json!({ "keys": [own.id(), fingerprint(&token_blob)], "threshold": 2 });
    let refused = Trust::begin(&fleet.sign_root(&root)).expect_err("one private key with two names");
    let TrustUnreadable::Configured(RootRefused::Faults(faults)) = refused else { panic!("{refused:?}") };
    assert!(faults.iter().any(|fault| matches!(fault, RootFault::SameKeyTwice { .. })), "{faults:?}");

    for (what, change) in [
        ("named twice in the role", json!([own.id(), own.id()])),
        ("not enough keys for the threshold", json!([own.id()])),
        ("a key that is not there", json!([own.id(), fingerprint(b"missing")])),
    ] {
        let mut root = fleet.root();
        root["keys"][own.id()] = own.line().into();
        root["channels"]["stable"]["release"] = json!({ "keys": change, "threshold": 2 });
        assert!(Trust::begin(&fleet.sign_root(&root)).is_err(), "{what}");
    }
}

#[test]
fn a_threshold_of_zero_is_refused() {
    let fleet = fleet();
    for path in ["/root/threshold", "/channels/stable/release/threshold"] {
        let mut root = fleet.root();
        *root.pointer_mut(path).expect("there is one") = json!(0);
        let refused = Trust::begin(&fleet.sign_root(&root)).expect_err(path);
        let TrustUnreadable::Configured(RootRefused::Faults(faults)) = refused else { panic!("{refused:?}") };
        assert!(matches!(faults.as_slice(), [RootFault::ThresholdZero(_)]), "{path}: {faults:?}");
    }
}

#[test]
fn a_key_under_another_ones_fingerprint_is_refused() {
    let fleet = fleet();
    let mut root = fleet.root();
    root["keys"][fleet.stable_keys[0].id()] = fleet.edge_key.line().into();
    let refused = Trust::begin(&fleet.sign_root(&root)).expect_err("a key with a false name");
    let TrustUnreadable::Configured(RootRefused::Faults(faults)) = refused else { panic!("{refused:?}") };
    assert!(faults.iter().any(|fault| matches!(fault, RootFault::KeyIdIsNotTheKeys { .. })), "{faults:?}");
}

// Tampering, by a mirror, the network or a stolen control plane

#[test]
fn every_changed_bit_of_a_release_is_noticed() {
    let fleet = fleet();
    let trust = fleet.trust();
    let good = fleet.sign(&fleet.release(1));
    let _ = accepted(&trust, &good);
    let mut noticed = 0;
    for at in 0..good.len() {
        for bit in [0, 3, 6, 7] {
            let mut changed = good.clone();
            changed[at] ^= 1 << bit;
            let _ = refused(&trust, &changed);
            noticed += 1;
        }
    }
    assert_eq!(noticed, good.len() * 4);
}

#[test]
fn a_stolen_control_plane_cannot_hurry_the_waves_or_loosen_the_rules() {
    let fleet = fleet();
    let trust = fleet.trust();
    let release = fleet.release(1);
    let signatures = |payload: &[u8], keys: &[Key]| {
        keys.iter().map(|key| (key.id(), key.sign(&pae(RELEASE, payload)))).collect::<Vec<_>>()
    };
    let genuine = signatures(release.to_string().as_bytes(), &fleet.stable_keys);
    for (path, value) in [
        ("/policy/waves/1/opens_after_secs", json!(0)),
        ("/policy/on_failure", json!("halt")),
        ("/policy/max_failures", json!(1000)),
        ("/policy/confirm_within_secs", json!(1)),
        ("/expires_ms", json!(NOW + 10_000 * DAY)),
    ] {
        let mut changed = release.clone();
        *changed.pointer_mut(path).expect(path) = value;
        let payload = changed.to_string().into_bytes();
        let refused = refused(&trust, &envelope(RELEASE, &payload, genuine.clone()));
        assert_eq!(refused.attack(), Some(Attack::Tampering), "{path}: {refused}");
    }
}

#[test]
fn one_document_does_not_pass_for_another_kind() {
    let fleet = fleet();
    let trust = fleet.trust();
    let mut root = with(&fleet.root(), "version", 2);
    root["channels"]["stable"]["release"] = json!({ "keys": [fleet.root_keys[0].id()], "threshold": 1 });
    // The owner's root, handed out as a release; and with the type changed, which the signature covers.
    let bytes = fleet.sign_root(&root);
    assert!(matches!(refused(&trust, &bytes), ReleaseRefused::Envelope(EnvelopeFault::OtherType { .. })));
    let renamed = String::from_utf8(bytes).expect("text").replace(ROOT, RELEASE);
    let said = refused(&trust, renamed.as_bytes());
    assert!(said.attack().is_some(), "{said}");
    // An entry has no signatures that could be missing: the forms differ.
    let entry = proven(&fleet.entries(), 0);
    assert!(matches!(refused(&trust, &entry), ReleaseRefused::Envelope(EnvelopeFault::Json(_))));
}

// Rollback, fast-forward, freeze, equivocation

#[test]
fn an_older_release_is_a_rollback_also_after_a_restart() {
    let fleet = fleet();
    let (_, trust) = accepted(&fleet.trust(), &fleet.sign(&fleet.release(7)));
    let configured = fleet.sign_root(&fleet.root());
    let restarted = Trust::open(&configured, Some(&trust.to_saved().to_bytes())).expect("it was saved");
    for trust in [trust, restarted] {
        let refused = refused(&trust, &fleet.sign(&fleet.release(6)));
        assert_eq!(refused.attack(), Some(Attack::Rollback), "{refused}");
        // A deliberate rollback is a new release with the older systems.
        let (_, _) = accepted(&trust, &fleet.sign(&fleet.release(8)));
    }
}

#[test]
fn the_roots_floor_holds_for_a_host_that_has_seen_nothing() {
    let fleet = fleet();
    let mut root = fleet.root();
    root["channels"]["stable"]["seq_floor"] = json!(5);
    let trust = Trust::begin(&fleet.sign_root(&root)).expect("sound");
    let refused = refused(&trust, &fleet.sign(&fleet.release(4)));
    assert_eq!(refused.attack(), Some(Attack::Rollback), "{refused}");
    let (_, _) = accepted(&trust, &fleet.sign(&fleet.release(5)));
}

#[test]
fn an_older_root_is_a_rollback() {
    let fleet = fleet();
    let second = fleet.sign_root(&with(&fleet.root(), "version", 2));
    let trust = fleet.trust().accept_root(&second, at(NOW)).expect("the next one");
    let refused = trust.accept_root(&fleet.sign_root(&fleet.root()), at(NOW)).expect_err("older");
    assert_eq!(refused.attack(), Some(Attack::Rollback), "{refused}");
    let again = trust.accept_root(&second, at(NOW)).expect_err("nothing new");
    assert!(matches!(again, RootRefused::InForceAlready(_)), "{again}");
    assert_eq!(again.attack(), None);
}

#[test]
fn a_skipped_root_is_a_fast_forward() {
    let fleet = fleet();
    let third = fleet.sign_root(&with(&fleet.root(), "version", 3));
    let refused = fleet.trust().accept_root(&third, at(NOW)).expect_err("the second is missing");
    assert_eq!(refused.attack(), Some(Attack::FastForward), "{refused}");
}

#[test]
fn a_document_from_the_future_is_a_fast_forward() {
    let fleet = fleet();
    let trust = fleet.trust();
    let soon = with(&fleet.release(1), "created_ms", NOW + 60_000);
    let (_, _) = accepted(&trust, &fleet.sign(&soon));
    let later = with(&fleet.release(1), "created_ms", NOW + 60_001);
    assert_eq!(refused(&trust, &fleet.sign(&later)).attack(), Some(Attack::FastForward));
    let root = with(&with(&fleet.root(), "version", 2), "created_ms", NOW + 60_001);
    let refused = trust.accept_root(&fleet.sign_root(&root), at(NOW)).expect_err("the future");
    assert_eq!(refused.attack(), Some(Attack::FastForward));
}

#[test]
fn the_owner_gets_a_fleet_back_that_was_run_to_the_highest_number() {
    let fleet = fleet();
    let highest = (1u64 << 53) - 1;
    // Whoever has a threshold of release keys can do this; no host can tell it from the owner's wish.
    let (_, trust) = accepted(&fleet.trust(), &fleet.sign(&fleet.release(highest)));
    assert_eq!(refused(&trust, &fleet.sign(&fleet.release(8))).attack(), Some(Attack::Rollback));

    // New keys alone do not help: floors do not fall by themselves.
    let new_key = Key::ed25519(60);
    let mut root = with(&fleet.root(), "version", 2);
    for old in &fleet.stable_keys {
        root["keys"].as_object_mut().expect("an object").remove(&old.id());
    }
    root["keys"][new_key.id()] = new_key.line().into();
    root["channels"]["stable"] = json!({
        "release": { "keys": [new_key.id()], "threshold": 1 }, "seq_floor": 8, "not_before_ms": NOW,
    });
    let rotated = trust.accept_root(&fleet.sign_root(&root), at(NOW)).expect("rotated");
    let mine = signed(RELEASE, &fleet.release(8), &[&new_key]);
    assert_eq!(refused(&rotated, &mine).attack(), Some(Attack::Rollback));

    // A reset does. It is taken by hosts that were run up and by those that were not, and by those that start later.
    root["channels"]["stable"]["resets"] = json!(1);
    let reset_root = fleet.sign_root(&root);
    for trust in [&trust, &fleet.trust()] {
        let reset = trust.accept_root(&reset_root, at(NOW)).expect("reset");
        let (_, after) = accepted(&reset, &mine);
        // The stolen keys are of no use any more, with no number and no date.
        for number in [9, highest] {
            let theirs = refused(&after, &fleet.sign(&fleet.release(number)));
            assert_eq!(theirs.attack(), Some(Attack::ArbitrarySoftware), "{theirs}");
        }
        // And the reset happens once: going through the same roots again gives the newer floor.
        let saved = after.to_saved().to_bytes();
        let again = Trust::open(&fleet.sign_root(&fleet.root()), Some(&saved)).expect("saved");
        assert_eq!(again, after);
        assert_eq!(again.floor(&stable()).expect("a channel").seq, seq(8));
    }
    let fresh = Trust::begin(&reset_root).expect("sound");
    let (_, _) = accepted(&fresh, &mine);
}

#[test]
fn a_reset_also_takes_back_a_signed_time_in_the_future() {
    let fleet = fleet();
    // For one boot the clock was 200 days ahead, and somebody with the stolen keys used the moment. The root's own expiry
    // is the furthest that this can be taken.
    let theirs =
        with(&with(&fleet.release(1), "created_ms", NOW + 200 * DAY), "expires_ms", NOW + 9000 * DAY);
    let trust = fleet
        .trust()
        .accept_release(&stable(), &fleet.sign(&theirs), at(NOW + 200 * DAY))
        .expect("nothing tells it from a release of that day")
        .trust;
    let refused_as_expired = refused(&trust, &fleet.sign(&fleet.release(2)));
    assert_eq!(refused_as_expired.attack(), Some(Attack::Freeze));
    let mut root = with(&fleet.root(), "version", 2);
    root["channels"]["stable"]["resets"] = json!(1);
    let reset = trust.accept_root(&fleet.sign_root(&root), at(NOW)).expect("reset");
    let (_, _) = accepted(&reset, &fleet.sign(&fleet.release(2)));
}

#[test]
fn a_root_with_a_lower_floor_and_no_reset_lowers_nothing() {
    let fleet = fleet();
    let mut root = fleet.root();
    root["channels"]["stable"]["seq_floor"] = json!(5);
    let trust = Trust::begin(&fleet.sign_root(&root)).expect("sound");
    let mut next = with(&root, "version", 2);
    next["channels"]["stable"]["seq_floor"] = json!(0);
    let trust = trust.accept_root(&fleet.sign_root(&next), at(NOW)).expect("the next one");
    assert_eq!(trust.floor(&stable()).expect("a channel").seq, seq(5));
}

#[test]
fn after_a_restart_roots_from_before_a_reset_have_no_effect() {
    let fleet = fleet();
    let configured = fleet.sign_root(&fleet.root());
    // The second root raises the floor and is dated late; the third resets both.
    let mut second = with(&with(&fleet.root(), "version", 2), "created_ms", NOW);
    second["channels"]["stable"]["seq_floor"] = json!(9);
    let mut third = with(&with(&fleet.root(), "version", 3), "created_ms", NOW - DAY);
    third["channels"]["stable"]["resets"] = json!(1);
    let trust = fleet.trust().accept_root(&fleet.sign_root(&second), at(NOW)).expect("the second");
    let trust = trust.accept_root(&fleet.sign_root(&third), at(NOW)).expect("the third");
    let again = Trust::open(&configured, Some(&trust.to_saved().to_bytes())).expect("saved");
    assert_eq!(again, trust);
    assert_eq!(again.floor(&stable()).expect("a channel").seq, seq(0));
    assert_eq!(again.time(at(0)).now(), at(NOW - DAY));
}

#[test]
fn a_root_cannot_take_back_a_reset() {
    let fleet = fleet();
    let mut root = fleet.root();
    root["channels"]["stable"]["resets"] = json!(2);
    let trust = Trust::begin(&fleet.sign_root(&root)).expect("sound");
    let mut next = with(&root, "version", 2);
    next["channels"]["stable"]["resets"] = json!(1);
    let refused = trust.accept_root(&fleet.sign_root(&next), at(NOW)).expect_err("fewer");
    assert_eq!(refused.attack(), Some(Attack::Rollback), "{refused}");
}

#[test]
fn an_expired_release_starts_nothing_and_what_runs_goes_on() {
    let fleet = fleet();
    let bytes = fleet.sign(&fleet.release(1));
    let over = NOW + 10 * DAY;
    let (_, trust) = accepted(&fleet.trust(), &bytes);

    // To a host that has not seen it: a freeze.
    let refused = fleet.trust().accept_release(&stable(), &bytes, at(over)).expect_err("expired");
    assert_eq!(refused.attack(), Some(Attack::Freeze), "{refused}");
    // To one that follows it: stale, and still its release.
    let held = trust.held_release(&stable(), &bytes, at(over)).expect("it is held");
    assert_eq!(held.stale.expect("expired").document, Document::Release);
    assert_eq!(held.release.seq, seq(1));
    let fresh = trust.held_release(&stable(), &bytes, at(over - 1)).expect("it is held");
    assert_eq!(fresh.stale, None);
    // Nothing else passes as held.
    let other = trust.held_release(&stable(), &fleet.sign(&fleet.release(2)), at(over)).expect_err("other");
    assert!(matches!(other, ReleaseRefused::NotHeld), "{other}");
}

#[test]
fn under_an_expired_root_nothing_starts() {
    let fleet = fleet();
    let root = with(&fleet.root(), "expires_ms", NOW);
    let trust = Trust::begin(&fleet.sign_root(&root)).expect("an expired root is still a root");
    let refused = refused(&trust, &fleet.sign(&fleet.release(1)));
    let ReleaseRefused::Expired(expired) = refused else { panic!("{refused:?}") };
    assert_eq!(expired.document, Document::Root);
    // The next root ends it, and may itself stand in the middle of a chain.
    let second = with(&with(&fleet.root(), "version", 2), "expires_ms", NOW - 1);
    let third = with(&fleet.root(), "version", 3);
    let trust = trust.accept_root(&fleet.sign_root(&second), at(NOW)).expect("expired in the middle");
    let trust = trust.accept_root(&fleet.sign_root(&third), at(NOW)).expect("the newest");
    let (_, _) = accepted(&trust, &fleet.sign(&fleet.release(1)));
}

#[test]
fn two_releases_with_one_number_are_an_equivocation() {
    let fleet = fleet();
    let (_, trust) = accepted(&fleet.trust(), &fleet.sign(&fleet.release(3)));
    let other = with(&fleet.release(3), "revision", "badc0de");
    let refused = refused(&trust, &fleet.sign(&other));
    assert_eq!(refused.attack(), Some(Attack::Equivocation), "{refused}");
    // More signatures make no other release.
    let all: Vec<&Key> = fleet.stable_keys.iter().collect();
    let again = trust.accept_release(&stable(), &signed(RELEASE, &fleet.release(3), &all), at(NOW));
    assert_eq!(again.expect("the same release").succession, Succession::Same);
}

#[test]
fn two_roots_with_one_number_are_an_equivocation() {
    let fleet = fleet();
    let second = with(&fleet.root(), "version", 2);
    let trust = fleet.trust().accept_root(&fleet.sign_root(&second), at(NOW)).expect("the next one");
    let other = fleet.sign_root(&with(&second, "expires_ms", NOW + 5 * DAY));
    let refused = trust.accept_root(&other, at(NOW)).expect_err("another second one");
    assert_eq!(refused.attack(), Some(Attack::Equivocation), "{refused}");
    // The configuration cannot smuggle it in either.
    let refused = Trust::open(&other, Some(&trust.to_saved().to_bytes())).expect_err("another second one");
    assert!(matches!(refused, TrustUnreadable::SavedRoot { .. }), "{refused:?}");
}

#[test]
fn a_fork_in_the_history_is_seen() {
    let fleet = fleet();
    let first = fleet.release(1);
    let (seen, trust) = accepted(&fleet.trust(), &fleet.sign(&first));
    assert_eq!(seen.digest().to_string(), hex_digest(first.to_string().as_bytes()));
    let successions = [
        (with(&fleet.release(2), "previous", seen.digest().to_string()), Succession::Next),
        (with(&fleet.release(2), "previous", hex_digest(b"another first")), Succession::Forked),
        (fleet.release(2), Succession::Forked),
        (with(&fleet.release(3), "previous", hex_digest(b"the second")), Succession::AfterGap),
    ];
    for (release, expected) in successions {
        let accepted = trust.accept_release(&stable(), &fleet.sign(&release), at(NOW)).expect("good");
        assert_eq!(accepted.succession, expected, "{release}");
    }
}

// A stolen key

#[test]
fn what_a_stolen_key_signed_before_the_line_is_refused() {
    let fleet = fleet();
    let trust = fleet.trust();
    let mut root = with(&fleet.root(), "version", 2);
    root["channels"]["stable"]["not_before_ms"] = json!(NOW - DAY);
    let drawn = trust.accept_root(&fleet.sign_root(&root), at(NOW)).expect("the next one");
    let before = fleet.sign(&with(&fleet.release(1), "created_ms", NOW - DAY - 1));
    let (_, _) = accepted(&trust, &before);
    assert_eq!(refused(&drawn, &before).attack(), Some(Attack::StolenKey));
    let (_, _) = accepted(&drawn, &fleet.sign(&with(&fleet.release(1), "created_ms", NOW - DAY)));
}

#[test]
fn a_root_needs_the_old_keys_and_the_new_ones() {
    let fleet = fleet();
    let new_keys = [51, 52, 53].map(Key::ed25519);
    let mut root = with(&fleet.root(), "version", 2);
    for old in &fleet.root_keys {
        root["keys"].as_object_mut().expect("an object").remove(&old.id());
    }
    for new in &new_keys {
        root["keys"][new.id()] = new.line().into();
    }
    root["root"] = json!({ "keys": new_keys.each_ref().map(Key::id), "threshold": 2 });
    let sign = |old: usize, new: usize| {
        let keys: Vec<&Key> = fleet.root_keys[..old].iter().chain(&new_keys[..new]).collect();
        signed(ROOT, &root, &keys)
    };
    let trust = fleet.trust();
    for (old, new) in [(0, 0), (0, 3), (1, 3), (3, 0), (3, 1)] {
        let refused = trust.accept_root(&sign(old, new), at(NOW)).expect_err("a threshold is missing");
        assert_eq!(refused.attack(), Some(Attack::ArbitrarySoftware), "{old} old, {new} new: {refused}");
    }
    let next = trust.accept_root(&sign(2, 2), at(NOW)).expect("both thresholds");
    // From now on the old keys are nobody's.
    let third = with(&root, "version", 3);
    let theirs = signed(ROOT, &third, &fleet.root_keys.iter().collect::<Vec<_>>());
    let refused = next.accept_root(&theirs, at(NOW)).expect_err("the old keys");
    assert!(matches!(refused, RootRefused::ThresholdOfOld(_)), "{refused}");
    let ours = signed(ROOT, &third, &new_keys.iter().collect::<Vec<_>>());
    next.accept_root(&ours, at(NOW)).expect("the new keys");
}

#[test]
fn the_closure_of_a_stolen_cache_key_is_noticed_after_the_fetch() {
    let fleet = fleet();
    let (release, _) = accepted(&fleet.trust(), &fleet.sign(&fleet.release(1)));
    let mine = own_entry(&release, &proven(&fleet.entries(), 2), &fleet.me(2)).expect("its own");
    let other = hex_digest(b"other contents under the same path").parse().expect("a digest");
    let refused = mine.check_closure(&other).expect_err("other contents");
    assert_eq!(refused.attack(), Attack::StolenCacheKey);
    mine.check_closure(&hex_digest(&[2]).parse().expect("a digest")).expect("the right contents");
}

// Endless data

#[test]
fn endless_data_ends_at_the_limit() {
    let fleet = fleet();
    let trust = fleet.trust();
    let (release, _) = accepted(&trust, &fleet.sign(&fleet.release(1)));
    let endless = vec![b' '; ENVELOPE_SIZE_MAX + 1];
    assert_eq!(refused(&trust, &endless).attack(), Some(Attack::EndlessData));
    assert_eq!(
        trust.accept_root(&endless, at(NOW)).expect_err("endless").attack(),
        Some(Attack::EndlessData)
    );
    let refused_entry = own_entry(&release, &endless, &fleet.me(0)).expect_err("endless");
    assert_eq!(refused_entry.attack(), Some(Attack::EndlessData));

    // Within the limit: signatures and nesting without end.
    let payload = fleet.release(1).to_string().into_bytes();
    let signatures: Vec<_> =
        (0..=SIGNATURES_MAX).map(|n| (fingerprint(&n.to_be_bytes()), vec![7; 64])).collect();
    assert_eq!(refused(&trust, &envelope(RELEASE, &payload, signatures)).attack(), Some(Attack::EndlessData));
    let nested = "[".repeat(60_000);
    assert!(matches!(refused(&trust, nested.as_bytes()), ReleaseRefused::Envelope(EnvelopeFault::Json(_))));
}

//! The attacks of the design, each performed by what a source serves. The store is not part of these: what a stolen
//! cache key does is seen after the fetch.

use nixfleet_agent::source::documents::NoAnswer;
use nixfleet_agent::source::look::Found;
use nixfleet_core::host::event::Refusal;
use nixfleet_trust::attack::{Attack, ReplayOf};
use nixfleet_trust::trust::{SavedTrust, Trust};
use serde_json::json;

use crate::fleet::*;
use crate::shelf::{Shelf, looked, looked_at, offered, refusal};

/// A host that follows release 2, and the shelf that it followed.
async fn at_two(fleet: &Fleet) -> (Shelf, Trust) {
    let shelf = Shelf::up_to(fleet, 2);
    let (seq, trust) = offered(&shelf, fleet, &fleet.trust()).await;
    assert_eq!(seq.get(), 2);
    (shelf, trust)
}

#[tokio::test]
async fn a_good_source_offers_what_the_release_says_to_this_host() {
    let fleet = fleet();
    let shelf = Shelf::up_to(&fleet, 3);
    let found = looked(&shelf, &fleet, &fleet.trust()).await.found;
    let Found::Release(offer, _) = found else { panic!("{found:?}") };
    assert_eq!(offer.terms.system.to_string(), fleet.entry(0)["system"].as_str().expect("a text"));
    assert_eq!(offer.terms.wave.name.as_str(), "canary");
    assert_eq!(offer.terms.release.seq.get(), 3);
}

#[tokio::test]
async fn arbitrary_software_is_refused() {
    let fleet = fleet();
    let (mut shelf, trust) = at_two(&fleet).await;
    let stranger = [Key::ed25519(71), Key::ed25519(72)];
    let forged = signed(RELEASE, &fleet.release(3), &[&stranger[0], &stranger[1]]);
    shelf.put_release(3, forged, &fleet.entries());
    shelf.latest(3);
    let refused = refusal(&shelf, &fleet, &trust).await;
    assert_eq!((refused.kind, refused.attack), (Refusal::Trust, Some(Attack::ArbitrarySoftware)));
    assert!(refused.why.contains("too few keys"), "{}", refused.why);
    assert!(refused.why.contains("arbitrary software"), "{}", refused.why);
    assert!(refused.why.starts_with("channels/stable/3/release.json: "), "{}", refused.why);
}

#[tokio::test]
async fn one_stolen_key_of_a_threshold_of_two_is_not_enough() {
    let fleet = fleet();
    let (mut shelf, trust) = at_two(&fleet).await;
    let half = signed(RELEASE, &fleet.release(3), &[&fleet.stable_keys[2]]);
    shelf.put_release(3, half, &fleet.entries());
    shelf.latest(3);
    let refused = refusal(&shelf, &fleet, &trust).await;
    assert_eq!(refused.kind, Refusal::Trust);
    assert!(refused.why.contains("wants 2 signatures and 1 are good"), "{}", refused.why);
}

#[tokio::test]
async fn bytes_changed_after_signing_are_refused() {
    let fleet = fleet();
    let (mut shelf, trust) = at_two(&fleet).await;
    let payload = fleet.release(3);
    let message = pae(RELEASE, fleet.release(2).to_string().as_bytes());
    let signatures = fleet.stable_keys[..2].iter().map(|key| (key.id(), key.sign(&message))).collect();
    shelf.put_release(3, envelope(RELEASE, payload.to_string().as_bytes(), signatures), &fleet.entries());
    shelf.latest(3);
    let refused = refusal(&shelf, &fleet, &trust).await;
    assert_eq!((refused.kind, refused.attack), (Refusal::Trust, Some(Attack::Tampering)));
}

#[tokio::test]
async fn a_root_that_sets_the_channel_back_lets_a_lower_number_through_and_only_such_a_root() {
    let fleet = fleet();
    let (mut shelf, trust) = at_two(&fleet).await;
    shelf.latest(1);
    let plain = with(&fleet.root(), "version", 2);
    shelf.put("root/2.json".into(), fleet.sign_root(&plain));
    let looked_at = looked(&shelf, &fleet, &trust).await;
    assert!(matches!(looked_at.found, Found::Refused(..)), "{:?}", looked_at.found);

    let mut back = with(&fleet.root(), "version", 3);
    back["channels"]["stable"]["resets"] = json!(1);
    shelf.put("root/3.json".into(), fleet.sign_root(&back));
    let Found::Release(offer, _) = looked(&shelf, &fleet, &trust).await.found else { panic!("no offer") };
    assert_eq!((offer.terms.release.seq.get(), offer.terms.resets), (1, 1));
}

#[tokio::test]
async fn a_rollback_to_an_older_release_that_was_signed_is_refused() {
    let fleet = fleet();
    let (mut shelf, trust) = at_two(&fleet).await;
    shelf.latest(1);
    let refused = refusal(&shelf, &fleet, &trust).await;
    assert_eq!((refused.kind, refused.attack), (Refusal::Trust, Some(Attack::Rollback)));
}

#[tokio::test]
async fn the_same_number_with_other_contents_is_an_attack_and_not_an_update() {
    let fleet = fleet();
    let (mut shelf, trust) = at_two(&fleet).await;
    let other = with(&fleet.release(2), "revision", "other");
    shelf.put_release(2, fleet.sign(&other), &fleet.entries());
    let refused = refusal(&shelf, &fleet, &trust).await;
    assert_eq!((refused.kind, refused.attack), (Refusal::Trust, Some(Attack::Equivocation)));
}

#[tokio::test]
async fn a_fast_forward_by_a_date_in_the_future_is_refused_and_leaves_no_mark() {
    let fleet = fleet();
    let (mut shelf, trust) = at_two(&fleet).await;
    let future = with(&with(&fleet.release(3), "created_ms", NOW + 2 * DAY), "expires_ms", NOW + 9 * DAY);
    shelf.put_release(3, fleet.sign(&future), &fleet.entries());
    shelf.latest(3);
    let refused = refusal(&shelf, &fleet, &trust).await;
    assert_eq!((refused.kind, refused.attack), (Refusal::Clock, Some(Attack::FastForward)));
    shelf.publish(&fleet, 3);
    assert_eq!(offered(&shelf, &fleet, &trust).await.0.get(), 3);
}

#[tokio::test]
async fn a_root_that_skips_a_number_is_refused() {
    let fleet = fleet();
    let (mut shelf, trust) = at_two(&fleet).await;
    shelf.put("root/2.json".into(), fleet.sign_root(&with(&fleet.root(), "version", 3)));
    let refused = refusal(&shelf, &fleet, &trust).await;
    assert_eq!((refused.kind, refused.attack), (Refusal::Trust, Some(Attack::FastForward)));
    assert_eq!(refused.document, "root/2.json");
}

#[tokio::test]
async fn a_root_that_only_strangers_signed_is_refused() {
    let fleet = fleet();
    let (mut shelf, trust) = at_two(&fleet).await;
    let stranger = [Key::ed25519(71), Key::ed25519(72)];
    let root = with(&fleet.root(), "version", 2);
    shelf.put("root/2.json".into(), signed(ROOT, &root, &[&stranger[0], &stranger[1]]));
    let refused = refusal(&shelf, &fleet, &trust).await;
    assert_eq!((refused.kind, refused.attack), (Refusal::Trust, Some(Attack::ArbitrarySoftware)));
}

#[tokio::test]
async fn a_frozen_source_is_reported_when_its_release_expires_and_changes_nothing() {
    let fleet = fleet();
    let (shelf, trust) = at_two(&fleet).await;
    let later = looked_at(&shelf, &fleet, &trust, at(NOW + 10 * DAY)).await;
    let Found::Refused(refused) = later.found else { panic!("{:?}", later.found) };
    assert_eq!((refused.kind, refused.attack), (Refusal::Expired, Some(Attack::Freeze)));
    assert_eq!(later.trust, trust, "nothing of the expiry is kept");
}

#[tokio::test]
async fn entries_of_another_release_do_not_count_in_this_one() {
    let fleet = fleet();
    let (mut shelf, trust) = at_two(&fleet).await;
    let mut others = fleet.entries();
    others[0]["system"] = json!("/nix/store/zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz-nixos-system-web-0-25.11");
    shelf.publish(&fleet, 3);
    shelf.put("channels/stable/3/hosts/web-0.json".into(), proven(&others, 0));
    let refused = refusal(&shelf, &fleet, &trust).await;
    assert_eq!((refused.kind, refused.attack), (Refusal::Trust, Some(Attack::MixAndMatch)));
}

#[tokio::test]
async fn a_release_in_the_folder_of_another_is_refused() {
    let fleet = fleet();
    let (mut shelf, trust) = at_two(&fleet).await;
    shelf.put_release(4, fleet.sign(&fleet.release(3)), &fleet.entries());
    shelf.latest(4);
    let refused = refusal(&shelf, &fleet, &trust).await;
    assert_eq!((refused.kind, refused.attack), (Refusal::Trust, Some(Attack::MixAndMatch)));
    assert_eq!(looked(&shelf, &fleet, &trust).await.trust, trust, "it moves no floor");
}

#[tokio::test]
async fn the_document_of_another_host_is_refused() {
    let fleet = fleet();
    let (mut shelf, trust) = at_two(&fleet).await;
    shelf.publish(&fleet, 3);
    shelf.put("channels/stable/3/hosts/web-0.json".into(), proven(&fleet.entries(), 1));
    let refused = refusal(&shelf, &fleet, &trust).await;
    assert_eq!((refused.kind, refused.attack), (Refusal::Trust, Some(Attack::Replay(ReplayOf::OtherHost))));
}

#[tokio::test]
async fn the_document_of_a_host_of_our_name_with_another_key_is_refused() {
    let fleet = fleet();
    let mut entries = fleet.entries();
    entries[0]["keys"] = json!([Key::ed25519(90).line()]);
    let mut shelf = Shelf::default();
    shelf.put_release(1, fleet.sign(&release_over(1, &entries)), &entries);
    shelf.latest(1);
    let refused = refusal(&shelf, &fleet, &fleet.trust()).await;
    assert_eq!((refused.kind, refused.attack), (Refusal::Trust, Some(Attack::Replay(ReplayOf::OtherHost))));
    assert!(refused.why.contains("another key"), "{}", refused.why);
}

#[tokio::test]
async fn the_release_of_another_channel_is_refused_although_its_keys_may_be_the_same() {
    let mut fleet = fleet();
    // One key signs both channels, so only the channel's name stands between them.
    fleet.edge_key = Key::ed25519(11);
    let mut root = fleet.root();
    root["channels"]["edge"]["release"] = root["channels"]["stable"]["release"].clone();
    let trust = Trust::begin(&fleet.sign_root(&root)).expect("sound");
    let mut shelf = Shelf::default();
    shelf.put_release(1, fleet.sign(&with(&fleet.release(1), "channel", "edge")), &fleet.entries());
    shelf.latest(1);
    let refused = refusal(&shelf, &fleet, &trust).await;
    assert_eq!(
        (refused.kind, refused.attack),
        (Refusal::Trust, Some(Attack::Replay(ReplayOf::OtherChannel)))
    );
}

#[tokio::test]
async fn the_release_of_another_fleet_is_refused() {
    let fleet = fleet();
    let (mut shelf, trust) = at_two(&fleet).await;
    shelf.put_release(3, fleet.sign(&with(&fleet.release(3), "fleet", "umbra")), &fleet.entries());
    shelf.latest(3);
    let refused = refusal(&shelf, &fleet, &trust).await;
    assert_eq!((refused.kind, refused.attack), (Refusal::Trust, Some(Attack::Replay(ReplayOf::OtherFleet))));
}

#[tokio::test]
async fn endless_documents_end_at_their_limit() {
    let fleet = fleet();
    let (mut shelf, trust) = at_two(&fleet).await;
    shelf.put("channels/stable/3/release.json".into(), vec![b'{'; 1 << 20]);
    shelf.latest(3);
    let refused = refusal(&shelf, &fleet, &trust).await;
    assert_eq!((refused.kind, refused.attack), (Refusal::Trust, Some(Attack::EndlessData)));
    assert!(
        refused.why.contains("65537 bytes"),
        "no more was read than is needed to see it: {}",
        refused.why
    );
    shelf.put("channels/stable/latest".into(), vec![b'7'; 1 << 20]);
    let found = looked(&shelf, &fleet, &trust).await.found;
    assert!(matches!(found, Found::Nothing(NoAnswer::NotLatest { .. })), "{found:?}");
}

#[tokio::test]
async fn what_was_signed_before_the_line_that_a_root_drew_is_refused() {
    let fleet = fleet();
    let (mut shelf, trust) = at_two(&fleet).await;
    let mut root = with(&with(&fleet.root(), "version", 2), "created_ms", NOW);
    root["channels"]["stable"]["not_before_ms"] = json!(NOW + 1);
    shelf.put("root/2.json".into(), fleet.sign_root(&root));
    shelf.publish(&fleet, 3);
    let refused = refusal(&shelf, &fleet, &trust).await;
    assert_eq!((refused.kind, refused.attack), (Refusal::Trust, Some(Attack::StolenKey)));
    let after = looked(&shelf, &fleet, &trust).await.trust;
    assert_eq!(after.root().version.get(), 2, "the root counts although the release is refused");
}

#[tokio::test]
async fn a_release_signed_with_keys_that_a_new_root_withdrew_is_refused() {
    let fleet = fleet();
    let (mut shelf, trust) = at_two(&fleet).await;
    let mut root = with(&fleet.root(), "version", 2);
    let fresh = [Key::ed25519(31), Key::ed25519(32)];
    for key in &fleet.stable_keys {
        root["keys"].as_object_mut().expect("an object").remove(&key.id());
    }
    for key in &fresh {
        root["keys"][key.id()] = json!(key.line());
    }
    root["channels"]["stable"]["release"] = json!({ "keys": [fresh[0].id(), fresh[1].id()], "threshold": 2 });
    shelf.put("root/2.json".into(), fleet.sign_root(&root));
    shelf.publish(&fleet, 3);
    assert_eq!(refusal(&shelf, &fleet, &trust).await.kind, Refusal::Trust);
    shelf.put_release(3, signed(RELEASE, &fleet.release(3), &[&fresh[0], &fresh[1]]), &fleet.entries());
    let (seq, after) = offered(&shelf, &fleet, &trust).await;
    assert_eq!((seq.get(), after.root().version.get()), (3, 2));
}

#[tokio::test]
async fn a_clock_in_2030_for_one_boot_accepts_nothing_stale_and_locks_nothing_out() {
    let fleet = fleet();
    let (mut shelf, trust) = at_two(&fleet).await;
    let wrong = looked_at(&shelf, &fleet, &trust, at(NOW + 1200 * DAY)).await;
    assert!(matches!(wrong.found, Found::Refused(ref refused) if refused.kind == Refusal::Expired));
    shelf.publish(&fleet, 3);
    assert_eq!(offered(&shelf, &fleet, &wrong.trust).await.0.get(), 3, "the next boot is right again");
}

#[tokio::test]
async fn a_clock_in_1970_makes_nothing_valid_again_and_follows_what_is_not_newer_than_was_signed() {
    let fleet = fleet();
    let (mut shelf, trust) = at_two(&fleet).await;
    let old = with(&with(&fleet.release(3), "created_ms", NOW - 9 * DAY), "expires_ms", NOW - DAY);
    shelf.put_release(3, fleet.sign(&old), &fleet.entries());
    shelf.latest(3);
    let found = looked_at(&shelf, &fleet, &trust, at(0)).await.found;
    assert!(matches!(found, Found::Refused(ref refused) if refused.kind == Refusal::Expired), "{found:?}");
    let newer = with(&fleet.release(3), "created_ms", NOW + 1);
    shelf.put_release(3, fleet.sign(&newer), &fleet.entries());
    let found = looked_at(&shelf, &fleet, &trust, at(0)).await.found;
    let Found::Refused(refused) = found else { panic!("{found:?}") };
    assert_eq!((refused.kind, refused.attack), (Refusal::Clock, None), "the clock is wrong, nobody attacks");
    shelf.publish(&fleet, 3);
    let found = looked_at(&shelf, &fleet, &trust, at(0)).await.found;
    assert!(matches!(found, Found::Release(..)), "{found:?}");
}

#[tokio::test]
async fn altered_or_torn_state_is_an_error_and_never_no_floor() {
    let fleet = fleet();
    let (_, trust) = at_two(&fleet).await;
    let root = fleet.sign_root(&fleet.root());
    let saved = trust.to_saved().to_bytes();
    let reopened = Trust::open(&root, Some(&saved)).expect("whole");
    assert_eq!(reopened, trust);
    let mut cuts = 0;
    for cut in 0..saved.len() - 1 {
        assert!(Trust::open(&root, Some(&saved[..cut])).is_err(), "cut at {cut}");
        cuts += 1;
    }
    assert!(cuts > 100);
    let text = String::from_utf8(saved).expect("JSON");
    let lowered = text.replace("\"seq\":2", "\"seq\":1");
    assert_ne!(text, lowered);
    assert!(SavedTrust::from_bytes(lowered.as_bytes()).is_err());
}

#[tokio::test]
async fn a_refused_entry_takes_back_no_floor_that_its_signed_release_raised() {
    let fleet = fleet();
    let (mut shelf, trust) = at_two(&fleet).await;
    shelf.publish(&fleet, 3);
    shelf.remove("channels/stable/3/hosts/web-0.json");
    let after = looked(&shelf, &fleet, &trust).await;
    let Found::Refused(refused) = after.found else { panic!("{:?}", after.found) };
    assert_eq!((refused.kind, refused.attack), (Refusal::Unreadable, None), "it may be in the making");
    // Whoever shows another release 3 now is found out.
    let other = with(&fleet.release(3), "revision", "other");
    shelf.put_release(3, fleet.sign(&other), &fleet.entries());
    let refused = refusal(&shelf, &fleet, &after.trust).await;
    assert_eq!(refused.attack, Some(Attack::Equivocation));
}

#[tokio::test]
async fn a_host_that_was_away_catches_up_over_releases_and_roots() {
    let fleet = fleet();
    let (mut shelf, trust) = at_two(&fleet).await;
    for version in 2..=20 {
        shelf.put(format!("root/{version}.json"), fleet.sign_root(&with(&fleet.root(), "version", version)));
    }
    // Of the releases in between only the newest is there.
    let mut shelf = Shelf(shelf.0.into_iter().filter(|(path, _)| path.starts_with("root/")).collect());
    shelf.publish(&fleet, 40);
    let (seq, after) = offered(&shelf, &fleet, &trust).await;
    assert_eq!((seq.get(), after.root().version.get()), (40, 20));
    let reopened = Trust::open(&fleet.sign_root(&fleet.root()), Some(&after.to_saved().to_bytes()));
    assert_eq!(reopened.expect("it is vouched for by the first root").root().version.get(), 20);
}

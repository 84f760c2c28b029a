//! Genuine documents in the wrong place: mix-and-match and replay.

use nixfleet_trust::attack::{Attack, ReplayOf};
use nixfleet_trust::check::entry::{EntryRefused, own_entry};
use nixfleet_trust::check::release::ReleaseRefused;
use nixfleet_trust::trust::Trust;
use serde_json::json;

use crate::support::*;

#[test]
fn an_entry_of_another_release_is_mix_and_match() {
    let fleet = fleet();
    let old = fleet.entries();
    let mut new = fleet.entries();
    new[2]["system"] = "/nix/store/123456789abcdfghijklmnpqrsvwxyz0-nixos-system-web-2-26.05".into();
    let (first, trust) = accepted(&fleet.trust(), &fleet.sign(&release_over(1, &old)));
    let (second, _) = accepted(&trust, &fleet.sign(&release_over(2, &new)));
    let me = fleet.me(2);
    for (release, entries, good) in
        [(&first, &old, true), (&second, &new, true), (&first, &new, false), (&second, &old, false)]
    {
        match own_entry(release, &proven(entries, 2), &me) {
            Ok(_) => assert!(good),
            Err(refused) => {
                assert!(!good, "{refused}");
                assert_eq!(refused.attack(), Some(Attack::MixAndMatch));
            }
        }
    }
}

#[test]
fn an_invented_entry_is_not_part_of_a_release() {
    let fleet = fleet();
    let (release, _) = accepted(&fleet.trust(), &fleet.sign(&fleet.release(1)));
    let mut entries = fleet.entries();
    entries[2]["wave"] = json!(0);
    // With its own tree's proof, with the genuine one's, and in the place of another host.
    let genuine = String::from_utf8(proven(&fleet.entries(), 2)).expect("text");
    let forged = String::from_utf8(proven(&entries, 2)).expect("text");
    let (head, _) = forged.split_once(r#","proof""#).expect("a proof");
    let (_, proof) = genuine.split_once(r#","proof""#).expect("a proof");
    let mixed = format!(r#"{head},"proof"{proof}"#);
    let moved = genuine.replace(r#""index":2"#, r#""index":3"#);
    for bytes in [forged.as_bytes(), mixed.as_bytes(), moved.as_bytes()] {
        let refused = own_entry(&release, bytes, &fleet.me(2)).expect_err("invented");
        assert_eq!(refused.attack(), Some(Attack::MixAndMatch), "{refused}");
    }
}

#[test]
fn a_tree_inside_an_entry_is_not_a_way_in() {
    // A signer could be made to sign an entry whose bytes are two hashes; whoever chose them would have a leaf that is
    // also an inner node, if both were hashed alike.
    let fleet = fleet();
    let entries = fleet.entries();
    let (release, _) = accepted(&fleet.trust(), &fleet.sign(&release_over(1, &entries)));
    let path = merkle_path(0, &[vec![1], vec![2], vec![3]]);
    let bytes = entry_envelope(&entries[0], 0, &path);
    let refused = own_entry(&release, &bytes, &fleet.me(0)).expect_err("another tree");
    assert_eq!(refused.attack(), Some(Attack::MixAndMatch));
}

#[test]
fn another_hosts_entry_is_a_replay_and_so_is_one_for_another_key() {
    let fleet = fleet();
    let (release, _) = accepted(&fleet.trust(), &fleet.sign(&fleet.release(1)));
    let entries = fleet.entries();
    let refused = own_entry(&release, &proven(&entries, 3), &fleet.me(2)).expect_err("another host's");
    assert!(matches!(refused, EntryRefused::OtherHost { .. }));
    assert_eq!(refused.attack(), Some(Attack::Replay(ReplayOf::OtherHost)));
    // A host that only claims the name has another key.
    let mut me = fleet.me(2);
    me.key = fleet.host_keys[3].public();
    let refused = own_entry(&release, &proven(&entries, 2), &me).expect_err("another key");
    assert!(matches!(refused, EntryRefused::OtherKey { .. }));
    assert_eq!(refused.attack(), Some(Attack::Replay(ReplayOf::OtherHost)));
}

#[test]
fn while_a_host_changes_its_key_both_are_good_and_no_third_one_is() {
    let fleet = fleet();
    let new_key = Key::p256();
    let mut entries = fleet.entries();
    entries[2]["keys"] = json!([fleet.host_keys[2].line(), new_key.line()]);
    let (release, _) = accepted(&fleet.trust(), &fleet.sign(&release_over(1, &entries)));
    for (key, good) in
        [(fleet.host_keys[2].public(), true), (new_key.public(), true), (Key::p256().public(), false)]
    {
        let mut me = fleet.me(2);
        me.key = key;
        assert_eq!(own_entry(&release, &proven(&entries, 2), &me).is_ok(), good);
    }
}

#[test]
fn another_channels_release_is_a_replay() {
    let fleet = fleet();
    // Signed with the keys of both channels, so that only the name is wrong.
    let keys = [&fleet.stable_keys[0], &fleet.stable_keys[1], &fleet.edge_key];
    let edge = signed(RELEASE, &with(&fleet.release(1), "channel", "edge"), &keys);
    let said = refused(&fleet.trust(), &edge);
    assert_eq!(said.attack(), Some(Attack::Replay(ReplayOf::OtherChannel)), "{said}");
    let edge_channel = "edge".parse().expect("a channel");
    let accepted = fleet.trust().accept_release(&edge_channel, &edge, at(NOW));
    assert_eq!(accepted.expect("it is edge's").release.channel, edge_channel);
    let unknown = fleet.trust().accept_release(&"nightly".parse().expect("a channel"), &edge, at(NOW));
    assert!(matches!(unknown.expect_err("unknown"), ReleaseRefused::ChannelNotInRoot { .. }));
}

#[test]
fn another_fleets_documents_are_replays_even_with_the_same_keys() {
    let fleet = fleet();
    let trust = fleet.trust();
    let said = refused(&trust, &fleet.sign(&with(&fleet.release(1), "fleet", "globex")));
    assert_eq!(said.attack(), Some(Attack::Replay(ReplayOf::OtherFleet)), "{said}");
    let root = with(&with(&fleet.root(), "fleet", "globex"), "version", 2);
    let said = trust.accept_root(&fleet.sign_root(&root), at(NOW)).expect_err("another fleet's");
    assert_eq!(said.attack(), Some(Attack::Replay(ReplayOf::OtherFleet)), "{said}");
    let saved = Trust::begin(&fleet.sign_root(&with(&fleet.root(), "fleet", "globex"))).expect("sound");
    let said = Trust::resume(&fleet.sign_root(&fleet.root()), saved.to_saved()).expect_err("another fleet's");
    assert_eq!(said.attack(), Some(Attack::Replay(ReplayOf::OtherFleet)), "{said}");
}
